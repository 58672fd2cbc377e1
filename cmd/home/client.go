package main

import (
	"fmt"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Names of the files in a key folder.
const (
	secretName = "secret.hsk"
	evalName   = "eval.hevk"
)

// insecureFlag is the way to work with files that a compilation stamped
// insecure.
type insecureFlag struct {
	Insecure bool `name:"insecure-test-parameters" help:"Accept files stamped insecure. For tests only."`
}

func insecureOption(ok bool) []lattigo.Option {
	if ok {
		return []lattigo.Option{lattigo.AllowInsecure()}
	}
	return nil
}

// secure recomputes the security of a client's part, keys for bootstrapping
// included. The stamp counts only where the user accepts it.
func (f *insecureFlag) secure(c *plan.Client) error {
	if err := c.CheckSecurity(); err != nil && !(f.Insecure && c.Params.Insecure) {
		return err
	}
	return nil
}

// portRun returns how many samples one run takes at a port, and the shape of
// one. A port whose network fixes the batch holds that many per lane.
func portRun(p *plan.Port) (batch int, sample []int) {
	batch, sample = splitBatch(p.Shape)
	return batch * p.Layout.Lanes, sample
}

// onePort refuses clients of networks with several inputs or outputs.
func onePort(c *plan.Client) error {
	if len(c.Inputs) != 1 || len(c.Outputs) != 1 {
		return fmt.Errorf("%s has %d inputs and %d outputs, %w: HomE feeds networks with one of each", c.Model, len(c.Inputs), len(c.Outputs), ir.ErrUnsupported)
	}
	return nil
}
