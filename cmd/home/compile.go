package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"time"

	"github.com/home-fhe/home/ir/plan"
)

type compileCmd struct {
	Model  string `arg:"" optional:"" help:"ONNX model."`
	Output string `short:"o" placeholder:"FILE" help:"Write the plan here (.hplan), and beside it the client's part (.hclient)."`
	JSON   bool   `help:"Print the report of inspect as JSON."`

	compileFlags
}

func (*compileCmd) Help() string {
	return `Writes two files: the plan, which the server keeps, and the client's part, which holds no weights.
The same model, options and cost profile give the same bytes.

  home compile model.onnx -o model.hplan --calibrate train-images.gz --preprocess p.json`
}

func (c *compileCmd) Run(e *env) error {
	switch {
	case c.Passes == "help":
		return c.listPasses(e.out)
	case c.Model == "":
		return misuse("expected a model")
	case c.Output == "" && c.StopAfter == "":
		return misuse("missing -o FILE: where to write the plan")
	case c.Output == "-":
		return misuse("compile writes two files; -o takes a file name")
	case filepath.Ext(c.Output) == ".hclient":
		return misuse("-o names the plan (.hplan); the client's part (.hclient) is written beside it")
	}
	inputs := []string{c.Model, c.Calibrate, c.Profile, c.Params, c.Preprocess}
	if c.Output != "" {
		for _, path := range []string{c.Output, plan.ClientPath(c.Output)} {
			if err := writable(path, inputs...); err != nil {
				return err
			}
		}
	}
	began := time.Now()
	m, err := loadModel(c.Model, 0)
	if err != nil {
		return err
	}
	p, err := c.compile(e, m)
	if err != nil {
		return err
	}
	if c.StopAfter != "" {
		e.note("stopped after %s; nothing is written but --dump-ir", c.StopAfter)
		return nil
	}
	client, err := p.Client()
	if err != nil {
		return err
	}
	if err := p.Save(c.Output); err != nil {
		return err
	}
	if err := client.Save(plan.ClientPath(c.Output)); err != nil {
		return err
	}
	for _, w := range p.Warnings {
		e.warn("%s", w)
	}
	if c.JSON {
		return e.printJSON(reportPlan(p))
	}
	return summary(e.out, p, c.Output, time.Since(began))
}

// summary says in a few lines what was made.
func summary(w io.Writer, p *plan.Plan, path string, took time.Duration) error {
	fmt.Fprintf(w, "%s compiled in %s\n", p.Model, seconds(took.Seconds()))
	t := newTable()
	t.row("server", path)
	t.row("client", plan.ClientPath(path))
	security := "128-bit security"
	if p.Params.Insecure {
		security = "INSECURE test parameters"
	}
	t.row("parameters", fmt.Sprintf("%s: N = 2^%d, log2(QP) = %d, %s", p.Params.Name, p.Params.LogN, p.Params.LogQP(), security))
	t.row("samples", count(max(1, p.Batch))+" per run")
	r := reportPlan(p)
	t.row("levels", fmt.Sprintf("%d of %d, %s", p.Depth, p.Params.MaxLevel(), bootstrapText(r)))
	t.row("work", fmt.Sprintf("%s rotations, %s products, %s diagonals", count(p.Counts.Rotations), count(p.Counts.CtMults), count(p.Counts.Diagonals)))
	t.row("memory", fmt.Sprintf("keys %s, weights %s, matrices %s, at least %s of DRAM", byteSize(p.Bytes.Keys), byteSize(p.Bytes.Weights), byteSize(p.Bytes.Matrices), byteSize(p.Bytes.DRAMMin)))
	t.row("predicted", fmt.Sprintf("%s on one core%s, encryption adds an error of about %s", seconds(p.Predicted.Seconds), perSample(p.Predicted.Seconds, p.Batch), precision(p.OutputBits)))
	for _, o := range p.ClientOps {
		t.row("on the client", fmt.Sprintf("%s (%s)", o.Node, o.Op))
	}
	return t.write(w, "  ")
}

// perSample adds what a sample takes to the time of a run that serves several.
func perSample(sec float64, samples int) string {
	if samples < 2 {
		return ""
	}
	return fmt.Sprintf(" (%s per sample)", seconds(sec/float64(samples)))
}

// precision writes an absolute precision in bits as the error it allows.
func precision(bits float64) string {
	if math.IsInf(bits, 0) || math.IsNaN(bits) {
		return "an unknown error"
	}
	return fmt.Sprintf("±%.1g", math.Exp2(-bits))
}
