package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
)

type keygenCmd struct {
	Clients []string `arg:"" help:"Client parts of plans (.hclient)."`
	Output  string   `short:"o" required:"" placeholder:"DIR" help:"Folder for secret.hsk and eval.hevk."`
	DRAM    byteSize `name:"dram" placeholder:"SIZE" help:"Memory budget of the whole process, such as 256MiB. Default: no bound."`
	Extend  bool     `help:"Keep the secret key in the folder and add the evaluation keys that are missing."`

	insecureFlag
}

func (*keygenCmd) Help() string {
	return `Makes a secret key, which stays with you, and the set of evaluation keys that the given plans need, which
goes to the server. Plans of one client share keys; --extend adds what a new plan needs. Keys are made and
written one after the other: those of networks that bootstrap take gigabytes on disk, and little memory.

The parameters are not taken on trust: their security is computed again from the primes, and parameters
below 128 bits are refused.

  home keygen model.hclient -o keys
  home keygen other.hclient -o keys --extend`
}

func (c *keygenCmd) Run(e *env) error {
	var first *plan.Client
	needs := map[int]int{}
	for _, path := range c.Clients {
		cl, err := loadClient(path)
		if err != nil {
			return err
		}
		if first == nil {
			first = cl
		} else if lattigo.ParamsFingerprint(&cl.Params) != lattigo.ParamsFingerprint(&first.Params) {
			return fmt.Errorf("%s uses parameters %s and %s uses %s: plans share keys only under the same parameters; run keygen for each", c.Clients[0], first.Params.Name, path, cl.Params.Name)
		}
		if err := c.secure(cl); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, k := range cl.Keys {
			if l, ok := needs[k.Rot]; !ok || k.Level > l {
				needs[k.Rot] = k.Level
			}
		}
	}
	var specs []lattigo.KeySpec
	for _, rot := range slices.Sorted(maps.Keys(needs)) { // whatever the order of the clients
		specs = append(specs, lattigo.KeySpec{Rot: rot, Level: needs[rot]})
	}
	if least := keygenMemory(&first.Params, specs); c.DRAM > 0 && int64(c.DRAM) < least {
		return &passes.BudgetError{Budget: int64(c.DRAM), Least: least}
	} else if c.DRAM > 0 {
		debug.SetMemoryLimit(int64(c.DRAM) * 3 / 4)
	}
	secret, eval := filepath.Join(c.Output, secretName), filepath.Join(c.Output, evalName)
	opts := insecureOption(c.Insecure)
	var sk *lattigo.SecretKey
	made := false
	_, err := os.Stat(secret)
	switch {
	case err == nil && !c.Extend:
		return fmt.Errorf("%s exists: use --extend to add evaluation keys to it, or another folder for a new secret key", secret)
	case err == nil:
		if sk, err = loadSecret(secret); err != nil {
			return err
		}
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(eval); err == nil {
			return fmt.Errorf("%s exists and its secret key %s does not: put the secret key back, or give another folder for new keys", eval, secret)
		}
		if sk, err = lattigo.NewSecretKey(&first.Params, opts...); err != nil {
			return err
		}
		if err := os.MkdirAll(c.Output, 0o700); err != nil {
			return err
		}
		// Without evaluation keys it is of no use to anybody: what fails or is
		// interrupted leaves nothing, and can be run again as it was.
		release, err := sk.SaveProvisional(secret)
		if err != nil {
			return err
		}
		defer func() {
			if release(); !made {
				os.Remove(secret)
			}
		}()
	default:
		return err
	}
	began := time.Now()
	bar := e.bar("evaluation keys", len(specs))
	defer bar.stop()
	added, err := lattigo.ExtendKeySet(eval, sk, &first.Params, specs, func(done, total int) { bar.of(done, total) }, opts...)
	bar.stop()
	if err != nil {
		return err
	}
	made = true
	size := int64(0)
	if fi, err := os.Stat(eval); err == nil {
		size = fi.Size()
	}
	t := newTable()
	t.row("secret key", secret, "id "+sk.ID()+", keep it to yourself")
	t.row("evaluation keys", eval, fmt.Sprintf("%d added in %s, %s in all, for the server", added, seconds(time.Since(began).Seconds()), byteSize(size)))
	return t.write(e.out, "")
}

// keygenMemory is the least memory that keys can be made in: one at a time, with
// the scratch of the arithmetic beside it.
func keygenMemory(p *ir.Params, specs []lattigo.KeySpec) int64 {
	largest := 0
	for _, k := range specs {
		largest = max(largest, p.Slabs(ir.KeyKind, k.Level))
	}
	tables, _ := lattigo.Reserve(p)
	return 48<<20 + tables + int64(largest)*int64(p.SlabBytes())*3/2
}
