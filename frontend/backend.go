package frontend

import (
	"fmt"
	"slices"

	"github.com/home-fhe/home/ir"
	onnx "github.com/owulveryck/onnx-go"
	_ "go4.org/unsafe/assume-no-moving-gc" // gorgonia's memory assumptions, at a version that knows this Go
	"gonum.org/v1/gonum/graph"
	"gonum.org/v1/gonum/graph/iterator"
	"gorgonia.org/tensor"
)

// tensorNode is a value of the graph that onnx-go builds.
type tensorNode struct {
	id    int64
	name  string
	value tensor.Tensor
}

var (
	_ onnx.Namer       = (*tensorNode)(nil)
	_ onnx.DataCarrier = (*tensorNode)(nil)
	_ onnx.Backend     = (*recorder)(nil)
)

func (n *tensorNode) ID() int64                       { return n.id }
func (n *tensorNode) SetName(s string)                { n.name = s }
func (n *tensorNode) GetName() string                 { return n.name }
func (n *tensorNode) SetTensor(t tensor.Tensor) error { n.value = t; return nil }
func (n *tensorNode) GetTensor() tensor.Tensor        { return n.value }

// edge runs from a node's result to one of its arguments; weight is the
// position of the argument.
type edge struct {
	from, to graph.Node
	weight   float64
}

func (e edge) From() graph.Node         { return e.from }
func (e edge) To() graph.Node           { return e.to }
func (e edge) Weight() float64          { return e.weight }
func (e edge) ReversedEdge() graph.Edge { return edge{from: e.to, to: e.from, weight: e.weight} }

// operation is one call of ApplyOperation.
type operation struct {
	attrs   map[string]any
	args    []*tensorNode
	outputs []*tensorNode
}

// recorder is the onnx-go backend of the front end. Unlike a simple graph it
// keeps every edge, so that an operator may read one value several times, and
// it keeps the order of arguments. Each call of ApplyOperation is held against
// the side-car.
type recorder struct {
	l       *linked
	nodes   []*tensorNode
	edges   []edge
	out     map[int64][]edge // by source node
	pending int              // first edge that no operation has claimed
	ops     []operation
}

// NewNode returns a node with a fresh id.
func (r *recorder) NewNode() graph.Node { return &tensorNode{id: int64(len(r.nodes))} }

// AddNode adds a node made by NewNode.
func (r *recorder) AddNode(n graph.Node) {
	t, ok := n.(*tensorNode)
	if !ok || t.id != int64(len(r.nodes)) {
		panic(fmt.Sprintf("BUG: foreign node %v", n))
	}
	r.nodes = append(r.nodes, t)
}

// NewWeightedEdge returns an edge that is not yet part of the graph.
func (r *recorder) NewWeightedEdge(from, to graph.Node, w float64) graph.WeightedEdge {
	return edge{from: from, to: to, weight: w}
}

// SetWeightedEdge adds an edge; parallel edges and loops are kept.
func (r *recorder) SetWeightedEdge(e graph.WeightedEdge) {
	x := edge{from: e.From(), to: e.To(), weight: e.Weight()}
	r.edges = append(r.edges, x)
	r.out[x.from.ID()] = append(r.out[x.from.ID()], x)
}

// Node returns the node with the id, or nil.
func (r *recorder) Node(id int64) graph.Node {
	if id < 0 || id >= int64(len(r.nodes)) {
		return nil
	}
	return r.nodes[id]
}

// Nodes returns all nodes in order of creation.
func (r *recorder) Nodes() graph.Nodes {
	n := make([]graph.Node, len(r.nodes))
	for i, t := range r.nodes {
		n[i] = t
	}
	return iterator.NewOrderedNodes(n)
}

// From returns the arguments of a node.
func (r *recorder) From(id int64) graph.Nodes {
	var n []graph.Node
	for _, e := range r.out[id] {
		n = append(n, e.to)
	}
	return iterator.NewOrderedNodes(n)
}

// To returns the nodes that read a node.
func (r *recorder) To(id int64) graph.Nodes {
	var n []graph.Node
	for _, e := range r.edges {
		if e.to.ID() == id {
			n = append(n, e.from)
		}
	}
	return iterator.NewOrderedNodes(n)
}

// HasEdgeFromTo reports whether u reads v.
func (r *recorder) HasEdgeFromTo(u, v int64) bool {
	return slices.ContainsFunc(r.out[u], func(e edge) bool { return e.to.ID() == v })
}

// HasEdgeBetween reports whether u reads v or v reads u.
func (r *recorder) HasEdgeBetween(u, v int64) bool {
	return r.HasEdgeFromTo(u, v) || r.HasEdgeFromTo(v, u)
}

// Edge returns the first edge from u to v, or nil.
func (r *recorder) Edge(u, v int64) graph.Edge {
	for _, e := range r.out[u] {
		if e.to.ID() == v {
			return e
		}
	}
	return nil
}

// ApplyOperation records an operation and compares it with the side-car: the
// operator, its results and its arguments in order.
func (r *recorder) ApplyOperation(op onnx.Operation, outputs ...graph.Node) error {
	i := len(r.ops)
	if i >= len(r.l.nodes) {
		return fmt.Errorf("decoder yields more than %d nodes", i)
	}
	want := r.l.nodes[i]
	mismatch := func(what string) error {
		return fmt.Errorf("decoder and side-car disagree on node %q (%s): %s", want.name, want.op, what)
	}
	args := r.l.argNames(i)
	if op.Name != want.op || len(outputs) != len(want.outputs) {
		return mismatch("operator or number of results")
	}
	if len(op.Attributes) != len(want.attrs) {
		return mismatch("number of attributes")
	}
	claimed := r.edges[r.pending:]
	r.pending = len(r.edges)
	if len(claimed) != len(args)*len(outputs) {
		return mismatch("number of arguments")
	}
	o := operation{attrs: op.Attributes}
	for k, n := range outputs {
		t, ok := n.(*tensorNode)
		if !ok || t.name != r.l.outName(i, k) {
			return mismatch("results")
		}
		o.outputs = append(o.outputs, t)
		for j, e := range claimed[k*len(args) : (k+1)*len(args)] {
			a, ok := e.to.(*tensorNode)
			if !ok || e.from.ID() != t.id || e.weight != float64(j) || a.name != args[j] {
				return mismatch("arguments")
			}
			if k == 0 {
				o.args = append(o.args, a)
			}
		}
	}
	r.ops = append(r.ops, o)
	return nil
}

// decode lets onnx-go read the canonical model into a recorder. Panics of the
// decoder become errors.
func decode(l *linked) (r *recorder, err error) {
	r = &recorder{l: l, out: map[int64][]edge{}}
	defer func() {
		if p := recover(); p != nil {
			err = malformed("the ONNX decoder failed: %v", p)
		}
	}()
	if err := onnx.NewModel(r).UnmarshalBinary(l.encode()); err != nil {
		return nil, malformed("the ONNX decoder failed: %w", err)
	}
	if len(r.ops) != len(l.nodes) {
		return nil, malformed("the ONNX decoder yields %d of %d nodes", len(r.ops), len(l.nodes))
	}
	return r, nil
}

// initial returns the constants that onnx-go decoded, by canonical name. Each
// must have the shape and size that the side-car read.
func (r *recorder) initial() (map[string]*ir.Array, error) {
	m := make(map[string]*ir.Array, len(r.l.inits))
	carriers := map[string]*tensorNode{}
	for _, n := range r.nodes {
		if n.value != nil {
			carriers[n.name] = n
		}
	}
	for _, name := range r.l.names {
		c := r.l.inits[name]
		if c == nil {
			continue
		}
		key := r.l.argName(name)
		if c.elems() == 0 {
			m[key] = c.emptyArray()
			continue
		}
		n := carriers[key]
		if n == nil {
			return nil, malformed("the ONNX decoder lost initialiser %q", name)
		}
		a, err := toArray(n.value, c)
		if err != nil {
			return nil, malformed("initialiser %q: %w", name, err)
		}
		n.value = nil
		m[key] = a
	}
	return m, nil
}

// toArray converts a decoded tensor to float64. want is the same tensor as the
// side-car read it.
func toArray(t tensor.Tensor, want *canonTensor) (*ir.Array, error) {
	if want.elems() == 0 {
		return want.emptyArray(), nil
	}
	if !slices.Equal([]int(t.Shape()), want.shape) {
		return nil, fmt.Errorf("decoder says shape %v, side-car %v", t.Shape(), want.shape)
	}
	var data []float64
	switch d := t.Data().(type) {
	case []float32:
		data = widen(d)
	case float32:
		data = []float64{float64(d)}
	case []float64:
		data = d
	case float64:
		data = []float64{d}
	case []int64:
		data = widen(d)
	case int64:
		data = []float64{float64(d)}
	default:
		return nil, fmt.Errorf("decoder yields %T", d)
	}
	if len(data) != want.elems() {
		return nil, fmt.Errorf("decoder yields %d elements for shape %v", len(data), want.shape)
	}
	return ir.ArrayOf(data, want.shape...), nil
}

func widen[T float32 | int64](in []T) []float64 {
	out := make([]float64, len(in))
	for i, v := range in {
		out[i] = float64(v)
	}
	return out
}
