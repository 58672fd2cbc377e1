// Package ir is the intermediate representation: one graph of single-result
// values in three vocabularies (tensor, packed, scheme), the op table that says
// everything about an op in one row, types that carry shape, layout, level and
// exact scale, a canonical text form with its parser, and the verifier that runs
// after every pass. It also holds what every other package agrees on: arrays,
// CKKS parameters and the 128-bit security bounds.
package ir

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
)

// ErrUnsupported marks a model that HomE cannot run as asked. The command turns
// it into exit code 3.
var ErrUnsupported = errors.New("not supported")

// NodeError says which node of the user's model is at fault and what to do. It
// wraps ErrUnsupported unless Err already says otherwise.
type NodeError struct {
	Node string // ONNX node name, or the name of its first output
	Op   string // ONNX operator
	Attr string // attribute at fault, may be empty
	Err  error
	Hint string // what the user can do, may be empty
}

func (e *NodeError) Error() string {
	s := e.Node
	if e.Op != "" {
		s += " (" + e.Op + ")"
	}
	if e.Attr != "" {
		s += ": attribute " + e.Attr
	}
	s += ": " + e.Err.Error()
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

func (e *NodeError) Unwrap() []error { return []error{e.Err, ErrUnsupported} }

// Attrs holds the attributes of a value: int, []int, float64 or string.
type Attrs map[string]any

// Names returns the attribute names in order.
func (a Attrs) Names() []string {
	n := make([]string, 0, len(a))
	for k := range a {
		n = append(n, k)
	}
	sort.Strings(n)
	return n
}

// Int returns an int attribute, or def where it is absent.
func (a Attrs) Int(name string, def int) int {
	if v, ok := a[name].(int); ok {
		return v
	}
	return def
}

// Ints returns an int list attribute, nil where it is absent.
func (a Attrs) Ints(name string) []int { v, _ := a[name].([]int); return v }

// Float returns a float attribute, or def where it is absent.
func (a Attrs) Float(name string, def float64) float64 {
	if v, ok := a[name].(float64); ok {
		return v
	}
	return def
}

// Str returns a string attribute, or def where it is absent.
func (a Attrs) Str(name, def string) string {
	if v, ok := a[name].(string); ok {
		return v
	}
	return def
}

// Value is the single result of one operation.
type Value struct {
	ID    int // position in Graph.Values, set by Graph.Renumber
	Op    Op
	Args  []*Value
	Attrs Attrs
	Type  Type
	Name  string // ONNX node (or tensor) this came from; shown in every message

	Array  *Array    // OpConst
	Approx *Approx   // OpAct after approximation, OpPackPoly
	Linear *Linear   // OpPackLinear
	Slots  *SlotData // OpHEPlain
	Layout *Layout   // layout of the result, packed ops; the text form takes it from the printed type
}

// Graph is a program in one or more vocabularies, in a valid order of
// evaluation: arguments come before their users.
type Graph struct {
	Name    string
	Values  []*Value
	Inputs  []*Value
	Outputs []*Value
}

// Add appends a value and infers its type. The error names the node.
func (g *Graph) Add(op Op, name string, attrs Attrs, args ...*Value) (*Value, error) {
	return g.Append(&Value{Op: op, Name: name, Attrs: attrs, Args: args})
}

// Append adds a prepared value (with payload) and infers its type.
func (g *Graph) Append(v *Value) (*Value, error) {
	v.ID = len(g.Values)
	info := v.Op.Info()
	if err := checkShape(v, info); err != nil {
		return nil, &NodeError{Node: v.Name, Op: info.Name, Err: err}
	}
	t, err := info.Infer(v)
	if err != nil {
		return nil, &NodeError{Node: v.Name, Op: info.Name, Err: err}
	}
	v.Type = t
	g.Values = append(g.Values, v)
	return v, nil
}

// Renumber sets the IDs to the positions.
func (g *Graph) Renumber() {
	for i, v := range g.Values {
		v.ID = i
	}
}

// Uses counts, for each value, how often it is an argument or an output.
func (g *Graph) Uses() map[*Value]int {
	u := make(map[*Value]int, len(g.Values))
	for _, v := range g.Values {
		for _, a := range v.Args {
			u[a]++
		}
	}
	for _, o := range g.Outputs {
		u[o]++
	}
	return u
}

// Prune drops values that no output needs. Inputs stay.
func (g *Graph) Prune() {
	live := make(map[*Value]bool, len(g.Values))
	for _, o := range g.Outputs {
		live[o] = true
	}
	for _, i := range g.Inputs {
		live[i] = true
	}
	for i := len(g.Values) - 1; i >= 0; i-- {
		if v := g.Values[i]; live[v] {
			for _, a := range v.Args {
				live[a] = true
			}
		}
	}
	g.Values = slices.DeleteFunc(g.Values, func(v *Value) bool { return !live[v] })
	g.Renumber()
}

// Clone returns a copy whose values can be changed without changing those of g.
// Payloads and layouts are shared: passes replace them, they never write into them.
func (g *Graph) Clone() *Graph {
	twin := make(map[*Value]*Value, len(g.Values))
	list := func(vs []*Value) []*Value {
		out := make([]*Value, len(vs))
		for i, v := range vs {
			out[i] = twin[v]
		}
		return out
	}
	c := &Graph{Name: g.Name}
	for _, v := range g.Values {
		w := *v
		w.Args, w.Attrs = list(v.Args), maps.Clone(v.Attrs)
		twin[v] = &w
		c.Values = append(c.Values, &w)
	}
	c.Inputs, c.Outputs = list(g.Inputs), list(g.Outputs)
	return c
}

// checkShape verifies arity and attributes against the op table.
func checkShape(v *Value, info *Info) error {
	if n := len(v.Args); n < info.MinArgs || info.MaxArgs >= 0 && n > info.MaxArgs {
		return fmt.Errorf("%d arguments, want %d to %d", n, info.MinArgs, info.MaxArgs)
	}
	for i, a := range v.Args {
		if a == nil {
			return fmt.Errorf("argument %d is missing", i)
		}
	}
	known := 0
	for _, s := range info.Attrs {
		x, ok := v.Attrs[s.Name]
		if !ok {
			if s.Required {
				return fmt.Errorf("attribute %s is missing", s.Name)
			}
			continue
		}
		known++
		switch x.(type) {
		case int:
			ok = s.Kind == AttrInt
		case []int:
			ok = s.Kind == AttrInts
		case float64:
			ok = s.Kind == AttrFloat
		case string:
			ok = s.Kind == AttrString
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("attribute %s has type %T", s.Name, x)
		}
	}
	if known != len(v.Attrs) {
		for _, n := range v.Attrs.Names() {
			if !slices.ContainsFunc(info.Attrs, func(s AttrSpec) bool { return s.Name == n }) {
				return fmt.Errorf("attribute %s is unknown", n)
			}
		}
	}
	return nil
}
