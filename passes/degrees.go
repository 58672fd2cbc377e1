package passes

import (
	"fmt"
	"math"
	"slices"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
)

// The ranges of single channels are read off fewer values than that of a whole
// tensor. They are widened channelMargin times as much, and none is less than a
// channelFloor-th of the tensor's.
const (
	channelMargin = 3
	channelFloor  = 2
)

// fitActivation approximates an activation given what the network, approximated
// up to there, makes of the fit half. Channels of a function with
// f(b*x) = b*f(x) have ranges of their own, and what the approximations so far
// have done to the mean and the size of a channel is undone by least squares
// against the exact network: both are folded into the layers around.
func (u *unit) fitActivation(c *calibration, v *ir.Value, walk *clear.Walk, k rung) (*ir.Approx, error) {
	f, err := v.Activation()
	if err != nil {
		return nil, err
	}
	shape, err := v.ActShape()
	if err != nil {
		return nil, err
	}
	if k.full {
		shape.Sym = ir.SymNone
	}
	x := v.Args[0]
	a, all := c.args[x], u.ranges[x]
	seen := &spread{}
	fail := func(err error) error {
		return &ir.NodeError{Node: v.Name, Op: v.Attrs.Str("fn", ""), Err: err, Hint: "give calibration data on which the function is defined"}
	}
	var probed []float64
	if !homogeneous(v) || u.multiplied[v] {
		k.levels = min(k.levels, maxPolyLevels)
		center, bound := spanOf(shape, all)
		for i, sample := range c.fit {
			for ch := range a.channels {
				probed = a.probe(probed[:0], walk.Value(i, x).Data, sample, ch)
				for _, y := range probed {
					seen.add((y-center)/bound, 1)
				}
			}
		}
		p, err := fitPolynomial(f, shape, all.Lo, all.Hi, seen, k)
		if err != nil {
			return nil, fail(err)
		}
		return p, nil
	}
	lines, ranges := make([]line, a.channels), make([]Range, a.channels)
	for ch := range lines {
		var m moments
		now := Range{math.Inf(1), math.Inf(-1)}
		for i, sample := range c.fit {
			data := walk.Value(i, x).Data
			now = now.join(extremes(data[ch*a.per : (ch+1)*a.per]))
			probed = a.probe(probed[:0], data, sample, ch)
			for j, y := range probed {
				m.add(y, c.exact(a, i, ch, j))
			}
		}
		l := m.line()
		was := Range{slices.Min(a.lo[ch]), slices.Max(a.hi[ch])}
		margin := u.opt.margin()
		if a.channels > 1 {
			margin *= channelMargin
		}
		lines[ch] = l
		ranges[ch] = was.widen(margin).tail(a.lo[ch], a.hi[ch]).join(Range{l.at(now.Lo), l.at(now.Hi)}.widen(u.opt.margin()))
	}
	// One polynomial serves all channels where zero lies at the same place in all
	// of their ranges.
	zero := 0.0
	if shape.Sym == ir.SymNone && k.levels <= maxPolyLevels {
		zero = placeOfZero(ranges)
		shape.Kinks = []float64{zero}
	}
	hull := all.halfWidth(zero)
	channels := make([]ir.Channel, a.channels)
	for ch, l := range lines {
		bound := max(ranges[ch].halfWidth(zero), 1e-6)
		if a.channels > 1 {
			bound = max(bound, hull/channelFloor)
		}
		channels[ch] = ir.Channel{Center: (-zero*bound - l.shift) / l.slope, Bound: bound / l.slope, Gain: bound}
	}
	most := 0.0
	for ch, h := range channels {
		most = max(most, h.Gain)
		for i, sample := range c.fit {
			probed = a.probe(probed[:0], walk.Value(i, x).Data, sample, ch)
			for _, y := range probed {
				seen.add((y-h.Center)/h.Bound, h.Gain*h.Gain)
			}
		}
	}
	var p *ir.Approx
	if k.levels > maxPolyLevels {
		p = fitComposite(f, seen, k.levels)
	} else if p, err = fitPolynomial(func(u float64) float64 { return f(u - zero) }, shape, -1, 1, seen, k); err != nil {
		return nil, fail(err)
	}
	p.Err *= most
	if a.channels == 1 {
		h := channels[0]
		p.Center, p.Bound = h.Center, h.Bound
		for i := range p.Coef {
			p.Coef[i] *= h.Gain
		}
		return p, nil
	}
	r := Range{math.Inf(1), math.Inf(-1)}
	for _, h := range channels {
		r = r.join(Range{h.Center - h.Bound, h.Center + h.Bound})
	}
	p.Center, p.Bound = (r.Lo+r.Hi)/2, (r.Hi-r.Lo)/2
	p.Channels = channels
	return p, nil
}

// exact returns probe j of channel ch of fit sample i in the exact network.
func (c *calibration) exact(a *argument, i, ch, j int) float64 {
	return a.seen[i][ch*a.probes+j]
}

// moments fits a line to pairs.
type moments struct{ n, x, y, xx, xy float64 }

func (m *moments) add(x, y float64) {
	m.n++
	m.x += x
	m.y += y
	m.xx += x * x
	m.xy += x * y
}

// line is y = slope*x + shift.
type line struct{ slope, shift float64 }

func (l line) at(x float64) float64 { return l.slope*x + l.shift }

// line returns the least squares line, its slope kept within a factor of two of
// one; where x hardly varies, one.
func (m *moments) line() line {
	l := line{slope: 1}
	if v := m.xx - m.x*m.x/m.n; v > 1e-12*m.xx {
		l.slope = min(2, max(0.5, (m.xy-m.x*m.y/m.n)/v))
	}
	l.shift = (m.y - l.slope*m.x) / m.n
	return l
}

// halfWidth is that of the least interval that holds r and has the number zero at
// the place given, between -1 and 1.
func (r Range) halfWidth(zero float64) float64 {
	return max(r.Hi/(1-zero), -r.Lo/(1+zero))
}

// placeOfZero returns the place of the number zero that makes the intervals around
// some ranges narrowest, by the squares of their widths.
func placeOfZero(ranges []Range) float64 {
	best, least := 0.0, math.Inf(1)
	for k := -16; k <= 16; k++ {
		zero := float64(k) / 20
		sum := 0.0
		for _, r := range ranges {
			h := r.halfWidth(zero)
			sum += h * h
		}
		if sum < least {
			best, least = zero, sum
		}
	}
	return best
}

// homogeneous reports whether f(b*x) = b*f(x) for every b > 0.
func homogeneous(v *ir.Value) bool {
	switch v.Attrs.Str("fn", "") {
	case "relu", "leakyrelu", "abs":
		return true
	}
	return false
}

// multiplied lists the activations that are factors of products of encrypted
// values as they are, which must be uniform: channels of different size would take
// another layer.
func multiplied(g *ir.Graph) map[*ir.Value]bool {
	out := map[*ir.Value]bool{}
	mark := func(v *ir.Value) {
		for v.Op == ir.OpReshape || v.Op == ir.OpPow && v.Attrs.Float("k", 0) == 1 {
			v = v.Args[0]
		}
		if v.Op == ir.OpAct {
			out[v] = true
		}
	}
	for _, v := range g.Values {
		if v.Op == ir.OpMul && v.Args[0].Type.Encrypted && v.Args[1].Type.Encrypted {
			mark(v.Args[0])
			mark(v.Args[1])
		} else if v.Op == ir.OpPow && v.Attrs.Float("k", 0) != 1 {
			mark(v.Args[0])
		}
	}
	return out
}

// degreeSearch looks for the cheapest rungs that meet the accuracy budget.
type degreeSearch struct {
	u      *unit
	c      *calibration
	acts   []*ir.Value
	even   bool // a full rung differs from one that is not, for some activation
	signs  bool // some activation may be a composite
	rungs  []rung
	best   []*ir.Approx
	front  []*front // by activation, for rungs as they are; nil where none is kept
	keep   bool     // there is memory for fronts
	failed [][]rung // what missed the budget
	macs   []float64
	work   float64 // multiply-adds spent
}

// front is both halves of the samples evaluated up to an activation.
type front struct{ fit, held *clear.Walk }

// searchWork bounds the multiply-adds spent on trying lower degrees once some are
// found that meet the budget. It is a count and not a time, so that the same
// input gives the same polynomials on every machine.
const searchWork = 1.5e11

// frontEvery is how many activations lie between fronts that are kept, which
// take memory.
const frontEvery = 4

// trial fits the rungs given, from the first activation that differs from the
// current ones, and judges the result. keep makes them the current ones where
// the result is within the budget.
func (s *degreeSearch) trial(rungs []rung, drop float64) (quality, error) {
	from := 0
	for s.best != nil && from < len(rungs) && rungs[from] == s.rungs[from] {
		from++
	}
	at := 0
	var now *front
	for k := range s.front {
		if k <= from && s.front[k] != nil {
			at, now = k, &front{s.front[k].fit.Clone(), s.front[k].held.Clone()}
		}
	}
	if now == nil {
		now = &front{}
		var err error
		if now.fit, err = clear.NewWalk(s.c.graph, s.c.pick(s.c.fit), true); err != nil {
			return quality{}, err
		}
		if now.held, err = clear.NewWalk(s.c.graph, s.c.pick(s.c.held), true); err != nil {
			return quality{}, err
		}
	}
	for _, m := range s.macs[now.at(s.acts, at):] {
		s.work += m * float64(len(s.c.fit)+len(s.c.held))
	}
	fronts := make([]*front, len(s.acts))
	copy(fronts, s.front[:min(at, len(s.front))])
	for k := at; k < len(s.acts); k++ {
		v := s.acts[k]
		if err := now.fit.Until(v); err != nil {
			return quality{}, err
		}
		if err := now.held.Until(v); err != nil {
			return quality{}, err
		}
		if s.keep && k%frontEvery == 0 {
			fronts[k] = &front{now.fit.Clone(), now.held.Clone()}
		}
		if k < from {
			continue
		}
		p, err := s.u.fitActivation(s.c, v, now.fit, rungs[k])
		if err != nil {
			return quality{}, err
		}
		v.Approx = p
	}
	got := make([][]float64, len(s.c.held))
	for i := range got {
		out, err := now.held.Outputs(i)
		if err != nil {
			return quality{}, err
		}
		got[i] = flatten(out)
	}
	q := s.c.judge(got)
	st := now.held.Stats()
	q.outside = st.Total()
	if q.ok(drop) {
		s.rungs, s.front = slices.Clone(rungs), fronts
		s.best = s.best[:0]
		for _, v := range s.acts {
			s.best = append(s.best, v.Approx)
		}
		return q, nil
	}
	s.failed = append(s.failed, slices.Clone(rungs))
	for k, v := range s.acts {
		if s.best != nil {
			v.Approx = s.best[k]
		}
	}
	return q, nil
}

// at returns the position in the graph from which a front goes on.
func (f *front) at(acts []*ir.Value, k int) int {
	if k == 0 {
		return 0
	}
	return acts[k].ID
}

// searchDegrees finds, for every activation, the rung that meets the budget: the
// lowest that does for all alike, by bisection, then lower ones where they make the
// network cheaper, while the budget still holds.
func (u *unit) searchDegrees(c *calibration, acts []*ir.Value) error {
	s := &degreeSearch{u: u, c: c, acts: acts, macs: multiplyAdds(c.graph)}
	live, kept := liveElems(c.graph), 0
	for k, v := range acts {
		if k%frontEvery == 0 {
			kept += live[v.ID]
		}
		shape, err := v.ActShape()
		if err != nil {
			return err
		}
		s.even = s.even || shape.Sym == ir.SymEven
		s.signs = s.signs || homogeneous(v) && !u.multiplied[v]
	}
	s.keep = 8*kept*(len(c.fit)+len(c.held)) <= walkBytes
	var ladder []rung
	for k := minPolyLevels; k <= maxPolyLevels; k++ {
		ladder = append(ladder, rung{k, false})
		if s.even {
			ladder = append(ladder, rung{k, true})
		}
	}
	if s.signs {
		for _, c := range composites {
			ladder = append(ladder, rung{c.levels, true})
		}
	}
	drop := u.opt.drop()
	var q, last quality
	lo, hi := 0, len(ladder)
	for lo < hi {
		k := (lo + hi) / 2
		t, err := s.trial(slices.Repeat([]rung{ladder[k]}, len(acts)), drop)
		if err != nil {
			return err
		}
		if t.ok(drop) {
			q, hi = t, k
		} else {
			last, lo = t, k+1
		}
	}
	if lo == len(ladder) {
		return fmt.Errorf("%w: with %d levels for each activation, %v; the budget is %.3g %%: raise --accuracy-drop or give more calibration data",
			ErrAccuracy, ladder[lo-1].levels, last, 100*drop)
	}
	if !u.skip("activation-trim") {
		var err error
		if q, err = s.trim(q, drop); err != nil {
			return err
		}
	}
	u.note("activations: %v on %d held-out calibration samples", q, len(c.held))
	return nil
}

// trim lowers rungs by a level as long as that makes the network cheaper, keeps
// within the budget, and work is left: of many activations in a row at once, and
// where that is too much, of the later half of them and of the earlier half.
func (s *degreeSearch) trim(q quality, drop float64) (quality, error) {
	var halve func(from, to int) (bool, error)
	halve = func(from, to int) (bool, error) {
		if s.work > searchWork {
			return false, nil
		}
		if rungs := s.lowered(from, to); rungs != nil {
			t, err := s.trial(rungs, drop)
			if err != nil {
				return false, err
			}
			if t.ok(drop) {
				q = t
				return true, nil
			}
		}
		if from == to {
			return false, nil
		}
		mid := (from + to + 1) / 2
		late, err := halve(mid, to)
		if err != nil {
			return false, err
		}
		early, err := halve(from, mid-1)
		return late || early, err
	}
	s.work = 0
	for again := true; again; {
		var err error
		if again, err = halve(0, len(s.acts)-1); err != nil {
			return q, err
		}
	}
	return q, nil
}

// lowered returns the rungs with those of a row of activations a level lower, of
// each that makes the network cheaper; nil where none does, or where less has
// already failed.
func (s *degreeSearch) lowered(from, to int) []rung {
	out := slices.Clone(s.rungs)
	for k := from; k <= to; k++ {
		if out[k].levels > minPolyLevels {
			out[k] = out[k].lower()
		}
	}
	cost := func() float64 { return s.u.levelCost(s.depths(out)) }
	have := cost()
	for k := from; k <= to; k++ {
		low := out[k]
		out[k] = s.rungs[k]
		if c := cost(); c > have+1e-12 {
			out[k] = low // its part of the gain
		} else {
			have = c
		}
	}
	if slices.Equal(out, s.rungs) || slices.ContainsFunc(s.failed, func(f []rung) bool { return noneHigher(out, f) }) {
		return nil
	}
	return out
}

// lower is the rung with the next fewer levels: a full one, as that takes no more
// products than one of more levels with even terms only.
func (r rung) lower() rung {
	below := r.levels - 1
	if below > maxPolyLevels {
		below = maxPolyLevels
		for _, c := range composites {
			if c.levels < r.levels {
				below = max(below, c.levels)
			}
		}
	}
	return rung{below, true}
}

// noneHigher reports whether no rung of a is higher than that of b.
func noneHigher(a, b []rung) bool {
	for k := range a {
		if a[k].levels > b[k].levels || a[k].levels == b[k].levels && a[k].full && !b[k].full {
			return false
		}
	}
	return true
}

func (s *degreeSearch) depths(rungs []rung) []int {
	out := make([]int, len(rungs))
	for i, r := range rungs {
		out[i] = r.levels
	}
	return out
}

// multiplyAdds estimates the products that one evaluation of each value takes.
func multiplyAdds(g *ir.Graph) []float64 {
	out := make([]float64, len(g.Values))
	for i, v := range g.Values {
		n := float64(v.Type.Elems())
		switch v.Op {
		case ir.OpConst, ir.OpInput:
			n = 0
		case ir.OpConv:
			n *= float64(ir.NumElems(v.Args[1].Type.Shape[1:]))
		case ir.OpMatMul:
			s := v.Args[0].Type.Shape
			n *= float64(s[len(s)-1])
		case ir.OpAct:
			n *= 32
		}
		out[i] = n
	}
	return out
}

// levelPrice returns the cost of the network, in seconds, by the depths of its
// activations in the order of the graph. Where no refresh is needed it is what the
// choice of parameters will find. That takes too long for every choice of depths
// where refreshes have to be placed: chainCost stands in for it.
func (u *unit) levelPrice(acts int) (func(depths []int) float64, error) {
	longest := 0
	for _, e := range catalogue {
		longest = max(longest, e.levels)
	}
	if u.chain(slices.Repeat([]int{minPolyLevels}, acts), longest, 0) > 0 {
		return u.chainCost, nil
	}
	p, err := u.newPricer()
	if err != nil {
		return nil, err
	}
	return func(depths []int) float64 {
		if u.chain(depths, longest, 0) > 0 {
			return u.chainCost(depths)
		}
		seconds, _ := p.price(depths)
		return seconds
	}, nil
}

// Rough seconds that chainCost takes a bootstrap and a level to cost.
const (
	bootSeconds  = 1.5
	levelSeconds = 0.2
)

// chainCost is the cost of a network that must be refreshed: levels, and refreshes
// along the path that has most, taken as late as can be, with the parameters that
// need fewest.
func (u *unit) chainCost(depths []int) float64 {
	cost := 0.0
	for _, d := range depths {
		cost += levelSeconds * float64(d)
	}
	least := math.MaxInt
	for _, e := range bootEntries {
		least = min(least, u.chain(depths, e.levels-e.boot.levelsIn(), e.levels-e.boot.levelsOver()-e.boot.levelsIn()))
	}
	return cost + bootSeconds*float64(least)
}

// chain counts the refreshes on the path that needs most, for fresh
// levels at the input and useful ones after a refresh.
func (u *unit) chain(depths []int, fresh, useful int) int {
	type state struct{ boots, left int }
	worse := func(s, t state) state {
		if t.boots > s.boots || t.boots == s.boots && t.left < s.left {
			return t
		}
		return s
	}
	at := make([]state, len(u.graph.Values))
	end, k := state{left: fresh}, 0
	for i, v := range u.graph.Values {
		s := state{left: fresh}
		if !v.Type.Encrypted {
			continue
		}
		for _, a := range v.Args {
			if a.Type.Encrypted {
				s = worse(s, at[a.ID])
			}
		}
		need := 0
		switch {
		case v.Op == ir.OpAct:
			need = depths[k] + 1
			k++
		case v.Op == ir.OpPow, v.Op == ir.OpMul && v.Args[0].Type.Encrypted && v.Args[1].Type.Encrypted:
			need = 1
		}
		if need > s.left {
			s = state{s.boots + 1, useful}
		}
		s.left -= need
		at[i] = s
		end = worse(end, s)
	}
	if end.left < 1 { // the last layer
		end.boots++
	}
	return end.boots
}
