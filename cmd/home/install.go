package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

type installCmd struct {
	Model   string   `arg:"" help:"Plan (.hplan)."`
	Keys    string   `required:"" short:"k" placeholder:"FILE" help:"Evaluation keys (eval.hevk)."`
	PMem    string   `required:"" name:"pmem" placeholder:"DIR" help:"Folder of the slow tier: persistent memory (a DAX file system, or a device such as /dev/dax0.0), or files on a disk that stand in for it."`
	DRAM    byteSize `name:"dram" placeholder:"SIZE" help:"Memory budget of the whole process, such as 2GiB. Default: no bound."`
	Threads int      `short:"t" placeholder:"N" help:"Keys and weights to prepare at once. Default: one per processor."`
	Format  bool     `help:"First empty the device that --pmem names, whatever it holds. Folders are never emptied."`
	JSON    bool     `help:"Print JSON."`

	tierFlags
	insecureFlag
}

func (*installCmd) Help() string {
	return `Expands the evaluation keys and encodes the weights into the slow tier, once. What is there already is kept, so
an interrupted install goes on where it stopped, and plans of one client share their keys. Where a core is
quicker than the disk, weights are kept as coefficients and keys as halves and seeds, a fraction of their
size. run does this by itself when it is missing, and reports the time apart.`
}

func (c *installCmd) Run(e *env) error {
	boundHeap(c.DRAM)
	p, err := loadPlan(c.Model)
	if err != nil {
		return err
	}
	f := serverFlags{Threads: c.Threads}
	threads, err := f.threads()
	if err != nil {
		return err
	}
	keys, err := openKeys(c.Keys)
	if err != nil {
		return err
	}
	defer keys.Close()
	if err := errors.Join(keys.Check(&p.Params, ""), missingKeys(p, keys, c.Keys)); err != nil {
		return err
	}
	engine, err := lattigo.Open(&p.Params, insecureOption(c.Insecure)...)
	if err != nil {
		return err
	}
	defer engine.Close()
	watch := e.watch()
	defer watch.stop()
	reserve := passes.TierReserve(&p.Params, threads)
	if c.DRAM > 0 {
		if passes.InstallLeast(p, reserve) > int64(c.DRAM) { // each thread wants scratch memory of its own
			threads, reserve = 1, passes.TierReserve(&p.Params, 1)
		}
		runtime.LimitHeap(reserve + p.PlainBytes()*4/3) // of which it takes three quarters
	}
	tech, slow, err := c.technology(c.PMem)
	if err != nil {
		return err
	}
	if c.Format {
		if !store.IsDevice(c.PMem) {
			return misuse("--format empties devices: %s is none", c.PMem)
		}
		if err := (store.DevDAX{}).Format(c.PMem); err != nil {
			return err
		}
	}
	rep, err := runtime.Install(e.ctx, p, engine, keySource{keys}, c.PMem, runtime.InstallOptions{
		Threads: threads, Budget: int64(c.DRAM), Reserve: reserve, Technology: tech, Events: watch,
	})
	watch.stop()
	sayImitation(e, slow)
	if err != nil {
		return err
	}
	if c.JSON {
		return e.printJSON(struct {
			Schema int `json:"schema"`
			runtime.InstallReport
		}{1, rep})
	}
	_, err = fmt.Fprintf(e.out, "%d keys and weights of %s in %s (%s): %d were there, %s written in %s\n",
		rep.Objects, p.Model, filepath.Clean(c.PMem), rep.Technology, rep.Present, byteSize(rep.BytesWritten), seconds(rep.SetupSeconds))
	return err
}
