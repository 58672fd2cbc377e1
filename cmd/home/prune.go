package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

type pruneCmd struct {
	Keep   []string `arg:"" help:"Plans (.hplan) and evaluation keys (.hevk) that are still used."`
	PMem   string   `required:"" name:"pmem" placeholder:"DIR" help:"Folder of the slow tier."`
	Delete bool     `help:"Remove the files, instead of saying which would go."`
	JSON   bool     `help:"Print JSON."`
}

func (*pruneCmd) Help() string {
	return `Finds what install left in a folder of the slow tier for plans that were compiled again and keys that were made
again, and says how many bytes it takes; with --delete it removes it.

  home prune --pmem /mnt/tier model.hplan other.hplan keys/eval.hevk --delete

Files of weights go when none of the plans needs them, files of keys when they belong to none of the keys. Where
no plan is given all weights stay, where no keys are given all keys. Other files, and those that a run has open,
are left alone. What is missing later is installed again by run.`
}

// pruneReport is what the verb prints.
type pruneReport struct {
	Schema  int           `json:"schema"`
	Deleted bool          `json:"deleted"`
	Bytes   int64         `json:"bytes"` // of stale files, removed or not
	Files   []store.Found `json:"files"`
}

func (c *pruneCmd) Run(e *env) error {
	needs := runtime.Needs{Engine: lattigo.EngineName}
	for _, path := range c.Keep {
		switch magic(path) {
		case lattigo.KeySetMagic:
			keys, err := openKeys(path)
			if err != nil {
				return err
			}
			needs.Keys = append(needs.Keys, keySource{keys}.ID())
			if err := keys.Close(); err != nil {
				return err
			}
		case plan.PlanMagic:
			p, err := loadPlan(path)
			if err != nil {
				return err
			}
			print, err := p.Fingerprint()
			if err != nil {
				return err
			}
			needs.Plans = append(needs.Plans, print)
		default:
			if _, err := os.Stat(path); err != nil {
				return err
			}
			if err := serverSide(path, plan.PlanMagic); err != nil {
				return err
			}
			return fmt.Errorf("%s is neither a plan nor a set of evaluation keys", path)
		}
	}
	found, err := runtime.Prune(e.ctx, c.PMem, needs, c.Delete)
	r := pruneReport{Schema: 1, Deleted: c.Delete, Files: found}
	for _, f := range found {
		if f.Fate == store.FateStale || f.Fate == store.FateRemoved {
			r.Bytes += f.Bytes
		}
	}
	if len(found) > 0 || err == nil {
		if c.JSON {
			err = errors.Join(err, e.printJSON(r))
		} else {
			err = errors.Join(err, r.write(e))
		}
	}
	return err
}

// write prints the report: a line per file, and the sum.
func (r *pruneReport) write(e *env) error {
	t := newTable(2)
	count := map[store.Fate]int{}
	for _, f := range r.Files {
		count[f.Fate]++
		t.row(string(f.Fate), filepath.Base(f.Path), byteSize(f.Bytes).String(), f.Holds)
	}
	if err := t.write(e.out, ""); err != nil {
		return err
	}
	var err error
	switch n := count[store.FateStale]; {
	case r.Deleted:
		_, err = fmt.Fprintf(e.out, "%d file%s removed, %s\n", count[store.FateRemoved], plural(count[store.FateRemoved]), byteSize(r.Bytes))
	case n > 0:
		_, err = fmt.Fprintf(e.out, "%d file%s would go, %s: add --delete to remove\n", n, plural(n), byteSize(r.Bytes))
	default:
		_, err = fmt.Fprintln(e.out, "nothing would go")
	}
	return err
}
