package passes

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
)

// calibration holds what the exact network did on the calibration samples. One
// half of them is fitted to, the other judges the fit.
type calibration struct {
	graph     *ir.Graph
	samples   []*ir.Array
	fit, held []int // samples fitted to, and samples that judge
	ranges    map[*ir.Value]Range
	tail      map[*ir.Value]Range // where the extremes of rare samples may lie
	args      map[*ir.Value]*argument
	inputs    []Range     // per input element
	outputs   [][]float64 // exact outputs per sample
}

// argument is what was seen of the argument of an activation.
type argument struct {
	channels, per int         // channels (entries of axis 1, or one for all) and elements of each
	probes        int         // elements looked at in each channel
	lo, hi        [][]float64 // extremes by channel and sample
	seen          [][]float64 // probed elements by sample of the fit half, channel by channel
}

// Probes are taken of each sample and activation so that about probesPerSample
// are spread over the channels, and at least probesPerChannel lie in each.
const (
	probesPerSample  = 256
	probesPerChannel = 4
	// mostChannels have a range of their own.
	mostChannels = 4096
)

// newArgument lays out the probes of an activation's argument.
func newArgument(v *ir.Value, samples, fit int) *argument {
	a := &argument{channels: 1, per: v.Type.Elems()}
	if s := v.Type.Shape; len(s) >= 2 && s[0] == 1 && s[1] <= mostChannels {
		a.channels, a.per = s[1], a.per/max(1, s[1])
	}
	a.probes = min(a.per, max(probesPerChannel, probesPerSample/a.channels))
	a.lo, a.hi, a.seen = make([][]float64, a.channels), make([][]float64, a.channels), make([][]float64, fit)
	for c := range a.channels {
		a.lo[c], a.hi[c] = make([]float64, samples), make([]float64, samples)
	}
	return a
}

// probe picks the probed elements of one channel of a sample's argument; which
// ones differ from sample to sample.
func (a *argument) probe(dst, data []float64, sample, c int) []float64 {
	step := a.per / a.probes
	first := (7*sample + 3*c) % step
	for k := range a.probes {
		dst = append(dst, data[c*a.per+first+k*step])
	}
	return dst
}

// see notes the extremes of a sample.
func (a *argument) see(data []float64, sample int) {
	for c := range a.channels {
		r := extremes(data[c*a.per : (c+1)*a.per])
		a.lo[c][sample], a.hi[c][sample] = r.Lo, r.Hi
	}
}

// extremes returns the least and the largest of some numbers.
func extremes(data []float64) Range {
	r := Range{data[0], data[0]}
	for _, x := range data {
		if x < r.Lo {
			r.Lo = x
		} else if x > r.Hi {
			r.Hi = x
		}
	}
	return r
}

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
	c := &calibration{graph: g, samples: samples, outputs: make([][]float64, len(samples)), args: map[*ir.Value]*argument{}}
	c.split()
	fitAt := make([]int, len(samples))
	for i := range fitAt {
		fitAt[i] = -1
	}
	for k, i := range c.fit {
		fitAt[i] = k
	}
	for _, v := range encryptedActs(g) {
		if x := v.Args[0]; c.args[x] == nil {
			c.args[x] = newArgument(x, len(samples), len(c.fit))
		}
	}
	all := make([]map[*ir.Value]Range, len(samples))
	err := backend.Each(len(samples), func(i int) error {
		all[i] = map[*ir.Value]Range{}
		out, _, err := clear.EvalTensor(g, []*ir.Array{samples[i]}, clear.Options{Observe: func(v *ir.Value, x *ir.Array) {
			if !v.Type.Encrypted || len(x.Data) == 0 {
				return
			}
			all[i][v] = extremes(x.Data)
			if a := c.args[v]; a != nil {
				a.see(x.Data, i)
				if k := fitAt[i]; k >= 0 {
					a.seen[k] = make([]float64, 0, a.channels*a.probes)
					for ch := range a.channels {
						a.seen[k] = a.probe(a.seen[k], x.Data, i, ch)
					}
				}
			}
		}})
		c.outputs[i] = flatten(out)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.ranges = map[*ir.Value]Range{}
	for i, s := range all {
		for v, r := range s {
			if i > 0 {
				r = r.join(c.ranges[v])
			}
			if math.IsNaN(r.Lo) || math.IsNaN(r.Hi) || math.IsInf(r.Lo, 0) || math.IsInf(r.Hi, 0) {
				return nil, &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: fmt.Errorf("calibration sample %d makes it %v", i, r)}
			}
			c.ranges[v] = r
		}
	}
	c.tail = make(map[*ir.Value]Range, len(c.ranges))
	lows, highs := make([]float64, len(samples)), make([]float64, len(samples))
	for v, r := range c.ranges {
		for i, s := range all {
			lows[i], highs[i] = s[v].Lo, s[v].Hi
		}
		c.tail[v] = r.tail(lows, highs)
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

// fitSamples and checkSamples are how many samples each half has at most. Both are
// evaluated side by side, in no more memory than walkBytes.
const (
	fitSamples   = 250
	checkSamples = 200
	walkBytes    = 1 << 30
)

// split takes samples to fit to and to judge by in turn, spread over all.
func (c *calibration) split() {
	if len(c.samples) == 1 {
		c.fit, c.held = []int{0}, []int{0}
		return
	}
	half := len(c.samples) / 2
	room := walkBytes / (8 * max(1, slices.Max(liveElems(c.graph)))) // samples
	take := func(n, first int) (out []int) {
		n = max(1, min(half, n, room*n/(fitSamples+checkSamples)))
		for i := range n {
			out = append(out, 2*(i*half/n)+first)
		}
		return out
	}
	c.fit, c.held = take(fitSamples, 0), take(checkSamples, 1)
}

// liveElems counts, for every value, the elements that are held while it is
// evaluated.
func liveElems(g *ir.Graph) []int {
	last := make([]int, len(g.Values))
	for i, v := range g.Values {
		last[i] = i
		for _, a := range v.Args {
			last[a.ID] = i
		}
	}
	out := make([]int, len(g.Values))
	for i, v := range g.Values {
		if v.Op == ir.OpConst {
			continue
		}
		for k := i; k <= last[i]; k++ {
			out[k] += v.Type.Elems()
		}
	}
	return out
}

// pick returns samples by their numbers.
func (c *calibration) pick(which []int) []*ir.Array {
	out := make([]*ir.Array, len(which))
	for i, k := range which {
		out[i] = c.samples[k]
	}
	return out
}

// tail widens a range to where rare samples may lie, given the extremes of those
// that were seen.
func (r Range) tail(lows, highs []float64) Range {
	return r.join(Range{r.Lo - tailSpread(lows, -1), r.Hi + tailSpread(highs, 1)})
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

// quality is how an approximated network compares with the exact one on the
// check half of the calibration samples.
type quality struct {
	disagree float64 // share of samples whose top-1 class changes
	expected float64 // the same over all pairs of one sample's errors and another's outputs
	logit95  float64 // 95 % quantile of the largest output error of a sample
	margin   float64 // median distance between the two largest exact outputs
	largest  float64 // largest exact output
	outside  int     // arguments of activations outside their ranges
}

// ok applies the accuracy budget: few classes change, and output errors stay
// well below the distances that decide a class.
func (q quality) ok(drop float64) bool {
	if q.margin > 0 {
		return q.disagree <= drop && q.expected <= drop && q.logit95 <= 0.25*q.margin
	}
	return q.logit95 <= drop*max(q.largest, 1e-9)
}

func (q quality) String() string {
	s := fmt.Sprintf("output error %.2g of %.2g", q.logit95, q.largest)
	if q.margin > 0 {
		s = fmt.Sprintf("%.2f %% of classes change (%.2f %% expected), output error %.2g against a typical margin of %.2g", 100*q.disagree, 100*q.expected, q.logit95, q.margin)
	}
	if q.outside > 0 {
		s += fmt.Sprintf(", %d values outside their ranges", q.outside)
	}
	return s
}

// judge compares the outputs of the approximated network for the check half
// with those of the exact one. A network with a batch of its own has one row of
// outputs for each part of it.
func (c *calibration) judge(got [][]float64) quality {
	rows := 1
	if in, out := c.graph.Inputs[0].Type.Shape, c.graph.Outputs[0].Type.Shape; len(c.graph.Outputs) == 1 && len(in) > 1 && len(out) > 1 && in[0] == out[0] {
		rows = in[0]
	}
	var q quality
	var errs, margins []float64
	var ranked, lost [][]float64 // by rank of the exact outputs: value, error
	for i, h := range c.held {
		for r := range rows {
			per := len(got[i]) / rows
			want, have := c.outputs[h][r*per:(r+1)*per], got[i][r*per:(r+1)*per]
			order := make([]int, per)
			for k := range order {
				order[k] = k
			}
			slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(want[b], want[a]) })
			worst := 0.0
			value, miss := make([]float64, per), make([]float64, per)
			for rank, k := range order {
				d := have[k] - want[k]
				if math.IsNaN(d) {
					d = math.Inf(1)
				}
				value[rank], miss[rank] = want[k], d
				worst = max(worst, math.Abs(d))
				q.largest = max(q.largest, math.Abs(want[k]))
			}
			if per > 1 {
				margins = append(margins, value[0]-value[1])
			} else {
				margins = append(margins, 0)
			}
			if changes(value, miss) {
				q.disagree++
			}
			errs, ranked, lost = append(errs, worst), append(ranked, value), append(lost, miss)
		}
	}
	for i := range ranked {
		for j := range lost {
			if changes(ranked[i], lost[j]) {
				q.expected++
			}
		}
	}
	n := len(errs)
	q.disagree /= float64(n)
	q.expected /= float64(n) * float64(n)
	slices.Sort(errs)
	slices.Sort(margins)
	q.logit95 = errs[(n-1)*95/100]
	q.margin = margins[n/2]
	return q
}

// mostRanks are compared where outputs are many.
const mostRanks = 20

// changes reports whether errors move the first of ranked outputs from its place.
func changes(ranked, errs []float64) bool {
	for k := 1; k < min(len(ranked), mostRanks); k++ {
		if d := (ranked[k] + errs[k]) - (ranked[0] + errs[0]); d > 0 || math.IsNaN(d) {
			return true
		}
	}
	return false
}
