package main

import (
	"fmt"
	"io"
	"os"

	"github.com/home-fhe/home/ir/plan"
)

// modes of running everything in one process.
const (
	modeClear     = "clear"
	modeSimulate  = "simulate"
	modeEncrypted = "encrypted"
)

// subject is what a verb was given: a plan, or a model that no plan was made of.
type subject struct {
	path  string
	model *source    // nil for a plan file
	plan  *plan.Plan // nil for a model in clear mode
}

// open reads a plan or a model. A model is compiled in memory where the mode
// needs a plan; in clear mode any model that the front end understands runs as
// it is.
func (f *compileFlags) open(e *env, path, mode string) (*subject, error) {
	is, err := isONNX(path)
	if err != nil {
		return nil, err
	}
	if !is {
		if err := f.forModels(path); err != nil {
			return nil, err
		}
		p, err := loadPlan(path)
		if err != nil {
			return nil, err
		}
		return &subject{path: path, plan: p}, nil
	}
	m, err := loadModel(path, 0)
	if err != nil {
		return nil, err
	}
	s := &subject{path: path, model: m}
	if mode == modeClear {
		return s, nil
	}
	if s.plan, err = f.compile(e, m); err != nil {
		return nil, err
	}
	if s.plan == nil {
		return nil, misuse("--stop-after leaves no plan to run")
	}
	return s, nil
}

// forModels refuses options that would change a compilation where the plan is
// made already: they would be ignored.
func (f *compileFlags) forModels(path string) error {
	for _, o := range []struct {
		name  string
		given bool
	}{
		{"--calibrate", f.Calibrate != ""},
		{"--objective", f.Objective == "throughput"},
		{"--batch", f.Batch != 0},
		{"--params", f.Params != ""},
		{"--passes", f.Passes != ""},
		{"--dump-ir", f.DumpIR != ""},
		{"--stop-after", f.StopAfter != ""},
	} {
		if o.given {
			return misuse("%s is for compiling a model, and %s is a plan already", o.name, path)
		}
	}
	return nil
}

// isONNX reports whether a file is to be read as a model: everything without
// the magic of one of our own files is.
func isONNX(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil && fi.IsDir() {
		return false, fmt.Errorf("%s is a folder; expected a plan (.hplan) or an ONNX model", path)
	}
	var magic [4]byte
	n, err := f.Read(magic[:])
	if err == io.EOF {
		return false, fmt.Errorf("%s: %w: the file is empty", path, plan.ErrCorrupt)
	}
	if err != nil && n == 0 {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return string(magic[:]) != "HOME", nil
}

// network makes the network that a mode asks for.
func (f *compileFlags) network(e *env, s *subject, mode string, exact bool, sf *serverFlags) (*network, error) {
	pre, err := f.preprocess()
	if err != nil {
		return nil, err
	}
	if s.plan != nil && pre == nil {
		pre = s.plan.Preprocess
	}
	threads, err := sf.threads()
	if err != nil {
		return nil, err
	}
	prof, err := f.profile()
	if err != nil {
		return nil, err
	}
	switch mode {
	case modeSimulate:
		return simNetwork(s.plan, pre, prof, threads)
	case modeEncrypted:
		own := *s.plan // the server lets go of parts that the report still wants
		return encryptedNetwork(e, &own, pre, serverOptions{budget: int64(f.DRAM), pmem: sf.PMem, tier: sf.tierFlags, threads: threads, profile: prof, insecure: f.Insecure, reuse: true})
	}
	if s.plan == nil {
		return clearNetwork(s.path, s.model.Graph, s.model.Client, pre, false)
	}
	return clearNetwork(s.path, s.plan.Network, s.plan.ClientOps, pre, !exact)
}
