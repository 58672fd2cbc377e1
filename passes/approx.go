package passes

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
)

// Range is the interval a value was seen in, or provably lies in.
type Range struct{ Lo, Hi float64 }

func (r Range) join(s Range) Range { return Range{min(r.Lo, s.Lo), max(r.Hi, s.Hi)} }

func (r Range) widen(margin float64) Range {
	c, h := (r.Lo+r.Hi)/2, (r.Hi-r.Lo)/2*(1+margin)
	return Range{c - h, c + h}
}

// ErrAccuracy marks an accuracy budget that no available polynomial meets.
var ErrAccuracy = errors.New("accuracy budget cannot be met")

// Levels a direct polynomial may take: degrees 3 to 255.
const (
	minPolyLevels = 2
	maxPolyLevels = 8
)

// activations chooses, for every activation on encrypted values, a range and a
// polynomial, within the accuracy budget. It writes Value.Approx and u.ranges.
func activations(u *unit) error {
	acts := encryptedActs(u.graph)
	if err := errors.Join(u.leastDepth(), checkSizes(u.graph)); err != nil {
		return err
	}
	if len(u.opt.Calibrate) == 0 {
		return u.intervalActs(acts)
	}
	c, err := newCalibration(u.graph, u.opt.Calibrate)
	if err != nil {
		return err
	}
	u.ranges = map[*ir.Value]Range{}
	for v, r := range c.ranges {
		u.ranges[v] = r.widen(u.opt.margin()).join(c.tail[v])
	}
	u.inputRanges = c.inputs
	if len(acts) == 0 {
		return nil
	}
	u.multiplied = multiplied(u.graph)
	if u.levelCost == nil {
		if u.levelCost, err = u.levelPrice(len(acts)); err != nil {
			return err
		}
	}
	return u.searchDegrees(c, acts)
}

// leastDepth refuses networks that no choice of polynomials brings within a
// chain that the user gave, before any time is spent on that choice: every activation takes
// at least minPolyLevels and a linear layer before it.
func (u *unit) leastDepth() error {
	p := u.opt.Params
	if p == nil || p.Ring == ir.RingStandard { // bootstrapping goes to any depth
		return nil
	}
	most := p.MaxLevel()
	depth, acts := map[*ir.Value]int{}, map[*ir.Value]int{}
	need, count := 0, 0
	for _, v := range u.graph.Values {
		d, n := 0, 0
		for _, a := range v.Args {
			d, n = max(d, depth[a]), max(n, acts[a])
		}
		if v.Type.Encrypted {
			switch v.Op {
			case ir.OpAct:
				d, n = d+1+minPolyLevels, n+1
			case ir.OpMul:
				if v.Args[0].Type.Encrypted && v.Args[1].Type.Encrypted {
					d++
				}
			}
		}
		depth[v], acts[v] = d, n
		need, count = max(need, d), max(count, n)
	}
	if need > most {
		return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: fmt.Errorf("%w: %d activations in a row need at least %d levels, %q has %d", ErrTooDeep, count, need, p.Name, most), Hint: "run it with --mode clear"}
	}
	return nil
}

// mostEntries bounds the matrix of one op, to 2 GiB while it is read, and
// mostElems a tensor on ciphertexts.
const (
	mostEntries = 1 << 27
	mostElems   = 1 << 24
)

// checkSizes refuses ops whose matrices would not fit in memory, before any time
// is spent on them.
func checkSizes(g *ir.Graph) error {
	for _, v := range g.Values {
		if !v.Type.Encrypted {
			continue
		}
		per := 1 // products that one element sums up
		switch v.Op {
		case ir.OpConv:
			per = ir.NumElems(v.Args[1].Type.Shape[1:])
		case ir.OpMatMul:
			s := v.Args[1].Type.Shape
			per = s[max(0, len(s)-2)]
		case ir.OpAvgPool:
			per = ir.NumElems(v.Attrs.Ints("kernel"))
		}
		if n := v.Type.Elems(); n > mostElems || n > mostEntries/max(1, per) {
			return &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: fmt.Errorf("%d elements of %d products each are more than the compiler takes for ciphertexts", n, per), Hint: "run it with --mode clear"}
		}
	}
	return nil
}

func encryptedActs(g *ir.Graph) []*ir.Value {
	var acts []*ir.Value
	for _, v := range g.Values {
		if v.Op == ir.OpAct && v.Type.Encrypted {
			acts = append(acts, v)
		}
	}
	return acts
}

// intervalActs bounds every value by interval arithmetic and approximates on
// those bounds. They hold for every input in range but are far wider than what
// occurs.
func (u *unit) intervalActs(acts []*ir.Value) error {
	lo, hi := u.opt.InputLo, u.opt.InputHi
	if lo == 0 && hi == 0 {
		lo, hi = -1, 1
		if p := u.opt.Preprocess; p != nil {
			lo, hi = preprocessRange(p)
		} else {
			u.warn("no calibration data and no preprocessing: inputs are taken to lie in [-1, 1], and the client refuses others")
		}
	}
	var worst []string
	ranges, err := intervals(u.graph, Range{lo, hi}, func(v *ir.Value, f func(float64) float64, r, image Range) error {
		shape, err := v.ActShape()
		if err != nil {
			return err
		}
		goal := 0.01 * max(1, image.Hi-image.Lo)
		for k := minPolyLevels; k <= maxPolyLevels; k++ {
			if v.Approx, err = fitPolynomial(f, shape, r.Lo, r.Hi, nil, rung{k, false}); err != nil {
				return &ir.NodeError{Node: v.Name, Op: v.Attrs.Str("fn", ""), Err: err, Hint: "give calibration data"}
			}
			if v.Approx.Err <= goal {
				break
			}
		}
		worst = append(worst, fmt.Sprintf("%s: |x| <= %.3g, error up to %.2g", v.Name, max(math.Abs(r.Lo), math.Abs(r.Hi)), v.Approx.Err))
		return nil
	})
	if err != nil {
		return err
	}
	u.ranges = ranges
	u.inputRanges = []Range{{lo, hi}}
	if len(acts) > 0 {
		const few = 4
		if n := len(worst); n > few {
			worst = append(worst[n-few:n:n], fmt.Sprintf("and %d before them", n-few))
		}
		u.warn("no calibration data: activations are approximated on interval bounds, which are wide, and accuracy is not checked (%s); give --calibrate", strings.Join(worst, "; "))
		return u.plausible(Range{lo, hi})
	}
	return nil
}

// plausible refuses approximations on interval bounds that drown the outputs:
// bounds grow from layer to layer as values do not.
func (u *unit) plausible(in Range) error {
	const samples = 4
	r := rand.New(rand.NewPCG(1, 2))
	worst, largest := 0.0, 0.0
	for range samples {
		x := ir.NewArray(u.graph.Inputs[0].Type.Shape...)
		for i := range x.Data {
			x.Data[i] = in.Lo + (in.Hi-in.Lo)*r.Float64()
		}
		want, _, err := clear.EvalTensor(u.graph, []*ir.Array{x}, clear.Options{})
		if err != nil {
			return err
		}
		got, _, err := clear.EvalTensor(u.graph, []*ir.Array{x}, clear.Options{Approx: true})
		if err != nil {
			return err
		}
		for k, w := range flatten(want) {
			largest = max(largest, math.Abs(w))
			if d := math.Abs(flatten(got)[k] - w); !(d <= worst) {
				worst = d
			}
		}
	}
	if worst <= 0.5*largest || worst < 1e-3 {
		return nil
	}
	return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: fmt.Errorf("%w without calibration data: on interval bounds the outputs, up to %.2g, err by %.2g", ErrAccuracy, largest, worst), Hint: "give --calibrate"}
}

// intervals bounds every encrypted value, given the range of the inputs. It calls
// fit, where one is given, for every activation f that it comes to, with the
// bounds of the argument and of the result; bounds of what follows then take in
// the error of the polynomial that fit has chosen.
func intervals(g *ir.Graph, in Range, fit func(v *ir.Value, f func(float64) float64, arg, image Range) error) (map[*ir.Value]Range, error) {
	lo, hi := map[*ir.Value][]float64{}, map[*ir.Value][]float64{}
	out := map[*ir.Value]Range{}
	fill := func(n int, x float64) []float64 {
		s := make([]float64, n)
		for i := range s {
			s[i] = x
		}
		return s
	}
	for _, v := range g.Values {
		if !v.Type.Encrypted {
			continue
		}
		n := v.Type.Elems()
		switch {
		case v.Op == ir.OpInput:
			lo[v], hi[v] = fill(n, in.Lo), fill(n, in.Hi)
		case v.Op == ir.OpAct:
			f, err := v.Activation()
			if err != nil {
				return nil, err
			}
			l, h := slices.Clone(lo[v.Args[0]]), slices.Clone(hi[v.Args[0]])
			r := joinAll(l, h)
			image := imageOf(f, r)
			if fit != nil {
				if err := fit(v, f, r, image); err != nil {
					return nil, err
				}
				image = Range{image.Lo - v.Approx.Err, image.Hi + v.Approx.Err}
			}
			lo[v], hi[v] = fill(n, image.Lo), fill(n, image.Hi)
		case v.Op == ir.OpPow || v.Op == ir.OpMul && v.Args[0].Type.Encrypted && v.Args[1].Type.Encrypted:
			x, y := v.Args[0], v.Args[0]
			if v.Op == ir.OpMul {
				y = v.Args[1]
			}
			a, b := joinAll(lo[x], hi[x]), joinAll(lo[y], hi[y])
			m := max(math.Abs(a.Lo), math.Abs(a.Hi)) * max(math.Abs(b.Lo), math.Abs(b.Hi))
			if x == y {
				lo[v], hi[v] = fill(n, 0), fill(n, m)
			} else {
				lo[v], hi[v] = fill(n, -m), fill(n, m)
			}
		case v.Op.Info().Linear != nil && linearHere(v):
			l, h := make([]float64, n), make([]float64, n)
			err := v.Op.Info().Linear(v, func(o, arg, i int, c float64) {
				a, b := lo[v.Args[arg]][i], hi[v.Args[arg]][i]
				if c < 0 {
					a, b = b, a
				}
				l[o] += c * a
				h[o] += c * b
			}, func(o int, c float64) { l[o] += c; h[o] += c })
			if err != nil {
				return nil, &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: err}
			}
			lo[v], hi[v] = l, h
		default: // refused later by packing; any bound will do until then
			lo[v], hi[v] = fill(n, -1), fill(n, 1)
		}
		r := joinAll(lo[v], hi[v])
		if math.IsInf(r.Lo, 0) || math.IsInf(r.Hi, 0) || math.IsNaN(r.Lo) || math.IsNaN(r.Hi) {
			return nil, &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: errors.New("its interval bound is not finite"), Hint: "give --calibrate"}
		}
		out[v] = r
	}
	return out, nil
}

// imageOf returns the values a function takes on a range: the extremes of a
// grid, refined by ternary search between the neighbours of the extreme points.
func imageOf(f func(float64) float64, r Range) Range {
	const n = 2048
	x := func(i int) float64 { return r.Lo + (r.Hi-r.Lo)*float64(min(max(i, 0), n))/n }
	extreme := func(sign float64) float64 {
		best := 0
		for i := range n + 1 {
			if sign*f(x(i)) > sign*f(x(best)) {
				best = i
			}
		}
		y := f(x(best))
		for a, b, k := x(best-1), x(best+1), 0; k < 80; k++ {
			p, q := a+(b-a)/3, b-(b-a)/3
			if sign*f(p) > sign*f(q) {
				b = q
			} else {
				a = p
			}
			y = sign * max(sign*y, sign*f(p), sign*f(q))
		}
		return y
	}
	return Range{extreme(-1), extreme(1)}
}

// linearHere reports whether this use of a linear op has one encrypted side.
func linearHere(v *ir.Value) bool {
	switch v.Op {
	case ir.OpConv, ir.OpMatMul, ir.OpDiv, ir.OpMul:
		enc := 0
		for _, a := range v.Args {
			if a.Type.Encrypted {
				enc++
			}
		}
		return enc == 1 && !(v.Op == ir.OpDiv && v.Args[1].Type.Encrypted)
	}
	return true
}

func joinAll(lo, hi []float64) Range {
	if len(lo) == 0 {
		return Range{}
	}
	r := Range{lo[0], hi[0]}
	for i := range lo {
		r = r.join(Range{lo[i], hi[i]})
	}
	return r
}
