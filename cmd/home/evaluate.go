package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/sim"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/dataset"
)

type evaluateCmd struct {
	Model  string `arg:"" help:"Plan (.hplan), or ONNX model to be compiled in memory."`
	Images string `required:"" short:"i" placeholder:"FILE" help:"Samples: .npy, idx, idx.gz or CIFAR .bin."`
	Labels string `short:"l" placeholder:"FILE" help:"Classes: idx, idx.gz, .npy or CIFAR .bin. Default: those of the CIFAR file itself."`
	Mode   string `enum:"clear,simulate,encrypted" default:"clear" placeholder:"MODE" help:"clear, simulate or encrypted. Default: clear."`
	Limit  int    `placeholder:"N" help:"Use only the first N samples."`
	JSON   bool   `help:"Print JSON."`

	serverFlags
	compileFlags
}

func (*evaluateCmd) Help() string {
	return `Compares the network in the chosen mode with the labels, and with the plain network: exact activations in
double precision. A disagreement is a sample for which the two predict different classes. The largest error
is that of the network's own outputs, before Softmax and the like.

  home evaluate model.hplan --images t10k-images.gz --labels t10k-labels.gz --mode simulate --limit 1000`
}

type evaluateReport struct {
	Schema        int     `json:"schema"`
	Model         string  `json:"model"`
	Mode          string  `json:"mode"`
	Samples       int     `json:"samples"`
	Accuracy      float64 `json:"accuracy"`
	PlainAccuracy float64 `json:"plain_accuracy"`
	Disagreements int     `json:"disagreements"`
	MaxAbsError   float64 `json:"max_abs_error"`
	MaxAbsOutput  float64 `json:"max_abs_output"`
	// Against the plan's polynomials in double precision: what encryption alone
	// adds. Only in simulate and encrypted mode.
	SchemeDisagreements *int     `json:"scheme_disagreements,omitempty"`
	SchemeMaxAbsError   *float64 `json:"scheme_max_abs_error,omitempty"`
	RangeViolations     int      `json:"range_violations"`
	// Samples of which a value outgrew the modulus in simulated mode: encrypted,
	// they would end in noise. They count as wrong.
	Overflows int `json:"overflows"`

	runs runReport
}

func (c *evaluateCmd) Run(e *env) error {
	if err := positive("--limit", c.Limit, true); err != nil {
		return err
	}
	s, err := c.open(e, c.Model, c.Mode)
	if err != nil {
		return err
	}
	n, err := c.network(e, s, c.Mode, false, &c.serverFlags)
	if err != nil {
		return err
	}
	return errors.Join(c.evaluate(e, s, n), n.Close())
}

func (c *evaluateCmd) evaluate(e *env, s *subject, n *network) error {
	if err := expectPlain(c.Images); err != nil {
		return err
	}
	in, err := dataset.Open(c.Images, dataset.Options{Limit: c.Limit, Shape: n.sample, Preprocess: n.pre})
	if err != nil {
		return err
	}
	defer in.Close()
	from := c.Labels
	if from == "" {
		if from = c.Images; in.Kind != dataset.Cifar {
			return misuse("--labels is missing; only CIFAR files hold their own")
		}
	}
	// The whole files must agree, limit or not: labels of another set look like
	// any others.
	labels, err := dataset.Labels(from, 0)
	if err != nil {
		return err
	}
	if len(labels) != in.Total() {
		return fmt.Errorf("%s holds %d samples and %s %d labels", c.Images, in.Total(), from, len(labels))
	}
	graph := s.graph()
	shape := graph.Inputs[0].Type.Shape
	perGraph, _ := splitBatch(shape)
	twin := func(in *ir.Array, approx bool) (*ir.Array, clear.Stats, error) {
		return clearRows(graph, in, perGraph, approx)
	}

	r := evaluateReport{Schema: 1, Model: s.name(), Mode: c.Mode, Samples: in.Len()}
	scheme := c.Mode != modeClear
	var schemeDiffer int
	var schemeWorst float64
	var violations violationCount
	right, plainRight := 0, 0
	if run := n.run; c.Mode == modeSimulate {
		n.run = func(ctx context.Context, in *ir.Array) (result, error) {
			r, err := run(ctx, in)
			if errors.Is(err, sim.ErrOverflow) {
				return result{lost: err}, nil
			}
			return r, err
		}
	}
	bar := e.bar("samples", in.Len())
	defer bar.stop()
	err = n.feed(e.ctx, in, func(k chunk) error {
		plain, _, err := twin(k.in, false)
		if err != nil {
			return err
		}
		if k.result.lost != nil {
			_, stats, err := twin(k.in, true)
			if err != nil {
				return err
			}
			for i, class := range n.rank(plain) {
				plainRight += one(class == labels[k.first+i])
			}
			if r.Overflows == 0 {
				e.warn("sample %d: %v; it and others like it count as wrong", k.first, k.result.lost)
			}
			rows := k.in.Shape[0]
			r.Overflows, r.Disagreements, schemeDiffer = r.Overflows+rows, r.Disagreements+rows, schemeDiffer+rows
			violations.Merge(stats)
			bar.add(rows)
			return nil
		}
		if err := scores(k.out, k.first); err != nil {
			return err
		}
		got, want := n.rank(k.out), n.rank(plain)
		for i := range got {
			label := labels[k.first+i]
			right += one(got[i] == label)
			plainRight += one(want[i] == label)
			r.Disagreements += one(got[i] != want[i])
		}
		r.MaxAbsError = math.Max(r.MaxAbsError, maxDiff(k.out.Data, plain.Data))
		r.MaxAbsOutput = math.Max(r.MaxAbsOutput, plain.MaxAbs())
		stats := k.result.stats
		if scheme {
			approx, st, err := twin(k.in, true)
			if err != nil {
				return err
			}
			stats = st
			schemeWorst = math.Max(schemeWorst, maxDiff(k.out.Data, approx.Data))
			for i, class := range n.rank(approx) {
				schemeDiffer += one(got[i] != class)
			}
		}
		violations.Merge(stats)
		r.runs.Runs++
		r.runs.add(k.result.report)
		bar.add(k.in.Shape[0])
		return nil
	})
	bar.stop()
	if err != nil {
		return err
	}
	r.Accuracy = float64(right) / float64(r.Samples)
	r.PlainAccuracy = float64(plainRight) / float64(r.Samples)
	r.RangeViolations = violations.Total()
	if scheme {
		r.SchemeDisagreements, r.SchemeMaxAbsError = &schemeDiffer, &schemeWorst
	}
	violations.warn(e)
	if c.JSON {
		return e.printJSON(r)
	}
	return r.write(e.out)
}

func (r *evaluateReport) write(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s, %s samples\n", r.Model, r.Mode, count(r.Samples))
	t := newTable()
	t.row("accuracy", fmt.Sprintf("%.2f %%", 100*r.Accuracy))
	t.row("plain network", fmt.Sprintf("%.2f %%", 100*r.PlainAccuracy))
	t.row("disagreements", count(r.Disagreements))
	t.row("largest error", fmt.Sprintf("%.3g, outputs up to %.3g", r.MaxAbsError, r.MaxAbsOutput))
	if r.SchemeMaxAbsError != nil {
		t.row("of encryption alone", fmt.Sprintf("%.3g, %d disagreements", *r.SchemeMaxAbsError, *r.SchemeDisagreements))
	}
	t.row("range violations", count(r.RangeViolations))
	if r.Overflows > 0 {
		t.row("beyond the modulus", fmt.Sprintf("%s samples, counted as wrong", count(r.Overflows)))
	}
	each := ""
	if r.runs.Runs < r.Samples {
		each = perSample(r.runs.Seconds, r.Samples)
	}
	switch {
	case r.Mode == modeSimulate:
		t.row("predicted time", fmt.Sprintf("%s per run on one core%s", seconds(r.runs.Seconds/float64(max(1, r.runs.Runs))), each))
	case r.runs.Seconds > 0:
		t.row("time", fmt.Sprintf("%s per run%s, set-up %s", seconds(r.runs.Seconds/float64(r.runs.Runs)), each, seconds(r.runs.SetupSeconds)))
	}
	return t.write(w, "  ")
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// scores refuses outputs that hold no score per class, or none that can be
// compared. first is the number of the first sample.
func scores(out *ir.Array, first int) error {
	width := len(out.Data) / max(1, out.Shape[0])
	if out.Shape[0] > 0 && width < 2 {
		return errors.New("the network has a single output per sample; accuracy needs a score for every class")
	}
	for i, v := range out.Data {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("sample %d: output %d is %v: the polynomial of an activation overflowed far outside its range; compile with --calibrate samples like this one", first+i/width, i%width, v)
		}
	}
	return nil
}

// rank returns the predicted classes of raw outputs. The client's operators keep
// the order of scores, except that ArgMax may prefer the last of equals.
func (n *network) rank(out *ir.Array) []int {
	if n.picks() {
		if picked, err := n.finish(out); err == nil {
			return n.classes(picked)
		}
	}
	c := make([]int, out.Shape[0])
	w := len(out.Data) / max(1, len(c))
	for i := range c {
		c[i] = runtime.Top(out.Data[i*w:(i+1)*w], nil, 1)[0].Index
	}
	return c
}

// graph is the network in the tensor vocabulary.
func (s *subject) graph() *ir.Graph {
	if s.plan != nil {
		return s.plan.Network
	}
	return s.model.Graph
}

// clearRows evaluates rows of samples, any number of them, on a graph with its
// own batch.
func clearRows(g *ir.Graph, in *ir.Array, batch int, approx bool) (*ir.Array, clear.Stats, error) {
	var all gather
	var stats clear.Stats
	shape := g.Inputs[0].Type.Shape
	size := ir.NumElems(shape)
	n := in.Shape[0]
	rest := in.Data
	for done := 0; done < n; done += batch {
		k := min(batch, n-done)
		one := rest[:min(len(rest), size)]
		rest = rest[len(one):]
		if len(one) < size { // fill up with the last sample
			full := append(make([]float64, 0, size), one...)
			row := size / batch
			for len(full) < size {
				full = append(full, one[len(one)-row:]...)
			}
			one = full
		}
		out, st, err := clear.EvalTensor(g, []*ir.Array{ir.ArrayOf(one, shape...)}, clear.Options{Approx: approx})
		if err != nil {
			return nil, stats, err
		}
		stats.Merge(st)
		r, err := rows(out[0], batch, k)
		if err != nil {
			return nil, stats, err
		}
		if err := all.add(r); err != nil {
			return nil, stats, err
		}
	}
	return all.array(), stats, nil
}
