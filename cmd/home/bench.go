package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/models"
	"github.com/home-fhe/home/models/digits"
	"github.com/home-fhe/home/runtime/dataset"
)

type benchCmd struct {
	Models   []string `arg:"" optional:"" help:"Reference networks by name; with --tiers one, or a plan (.hplan). Default: those for digits; with --tiers LeNet-5."`
	Runs     int      `default:"5" placeholder:"N" help:"Runs per network, each on other inputs. Default: ${default}."`
	Batch    int      `default:"1" placeholder:"N" help:"Samples that come together, as for compile. Default: ${default}."`
	Threads  int      `short:"t" default:"1" placeholder:"N" help:"Cores to use. Default: ${default}."`
	List     bool     `help:"List the reference networks instead."`
	Kernels  bool     `help:"Compare kernels and circuits with stock Lattigo instead: 17 minutes or so, and 20 GiB of memory."`
	Only     string   `placeholder:"TEXT" help:"With --kernels: the rows alone in which all words of this occur, such as \"rotation 2^16\"."`
	BootRuns int      `placeholder:"N" help:"With --kernels: runs of bootstraps, where fewer than of the other rows will do."`
	Unit     bool     `help:"Time one bootstrap of stock Lattigo instead, the unit of published figures: minutes, and 12 GiB of memory."`
	JSON     bool     `help:"Print JSON."`

	Roofline string `placeholder:"FILE" help:"With --kernels: measure what this machine can do, too, say how far each step is from it, and draw that (HTML)."`

	compareFlags
}

func (*benchCmd) Help() string {
	return `Compiles the reference networks that come with HomE, runs each encrypted on drawings of digits, and prints
what it took: set-up (keys and encoded weights) apart from the runs themselves. Errors are against the same
network with the plan's polynomials in double precision.

With --tiers one network runs under several budgets of DRAM, as planned and as others do it, each run a process
of its own, by turns:

  home bench --tiers
  home bench --tiers model.hplan --keys keys/eval.hevk --input x.hct --pmem /mnt/disk --dram 33%,15%,4GiB --runs 3

mmap and swap need control groups (root), swap needs swap space. What cannot run is named and left out.`
}

// benchRow is a line of the table. Seconds are those of single runs.
type benchRow struct {
	Model         string    `json:"model"`
	Batch         int       `json:"batch"` // most samples per run
	Samples       int       `json:"samples"`
	Params        string    `json:"params"`
	LogN          int       `json:"log_n"`
	LogQP         int       `json:"log_qp"`
	Depth         int       `json:"depth"`
	Rotations     int       `json:"rotations"`
	KeySwitches   int       `json:"key_switches"`
	KeyBytes      int64     `json:"key_bytes"`
	WeightBytes   int64     `json:"weight_bytes"`
	Compile       float64   `json:"compile_seconds"`
	Setup         float64   `json:"setup_seconds"`
	Predicted     float64   `json:"predicted_seconds"`
	Median        float64   `json:"median_seconds"`
	Seconds       []float64 `json:"seconds"`
	MaxAbsError   float64   `json:"max_abs_error"`
	MaxAbsOutput  float64   `json:"max_abs_output"`
	Disagreements int       `json:"disagreements"`
	PeakRSS       int64     `json:"peak_rss_bytes"`
}

type benchReport struct {
	Schema  int        `json:"schema"`
	Machine string     `json:"machine"`
	Threads int        `json:"threads"`
	Kernels string     `json:"kernels"` // arithmetic in use
	Rows    []benchRow `json:"models"`
}

func (c *benchCmd) Run(e *env) error {
	all, err := models.All()
	if err != nil {
		return err
	}
	if c.List {
		t := newTable()
		for _, m := range all {
			t.row(m.Name, m.About)
		}
		return t.write(e.out, "")
	}
	if c.Runs < 1 || c.Threads < 1 || c.Batch < 1 {
		return misuse("--runs, --threads and --batch must be positive")
	}
	if c.Threads > maxThreads {
		return misuse("--threads must be at most %d", maxThreads)
	}
	if (c.Only != "" || c.BootRuns != 0) && !c.Kernels {
		return misuse("--only and --boot-runs are for --kernels")
	}
	if c.BootRuns < 0 {
		return misuse("--boot-runs must be positive")
	}
	if c.Tiers {
		if c.Kernels || c.Unit || c.Batch != 1 {
			return misuse("--tiers goes without --kernels, --unit and --batch")
		}
		return c.tiers(e)
	}
	var chosen []models.Model
	for _, name := range c.Models {
		m, err := models.Find(name)
		if err != nil {
			return fmt.Errorf("%w; home bench --list names them", err)
		}
		if !drawn(m) {
			return fmt.Errorf("%s takes no digits: use home evaluate with data of its own", name)
		}
		chosen = append(chosen, *m)
	}
	for _, m := range all {
		if len(c.Models) == 0 && drawn(&m) {
			chosen = append(chosen, m)
		}
	}
	goruntime.GOMAXPROCS(c.Threads)
	switch {
	case c.Roofline != "" && !c.Kernels:
		return misuse("--roofline needs --kernels")
	case c.Roofline == "-":
		return misuse("--roofline takes the name of a file")
	case c.Kernels && c.Unit:
		return misuse("--kernels or --unit, not both")
	case c.Kernels:
		if err := writable(c.Roofline); err != nil {
			return err
		}
		return c.kernels(e)
	case c.Unit:
		goruntime.GOMAXPROCS(1)
		return c.unit(e)
	}
	r := benchReport{Schema: 1, Machine: machine(), Threads: c.Threads, Kernels: kernelsInUse(), Rows: []benchRow{}}
	for i := range chosen {
		row, err := c.one(e, &chosen[i])
		if err != nil {
			return fmt.Errorf("%s: %w", chosen[i].Name, err)
		}
		r.Rows = append(r.Rows, *row)
		if !c.JSON {
			e.note("%s: %s", row.Model, seconds(row.Median))
		}
	}
	if c.JSON {
		return e.printJSON(r)
	}
	return r.write(e.out)
}

// drawn reports whether the drawings of digits are inputs of the network.
func drawn(m *models.Model) bool {
	return slices.Equal(m.Input, []int{1, digits.Side, digits.Side}) && m.Preprocess != ""
}

func (c *benchCmd) one(e *env, m *models.Model) (*benchRow, error) {
	onnx, err := m.ONNX()
	if err != nil {
		return nil, err
	}
	pre, err := m.Preprocessing()
	if err != nil {
		return nil, err
	}
	drawings, err := digits.File(digits.VariedImages)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	model, err := frontend.Parse(onnx, frontend.Options{})
	if err != nil {
		return nil, err
	}
	model.Graph.Name = m.Name
	flags := compileFlags{Drop: 0.005, Objective: "latency", CalLimit: 256, Batch: c.Batch}
	calibrate, err := dataset.OpenBytes(digits.VariedImages, drawings, dataset.Options{Limit: flags.CalLimit, Shape: m.Input, Preprocess: pre})
	if err != nil {
		return nil, err
	}
	p, err := flags.compileWith(e, &source{model, m.Name}, pre, calibrate)
	if err != nil {
		return nil, err
	}
	row := &benchRow{
		Model: m.Name, Batch: p.Batch, Params: p.Params.Name, LogN: p.Params.LogN, LogQP: p.Params.LogQP(), Depth: p.Depth, Rotations: p.Counts.Rotations,
		KeySwitches: p.Counts.KeySwitches, KeyBytes: p.Bytes.Keys, WeightBytes: p.Bytes.Weights, Compile: time.Since(began).Seconds(), Predicted: p.Predicted.Seconds,
	}
	prof, err := flags.profile()
	if err != nil {
		return nil, err
	}
	own := *p
	n, err := encryptedNetwork(e, &own, pre, serverOptions{threads: c.Threads, profile: prof, reuse: true})
	if err != nil {
		return nil, err
	}
	// The last drawings: those that calibration did not see.
	in, err := dataset.OpenBytes(digits.VariedImages, drawings, dataset.Options{Shape: m.Input, Preprocess: pre})
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	if _, err := in.Next(max(0, digits.VariedCount-c.Runs*n.batch)); err != nil && err != io.EOF {
		return nil, errors.Join(err, n.Close())
	}
	batch, _ := splitBatch(p.Network.Inputs[0].Type.Shape)
	err = n.feed(e.ctx, in, func(k chunk) error {
		want, _, err := clearRows(p.Network, k.in, batch, true)
		if err != nil {
			return err
		}
		row.MaxAbsError = math.Max(row.MaxAbsError, maxDiff(k.out.Data, want.Data))
		row.MaxAbsOutput = math.Max(row.MaxAbsOutput, want.MaxAbs())
		got, exp := n.rank(k.out), n.rank(want)
		for i := range got {
			row.Disagreements += one(got[i] != exp[i])
		}
		row.Setup += k.result.report.SetupSeconds
		row.Seconds = append(row.Seconds, k.result.report.Seconds)
		row.Samples += k.in.Shape[0]
		row.PeakRSS = max(row.PeakRSS, k.result.report.PeakRSSBytes)
		return nil
	})
	if err = errors.Join(err, n.Close()); err != nil {
		return nil, err
	}
	sorted := slices.Sorted(slices.Values(row.Seconds))
	row.Median = sorted[len(sorted)/2]
	return row, nil
}

func (r *benchReport) write(w io.Writer) error {
	cores := "one core"
	if r.Threads > 1 {
		cores = fmt.Sprintf("%d cores", r.Threads)
	}
	fmt.Fprintf(w, "%s of: %s, %s arithmetic\n\n", cores, strings.TrimPrefix(r.Machine, "one core of "), r.Kernels)
	t := newTable(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	t.row("network", "N", "log2(QP)", "levels", "rotations", "keys", "weights", "compile", "set-up", "run", "spread", "largest error", "changed")
	for _, x := range r.Rows {
		t.row(x.Model, fmt.Sprintf("2^%d", x.LogN), fmt.Sprint(x.LogQP), fmt.Sprint(x.Depth), count(x.Rotations), byteSize(x.KeyBytes).String(), byteSize(x.WeightBytes).String(),
			seconds(x.Compile), seconds(x.Setup), seconds(x.Median)+perSample(x.Median, x.Batch), fmt.Sprintf("%s to %s", seconds(slices.Min(x.Seconds)), seconds(slices.Max(x.Seconds))),
			fmt.Sprintf("%.1e of %.3g", x.MaxAbsError, x.MaxAbsOutput), fmt.Sprintf("%d of %d", x.Disagreements, x.Samples))
	}
	return t.write(w, "")
}
