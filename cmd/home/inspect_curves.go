package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/home-fhe/home/passes"
)

// chartView is a picture with two axes: lines, areas and bars in its coordinates,
// and a legend below.
type chartView struct {
	Title, Text                    string
	W, H, Left, Right, Top, Bottom float64
	X, Y                           []tick
	XLabel, YLabel                 string
	Areas, Lines                   []pathView
	Dots                           []dot
	Marks                          []mark // beside dots
	Bars                           []rectView
	Legend                         []legendView
	Columns                        []string // of the table below, if any
	Rows                           [][]string
}

type mark struct {
	X, Y float64
	Text string
}

type pathView struct{ Class, D string }

type rectView struct {
	X, Y, W, H   float64
	Class, Label string
}

type legendView struct{ Class, Name, Value string }

// axis maps numbers to coordinates.
type axis struct {
	from, to float64 // coordinates of lo and hi
	lo, hi   float64
	log      bool
}

func (a *axis) at(x float64) float64 {
	lo, hi := a.lo, a.hi
	if a.log {
		lo, hi, x = math.Log(lo), math.Log(hi), math.Log(math.Max(x, a.lo/1e3))
	}
	if hi <= lo {
		return (a.from + a.to) / 2
	}
	return a.from + (a.to-a.from)*math.Min(1, math.Max(0, (x-lo)/(hi-lo)))
}

// ticks returns about n ticks: round numbers, on a logarithmic axis of the steps 1,
// 2 and 5, powers of ten only where there are many.
func (a *axis) ticks(n int, name func(float64) string) []tick {
	var out []tick
	if !a.log || a.hi < 6*a.lo { // a short range has few powers of ten
		if a.log {
			n = min(n, 5)
		}
		step := niceStep(a.hi-a.lo, n)
		for x := math.Ceil(a.lo/step) * step; x <= a.hi*(1+1e-9); x += step {
			out = append(out, tick{a.at(x), name(x)})
		}
		return out
	}
	for _, steps := range [][]float64{{1, 2, 5}, {1, 3}, {1}} {
		out = out[:0]
		for e := math.Floor(math.Log10(a.lo)); e <= math.Ceil(math.Log10(a.hi)); e++ {
			for _, s := range steps {
				if x := s * math.Pow(10, e); x >= a.lo*(1-1e-9) && x <= a.hi*(1+1e-9) {
					out = append(out, tick{a.at(x), name(x)})
				}
			}
		}
		if len(out) <= n {
			break
		}
	}
	return out
}

// doublings returns a tick for every power of two, or for every few of them.
func (a *axis) doublings(n int, name func(float64) string) []tick {
	var out []tick
	lo, hi := math.Ceil(math.Log2(a.lo)-1e-9), math.Floor(math.Log2(a.hi)+1e-9)
	every := math.Max(1, math.Ceil((hi-lo+1)/float64(n)))
	for e := lo; e <= hi; e += every {
		out = append(out, tick{a.at(math.Exp2(e)), name(math.Exp2(e))})
	}
	return out
}

func newChart(title, text, x, y string) *chartView {
	return &chartView{Title: title, Text: text, XLabel: x, YLabel: y, W: 1040, H: 330, Left: 78, Right: 1024, Top: 26, Bottom: 276}
}

func (c *chartView) axes(x, y *axis) {
	x.from, x.to, y.from, y.to = c.Left, c.Right, c.Bottom, c.Top
}

// line adds a curve through points with marks on them.
func (c *chartView) line(class string, x, y *axis, points [][2]float64, label func(i int) string) {
	var d strings.Builder
	for i, p := range points {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&d, "%s%.1f %.1f", verb, x.at(p[0]), y.at(p[1]))
		if label != nil {
			c.Dots = append(c.Dots, dot{x.at(p[0]), y.at(p[1]), 4, label(i), class})
		}
	}
	c.Lines = append(c.Lines, pathView{class, d.String()})
}

// seriesClass is the colour of the k-th series.
func seriesClass(k int) string { return fmt.Sprintf("s%d", k%8) }

// groups returns the distinct keys in order of appearance.
func groups[T any, K comparable](w []T, key func(*T) K) []K {
	var out []K
	for i := range w {
		if k := key(&w[i]); !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

type whatIfMachine struct {
	cores int
	accel float64
}

func (m whatIfMachine) String() string {
	s := fmt.Sprintf("%d core%s", m.cores, plural(m.cores))
	if m.accel > 1 {
		s += fmt.Sprintf(", each %s times as fast", strconv.FormatFloat(m.accel, 'g', 4, 64))
	}
	return s
}

// whatIfCharts draws what was predicted.
func whatIfCharts(w []whatIfReport) []*chartView {
	var fit []whatIfReport
	for _, x := range w {
		if x.Fits {
			fit = append(fit, x)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	var out []*chartView
	tiers := groups(fit, func(x *whatIfReport) string { return x.Tier })
	for i, m := range groups(fit, func(x *whatIfReport) whatIfMachine { return whatIfMachine{x.Cores, x.Accelerator} }) {
		if c := dramChart(fit, tiers, m); c != nil && i < 4 {
			out = append(out, c)
		}
	}
	if c := speedChart(fit, tiers); c != nil {
		out = append(out, c)
	}
	if c := roofline(fit, tiers); c != nil {
		out = append(out, c)
	}
	return out
}

// bounds widens a range so that what lies at its ends is seen.
func bounds(values []float64, low float64) (float64, float64) {
	lo, hi := slices.Min(values), slices.Max(values)
	return lo * low, hi / low
}

// dramChart is run time against DRAM, one curve per technology.
func dramChart(fit []whatIfReport, tiers []string, m whatIfMachine) *chartView {
	var xs, ys []float64
	for _, x := range fit {
		if x.DRAM > 0 && (whatIfMachine{x.Cores, x.Accelerator}) == m {
			xs, ys = append(xs, float64(x.DRAM)), append(ys, x.Seconds)
		}
	}
	if len(groups(fit, func(x *whatIfReport) int64 { return x.DRAM })) < 2 || len(xs) == 0 {
		return nil
	}
	c := newChart("Run time against DRAM", fmt.Sprintf("Predicted for %s, by the technology of the slow tier. Where a curve is flat, the tier is no limit.", m), "DRAM of the whole process", "run time")
	x, y := &axis{log: true}, &axis{hi: slices.Max(ys) * 1.06}
	x.lo, x.hi = bounds(xs, 0.93)
	c.axes(x, y)
	c.X, c.Y = x.doublings(12, func(v float64) string { return byteSize(v).String() }), y.ticks(6, fromZero(seconds))
	for k, tier := range tiers {
		var points [][2]float64
		var labels []string
		for _, w := range fit {
			if w.Tier == tier && w.DRAM > 0 && (whatIfMachine{w.Cores, w.Accelerator}) == m {
				points = append(points, [2]float64{float64(w.DRAM), w.Seconds})
				labels = append(labels, fmt.Sprintf("%s, %s: %s, %s of it waiting, %s read", w.Tier, byteSize(w.DRAM), seconds(w.Seconds), seconds(w.StallSeconds), byteSize(w.BytesRead)))
			}
		}
		if len(points) > 0 {
			c.line(seriesClass(k), x, y, points, func(i int) string { return labels[i] })
			c.Legend = append(c.Legend, legendView{seriesClass(k), tier, ""})
		}
	}
	return c
}

// speedChart is run time against cores and their speed, for one budget.
func speedChart(fit []whatIfReport, tiers []string) *chartView {
	speeds := groups(fit, func(x *whatIfReport) float64 { return x.speed() })
	if len(speeds) < 2 {
		return nil
	}
	// The smallest budget that is predicted for as many machines as any.
	drams := groups(fit, func(x *whatIfReport) int64 { return x.DRAM })
	slices.Sort(drams)
	dram, most := int64(0), 0
	for _, d := range drams {
		n := 0
		for _, x := range fit {
			n += one(x.DRAM == d)
		}
		if n > most {
			dram, most = d, n
		}
	}
	budget := "without a bound on DRAM"
	if dram > 0 {
		budget = "with " + byteSize(dram).String() + " of DRAM"
	}
	c := newChart("Run time against computing speed", "Predicted "+budget+". A technology is the limit where its curve leaves those above it in the list.", "cores, times their speed against one core of the profile", "run time")
	var ys []float64
	for _, x := range fit {
		if x.DRAM == dram {
			ys = append(ys, x.Seconds)
		}
	}
	x, y := &axis{log: true}, &axis{log: true}
	x.lo, x.hi = bounds(speeds, 0.93)
	y.lo, y.hi = bounds(ys, 0.85)
	c.axes(x, y)
	c.X = x.doublings(12, func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) })
	c.Y = y.ticks(9, seconds)
	for k, tier := range tiers {
		var points [][2]float64
		for _, w := range fit {
			if w.Tier == tier && w.DRAM == dram {
				points = append(points, [2]float64{w.speed(), w.Seconds})
			}
		}
		slices.SortFunc(points, func(a, b [2]float64) int {
			if a[0] != b[0] {
				return int(math.Copysign(1, a[0]-b[0]))
			}
			return int(math.Copysign(1, a[1]-b[1]))
		})
		if len(points) > 0 {
			c.line(seriesClass(k), x, y, points, func(i int) string { return fmt.Sprintf("%s, %g: %s", tier, points[i][0], seconds(points[i][1])) })
			c.Legend = append(c.Legend, legendView{seriesClass(k), tier, ""})
		}
	}
	return c
}

// crossover is the computing speed at which reading takes as long as computing: how
// many cores of the profile the bandwidth of the tier feeds.
func (w *whatIfReport) crossover() float64 {
	if w.BytesRead == 0 {
		return math.Inf(1)
	}
	return w.Bandwidth * w.CPUSeconds * math.Max(1, w.Accelerator) / float64(w.BytesRead)
}

// roofline is the bandwidth that a run asks for against computing speed, with the
// technologies as roofs, and the table of the speeds at which they are reached.
func roofline(fit []whatIfReport, tiers []string) *chartView {
	// One plan per budget: that of the slowest machine on the slowest tier.
	plans := map[int64]*whatIfReport{}
	for i := range fit {
		x := &fit[i]
		if p := plans[x.DRAM]; x.BytesRead > 0 && (p == nil || x.Bandwidth < p.Bandwidth || x.Bandwidth == p.Bandwidth && x.speed() < p.speed()) {
			plans[x.DRAM] = x
		}
	}
	drams := groups(fit, func(x *whatIfReport) int64 { return x.DRAM })
	slices.Sort(drams)
	var ys []float64
	demand := func(x *whatIfReport) float64 {
		return float64(x.BytesRead) / (x.CPUSeconds * math.Max(1, x.Accelerator))
	}
	const fastest = 1024
	for _, p := range plans {
		ys = append(ys, demand(p), demand(p)*fastest)
	}
	bandwidth := map[string]float64{}
	for _, x := range fit {
		bandwidth[x.Tier] = x.Bandwidth
		ys = append(ys, x.Bandwidth)
	}
	if len(plans) == 0 {
		return nil
	}
	c := newChart("Roofline: what is asked of the slow tier", "Bytes read per second of computing, against the speed of computing, for each budget. Where a line crosses the roof of a technology, that technology becomes the limit; the table gives these speeds for the plan that is made for it.", "computing speed, in cores of the profile", "bytes per second")
	x, y := &axis{log: true, lo: 1, hi: fastest}, &axis{log: true}
	y.lo, y.hi = bounds(ys, 0.7)
	c.axes(x, y)
	c.X = x.doublings(12, func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) })
	c.Y = y.ticks(8, func(v float64) string { return rate(v) })
	for k, t := range tiers {
		at := y.at(bandwidth[t])
		c.Lines = append(c.Lines, pathView{seriesClass(k) + " roof", fmt.Sprintf("M%.1f %.1fH%.1f", c.Left, at, c.Right)})
		c.Legend = append(c.Legend, legendView{seriesClass(k), t, rate(bandwidth[t])})
	}
	shown := 0
	for _, d := range drams {
		p := plans[d]
		if p == nil {
			continue
		}
		name := "all DRAM"
		if d > 0 {
			name = byteSize(d).String()
		}
		c.line("other", x, y, [][2]float64{{1, demand(p)}, {fastest, demand(p) * fastest}}, func(int) string { return name + " of DRAM" })
		shown++
	}
	c.Legend = append(c.Legend, legendView{"other", fmt.Sprintf("the run, at %d budget%s, smaller ones above", shown, plural(shown)), ""})
	c.Columns = append([]string{"enough up to a speed of"}, tiers...)
	for _, d := range drams {
		row := []string{"all DRAM"}
		if d > 0 {
			row[0] = byteSize(d).String()
		}
		for _, t := range tiers {
			cell, slowest := "", math.Inf(1)
			for i := range fit {
				if w := &fit[i]; w.Tier == t && w.DRAM == d && w.speed() < slowest {
					slowest = w.speed()
					if cell = "any"; !math.IsInf(w.crossover(), 1) {
						cell = speedText(w.crossover())
					}
				}
			}
			row = append(row, cell)
		}
		c.Rows = append(c.Rows, row)
	}
	return c
}

// fromZero names 0 without a unit.
func fromZero(name func(float64) string) func(float64) string {
	return func(v float64) string {
		if v == 0 {
			return "0"
		}
		return name(v)
	}
}

// speedText is a speed to about three digits.
func speedText(v float64) string {
	if v >= 1000 {
		return count(int(math.Round(v/10)) * 10)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// rate is a bandwidth in powers of ten, as technologies are rated.
func rate(v float64) string {
	for _, u := range []struct {
		by   float64
		name string
	}{{1e12, "TB/s"}, {1e9, "GB/s"}, {1e6, "MB/s"}, {1e3, "kB/s"}} {
		if v >= u.by*(1-1e-9) {
			return strconv.FormatFloat(v/u.by, 'g', 3, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + " B/s"
}

// traceClasses are the colours of the kinds of a trace.
var traceClasses = []string{"keys", "weights", "matrices", "cts"}

// traceCharts draws how the plan touches memory.
func traceCharts(r *planReport) []*chartView {
	t := r.Trace
	if t == nil || len(t.Seconds) < 2 || t.Touches == 0 {
		return nil
	}
	end := t.Seconds[len(t.Seconds)-1]
	return []*chartView{liveChart(t, end), demandChart(t, end), reuseChart(t, int64(r.Params.slabBytes()))}
}

// slabBytes is the size of a limb.
func (p *paramsReport) slabBytes() int { return 8 << p.LogN }

func liveChart(t *passes.Trace, end float64) *chartView {
	c := newChart("Live bytes over time", "What has been used and will be used again, by kind: with so much DRAM nothing would be read twice. Exact; the time axis is predicted.", "CPU time", "bytes")
	most := int64(1)
	for k := range t.Seconds {
		sum := int64(0)
		for kind := range t.Live {
			sum += t.Live[kind][k]
		}
		most = max(most, sum)
	}
	x, y := &axis{hi: math.Max(end, 1e-9)}, &axis{hi: float64(most) * 1.05}
	c.axes(x, y)
	c.X, c.Y = x.ticks(10, seconds), gibTicks(y)
	below := make([]int64, len(t.Seconds))
	for kind := range t.Live {
		peak := slices.Max(t.Live[kind])
		if peak == 0 {
			continue
		}
		var d, back strings.Builder
		for k, at := range t.Seconds {
			verb := "L"
			if k == 0 {
				verb = "M"
			}
			fmt.Fprintf(&d, "%s%.1f %.1f", verb, x.at(at), y.at(float64(below[k]+t.Live[kind][k])))
		}
		for k := len(t.Seconds) - 1; k >= 0; k-- {
			fmt.Fprintf(&back, "L%.1f %.1f", x.at(t.Seconds[k]), y.at(float64(below[k])))
			below[k] += t.Live[kind][k]
		}
		c.Areas = append(c.Areas, pathView{traceClasses[kind], d.String() + back.String() + "Z"})
		c.Legend = append(c.Legend, legendView{traceClasses[kind], passes.TraceKindNames[kind], "at most " + byteSize(peak).String()})
	}
	return c
}

// gibTicks are ticks at round numbers of binary units.
func gibTicks(a *axis) []tick {
	unit := math.Exp2(10 * math.Floor(math.Log2(math.Max(a.hi, 1))/10))
	var out []tick
	step := niceStep(a.hi/unit, 6) * unit
	for v := 0.0; v <= a.hi; v += step {
		name := "0"
		if v > 0 {
			name = byteSize(v).String()
		}
		out = append(out, tick{a.at(v), name})
	}
	return out
}

func demandChart(t *passes.Trace, end float64) *chartView {
	c := newChart("Bytes asked for per CPU second", "What the steps touch, and of that what they touch for the first time: the part that no DRAM saves.", "CPU time", "bytes per second")
	top := 1.0
	for k := range t.Demand {
		top = math.Max(top, t.Demand[k])
	}
	x, y := &axis{hi: math.Max(end, 1e-9)}, &axis{hi: top * 1.05}
	c.axes(x, y)
	c.X, c.Y = x.ticks(10, seconds), y.ticks(6, func(v float64) string {
		if v == 0 {
			return "0"
		}
		return rate(v)
	})
	for i, series := range [][]float64{t.Demand, t.First} {
		var d strings.Builder
		sum := 0.0
		for k, v := range series {
			if k == 0 {
				fmt.Fprintf(&d, "M%.1f %.1f", c.Left, y.at(v))
			}
			fmt.Fprintf(&d, "V%.1fH%.1f", y.at(v), x.at(t.Seconds[k+1]))
			sum += v
		}
		c.Lines = append(c.Lines, pathView{seriesClass(i), d.String()})
		c.Legend = append(c.Legend, legendView{seriesClass(i), []string{"touched", "for the first time"}[i], "mean " + rate(sum/float64(len(series)))})
	}
	return c
}

func reuseChart(t *passes.Trace, slab int64) *chartView {
	c := newChart("Reuse distances", "Bytes of other slabs that are touched between two uses of a slab of a key or plaintext. What lies to the right of the budget has to be read or made again.", "distance", "slabs used again")
	most := int64(1)
	for _, n := range t.Reuse {
		most = max(most, n)
	}
	y := &axis{hi: float64(most) * 1.08}
	c.axes(&axis{}, y)
	c.Y = y.ticks(6, func(v float64) string { return count(int(v)) })
	width := (c.Right - c.Left) / float64(max(1, len(t.Reuse)))
	total := int64(0)
	for k, n := range t.Reuse {
		left := c.Left + width*float64(k)
		name := byteSize(slab << k).String()
		c.Bars = append(c.Bars, rectView{left + 2, y.at(float64(n)), math.Max(width-4, 1), c.Bottom - y.at(float64(n)), "keys", fmt.Sprintf("from %s up to %s: %s slabs", name, byteSize(slab<<(k+1)), count(int(n)))})
		if len(t.Reuse) <= 12 || k%2 == 0 {
			c.X = append(c.X, tick{left, name})
		}
		total += n
	}
	c.Legend = []legendView{{"keys", "used again", count(int(total)) + " slabs"}, {"other", "used for the first time", count(int(t.Never)) + " slabs"}}
	return c
}

// traceText is the trace for a terminal.
func traceText(t *passes.Trace) *table {
	out := newTable(1, 2)
	out.row("trace", "touched", "live at most")
	for kind := range t.Live {
		if t.Footprint[kind] > 0 {
			out.row(passes.TraceKindNames[kind], byteSize(t.Footprint[kind]).String(), byteSize(slices.Max(t.Live[kind])).String())
		}
	}
	out.row("slabs", count(int(t.Touches))+" times", "")
	if s := t.Seconds[len(t.Seconds)-1]; s > 0 {
		sum := 0.0
		for _, d := range t.Demand {
			sum += d
		}
		out.row("per CPU second", rate(sum/float64(len(t.Demand))), "")
	}
	return out
}
