package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	goruntime "runtime"
	"slices"
	"strconv"
	"time"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/backend/lattigo"
)

//go:embed roofline.html
var rooflineText string

// rooflinePage shares charts and style with the page of inspect.
var rooflinePage = template.Must(template.Must(page.Clone()).New("roofline").Parse(rooflineText))

// peakReport is what so many cores do together when they do nothing else.
type peakReport struct {
	Cores  int                `json:"cores"`
	Rates  map[string]float64 `json:"words_per_second"` // by instruction
	Memory []bandwidthReport  `json:"memory"`
}

type bandwidthReport struct {
	Level string  `json:"level"`
	Bytes int64   `json:"bytes,omitempty"` // that it holds
	Read  float64 `json:"read_bytes_per_second"`
	Copy  float64 `json:"copy_bytes_per_second"` // read and written
}

func newPeakReport(p *kernels.Peaks) peakReport {
	r := peakReport{Cores: p.Cores, Rates: map[string]float64{}}
	for u := range kernels.NumUnits {
		if p.Rate[u] > 0 {
			r.Rates[u.String()] = p.Rate[u]
		}
	}
	for _, m := range p.Memory {
		r.Memory = append(r.Memory, bandwidthReport{m.Level, m.Holds, m.Read, m.Copy})
	}
	return r
}

// limits is what the machine and the kernels can do.
type limits struct {
	peaks   []*kernels.Peaks // of one core, and of all
	pace    map[paceOf]kernels.Pace
	order   []paceOf // as measured
	complex float64
	clock   func() float64
}

type paceOf struct {
	form kernels.Form
	bits int
}

// paceReport is what our kernels take per residue with everything in the first cache,
// in nanoseconds.
type paceReport struct {
	Form      string  `json:"form"`
	PrimeBits int     `json:"prime_bits"`
	Butterfly float64 `json:"butterfly_ns"`
	Inverse   float64 `json:"inverse_butterfly_ns"`
	Product   float64 `json:"product_ns"`
	Term      float64 `json:"term_ns"`
	Reduction float64 `json:"reduction_ns"`
	Complex   float64 `json:"complex_butterfly_ns"`
	Uniform   float64 `json:"uniform_ns"` // made from a seed
}

func (l *limits) paces() []paceReport {
	var out []paceReport
	for _, k := range l.order {
		p := l.pace[k]
		out = append(out, paceReport{k.form.String(), k.bits, 1e9 * p.Butterfly, 1e9 * p.Inverse, 1e9 * p.Product, 1e9 * p.Term, 1e9 * p.Reduction, 1e9 * l.complex, 1e9 * p.Uniform})
	}
	return out
}

// measureLimits measures one core by clock, and all of them by that on the wall.
func measureLimits(clock func() float64) *limits {
	l := &limits{peaks: []*kernels.Peaks{kernels.MeasurePeaks(1, clock)}, pace: map[paceOf]kernels.Pace{}, complex: lattigo.MeasureComplex(clock), clock: clock}
	if n := goruntime.NumCPU(); n > 1 {
		began := time.Now()
		defer goruntime.GOMAXPROCS(goruntime.GOMAXPROCS(n))
		l.peaks = append(l.peaks, kernels.MeasurePeaks(n, func() float64 { return time.Since(began).Seconds() }))
	}
	return l
}

// roof says how long a step takes at least on this machine, and how near it comes.
type roof struct {
	Butterflies int64 `json:"butterflies"`
	Products    int64 `json:"products"`
	Terms       int64 `json:"terms"`
	Reductions  int64 `json:"reductions"`
	Complex     int64 `json:"complex_butterflies"`
	Uniform     int64 `json:"uniform"` // residues made from seeds
	Words       int64 `json:"words"`   // that instructions multiply, or take through a round of AES
	Read        int64 `json:"read_bytes"`
	Written     int64 `json:"written_bytes"`

	Multiply float64 `json:"multiply_ms"` // by multipliers that do nothing else
	Kernels  float64 `json:"kernels_ms"`  // by our kernels with everything in the first cache
	Memory   float64 `json:"memory_ms"`   // operands repeated, and so in the caches as far as they fit
	Least    float64 `json:"least_ms"`    // the longer of multiplying and memory
	Limit    string  `json:"limit"`       // which, and of which level of memory
	Attained float64 `json:"attained"`    // the least by ours

	// The same where all operands come from DRAM, as in a run: one core, and all.
	DRAM      float64 `json:"dram_least_ms"`
	DRAMAll   float64 `json:"dram_least_all_ms,omitempty"`
	DRAMLimit string  `json:"dram_limit"`

	// bytes is read, plus written as often as it costs: with Words a place in the picture.
	bytes float64
}

// measure adds limits to a report: the roof of each row.
func (r *kernelReport) measure(l *limits) error {
	for _, p := range l.peaks {
		r.Peaks = append(r.Peaks, newPeakReport(p))
	}
	for i := range r.Rows {
		var err error
		if r.Rows[i].Roof, err = l.roof(&r.Rows[i]); err != nil {
			return err
		}
	}
	r.Paces = l.paces()
	return nil
}

func (l *limits) roof(k *kernelRow) (*roof, error) {
	at := paceOf{k.form, k.PrimeBits}
	pace, ok := l.pace[at]
	if !ok {
		var err error
		if pace, err = kernels.MeasurePace(k.form, k.PrimeBits, l.clock); err != nil {
			return nil, err
		}
		l.pace[at] = pace
		l.order = append(l.order, at)
	}
	w, p := &k.need, l.peaks[0]
	r := &roof{Butterflies: w.Butterflies, Products: w.Products, Terms: w.Terms, Reductions: w.Reductions, Complex: w.Complex, Uniform: w.Uniform, Read: w.Read, Written: w.Written}
	for _, n := range w.Instructions(k.form) {
		r.Words += n
	}
	multiply := w.Multiplying(k.form, p)
	dram, cached, level := w.Memory(p)
	r.Multiply, r.Kernels, r.Memory = 1e3*multiply, 1e3*w.Kernels(&pace, l.complex), 1e3*cached
	least := func(multiply, memory float64, level string) (float64, string) {
		if memory > multiply {
			return 1e3 * memory, level
		}
		return 1e3 * multiply, "multiplying"
	}
	r.Least, r.Limit = least(multiply, cached, level)
	r.DRAM, r.DRAMLimit = least(multiply, dram, "DRAM")
	if len(l.peaks) > 1 {
		dram, _, _ := w.Memory(l.peaks[1])
		r.DRAMAll, _ = least(w.Multiplying(k.form, l.peaks[1]), dram, "")
	}
	r.Attained = r.Least / k.Ours
	r.bytes = dram * p.Memory[len(p.Memory)-1].Read
	return r, nil
}

// roofText prints peaks and roofs.
func (r *kernelReport) roofText(w io.Writer) error {
	fmt.Fprintf(w, "\nWhat this machine can do:\n\n")
	t := newTable(1, 2)
	head := []string{""}
	for _, p := range r.Peaks {
		head = append(head, fmt.Sprintf("%d core%s", p.Cores, plural(p.Cores)))
	}
	t.row(head...)
	for _, row := range peakRows(r.Peaks) {
		t.row(row...)
	}
	if err := t.write(w, "  "); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nOur kernels in the first cache, ns per residue:\n\n")
	t = newTable(1, 2, 3, 4, 5, 6, 7, 8)
	t.row(paceColumns...)
	for _, row := range paceRows(r.Paces) {
		t.row(row...)
	}
	if err := t.write(w, "  "); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nWhat each step takes at least, and how near it comes:\n\n")
	t = newTable(1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 13)
	t.row(append([]string{"step", "N", "level", "primes", "kernels"}, roofColumns...)...)
	for i := range r.Rows {
		k := &r.Rows[i]
		t.row(append([]string{k.Step, fmt.Sprintf("2^%d", k.LogN), fmt.Sprint(k.Level), fmt.Sprintf("%d bits", k.PrimeBits), k.Form}, k.roofCells()...)...)
	}
	return t.write(w, "  ")
}

// peakRows are a row per instruction and level of memory, a column per number of cores.
func peakRows(peaks []peakReport) [][]string {
	var out [][]string
	row := func(name string, value func(p *peakReport) string) {
		cells := []string{name}
		for i := range peaks {
			cells = append(cells, value(&peaks[i]))
		}
		out = append(out, cells)
	}
	for u := range kernels.NumUnits {
		if name := u.String(); peaks[0].Rates[name] > 0 {
			row(name, func(p *peakReport) string { return fmt.Sprintf("%.1f G words/s", p.Rates[name]/1e9) })
		}
	}
	for i, m := range peaks[0].Memory {
		name := m.Level
		if m.Bytes > 0 {
			name += ", " + byteSize(m.Bytes).String()
		}
		row(name+": read", func(p *peakReport) string { return rate(p.Memory[i].Read) })
		row(name+": copy", func(p *peakReport) string { return rate(p.Memory[i].Copy) })
	}
	return out
}

var paceColumns = []string{"kernels", "primes", "butterfly", "inverse", "product", "term", "reduction", "complex", "made"}

func paceRows(paces []paceReport) [][]string {
	var out [][]string
	for _, p := range paces {
		row := []string{p.Form, fmt.Sprintf("%d bits", p.PrimeBits)}
		for _, ns := range []float64{p.Butterfly, p.Inverse, p.Product, p.Term, p.Reduction, p.Complex, p.Uniform} {
			row = append(row, strconv.FormatFloat(ns, 'f', 3, 64))
		}
		out = append(out, row)
	}
	return out
}

var roofColumns = []string{"bytes", "multiply ms", "kernels ms", "memory ms", "ours ms", "attained", "limit", "from DRAM ms", "all cores ms", "limit"}

func (k *kernelRow) roofCells() []string {
	ms := func(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }
	x, all := k.Roof, ""
	if x.DRAMAll > 0 {
		all = ms(x.DRAMAll)
	}
	return []string{byteSize(x.Read + x.Written).String(), ms(x.Multiply), ms(x.Kernels), ms(x.Memory), ms(k.Ours), fmt.Sprintf("%.0f %%", 100*x.Attained), x.Limit, ms(x.DRAM), all, x.DRAMLimit}
}

// rooflineView is the page: a picture for each form of kernels, and the peaks.
type rooflineView struct {
	Title, Lead string
	Charts      []*chartView
	Columns     []string
	Peaks       [][]string
	PaceColumns []string
	Paces       [][]string
}

// writeRoofline draws the roofs of the largest ring.
func (r *kernelReport) writeRoofline(e *env, path string, one *kernels.Peaks) error {
	v := rooflineView{Title: "Kernels against what the machine can do", Lead: fmt.Sprintf("%s, %s kernels, medians", r.Machine, r.Arithmetic), Columns: []string{""}, Peaks: peakRows(r.Peaks), PaceColumns: paceColumns, Paces: paceRows(r.Paces)}
	for _, p := range r.Peaks {
		v.Columns = append(v.Columns, fmt.Sprintf("%d core%s", p.Cores, plural(p.Cores)))
	}
	largest := 0
	for _, k := range r.Rows {
		largest = max(largest, k.LogN)
	}
	rows := slices.DeleteFunc(slices.Clone(r.Rows), func(k kernelRow) bool { return k.LogN != largest })
	for form := kernels.IFMA; ; form-- {
		of := slices.DeleteFunc(slices.Clone(rows), func(k kernelRow) bool { return k.form != form })
		if len(of) > 0 {
			v.Charts = append(v.Charts, rooflineChart(of, form, one))
		}
		if form == kernels.Portable {
			break
		}
	}
	return e.writeText(path, func(w io.Writer) error { return rooflinePage.Execute(w, &v) })
}

// rooflineChart is the rate at which steps multiply against the words they multiply per
// byte, under the roofs of one core (Williams, Waterman and Patterson, CACM 2009).
func rooflineChart(rows []kernelRow, form kernels.Form, peaks *kernels.Peaks) *chartView {
	c := newChart("Kernels: "+form.String(), "Words multiplied per second, against words multiplied per byte that must be read (a written byte counts as often as it costs). Rounds of AES, which make halves of keys, count as multiplications: the same units do them. A line leads from each step, numbered as below, to what its multiplications and the memory that holds its operands allow.", "words multiplied per byte", "words per second")
	c.H, c.Bottom = 470, 416
	x, y := &axis{log: true, lo: math.Inf(1)}, &axis{log: true, lo: math.Inf(1)}
	for i := range rows {
		at, rate := rows[i].place()
		x.lo, x.hi = min(x.lo, at/1.5), max(x.hi, at*1.6)
		y.lo, y.hi = min(y.lo, rate/1.6), max(y.hi, rows[i].attainable()*1.3, rows[i].pace()*1.1)
	}
	c.axes(x, y)
	c.X = x.ticks(12, func(v float64) string { return fmt.Sprintf("%.3g", v) })
	c.Y = y.ticks(8, func(v float64) string { return fmt.Sprintf("%.3g G/s", v/1e9) })
	for i, m := range peaks.Memory {
		// From the left edge, or the lower one, to the upper one, or the right.
		from, to := max(x.lo, y.lo/m.Read), min(x.hi, y.hi/m.Read)
		if from < to {
			c.line(seriesClass(i)+" roof", x, y, [][2]float64{{from, from * m.Read}, {to, to * m.Read}}, nil)
			c.Legend = append(c.Legend, legendView{seriesClass(i), m.Level, rate(m.Read)})
		}
	}
	top := lattigo.MultiplierRate(form, peaks)
	c.line("s4 roof", x, y, [][2]float64{{x.lo, top}, {x.hi, top}}, nil)
	c.Legend = append(c.Legend, legendView{"s4", "multipliers", fmt.Sprintf("%.3g G words/s", top/1e9)})
	c.Columns = append([]string{"step", "level", "primes"}, roofColumns...)
	for i := range rows {
		k, n := &rows[i], i+1
		at, rate := k.place()
		label := fmt.Sprintf("%d: %s, level %d: %.0f %% of what is attainable, limit %s", n, k.Step, k.Level, 100*k.Roof.Attained, k.Roof.Limit)
		c.Lines = append(c.Lines, pathView{"other", fmt.Sprintf("M%.1f %.1fV%.1f", x.at(at), y.at(rate), y.at(k.attainable()))})
		c.Dots = append(c.Dots, dot{x.at(at), y.at(rate), 4.5, label, "other"})
		if pace := k.pace(); pace > 0 {
			c.Dots = append(c.Dots, dot{x.at(at), y.at(pace), 3, label, "s5"})
		}
		c.Rows = append(c.Rows, append([]string{fmt.Sprintf("%d: %s", n, k.Step), fmt.Sprint(k.Level), fmt.Sprintf("%d bits", k.PrimeBits)}, k.roofCells()...))
	}
	for i := range rows {
		at, rate := rows[i].place()
		c.Marks = append(c.Marks, markAt(c, x.at(at), y.at(rate), fmt.Sprint(i+1)))
	}
	c.Legend = append(c.Legend, legendView{"other", "a step, and what it could attain", ""}, legendView{"s5", "our kernels with everything in the first cache", ""})
	return c
}

// place returns where a step lies in the picture: words per byte, words per second.
func (k *kernelRow) place() (intensity, rate float64) {
	return float64(k.Roof.Words) / k.Roof.bytes, float64(k.Roof.Words) / (k.Ours / 1e3)
}

// attainable returns the words per second that the machine allows.
func (k *kernelRow) attainable() float64 {
	return float64(k.Roof.Words) / (k.Roof.Least / 1e3)
}

// pace returns the words per second of our kernels in the first cache, 0 if unknown.
func (k *kernelRow) pace() float64 {
	if k.Roof.Kernels == 0 {
		return 0
	}
	return float64(k.Roof.Words) / (k.Roof.Kernels / 1e3)
}

// markAt places a label beside a point, on the side where it is furthest from other
// labels and points.
func markAt(c *chartView, x, y float64, text string) mark {
	width := 7 * float64(len(text))
	best, most := mark{}, -1.0
	for _, side := range [][2]float64{{8, 4}, {-8 - width, 4}, {6, -7}, {6, 15}, {-6 - width, 15}} {
		m := mark{x + side[0], y + side[1], text}
		near := 22.0
		from := func(px, py float64) { near = min(near, math.Hypot(m.X+width/2-px, 1.4*(m.Y-4-py))) }
		for _, o := range c.Marks {
			from(o.X+3.5*float64(len(o.Text)), o.Y-4)
		}
		for _, d := range c.Dots {
			from(d.X, d.Y)
		}
		if near > most+1 {
			best, most = m, near
		}
	}
	return best
}
