package frontend

import (
	"fmt"
	"math"
	"strconv"

	"github.com/home-fhe/home/ir"
	"google.golang.org/protobuf/encoding/protowire"
)

// linked is a model whose names are resolved: every node argument refers to
// something that comes before it, and dead nodes are gone.
type linked struct {
	*modelProto
	nodes  []*nodeProto            // live, in an order of evaluation
	inits  map[string]*canonTensor // live initialisers
	inputs []valueInfo             // without those that have an initialiser
	id     map[string]int          // tensor name to number in the canonical model
	names  []string                // and back
	attrs  map[*attrProto]*canonTensor
	dead   int
	sorted bool // nodes stood out of order
}

// maxInputs bounds the inputs of a model that have no initialiser.
const maxInputs = 1024

// maxEdges bounds the pairs of input and output over all nodes: the decoder
// makes an edge of each.
const maxEdges = 1 << 22

// link checks the names of a graph: every tensor has one producer, every use
// has a producer, there is no cycle. It then sorts the nodes (stably) and drops
// what no output needs.
func link(m *modelProto) (*linked, error) {
	g := m.graph
	l := &linked{modelProto: m, inits: map[string]*canonTensor{}, id: map[string]int{}, attrs: map[*attrProto]*canonTensor{}}
	const (
		fromInput = -1
		fromInit  = -2
	)
	producer := map[string]int{}
	isInput := map[string]bool{}
	if len(g.inputs)-len(g.inits) > maxInputs {
		return nil, &ir.NodeError{Node: "model", Op: "graph", Err: fmt.Errorf("%d inputs; the limit is %d", len(g.inputs), maxInputs)}
	}
	for _, v := range g.inputs {
		if isInput[v.name] {
			return nil, malformed("graph input %q appears twice", v.name)
		}
		isInput[v.name] = true
		producer[v.name] = fromInput
	}
	hasInit := map[string]bool{}
	for _, t := range g.inits {
		if t.name == "" {
			return nil, malformed("initialiser without a name")
		}
		if hasInit[t.name] {
			return nil, malformed("initialiser %q appears twice", t.name)
		}
		hasInit[t.name] = true
		producer[t.name] = fromInit
	}
	edges := 0
	for i, n := range g.nodes {
		if edges += len(n.inputs) * len(n.outputs); edges > maxEdges {
			return nil, &ir.NodeError{Node: n.name, Op: n.op, Err: fmt.Errorf("the nodes up to this one have more than %d pairs of input and output", maxEdges)}
		}
		made := false
		for _, o := range n.outputs {
			if o == "" {
				continue
			}
			made = true
			if p, dup := producer[o]; dup {
				by := "a graph input or initialiser"
				if p >= 0 {
					by = strconv.Quote(g.nodes[p].name)
				}
				return nil, malformed("node %q (%s) defines %q, which %s defines too", n.name, n.op, o, by)
			}
			producer[o] = i
		}
		if !made {
			return nil, malformed("node %q (%s) has no output", n.name, n.op)
		}
	}
	for _, n := range g.nodes {
		for _, a := range n.inputs {
			if _, ok := producer[a]; !ok && a != "" {
				return nil, malformed("node %q (%s) reads %q, which nothing defines", n.name, n.op, a)
			}
		}
	}
	live := make([]bool, len(g.nodes))
	used := map[string]bool{}
	var stack []int
	need := func(name string) {
		used[name] = true
		if p := producer[name]; p >= 0 && !live[p] {
			live[p] = true
			stack = append(stack, p)
		}
	}
	if len(g.outputs) == 0 {
		return nil, malformed("the graph has no output")
	}
	seen := map[string]bool{}
	for _, o := range g.outputs {
		if _, ok := producer[o.name]; !ok {
			return nil, malformed("graph output %q is not defined by any node", o.name)
		}
		if seen[o.name] {
			return nil, malformed("graph output %q appears twice", o.name)
		}
		seen[o.name] = true
		need(o.name)
	}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, a := range g.nodes[i].inputs {
			if a != "" {
				need(a)
			}
		}
	}
	if err := l.sort(producer, live); err != nil {
		return nil, err
	}
	for _, v := range g.inputs {
		if !hasInit[v.name] {
			l.inputs = append(l.inputs, v)
			l.number(v.name)
		}
	}
	for _, t := range g.inits {
		if used[t.name] {
			l.number(t.name)
		}
	}
	for _, n := range l.nodes {
		for _, o := range n.outputs {
			if o != "" {
				l.number(o)
			}
		}
	}
	return l, nil
}

func (l *linked) number(name string) {
	l.id[name] = len(l.names)
	l.names = append(l.names, name)
}

// sort orders the live nodes so that producers come first, and otherwise as in
// the file: a depth-first walk over arguments with its own stack.
func (l *linked) sort(producer map[string]int, live []bool) error {
	nodes := l.graph.nodes
	const (
		fresh = iota
		open
		done
	)
	state := make([]uint8, len(nodes))
	next := make([]int, len(nodes)) // first argument not looked at
	var stack []int
	for i := range nodes {
		if !live[i] {
			l.dead++
			continue
		}
		if state[i] == fresh {
			stack = append(stack, i)
		}
		for len(stack) > 0 {
			k := stack[len(stack)-1]
			n := nodes[k]
			state[k] = open
			if next[k] == len(n.inputs) {
				state[k] = done
				l.nodes = append(l.nodes, n)
				stack = stack[:len(stack)-1]
				continue
			}
			a := n.inputs[next[k]]
			next[k]++
			if a == "" {
				continue
			}
			p := producer[a]
			if p < 0 || state[p] == done {
				continue
			}
			if state[p] == open {
				return malformed("node %q (%s) is part of a cycle", nodes[p].name, nodes[p].op)
			}
			l.sorted = true
			stack = append(stack, p)
		}
	}
	return nil
}

// resolve converts the tensors of the live part of the model.
func (l *linked) resolve(x *external) error {
	for _, t := range l.graph.inits {
		if _, ok := l.id[t.name]; !ok {
			// Unused, yet its declared size must be true.
			if !t.isExt && t.elem.known() {
				if _, err := x.canonical(t, t.name, "initialiser"); err != nil {
					return err
				}
			}
			continue
		}
		c, err := x.canonical(t, t.name, "initialiser")
		if err == nil {
			err = c.refuseNaN(t.name, "initialiser")
		}
		if err != nil {
			return err
		}
		l.inits[t.name] = c
	}
	for _, n := range l.nodes {
		for _, a := range n.attrs {
			if a.kind != attrTensor {
				continue
			}
			c, err := x.canonical(a.t, n.name, n.op)
			if err == nil {
				err = c.refuseNaN(n.name, n.op)
			}
			if err != nil {
				return err
			}
			l.attrs[a] = c
		}
	}
	return nil
}

// noValue is the canonical name of an omitted argument.
const noValue = "none"

// valueName is the canonical name of a tensor.
func valueName(id int) string { return "v" + strconv.Itoa(id) }

func (l *linked) argName(name string) string {
	if name == "" {
		return noValue
	}
	return valueName(l.id[name])
}

// outName is the canonical name of output k of node i, unused ones included.
func (l *linked) outName(i, k int) string {
	if o := l.nodes[i].outputs[k]; o != "" {
		return valueName(l.id[o])
	}
	return "unused" + strconv.Itoa(i) + "." + strconv.Itoa(k)
}

// argNames are the canonical names of the arguments of node i. A node without
// arguments reads noValue, because onnx-go would make one up.
func (l *linked) argNames(i int) []string {
	n := l.nodes[i]
	if len(n.inputs) == 0 {
		return []string{noValue}
	}
	names := make([]string, len(n.inputs))
	for k, a := range n.inputs {
		names[k] = l.argName(a)
	}
	return names
}

// encode writes the canonical model that onnx-go decodes: values are numbered,
// inputs carry no types and no initialisers stand among them, tensors are
// float32, float64 or int64 in raw form, attributes have their type. Empty
// tensors stay in the side-car, onnx-go has no form for them.
func (l *linked) encode() []byte {
	var g []byte
	for i, n := range l.nodes {
		var b []byte
		for _, a := range l.argNames(i) {
			b = appendString(b, 1, a)
		}
		for k := range n.outputs {
			b = appendString(b, 2, l.outName(i, k))
		}
		b = appendString(b, 3, "n"+strconv.Itoa(i))
		b = appendString(b, 4, n.op)
		for _, a := range n.attrs {
			b = appendMessage(b, 5, l.encodeAttr(a))
		}
		g = appendMessage(g, 1, b)
	}
	g = appendString(g, 2, "canonical")
	for id, name := range l.names {
		if t := l.inits[name]; t != nil && t.elems() > 0 {
			g = appendMessage(g, 5, encodeTensor(valueName(id), t))
		}
	}
	for _, v := range l.inputs {
		g = appendMessage(g, 11, appendString(nil, 1, l.argName(v.name)))
	}
	for _, v := range l.graph.outputs {
		g = appendMessage(g, 12, appendString(nil, 1, l.argName(v.name)))
	}
	m := protowire.AppendTag(nil, 1, protowire.VarintType)
	m = protowire.AppendVarint(m, uint64(max(l.irVersion, 0)))
	m = appendMessage(m, 7, g)
	op := protowire.AppendTag(nil, 2, protowire.VarintType)
	op = protowire.AppendVarint(op, uint64(max(l.opsets[""], 0)))
	return appendMessage(m, 8, op)
}

func (l *linked) encodeAttr(a *attrProto) []byte {
	b := appendString(nil, 1, a.name)
	switch a.kind {
	case attrFloat:
		b = protowire.AppendTag(b, 2, protowire.Fixed32Type)
		b = protowire.AppendFixed32(b, math.Float32bits(a.f))
	case attrInt:
		b = protowire.AppendTag(b, 3, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(a.i))
	case attrString:
		b = protowire.AppendTag(b, 4, protowire.BytesType)
		b = protowire.AppendBytes(b, a.s)
	case attrTensor:
		t := l.attrs[a]
		if t.elems() == 0 {
			t = &canonTensor{shape: []int{1}, elem: t.elem, raw: make([]byte, rawSize(t.elem))}
		}
		b = appendMessage(b, 5, encodeTensor("", t))
	case attrFloats:
		for _, f := range a.floats {
			b = protowire.AppendTag(b, 7, protowire.Fixed32Type)
			b = protowire.AppendFixed32(b, math.Float32bits(f))
		}
	case attrInts:
		for _, v := range a.ints {
			b = protowire.AppendTag(b, 8, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(v))
		}
	case attrStrings:
		for _, s := range a.strings {
			b = protowire.AppendTag(b, 9, protowire.BytesType)
			b = protowire.AppendBytes(b, s)
		}
	}
	b = protowire.AppendTag(b, 20, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(a.kind))
}

func encodeTensor(name string, t *canonTensor) []byte {
	b := make([]byte, 0, len(t.raw)+len(name)+16*len(t.shape)+32)
	for _, d := range t.shape {
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(d))
	}
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(t.elem))
	if name != "" {
		b = appendString(b, 8, name)
	}
	b = protowire.AppendTag(b, 9, protowire.BytesType)
	return protowire.AppendBytes(b, t.raw)
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendMessage(b []byte, num protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), m)
}
