package passes

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/home-fhe/home/ir"
)

// maxima turns every maximum of encrypted values into rounds of pairs,
// max(a,b) = (a+b)/2 + |a-b|/2, all pairs of a round in one tensor. A window is
// reduced axis by axis, as fewer elements take part that way. A rectifier before
// a maximum changes places with it, so that it has fewer elements to do, and where
// a round has an odd place left it takes part as the number zero.
func maxima(u *unit) error {
	if !slices.ContainsFunc(u.graph.Values, isMaximum) {
		return nil
	}
	m := &maxer{g: &ir.Graph{Name: u.graph.Name}, twin: map[*ir.Value]*ir.Value{}}
	uses := u.graph.Uses()
	for _, v := range u.graph.Values {
		var w *ir.Value
		if isMaximum(v) {
			w = m.maximum(v, uses)
		} else {
			c := *v
			c.Args = make([]*ir.Value, len(v.Args))
			for i, a := range v.Args {
				c.Args[i] = m.twin[a]
			}
			if w = m.append(&c); v.Op == ir.OpInput {
				m.g.Inputs = append(m.g.Inputs, w)
			}
		}
		if m.err != nil {
			return m.err
		}
		m.twin[v] = w
	}
	for _, o := range u.graph.Outputs {
		m.g.Outputs = append(m.g.Outputs, m.twin[o])
	}
	m.g.Prune()
	u.graph = m.g
	return nil
}

func isMaximum(v *ir.Value) bool {
	return v.Type.Encrypted && (v.Op == ir.OpMaxPool || v.Op == ir.OpReduceMax)
}

// maxer builds the graph without maxima. After an error it builds nothing more.
type maxer struct {
	g    *ir.Graph
	twin map[*ir.Value]*ir.Value // of values of the graph it comes from
	err  error
}

func (m *maxer) append(v *ir.Value) *ir.Value {
	if m.err != nil {
		return v
	}
	w, err := m.g.Append(v)
	if err != nil {
		m.err = err
		return v
	}
	return w
}

func (m *maxer) add(op ir.Op, name string, attrs ir.Attrs, args ...*ir.Value) *ir.Value {
	return m.append(&ir.Value{Op: op, Name: name, Attrs: attrs, Args: args})
}

// maximum writes one maximum.
func (m *maxer) maximum(v *ir.Value, uses map[*ir.Value]int) *ir.Value {
	x := v.Args[0]
	var act *ir.Value
	if x.Op == ir.OpAct && uses[x] == 1 && rectifier(x) {
		act, x = x, x.Args[0]
	}
	y := m.twin[x]
	zero := act != nil && act.Attrs.Str("fn", "") == "relu" // may take part
	per := 1                                                // how often an element may take part
	if v.Op == ir.OpMaxPool {
		per = slices.Max(v.Attrs.Ints("kernel"))
	}
	if n := x.Type.Elems(); n > mostElems || n > mostEntries/max(1, per) {
		m.err = &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: fmt.Errorf("%d elements that take part %d times each are more than the compiler takes for ciphertexts", n, per), Hint: "run it with --mode clear"}
		return y
	}
	if v.Op == ir.OpReduceMax {
		taps := reduceTaps(x.Type.Shape, v)
		joined := zero && rounds(len(taps)+1) == rounds(len(taps))
		y = m.tournament(v.Name, y, v.Type.Shape, taps, joined)
		zero = joined
	} else {
		shape := slices.Clone(x.Type.Shape)
		axes := len(shape) - 2
		joined := false
		for d := range axes {
			shape[2+d] = v.Type.Shape[2+d]
			taps := windowTaps(y.Type.Shape, shape, 2+d, v, axes)
			zero := zero && !joined && rounds(len(taps)+1) == rounds(len(taps))
			joined = joined || zero
			y = m.tournament(v.Name, y, shape, taps, zero)
		}
		zero = joined
	}
	if act != nil && !zero {
		y = m.add(ir.OpAct, act.Name, act.Attrs, y)
	}
	return y
}

// rectifier reports whether an activation never falls, so that it may change
// places with a maximum, and does not narrow the range of large values, which
// would make the maximum easier.
func rectifier(v *ir.Value) bool {
	switch v.Attrs.Str("fn", "") {
	case "relu":
		return true
	case "leakyrelu":
		return v.Attrs.Float("alpha", 0) >= 0
	}
	return false
}

// rounds returns how many rounds of pairs leave one of n.
func rounds(n int) int { return bits.Len(uint(n - 1)) }

// windowTaps lists, for every tap of a window along one axis, the element of a
// tensor of shape in that each element of the result, of shape out, reads through
// it. A tap that reads a pad reads another element of its window instead.
func windowTaps(in, out []int, axis int, v *ir.Value, axes int) [][]int {
	attr := func(name string, i, def int) int {
		if l := v.Attrs.Ints(name); l != nil {
			return l[i]
		}
		return def
	}
	d := axis - 2
	kernel, stride, dil, before := attr("kernel", d, 1), attr("strides", d, 1), attr("dilations", d, 1), attr("pads", d, 0)
	inner := ir.NumElems(in[axis+1:])
	taps := make([][]int, kernel)
	for t := range taps {
		taps[t] = make([]int, ir.NumElems(out))
		for e := range taps[t] {
			o := e / inner % out[axis]
			at := func(t int) int { return o*stride - before + t*dil }
			i := at(t)
			for k := 0; i < 0 || i >= in[axis]; k++ {
				i = at(k)
			}
			taps[t][e] = (e/(inner*out[axis])*in[axis]+i)*inner + e%inner
		}
	}
	return taps
}

// reduceTaps does so for a maximum over axes.
func reduceTaps(in []int, v *ir.Value) [][]int {
	over := make([]bool, len(in))
	axes, given := v.Attrs["axes"].([]int)
	for d := range over {
		over[d] = !given || slices.Contains(axes, d) || slices.Contains(axes, d-len(in))
	}
	n := 1
	for d, o := range over {
		if o {
			n *= in[d]
		}
	}
	taps := make([][]int, n)
	strides := ir.Strides(in)
	for e := range ir.NumElems(in) {
		t := 0
		for d, o := range over {
			if o {
				t = t*in[d] + e/strides[d]%in[d]
			}
		}
		taps[t] = append(taps[t], e)
	}
	return taps
}

// tournament returns the maximum of the elements of x that taps list, one list of
// the size of shape for each contestant, and of zero where that takes part.
func (m *maxer) tournament(name string, x *ir.Value, shape []int, taps [][]int, zero bool) *ir.Value {
	axis, outer := 0, 1
	if len(shape) > 1 {
		axis, outer = 1, shape[0]
	}
	block := ir.NumElems(shape) / max(1, outer)
	// join lists several contestants side by side along the axis.
	join := func(list [][]int) (index []int, s []int) {
		for b := range outer {
			for _, l := range list {
				index = append(index, l[b*block:(b+1)*block]...)
			}
		}
		s = slices.Clone(shape)
		if len(s) == 0 {
			s = []int{1}
		}
		s[axis] *= len(list)
		return index, s
	}
	flat := m.shaped(name, x, []int{x.Type.Elems()})
	if zero {
		taps = append(taps, slices.Repeat([]int{x.Type.Elems()}, outer*block))
		flat = m.add(ir.OpPad, name, ir.Attrs{"pads": []int{0, 1}}, flat)
	}
	pick := func(list [][]int) *ir.Value {
		index, s := join(list)
		a := ir.NewArray(s...)
		for i, k := range index {
			a.Data[i] = float64(k)
		}
		c := m.append(&ir.Value{Op: ir.OpConst, Name: name, Array: a, Attrs: ir.Attrs{"dtype": ir.Int.String()}})
		return m.add(ir.OpGather, name, ir.Attrs{"axis": 0}, flat, c)
	}
	half := m.append(&ir.Value{Op: ir.OpConst, Name: name, Array: ir.Scalar(0.5)})
	for {
		pairs := len(taps) / 2
		if pairs == 0 {
			return m.shaped(name, pick(taps), shape)
		}
		a, b := pick(taps[:pairs]), pick(taps[pairs:2*pairs])
		gap := m.add(ir.OpAct, name, ir.Attrs{"fn": "abs"}, m.add(ir.OpSub, name, nil, a, b))
		y := m.add(ir.OpMul, name, nil, m.add(ir.OpAdd, name, nil, m.add(ir.OpAdd, name, nil, a, b), gap), half)
		if len(taps)%2 == 1 {
			y = m.add(ir.OpConcat, name, ir.Attrs{"axis": axis}, y, pick(taps[2*pairs:]))
		}
		if m.err != nil {
			return x
		}
		// What is left stands side by side in y.
		left := (len(taps) + 1) / 2
		if left == 1 {
			return m.shaped(name, y, shape)
		}
		taps = make([][]int, left)
		for i := range taps {
			for b := range outer {
				for k := range block {
					taps[i] = append(taps[i], (b*left+i)*block+k)
				}
			}
		}
		flat = m.shaped(name, y, []int{y.Type.Elems()})
	}
}

// shaped returns x under another shape.
func (m *maxer) shaped(name string, x *ir.Value, shape []int) *ir.Value {
	if slices.Equal(x.Type.Shape, shape) {
		return x
	}
	return m.add(ir.OpReshape, name, ir.Attrs{"shape": shape}, x)
}
