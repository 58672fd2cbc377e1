package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime/dataset"
)

// compileFlags say how a model becomes a plan. Every verb that takes a plan
// takes a model too and compiles it in memory with these.
type compileFlags struct {
	Calibrate  string   `group:"compile" placeholder:"FILE" help:"Typical inputs (.npy, idx, CIFAR .bin) from which the ranges of activations are read. Use training data, never test data."`
	CalLimit   int      `group:"compile" name:"calibrate-limit" default:"1000" placeholder:"N" help:"Use at most N of them. Default: ${default}."`
	Drop       percent  `group:"compile" name:"accuracy-drop" default:"0.5%" placeholder:"P%" help:"Share of calibration samples whose predicted class may change. Default: ${default}."`
	Objective  string   `group:"compile" enum:"latency,throughput" default:"latency" help:"What to be good at: latency (one sample soon) or throughput (many samples). Default: ${default}."`
	Batch      int      `group:"compile" placeholder:"N" help:"Samples that come together; a run takes as many of them as packing finds cheapest. Default: one for latency, as many as fit for throughput."`
	DRAM       byteSize `group:"compile" name:"dram" placeholder:"SIZE" help:"Memory budget of the whole process at run time, such as 2GiB. Default: no bound."`
	Profile    string   `group:"compile" placeholder:"FILE" help:"Cost profile written by home characterize. Default: the one shipped with HomE."`
	Params     string   `group:"compile" placeholder:"FILE" help:"CKKS parameters (JSON) instead of the catalogue's. They must reach 128 bits."`
	Preprocess string   `group:"compile" placeholder:"FILE" help:"How pictures become inputs (JSON): resize, crop, channels, order, scale, mean, std, labels. It travels to the client."`
	Passes     string   `group:"compile" placeholder:"LIST" help:"'help' lists the passes; '-NAME,-NAME' leaves optional ones out."`
	DumpIR     string   `group:"compile" name:"dump-ir" placeholder:"DIR" help:"Write the program after each pass into this folder, as text."`
	StopAfter  string   `group:"compile" placeholder:"PASS" help:"Stop after this pass (with --dump-ir)."`
	Insecure   bool     `group:"compile" name:"insecure-test-parameters" help:"Accept parameters below 128 bits. Plan and keys are stamped insecure; for tests only."`
}

// source is a model read from a file, ready to be compiled.
type source struct {
	*frontend.Model
	path string
}

// loadModel reads an ONNX model; batch replaces a symbolic batch dimension. The
// model is called after its file: exporters leave names such as "main_graph".
func loadModel(path string, batch int) (*source, error) {
	if name, ours := kinds[magic(path)]; ours {
		return nil, fmt.Errorf("%s is %s; expected an ONNX model", path, name)
	}
	m, err := frontend.Load(path, frontend.Options{Batch: batch})
	if err != nil {
		return nil, err
	}
	m.Graph.Name = modelName(path)
	return &source{m, path}, nil
}

func modelName(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}

// onlyInput returns the shape of the one input: the samples it holds, and the
// shape of one of them.
func onlyInput(path string, g *ir.Graph) (batch int, sample []int, err error) {
	if len(g.Inputs) != 1 {
		return 0, nil, fmt.Errorf("%s: the model has %d inputs, %w here: only home run --mode clear takes several", path, len(g.Inputs), ir.ErrUnsupported)
	}
	batch, sample = splitBatch(g.Inputs[0].Type.Shape)
	return batch, sample, nil
}

// splitBatch parts the first axis, the samples, from the rest. A shape of fewer
// than two dimensions is a single sample.
func splitBatch(shape []int) (int, []int) {
	if len(shape) < 2 {
		return 1, shape
	}
	return shape[0], shape[1:]
}

// listPasses prints the pipeline where --passes help asks for it.
func (f *compileFlags) listPasses(w io.Writer) error {
	t := newTable()
	for _, p := range passes.Passes {
		need := "required"
		if p.Optional {
			need = "optional"
		}
		t.row(p.Name, need, p.Doc)
	}
	return t.write(w, "")
}

// preprocess reads --preprocess; nil where it is not given.
func (f *compileFlags) preprocess() (*plan.Preprocess, error) {
	if f.Preprocess == "" {
		return nil, nil
	}
	return dataset.LoadPreprocess(f.Preprocess)
}

func (f *compileFlags) profile() (*backend.Profile, error) {
	if f.Profile == "" {
		return backend.DefaultProfile(), nil
	}
	return backend.LoadProfile(f.Profile)
}

// skips parses --passes: names of optional passes, each after a minus sign.
func (f *compileFlags) skips() ([]string, error) {
	if f.Passes == "help" {
		return nil, misuse("home compile --passes help lists the passes")
	}
	if f.Passes == "" {
		return nil, nil
	}
	var out []string
	for _, s := range strings.Split(f.Passes, ",") {
		name, ok := strings.CutPrefix(strings.TrimSpace(s), "-")
		if !ok || name == "" {
			return nil, misuse(`--passes is "help" or a list such as -activation-trim, got %q`, s)
		}
		out = append(out, name)
	}
	return out, nil
}

// compile turns a model into a plan. It does not write the plan anywhere.
func (f *compileFlags) compile(e *env, m *source) (*plan.Plan, error) {
	pre, err := f.preprocess()
	if err != nil {
		return nil, err
	}
	if f.Calibrate == "" {
		return f.compileWith(e, m, pre, nil)
	}
	_, sample, err := onlyInput(m.path, m.Graph)
	if err != nil {
		return nil, err
	}
	s, err := dataset.Open(f.Calibrate, dataset.Options{Limit: f.CalLimit, Shape: sample, Preprocess: pre})
	if err != nil {
		return nil, fmt.Errorf("--calibrate: %w", err)
	}
	defer s.Close()
	return f.compileWith(e, m, pre, s)
}

// compileWith is compile with preprocessing and calibration samples, both nil
// where there are none, that were read before.
func (f *compileFlags) compileWith(e *env, m *source, pre *plan.Preprocess, calibrate *dataset.Samples) (*plan.Plan, error) {
	o := passes.Options{
		AccuracyDrop: float64(f.Drop), Throughput: f.Objective == "throughput", Batch: f.Batch, DRAM: int64(f.DRAM),
		AllowInsecure: f.Insecure, StopAfter: f.StopAfter, Preprocess: pre,
	}
	if f.Batch < 0 || f.CalLimit < 1 {
		return nil, misuse("--batch and --calibrate-limit must be positive")
	}
	var err error
	if o.Skip, err = f.skips(); err != nil {
		return nil, err
	}
	if o.Profile, err = f.profile(); err != nil {
		return nil, err
	}
	if f.Params != "" {
		if o.Params, err = loadParams(f.Params, f.Insecure); err != nil {
			return nil, err
		}
	}
	if calibrate != nil {
		if o.Calibrate, err = batches(m, calibrate); err != nil {
			return nil, fmt.Errorf("--calibrate: %w", err)
		}
	}
	if f.DumpIR != "" {
		if err := os.MkdirAll(f.DumpIR, 0o755); err != nil {
			return nil, err
		}
		n := 0
		o.Observe = func(pass string, g *ir.Graph) error {
			n++
			path := filepath.Join(f.DumpIR, fmt.Sprintf("%02d-%s.txt", n, pass))
			return plan.ReplaceFile(path, 0o644, func(w *os.File) error { return ir.Print(w, g, nil) })
		}
	}
	bar := e.bar("compiling", len(passes.Passes))
	defer bar.stop()
	dump := o.Observe
	o.Observe = func(pass string, g *ir.Graph) error {
		bar.of(1+slices.IndexFunc(passes.Passes, func(p passes.Pass) bool { return p.Name == pass }), len(passes.Passes))
		if dump == nil {
			return nil
		}
		return dump(pass, g)
	}
	p, err := passes.Compile(passes.Source{Graph: m.Graph, Client: m.Client, Digest: m.Digest, Outputs: m.OutputNames}, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.path, err)
	}
	if p == nil {
		return nil, nil // --stop-after, before there is a plan
	}
	for _, w := range m.Warnings {
		if !slices.Contains(p.Warnings, w) {
			p.Warnings = append(p.Warnings, w)
		}
	}
	return p, nil
}

// batches reads calibration samples in the model's own batch. What is left over
// is not used.
func batches(m *source, s *dataset.Samples) ([]*ir.Array, error) {
	batch, _, err := onlyInput(m.path, m.Graph)
	if err != nil {
		return nil, err
	}
	var out []*ir.Array
	for {
		a, err := s.Next(batch)
		if err == io.EOF || err == nil && a.Shape[0] < batch && len(out) > 0 {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if a.Shape[0] < batch {
			return nil, fmt.Errorf("%d samples, and the model takes %d at a time", a.Shape[0], batch)
		}
		out = append(out, a.Reshape(m.Graph.Inputs[0].Type.Shape...))
	}
}

// paramsFile is the JSON form of CKKS parameters: sizes of primes in bits, from
// which the primes follow, or the primes themselves.
type paramsFile struct {
	Name     string   `json:"name"`
	LogN     int      `json:"log_n"`
	Ring     string   `json:"ring"`
	Secret   string   `json:"secret"`
	LogScale int      `json:"log_scale"`
	LogQ     []int    `json:"log_q"`
	LogP     []int    `json:"log_p"`
	Q        []uint64 `json:"q"`
	P        []uint64 `json:"p"`
}

// loadParams reads parameters and judges them, so that a weak file is refused
// before any work is done.
func loadParams(path string, insecure bool) (*ir.Params, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	f := paramsFile{Ring: string(ir.RingReal), Secret: string(ir.SecretTernary)}
	if err := d.Decode(&f); err == io.EOF {
		return nil, fmt.Errorf("%s: the file is empty", path)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Name == "" {
		f.Name = strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	p := &ir.Params{Name: f.Name, LogN: f.LogN, Ring: ir.Ring(f.Ring), Secret: ir.Secret(f.Secret), Q: f.Q, P: f.P, LogScale: f.LogScale}
	sizes, primes := len(f.LogQ)+len(f.LogP) > 0, len(f.Q)+len(f.P) > 0
	switch {
	case sizes && primes:
		err = errors.New("give log_q and log_p or q and p, not both")
	case sizes:
		p, err = ir.NewParams(f.Name, f.LogN, p.Ring, p.Secret, f.LogQ, f.LogP, f.LogScale)
	default:
		err = p.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := p.CheckSecurity(); err != nil && !insecure {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}
