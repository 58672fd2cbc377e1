package passes

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/home-fhe/home/backend"
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
	return u.searchDegrees(c, acts)
}

// leastDepth refuses networks that no choice of polynomials brings within the
// longest chain, before any time is spent on that choice: every activation takes
// at least minPolyLevels and a linear layer before it.
func (u *unit) leastDepth() error {
	most := 0
	if p := u.opt.Params; p != nil {
		most = p.MaxLevel()
	} else {
		all, err := Catalogue()
		if err != nil {
			return err
		}
		for _, p := range all {
			most = max(most, p.MaxLevel())
		}
	}
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
		return &ir.NodeError{Node: u.graph.Name, Op: "network", Err: fmt.Errorf("%w: %d activations in a row need at least %d levels, the longest chain has %d", ErrTooDeep, count, need, most), Hint: "run it with --mode clear"}
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

// calibration holds what the exact network did on the calibration samples.
type calibration struct {
	graph   *ir.Graph
	samples []*ir.Array
	ranges  map[*ir.Value]Range
	tail    map[*ir.Value]Range     // where the extremes of rare samples may lie
	values  map[*ir.Value][]float64 // a sample of each activation's arguments
	inputs  []Range                 // per input element
	outputs [][]float64             // exact outputs per sample
}

// perSample is how many argument values of an activation one sample contributes
// to the fit.
const perSample = 48

func newCalibration(g *ir.Graph, samples []*ir.Array) (*calibration, error) {
	if len(g.Inputs) != 1 {
		return nil, fmt.Errorf("calibration needs a network with one input; this one has %d", len(g.Inputs))
	}
	shape := g.Inputs[0].Type.Shape
	constant := true
	for i, s := range samples {
		if !slices.Equal(s.Shape, shape) {
			return nil, fmt.Errorf("calibration sample %d has shape %v; the network's input %q has shape %v", i, s.Shape, g.Inputs[0].Name, shape)
		}
		for _, x := range s.Data {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return nil, fmt.Errorf("calibration sample %d holds %v", i, x)
			}
			constant = constant && x == samples[0].Data[0]
		}
	}
	if constant {
		return nil, fmt.Errorf("all %d calibration samples hold the same constant: give real inputs", len(samples))
	}
	c := &calibration{graph: g, samples: samples, outputs: make([][]float64, len(samples))}
	type seen struct {
		ranges map[*ir.Value]Range
		values map[*ir.Value][]float64
	}
	all := make([]seen, len(samples))
	acts := map[*ir.Value]bool{}
	for _, a := range encryptedActs(g) {
		acts[a.Args[0]] = true
	}
	err := eachParallel(len(samples), func(i int) error {
		s := seen{map[*ir.Value]Range{}, map[*ir.Value][]float64{}}
		out, _, err := clear.EvalTensor(g, []*ir.Array{samples[i]}, clear.Options{Observe: func(v *ir.Value, a *ir.Array) {
			if !v.Type.Encrypted || len(a.Data) == 0 {
				return
			}
			r := Range{a.Data[0], a.Data[0]}
			for _, x := range a.Data {
				if x < r.Lo {
					r.Lo = x
				} else if x > r.Hi {
					r.Hi = x
				}
			}
			s.ranges[v] = r
			if acts[v] {
				step := len(a.Data)/perSample + 1
				for k := (i * 7) % step; k < len(a.Data); k += step {
					s.values[v] = append(s.values[v], a.Data[k])
				}
			}
		}})
		if err != nil {
			return err
		}
		all[i], c.outputs[i] = s, flatten(out)
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.ranges, c.values = map[*ir.Value]Range{}, map[*ir.Value][]float64{}
	for i, s := range all {
		for v, r := range s.ranges {
			if i > 0 {
				r = r.join(c.ranges[v])
			}
			if math.IsNaN(r.Lo) || math.IsNaN(r.Hi) || math.IsInf(r.Lo, 0) || math.IsInf(r.Hi, 0) {
				return nil, &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: fmt.Errorf("calibration sample %d makes it %v", i, r)}
			}
			c.ranges[v] = r
		}
		for v, xs := range s.values {
			c.values[v] = append(c.values[v], xs...)
		}
	}
	c.tail = make(map[*ir.Value]Range, len(c.ranges))
	lows, highs := make([]float64, len(samples)), make([]float64, len(samples))
	for v, r := range c.ranges {
		for i, s := range all {
			lows[i], highs[i] = s.ranges[v].Lo, s.ranges[v].Hi
		}
		c.tail[v] = r.join(Range{r.Lo - tailSpread(lows, -1), r.Hi + tailSpread(highs, 1)})
	}
	c.inputs = make([]Range, len(samples[0].Data))
	for e := range c.inputs {
		c.inputs[e] = Range{samples[0].Data[e], samples[0].Data[e]}
		for _, s := range samples[1:] {
			c.inputs[e] = c.inputs[e].join(Range{s.Data[e], s.Data[e]})
		}
	}
	return c, nil
}

// tailSpread extrapolates the extremes of samples: the distance from the 90 %
// quantile to the largest of them (sign 1; -1 for the smallest). Where extremes
// fall off like an exponential or faster, a sample ten to a hundred times rarer
// than any seen lies about that much further out.
func tailSpread(extremes []float64, sign float64) float64 {
	s := slices.Clone(extremes)
	for i := range s {
		s[i] *= sign
	}
	slices.Sort(s)
	return s[len(s)-1] - s[(len(s)-1)*9/10]
}

func flatten(arrays []*ir.Array) []float64 {
	if len(arrays) == 1 {
		return arrays[0].Data
	}
	var out []float64
	for _, a := range arrays {
		out = append(out, a.Data...)
	}
	return out
}

// eachParallel runs f for 0..n-1 on all cores and returns the errors in order.
func eachParallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				errs[i] = backend.Guard(func() error { return f(i) })
			}
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

// quality is how an approximated network compares with the exact one on the
// check half of the calibration samples.
type quality struct {
	disagree float64 // share of samples whose top-1 class changes
	expected float64 // the same over all pairs of one sample's error and another's margin
	logit95  float64 // 95 % quantile of the largest output error of a sample
	margin   float64 // median distance between the two largest exact outputs
	largest  float64 // largest exact output
}

// ok applies the accuracy budget: few classes change, and output errors stay
// well below the distances that decide a class.
func (q quality) ok(drop float64) bool {
	if q.margin > 0 {
		return q.disagree <= drop && q.expected <= drop && q.logit95 <= 0.25*q.margin
	}
	return q.logit95 <= drop*max(q.largest, 1e-9)
}

// hopeless reports a quality so far from the budget that a few samples show it.
func (q quality) hopeless(drop float64) bool {
	if q.margin > 0 {
		return q.disagree > 10*drop || q.expected > 10*drop || q.logit95 > q.margin
	}
	return q.logit95 > 4*drop*max(q.largest, 1e-9)
}

func (q quality) String() string {
	if q.margin > 0 {
		return fmt.Sprintf("%.2f %% of classes change (%.2f %% expected), output error %.2g against a typical margin of %.2g", 100*q.disagree, 100*q.expected, q.logit95, q.margin)
	}
	return fmt.Sprintf("output error %.2g of %.2g", q.logit95, q.largest)
}

// checkSamples is how many samples the check half has at most.
const checkSamples = 200

// held lists the samples of the check half: every second one, up to
// checkSamples; the fit used the others.
func (c *calibration) held() []int {
	if len(c.samples) == 1 {
		return []int{0}
	}
	half := len(c.samples) / 2
	n := min(half, checkSamples)
	out := make([]int, n)
	for i := range out {
		out[i] = 2*(i*half/n) + 1
	}
	return out
}

// check measures the graph's current polynomials on the check half. What misses
// the budget by far on a fifth of it is not measured further.
func (c *calibration) check(drop float64) (quality, error) {
	held := c.held()
	if few := len(held) / 5; few >= 20 {
		var first []int
		for i := range few {
			first = append(first, held[5*i])
		}
		if q, err := c.measure(first); err != nil || q.hopeless(drop) {
			return q, err
		}
	}
	return c.measure(held)
}

// measure compares the approximated network with the exact one on some samples.
func (c *calibration) measure(held []int) (quality, error) {
	n := len(held)
	errs, lost, margins := make([]float64, n), make([]float64, n), make([]float64, n)
	changed := make([]bool, n)
	err := eachParallel(n, func(i int) error {
		out, _, err := clear.EvalTensor(c.graph, []*ir.Array{c.samples[held[i]]}, clear.Options{Approx: true})
		if err != nil {
			return err
		}
		got, want := flatten(out), c.outputs[held[i]]
		top := argmax(want)
		margins[i] = topMargin(want)
		for k := range got {
			d := got[k] - want[k]
			if math.IsNaN(d) {
				d = math.Inf(1)
			}
			errs[i] = max(errs[i], math.Abs(d))
			lost[i] = max(lost[i], d-(got[top]-want[top]))
		}
		changed[i] = argmax(got) != top
		return nil
	})
	if err != nil {
		return quality{}, err
	}
	var q quality
	for i, h := range held {
		for _, x := range c.outputs[h] {
			q.largest = max(q.largest, math.Abs(x))
		}
		if changed[i] {
			q.disagree++
		}
	}
	q.disagree /= float64(n)
	slices.Sort(errs)
	slices.Sort(margins)
	for _, l := range lost {
		below, _ := slices.BinarySearch(margins, l)
		q.expected += float64(below)
	}
	q.expected /= float64(n) * float64(n)
	q.logit95 = errs[(n-1)*95/100]
	q.margin = margins[n/2]
	return q, nil
}

func argmax(x []float64) int {
	b := 0
	for i := range x {
		if x[i] > x[b] {
			b = i
		}
	}
	return b
}

// topMargin is the distance between the two largest entries, 0 for fewer.
func topMargin(x []float64) float64 {
	if len(x) < 2 {
		return 0
	}
	a, b := math.Inf(-1), math.Inf(-1)
	for _, v := range x {
		if v > a {
			a, b = v, a
		} else if v > b {
			b = v
		}
	}
	return a - b
}

// searchDegrees finds, for every activation, the number of levels that meets
// the budget: first the smallest that does for all alike, then one by one lower
// while it still does, last activations first.
func (u *unit) searchDegrees(c *calibration, acts []*ir.Value) error {
	fits := make([]map[int]*ir.Approx, len(acts))
	for i := range fits {
		fits[i] = map[int]*ir.Approx{}
	}
	set := func(i, levels int) error {
		v := acts[i]
		p := fits[i][levels]
		if p == nil {
			f, err := v.Activation()
			if err != nil {
				return err
			}
			shape, err := v.ActShape()
			if err != nil {
				return err
			}
			r := u.ranges[v.Args[0]]
			if p, err = fitPolynomial(f, shape, r.Lo, r.Hi, quantiles(c.values[v.Args[0]], 1500), levels); err != nil {
				return &ir.NodeError{Node: v.Name, Op: v.Attrs.Str("fn", ""), Err: err, Hint: "give calibration data on which the function is defined"}
			}
			fits[i][levels] = p
		}
		v.Approx = p
		return nil
	}
	levels := make([]int, len(acts))
	var q quality
	found := false
	for k := minPolyLevels; k <= maxPolyLevels && !found; k++ {
		for i := range acts {
			levels[i] = k
			if err := set(i, k); err != nil {
				return err
			}
		}
		var err error
		if q, err = c.check(u.opt.drop()); err != nil {
			return err
		}
		found = q.ok(u.opt.drop())
	}
	if !found {
		return fmt.Errorf("%w: with polynomials of degree %d (%d levels each), %v; the budget is %.3g %%: raise --accuracy-drop or give more calibration data",
			ErrAccuracy, 1<<maxPolyLevels-1, maxPolyLevels, q, 100*u.opt.drop())
	}
	if !u.skip("activation-trim") {
		for i := len(acts) - 1; i >= 0; i-- {
			for levels[i] > minPolyLevels {
				if err := set(i, levels[i]-1); err != nil {
					return err
				}
				t, err := c.check(u.opt.drop())
				if err != nil {
					return err
				}
				if !t.ok(u.opt.drop()) {
					if err := set(i, levels[i]); err != nil {
						return err
					}
					break
				}
				levels[i]--
				q = t
			}
		}
	}
	u.note("activations: %v on %d held-out calibration samples", q, len(c.held()))
	return nil
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
			if v.Approx, err = fitPolynomial(f, shape, r.Lo, r.Hi, nil, k); err != nil {
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
		u.warn("no calibration data: activations are approximated on interval bounds, which are wide, and accuracy is not checked (%s); give --calibrate", strings.Join(worst, "; "))
	}
	return nil
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
