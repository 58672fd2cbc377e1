package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/passes"
)

type inspectCmd struct {
	Model  string   `arg:"" help:"Plan (.hplan), or ONNX model to be compiled in memory."`
	Format string   `enum:"text,json,dot,html" default:"text" short:"f" placeholder:"FORMAT" help:"text, json, dot or html. Default: text."`
	Output string   `short:"o" placeholder:"FILE" help:"Write here instead of standard output."`
	WhatIf []string `name:"what-if" sep:"none" placeholder:"SPEC" help:"Also predict the run under other DRAM budgets, 1GiB,2GiB, or on another machine: dram=1GiB..16GiB,tier=optane-6dimm,cores=32,accel=10."`

	compileFlags
}

func (*inspectCmd) Help() string {
	return `The page of --format html is a single file that needs nothing else: the network, levels along the depth,
time per layer, where memory goes, keys, parameters and security, and with --what-if the curves: run time
against DRAM, the bandwidth that is asked for and where a technology becomes the limit. In --what-if a key takes
one value, several with / between them, or a range of doublings a..b. Technologies: hbm, dram, optane-6dimm, cxl,
optane-1dimm, nvme, disk, sata, by published figures, which --format json cites; all of them with tier=all.
Times on hardware that is not there are predictions.

  home inspect model.hplan
  home inspect model.hplan --what-if 512MiB,1GiB,2GiB
  home inspect model.hplan --what-if dram=1GiB..16GiB,tier=all -f html -o model.html
  home inspect model.hplan --what-if dram=4GiB,tier=optane-6dimm/nvme,cores=1..32
  home inspect model.hplan --format html -o model.html
  home inspect model.hplan --format dot | dot -Tsvg > model.svg`
}

func (c *inspectCmd) Run(e *env) error {
	if err := writable(c.Output, c.Model); err != nil {
		return err
	}
	points, err := parseWhatIf(c.WhatIf)
	if err != nil {
		return err
	}
	s, err := c.open(e, c.Model, modeSimulate)
	if err != nil {
		return err
	}
	prof, err := c.profile()
	if err != nil {
		return err
	}
	if s.model == nil && c.DRAM > 0 {
		if err := passes.Retier(s.plan, int64(c.DRAM), prof, 1); err != nil {
			return err
		}
	}
	r := reportPlan(s.plan)
	if len(points) > 0 {
		if r.WhatIf, err = whatIfs(e, s.plan, points, prof); err != nil {
			return err
		}
	}
	if len(points) > 0 || c.Format == "html" || c.Format == "json" {
		forms := s.plan.Forms()
		r.Trace = passes.TraceOf(s.plan, func(i int) float64 { return passes.StepSeconds(s.plan, prof, i, &forms) })
	}
	switch c.Format {
	case "json":
		return e.writeText(c.Output, func(w io.Writer) error {
			f := *e
			f.out = w
			return f.printJSON(r)
		})
	case "html":
		return e.writeText(c.Output, func(w io.Writer) error { return htmlPage(w, r) })
	case "dot":
		return e.writeText(c.Output, func(w io.Writer) error { return ir.DOT(w, s.plan.Network) })
	}
	return e.writeText(c.Output, func(w io.Writer) error { return textReport(w, r) })
}

// textReport is inspect for a terminal.
func textReport(w io.Writer, r *planReport) error {
	b := &strings.Builder{}
	p := r.Params
	fmt.Fprintf(b, "%s\n\n", r.Model)
	t := newTable()
	switch {
	case p.SecurityBits > 0 && !p.Insecure:
		t.row("security", fmt.Sprintf("%d bits: log2(QP) = %d, allowed %d for N = 2^%d and a %s secret", p.SecurityBits, p.LogQP, p.LogQPBound, p.LogN, p.Secret))
	case p.LogQPBound == 0:
		t.row("security", fmt.Sprintf("NONE, for tests only: no 128-bit bound is known for N = 2^%d and a %s secret", p.LogN, p.Secret))
	default:
		t.row("security", fmt.Sprintf("NONE, for tests only: log2(QP) = %d, allowed %d for N = 2^%d and a %s secret", p.LogQP, p.LogQPBound, p.LogN, p.Secret))
	}
	t.row("parameters", fmt.Sprintf("%s: %s ring, %s slots, %d + %d primes, scale 2^%d", p.Name, p.Ring, count(p.Slots), p.QPrimes, p.PPrimes, p.LogScale))
	t.row("samples", count(max(1, r.Batch))+" per run")
	t.row("levels", fmt.Sprintf("%d of %d, %s", r.Depth, r.Levels, bootstrapText(r)))
	t.row("work", fmt.Sprintf("%s steps: %s rotations, %s key switches, %s products, %s diagonals", count(r.Steps), count(r.Counts.Rotations), count(r.Counts.KeySwitches), count(r.Counts.CtMults), count(r.Counts.Diagonals)))
	t.row("predicted", fmt.Sprintf("%s on one core%s; encryption adds an error of about %s", seconds(r.Predicted.Seconds), perSample(r.Predicted.Seconds, r.Batch), precision(r.OutputBits)))
	t.row("memory", fmt.Sprintf("keys %s, weights %s, matrices %s, ciphertexts %s", byteSize(r.Bytes.Keys), byteSize(r.Bytes.Weights), byteSize(r.Bytes.Matrices), byteSize(r.Bytes.CiphertextsPeak)))
	t.row("", fmt.Sprintf("%d keys, of which %s are for rotations", len(r.Keys), count(r.Counts.GaloisKeys)))
	t.row("", fmt.Sprintf("%s in all, at least %s of DRAM", byteSize(r.Bytes.Footprint), byteSize(r.Bytes.DRAMMin)))
	if r.Tier != nil {
		budget := "no bound on DRAM"
		if r.Tier.Budget > 0 {
			budget = "budget " + byteSize(r.Tier.Budget).String()
		}
		t.row("tiers", fmt.Sprintf("%s: %s, %s of it waiting; %s read (%s at least), %s written", budget, seconds(r.Tier.Seconds), seconds(r.Tier.StallSeconds), byteSize(r.Tier.BytesRead), byteSize(max(r.Tier.BytesLower, r.Tier.BytesAll)), byteSize(r.Tier.BytesWritten))+transformText(r.Tier))
		if text := r.Tier.Keys.text(); text != "" {
			t.row("", text)
		}
		if text := r.Tier.Fused.text(); text != "" {
			t.row("", text)
		}
		if text := r.Tier.costText(); text != "" {
			t.row("", text)
		}
	}
	for _, x := range r.Inputs {
		t.row("input", fmt.Sprintf("%s  %s in %d ciphertext%s at level %d", x.Name, dims(x.Shape), x.Ciphertexts, plural(x.Ciphertexts), x.Level))
	}
	for _, x := range r.Outputs {
		t.row("output", fmt.Sprintf("%s  %s in %d ciphertext%s at level %d", x.Name, dims(x.Shape), x.Ciphertexts, plural(x.Ciphertexts), x.Level))
	}
	for _, o := range r.ClientOps {
		t.row("on the client", fmt.Sprintf("%s (%s)", o.Node, o.Op))
	}
	for _, s := range r.Notes {
		t.row("note", s)
	}
	for _, s := range r.Warnings {
		t.row("warning", s)
	}
	if err := t.write(b, "  "); err != nil {
		return err
	}
	fmt.Fprintln(b)
	t = newTable(0, 4, 5, 6, 7, 8, 9, 10, 11)
	t.row("", "layer", "kind", "result", "cts", "level", "rotations", "switches", "products", "diagonals", "weights", "time", "polynomial")
	for i, l := range layerViews(r) {
		t.row(fmt.Sprint(i+1), shorten(l.Name, 44), l.Kind, l.Shape, fmt.Sprint(l.Cts), fmt.Sprint(l.Level), l.Rotations, l.KeySwitches, l.CtMults, l.Diagonals, l.Weights, l.Time, l.Poly)
	}
	if err := t.write(b, "  "); err != nil {
		return err
	}
	if t := r.Trace; t != nil {
		fmt.Fprintln(b)
		if err := traceText(t).write(b, "  "); err != nil {
			return err
		}
	}
	if len(r.WhatIf) > 0 {
		fmt.Fprintln(b)
		fmt.Fprintln(b, "  predicted:")
		t = newTable(1, 2, 3, 4, 5, 6, 7, 8)
		t.row(whatIfColumns...)
		for i := range r.WhatIf {
			t.row(r.WhatIf[i].words()...)
		}
		if err := t.write(b, "  "); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
