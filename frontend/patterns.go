package frontend

import (
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
)

// recognise replaces decomposed activations by the activation they spell out:
//
//	x*sigmoid(a*x)                       silu, swish
//	x*(1+erf(x/sqrt2))/2                 gelu
//	x*(1+tanh(sqrt(2/pi)(x+.044715x^3)))/2  gelu_tanh
//	x*clip(x/6+1/2, 0, 1), x*hardsigmoid hardswish
//	x*tanh(softplus(x))                  mish
//	relu, then a bound                   clip
//
// Exporters write these with their factors in any order and with the constants
// in any place, so products are flattened into a constant and a list of
// factors, and factors are read as polynomials or affine maps. What matches
// only approximately is left alone. Values that are no longer used remain until
// Graph.Prune.
func recognise(g *ir.Graph) error {
	for i := 0; i < len(g.Values); i++ {
		v := g.Values[i]
		var fn string
		var x *ir.Value
		params := ir.Attrs{}
		switch v.Op {
		case ir.OpMul, ir.OpDiv:
			fn, x, params = matchProduct(v)
		case ir.OpAct:
			fn, x, params = matchClip(v)
		}
		if fn == "" {
			continue
		}
		attrs := ir.Attrs{"fn": fn}
		for _, k := range params.Names() {
			attrs[k] = params[k]
		}
		v.Op, v.Attrs, v.Args = ir.OpAct, attrs, []*ir.Value{x}
		t, err := v.Op.Info().Infer(v)
		if err != nil {
			return &ir.NodeError{Node: v.Name, Op: fn, Err: err}
		}
		if !slices.Equal(t.Shape, v.Type.Shape) {
			panic("BUG: a recognised activation changes the shape of " + v.Name)
		}
	}
	return nil
}

// tolerance is the relative error that a constant of a pattern may have:
// exporters round them to float32, some write 1.414 digits of their own.
const tolerance = 1e-6

func near(a, b float64) bool { return math.Abs(a-b) <= tolerance*math.Abs(b) }

// scalarOf returns the value of a constant whose elements, few of them, are all
// equal.
func scalarOf(v *ir.Value) (float64, bool) {
	if v.Op != ir.OpConst || len(v.Array.Data) == 0 || len(v.Array.Data) > 4096 {
		return 0, false
	}
	for _, f := range v.Array.Data {
		if f != v.Array.Data[0] {
			return 0, false
		}
	}
	return v.Array.Data[0], true
}

// maxFactors bounds the factors and maxDepth the nesting of the products that
// are looked at.
const (
	maxFactors = 4
	maxDepth   = 8
)

// factors flattens a product into a constant and its other factors; false where
// there are too many of them.
func factors(v *ir.Value, k float64, list []*ir.Value, depth int) (float64, []*ir.Value, bool) {
	switch {
	case len(list) >= maxFactors || depth == 0:
		return 0, nil, false
	case v.Op == ir.OpMul:
		if c, ok := scalarOf(v.Args[0]); ok {
			return factors(v.Args[1], k*c, list, depth-1)
		}
		if c, ok := scalarOf(v.Args[1]); ok {
			return factors(v.Args[0], k*c, list, depth-1)
		}
		k, list, ok := factors(v.Args[0], k, list, depth-1)
		if !ok {
			return 0, nil, false
		}
		return factors(v.Args[1], k, list, depth-1)
	case v.Op == ir.OpDiv:
		if c, ok := scalarOf(v.Args[1]); ok && c != 0 {
			return factors(v.Args[0], k/c, list, depth-1)
		}
	}
	return k, append(list, v), true
}

// matchProduct recognises x times a gate.
func matchProduct(v *ir.Value) (fn string, x *ir.Value, params ir.Attrs) {
	k, list, ok := factors(v, 1, nil, maxDepth)
	if !ok || len(list) != 2 {
		return "", nil, nil
	}
	for i := range list {
		x, gate := list[i], list[1-i]
		if x == gate || !slices.Equal(x.Type.Shape, v.Type.Shape) {
			continue
		}
		if fn, params := matchGate(k, x, gate); fn != "" {
			return fn, x, params
		}
	}
	return "", nil, nil
}

// matchGate recognises k*x*gate, where gate is an activation of x under an
// affine map.
func matchGate(k float64, x, gate *ir.Value) (string, ir.Attrs) {
	act, a, b, ok := affineOf(gate)
	if !ok || act.Op != ir.OpAct {
		return "", nil
	}
	a, b = a*k, b*k // the factor of x is a*act + b
	inner := act.Args[0]
	switch act.Attrs.Str("fn", "") {
	case "sigmoid":
		if p, ok := polyOf(inner, x); ok && near(a, 1) && b == 0 && p[0] == 0 && p[2] == 0 && p[3] == 0 {
			if near(p[1], 1) {
				return "silu", nil
			}
			return "swish", ir.Attrs{"alpha": p[1]}
		}
	case "erf":
		if p, ok := polyOf(inner, x); ok && near(a, 0.5) && near(b, 0.5) && p[0] == 0 && near(p[1], 1/math.Sqrt2) && p[2] == 0 && p[3] == 0 {
			return "gelu", nil
		}
	case "tanh":
		c := math.Sqrt(2 / math.Pi)
		if p, ok := polyOf(inner, x); ok && near(a, 0.5) && near(b, 0.5) && p[0] == 0 && near(p[1], c) && p[2] == 0 && near(p[3], c*0.044715) {
			return "gelu_tanh", nil
		}
		if inner.Op == ir.OpAct && inner.Attrs.Str("fn", "") == "softplus" && inner.Args[0] == x && near(a, 1) && b == 0 {
			return "mish", nil
		}
	case "hardsigmoid":
		p, ok := polyOf(inner, x)
		alpha, beta := act.Attrs.Float("alpha", 0), act.Attrs.Float("beta", 0)
		if ok && near(a, 1) && b == 0 && p[2] == 0 && p[3] == 0 && near(alpha*p[1], 1./6) && near(alpha*p[0]+beta, 0.5) {
			return "hardswish", nil
		}
	case "clip":
		p, ok := polyOf(inner, x)
		if ok && p[2] == 0 && p[3] == 0 && a > 0 && b == 0 && act.Attrs.Float("min", 1) == 0 &&
			near(a*act.Attrs.Float("max", 0), 1) && near(a*p[1], 1./6) && near(a*p[0], 0.5) {
			return "hardswish", nil
		}
	}
	return "", nil
}

// affineOf reads v as a*y + b with constants a and b, taking off as many steps
// as there are.
func affineOf(v *ir.Value) (y *ir.Value, a, b float64, ok bool) {
	y, a, b = v, 1, 0
	for range 8 {
		if len(y.Args) != 2 {
			return y, a, b, true
		}
		l, lc := scalarOf(y.Args[0])
		r, rc := scalarOf(y.Args[1])
		other := y.Args[0]
		if lc {
			other = y.Args[1]
		}
		if lc == rc || !slices.Equal(y.Type.Shape, other.Type.Shape) {
			return y, a, b, true
		}
		switch {
		case y.Op == ir.OpAdd && lc:
			y, b = y.Args[1], b+a*l
		case y.Op == ir.OpAdd:
			y, b = y.Args[0], b+a*r
		case y.Op == ir.OpSub && lc:
			y, a, b = y.Args[1], -a, b+a*l
		case y.Op == ir.OpSub:
			y, b = y.Args[0], b-a*r
		case y.Op == ir.OpMul && lc:
			y, a = y.Args[1], a*l
		case y.Op == ir.OpMul:
			y, a = y.Args[0], a*r
		case y.Op == ir.OpDiv && rc && r != 0:
			y, a = y.Args[0], a/r
		default:
			return y, a, b, true
		}
	}
	return nil, 0, 0, false
}

// cubic holds the coefficients of a polynomial of degree 3 at most.
type cubic [4]float64

// polyOf reads v as a polynomial in x.
func polyOf(v, x *ir.Value) (cubic, bool) { return polyAt(v, x, 12) }

func polyAt(v, x *ir.Value, depth int) (cubic, bool) {
	if v == x {
		return cubic{0, 1}, true
	}
	if c, ok := scalarOf(v); ok {
		return cubic{c}, true
	}
	if depth == 0 || !slices.Equal(v.Type.Shape, x.Type.Shape) {
		return cubic{}, false
	}
	if v.Op == ir.OpPow {
		p, ok := polyAt(v.Args[0], x, depth-1)
		if !ok {
			return p, false
		}
		switch v.Attrs.Float("k", 0) {
		case 2:
			return p.times(p)
		case 3:
			if q, ok := p.times(p); ok {
				return q.times(p)
			}
		}
		return p, false
	}
	if len(v.Args) != 2 {
		return cubic{}, false
	}
	p, ok := polyAt(v.Args[0], x, depth-1)
	if !ok {
		return p, false
	}
	q, ok := polyAt(v.Args[1], x, depth-1)
	if !ok {
		return q, false
	}
	switch v.Op {
	case ir.OpAdd:
		return p.plus(q, 1), true
	case ir.OpSub:
		return p.plus(q, -1), true
	case ir.OpMul:
		return p.times(q)
	case ir.OpDiv:
		if q[0] != 0 && q[1] == 0 && q[2] == 0 && q[3] == 0 {
			return p.times(cubic{1 / q[0]})
		}
	}
	return cubic{}, false
}

func (p cubic) plus(q cubic, sign float64) cubic {
	for i := range p {
		p[i] += sign * q[i]
	}
	return p
}

// times multiplies; false where the degree exceeds 3.
func (p cubic) times(q cubic) (cubic, bool) {
	var r cubic
	for i, a := range p {
		for j, b := range q {
			if a == 0 || b == 0 {
				continue
			}
			if i+j >= len(r) {
				return cubic{}, false
			}
			r[i+j] += a * b
		}
	}
	return r, true
}

// matchClip joins a bound with the rectifier or the bound before it.
func matchClip(v *ir.Value) (fn string, x *ir.Value, params ir.Attrs) {
	lo, hi, ok := boundsOf(v)
	if !ok {
		return "", nil, nil
	}
	in := v.Args[0]
	if in.Op != ir.OpAct {
		return "", nil, nil
	}
	l, h, ok := boundsOf(in)
	if !ok || l > h || lo > hi {
		return "", nil, nil
	}
	// min(max(min(max(x,l),h),lo),hi) has the bounds of the inner pair, clipped
	// by the outer.
	outer := func(f float64) float64 { return math.Min(math.Max(f, lo), hi) }
	l, h = outer(l), outer(h)
	if l == 0 && math.IsInf(h, 1) {
		return "relu", in.Args[0], nil
	}
	return "clip", in.Args[0], ir.Attrs{"min": l, "max": h}
}

func boundsOf(v *ir.Value) (lo, hi float64, ok bool) {
	switch v.Attrs.Str("fn", "") {
	case "relu":
		return 0, math.Inf(1), true
	case "clip":
		return v.Attrs.Float("min", 0), v.Attrs.Float("max", 0), true
	}
	return 0, 0, false
}
