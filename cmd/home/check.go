package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

type checkCmd struct {
	Model string `arg:"" optional:"" help:"ONNX model."`
	Ops   bool   `help:"List the supported ONNX operators instead."`
	JSON  bool   `help:"Print JSON."`
}

func (*checkCmd) Help() string {
	return `Reads the model as compile would and names every node that stands in the way: the operator, the
attribute, and what to change. Nothing is written. The exit code is 3 when the model is not supported.`
}

type tensorReport struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
}

type opCount struct {
	Op    string `json:"op"`
	Count int    `json:"count"`
}

type checkReport struct {
	Schema        int              `json:"schema"`
	Model         string           `json:"model"`
	Supported     bool             `json:"supported"`
	Producer      string           `json:"producer"`
	IRVersion     int64            `json:"ir_version"`
	Opsets        map[string]int64 `json:"opsets"`
	Digest        string           `json:"sha256"`
	Inputs        []tensorReport   `json:"inputs"`
	Outputs       []tensorReport   `json:"outputs"`
	SymbolicBatch bool             `json:"symbolic_batch"`
	Batch         int              `json:"batch"`
	Operators     []opCount        `json:"operators"`
	Parameters    int              `json:"parameters"`
	Activations   int              `json:"activations"`
	ClientOps     []clientOpReport `json:"client_ops"`
	Warnings      []string         `json:"warnings"`
}

// refusal is the report on a model that is not supported.
type refusal struct {
	Schema    int      `json:"schema"`
	Model     string   `json:"model"`
	Supported bool     `json:"supported"` // false
	Reasons   []string `json:"reasons"`
}

type clientOpReport struct {
	Op    string `json:"op"`
	Node  string `json:"node"`
	Axis  int    `json:"axis"`
	Shape []int  `json:"shape"`
}

func (c *checkCmd) Run(e *env) error {
	switch {
	case c.Ops && c.Model != "":
		return misuse("--ops takes no model")
	case c.Ops:
		return c.listOps(e)
	case c.Model == "":
		return misuse("expected a model, or --ops")
	}
	m, err := loadModel(c.Model, 0)
	if c.JSON && errors.Is(err, ir.ErrUnsupported) {
		return errors.Join(err, e.printJSON(refusal{Schema: 1, Model: modelName(c.Model), Reasons: strings.Split(err.Error(), "\n")}))
	}
	if err != nil {
		return err
	}
	r := checkReport{
		Schema: 1, Model: m.Graph.Name, Supported: true, Producer: m.Producer, IRVersion: m.IRVersion, Opsets: m.Opsets,
		Digest: m.Digest, SymbolicBatch: m.SymbolicBatch, Batch: m.Batch,
		Operators: countOps(m.Nodes), ClientOps: clientOps(m.Client), Warnings: slices.Concat([]string{}, m.Warnings),
		Inputs: []tensorReport{}, Outputs: []tensorReport{},
	}
	for i, v := range m.Graph.Inputs {
		r.Inputs = append(r.Inputs, tensorReport{nameAt(m.InputNames, i), v.Type.Shape})
	}
	for i, v := range m.Graph.Outputs {
		r.Outputs = append(r.Outputs, tensorReport{nameAt(m.OutputNames, i), v.Type.Shape})
	}
	for _, v := range m.Graph.Values {
		switch v.Op {
		case ir.OpConst:
			r.Parameters += len(v.Array.Data)
		case ir.OpAct, ir.OpMaxPool, ir.OpReduceMax:
			r.Activations++
		}
	}
	if c.JSON {
		return e.printJSON(r)
	}
	return r.write(e.out)
}

func (r *checkReport) write(w io.Writer) error {
	fmt.Fprintf(w, "%s is supported: every operator is understood, and --mode clear runs it.\n", r.Model)
	t := newTable()
	t.row("made by", fmt.Sprintf("%s, ONNX IR %d, %s", or(r.Producer, "unknown"), r.IRVersion, opsetText(r.Opsets)))
	for _, p := range r.Inputs {
		s := dims(p.Shape)
		if r.SymbolicBatch {
			s += ", any batch"
		} else if r.Batch > 1 && len(p.Shape) > 1 && p.Shape[0] == r.Batch {
			s += fmt.Sprintf(", fixed batch of %d", r.Batch)
		}
		t.row("input", p.Name+"  "+s)
	}
	for _, p := range r.Outputs {
		t.row("output", p.Name+"  "+dims(p.Shape))
	}
	t.row("parameters", count(r.Parameters))
	var ops []string
	for _, o := range r.Operators {
		ops = append(ops, fmt.Sprintf("%d %s", o.Count, o.Op))
	}
	t.row("operators", strings.Join(ops, ", "))
	for _, o := range r.ClientOps {
		t.row("on the client", fmt.Sprintf("%s (%s), after decryption", o.Node, o.Op))
	}
	for _, s := range r.Warnings {
		t.row("warning", s)
	}
	if len(r.Inputs) == 1 && len(r.Outputs) == 1 {
		t.row("encrypted", "home compile says whether one modulus chain is deep enough, with ranges from --calibrate")
	} else {
		t.row("encrypted", "no: only networks with one input and one output can be")
	}
	return t.write(w, "  ")
}

func (c *checkCmd) listOps(e *env) error {
	ops := frontend.SupportedOps()
	if c.JSON {
		type opReport struct {
			Op         string   `json:"op"`
			Domain     string   `json:"domain"`
			Since      int      `json:"since"`
			Until      int      `json:"until,omitempty"`
			Attributes []string `json:"attributes"`
			Note       string   `json:"note,omitempty"`
		}
		var out struct {
			Schema    int        `json:"schema"`
			Operators []opReport `json:"operators"`
		}
		out.Schema = 1
		for _, o := range ops {
			out.Operators = append(out.Operators, opReport{o.Op, o.Domain, o.Since, o.Until, slices.Concat([]string{}, o.Attributes), o.Note})
		}
		return e.printJSON(out)
	}
	t := newTable()
	for _, o := range ops {
		opset := fmt.Sprintf("opset %d on", o.Since)
		if o.Until > 0 {
			opset = fmt.Sprintf("opset %d to %d", o.Since, o.Until)
		}
		if o.Domain != "" {
			opset = o.Domain
		}
		t.row(o.Op, opset, o.Note)
	}
	return t.write(e.out, "")
}

func clientOps(ops []plan.ClientOp) []clientOpReport {
	out := []clientOpReport{}
	for _, o := range ops {
		out = append(out, clientOpReport{o.Op, o.Node, o.Axis, o.Shape})
	}
	return out
}

// countOps counts the nodes per operator, most frequent first.
func countOps(nodes []frontend.NodeInfo) []opCount {
	n := map[string]int{}
	for _, x := range nodes {
		name := x.Op
		if x.Domain != "" {
			name = x.Domain + "." + x.Op
		}
		n[name]++
	}
	out := []opCount{}
	for op, k := range n {
		out = append(out, opCount{op, k})
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Count != out[j].Count {
			return out[i].Count > out[j].Count
		}
		return out[i].Op < out[j].Op
	})
	return out
}

func opsetText(sets map[string]int64) string {
	var names []string
	for d := range sets {
		names = append(names, d)
	}
	sort.Strings(names)
	var out []string
	for _, d := range names {
		s := "opset " + strconv.FormatInt(sets[d], 10)
		if d != "" {
			s = d + " " + s
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func nameAt(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return strconv.Itoa(i)
}

func or(s, none string) string {
	if s == "" {
		return none
	}
	return s
}
