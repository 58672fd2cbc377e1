package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/dataset"
)

// several reports whether a model in clear mode has more than one input or
// output. Plans never have.
func (s *subject) several() bool {
	return s.plan == nil && (len(s.model.Graph.Inputs) != 1 || len(s.model.Graph.Outputs) != 1)
}

// runSeveral evaluates a model with several inputs or outputs in clear mode.
// Samples along the first axes of all inputs belong together. Where every input
// holds exactly what one evaluation takes, the outputs keep the shapes that the
// model gives them.
func (c *runCmd) runSeveral(e *env, s *subject) error {
	names := outputNames(s)
	if c.Output == "-" && len(names) > 1 {
		return misuse("%s has %d outputs, -o - writes one: give a file name", c.Model, len(names))
	}
	in, own, n, err := c.openSeveral(s)
	defer func() {
		for _, x := range in {
			x.Close()
		}
	}()
	if err != nil {
		return err
	}
	began := time.Now()
	outs, runs, err := evalSeveral(e, s, in, own, n)
	if err != nil {
		return err
	}
	rep := runReport{Schema: 1, Model: s.name(), Mode: c.Mode, Samples: n, Runs: runs, Outputs: names, Report: runtime.Report{Seconds: time.Since(began).Seconds(), Tiers: []runtime.TierReport{}}}
	if c.Output != "" {
		for i, out := range outs {
			if err := dataset.WriteNpy(besidePath(c.Output, names, i), out); err != nil {
				return err
			}
		}
	}
	var differ error
	for i, out := range outs {
		if c.Expect == "" {
			break
		}
		one := *c
		one.Expect = besidePath(c.Expect, names, i)
		worst, err := one.compare(out)
		if err != nil {
			return err
		}
		if rep.MaxAbsError == nil || !(worst <= *rep.MaxAbsError) {
			rep.MaxAbsError = &worst
		}
		if !(worst <= c.Atol) {
			differ = errors.Join(differ, fmt.Errorf("%w: %s from %s by up to %.3g, more than %.3g", errMismatch, names[i], one.Expect, worst, c.Atol))
		}
	}
	switch {
	case c.JSON:
		err = e.printJSON(rep)
	case c.Output == "":
		err = printSeveral(e.out, names, outs, c.Top)
	}
	if err == nil && !c.JSON && c.Output != "-" && rep.MaxAbsError != nil {
		_, err = fmt.Fprintf(e.out, "largest difference from %s: %.3g (allowed %.3g)\n", c.Expect, *rep.MaxAbsError, c.Atol)
	}
	return errors.Join(err, differ)
}

// openSeveral opens a file for every input. own is how many samples the model
// takes at once and n how many there are: both 1 where the first axes of the
// inputs are no common batch, so that a file holds a whole input. Files that were
// opened are returned with an error too.
func (c *runCmd) openSeveral(s *subject) (in []*dataset.Samples, own, n int, err error) {
	inputs := s.model.Graph.Inputs
	files, err := c.inputFiles(s)
	if err != nil {
		return nil, 0, 0, err
	}
	pre, err := c.preprocess()
	if err != nil {
		return nil, 0, 0, err
	}
	common := true
	own, _ = splitBatch(inputs[0].Type.Shape)
	for _, v := range inputs {
		b, _ := splitBatch(v.Type.Shape)
		common = common && b == own && len(v.Type.Shape) > 1
	}
	for i, v := range inputs {
		_, sample := splitBatch(v.Type.Shape)
		if !common {
			own, sample = 1, v.Type.Shape
		}
		if err := expectPlain(files[i]); err != nil {
			return in, 0, 0, err
		}
		x, err := dataset.Open(files[i], dataset.Options{Limit: c.Limit, Shape: sample, Preprocess: pre})
		if err != nil {
			return in, 0, 0, fmt.Errorf("%s: %w", nameAt(s.model.InputNames, i), err)
		}
		if in = append(in, x); i > 0 && x.Len() != n {
			return in, 0, 0, fmt.Errorf("%s holds %d samples and %s %d", files[0], n, files[i], x.Len())
		}
		n = x.Len()
	}
	return in, own, n, nil
}

// inputFiles matches --input with the inputs of the model: name=FILE for each,
// or a FILE alone where there is one input.
func (c *runCmd) inputFiles(s *subject) ([]string, error) {
	names := s.model.InputNames
	if len(names) == 1 && len(c.Input) == 1 {
		return c.Input, nil
	}
	files := make([]string, len(names))
	for _, arg := range c.Input {
		i := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(arg, name+"=") })
		if i < 0 {
			return nil, misuse("--input %s: write NAME=FILE with the name of an input: %s", arg, strings.Join(names, ", "))
		}
		if files[i] != "" {
			return nil, misuse("--input %s is given twice", names[i])
		}
		files[i] = strings.TrimPrefix(arg, names[i]+"=")
	}
	for i, f := range files {
		if f == "" {
			return nil, misuse("--input %s=FILE is missing: %s has %d inputs", names[i], c.Model, len(names))
		}
	}
	return files, nil
}

// evalSeveral runs all samples, own of them at a time, and puts the outputs
// together.
func evalSeveral(e *env, s *subject, in []*dataset.Samples, own, n int) ([]*ir.Array, int, error) {
	g := s.model.Graph
	all := make([]gather, len(g.Outputs))
	runs := 0
	bar := e.bar("samples", n)
	defer bar.stop()
	for done := 0; done < n; done += own {
		if err := e.ctx.Err(); err != nil {
			return nil, 0, err
		}
		args := make([]*ir.Array, len(in))
		k := min(own, n-done)
		for i, x := range in {
			a, err := x.Next(own)
			if err != nil {
				return nil, 0, err
			}
			args[i] = fillUp(own, a).Reshape(g.Inputs[i].Type.Shape...)
		}
		outs, _, err := clear.EvalTensor(g, args, clear.Options{})
		if err != nil {
			return nil, 0, fmt.Errorf("sample %d: %w", done, err)
		}
		if runs++; n == own {
			return outs, runs, nil
		}
		for i, out := range outs {
			r, err := rows(out, own, k)
			if err != nil {
				return nil, 0, err
			}
			if err := all[i].add(r); err != nil {
				return nil, 0, err
			}
		}
		bar.add(k)
	}
	outs := make([]*ir.Array, len(all))
	for i := range all {
		outs[i] = all[i].array()
	}
	return outs, runs, nil
}

// outputNames lists the names of the model's outputs.
func outputNames(s *subject) []string {
	names := make([]string, len(s.model.Graph.Outputs))
	for i := range names {
		names[i] = nameAt(s.model.OutputNames, i)
	}
	return names
}

// besidePath is the file of output i: the one that was asked for holds the first
// output, the others lie beside it, y.NAME.npy by y.npy. What a file name cannot
// hold becomes an underscore; a name that occurred before gets its number.
func besidePath(path string, names []string, i int) string {
	if i == 0 || path == "-" {
		return path
	}
	safe := func(name string) string {
		return strings.Map(func(r rune) rune {
			if r < ' ' || strings.ContainsRune(`/\:*?"<>|`, r) {
				return '_'
			}
			return r
		}, name)
	}
	name := safe(names[i])
	for _, before := range names[1:i] {
		if safe(before) == name {
			name = fmt.Sprintf("%s.%d", name, i)
			break
		}
	}
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "." + name + ext
}

// printSeveral writes the largest values of every row of every output.
func printSeveral(w io.Writer, names []string, outs []*ir.Array, k int) error {
	n := &network{}
	for i, out := range outs {
		if _, err := fmt.Fprintf(w, "%s  %s\n", names[i], dims(out.Shape)); err != nil {
			return err
		}
		if len(out.Shape) == 0 {
			out = out.Reshape(1)
		}
		if err := printTop(w, n, out, k, n.precision()); err != nil {
			return err
		}
	}
	return nil
}
