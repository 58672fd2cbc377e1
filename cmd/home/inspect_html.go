package main

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/home-fhe/home/ir/plan"
)

//go:embed inspect.html
var pageText string

// page is the HTML template of inspect. It holds everything it needs: no
// scripts, no fonts, no pictures from elsewhere.
var page = template.Must(template.New("inspect").Parse(pageText))

// The view of a plan: text ready to print and coordinates ready to draw. All
// lengths are in units of the drawing they belong to.
type pageView struct {
	R         *planReport
	Depth     int // layers that compute
	Steps     string
	Batch     string
	Title     string
	Secure    bool
	Facts     []fact
	Layers    []layerView
	Levels    levelsView
	Times     []barView
	TimesH    int
	TimeTotal string
	Memory    memoryView
	KeyMap    keyMapView
	Keys      []keyView
	KeyTotal  string
	Gauge     gaugeView
	Params    []fact
	Tier      *tierView
	Client    []fact
	WhatIf    [][]string
	Columns   []string // of WhatIf
	Sources   []fact   // of the technologies
	Curves    []*chartView
	Trace     []*chartView
}

type fact struct{ Name, Value, Note string }

type layerView struct {
	Index       int
	Name        string
	Kind        string
	Class       string
	Shape       string
	Cts         int
	Level       int
	Rotations   string
	KeySwitches string
	CtMults     string
	Diagonals   string
	Weights     string
	Time        string
	Share       float64 // of the time of the slowest layer, percent
	Poly        string
	More        string
}

type tick struct {
	Pos   float64
	Label string
}

type dot struct {
	X, Y, R      float64
	Label, Class string
}

type levelsView struct {
	W, H, Left, Right, Top, Bottom float64
	Line, Area                     string
	Dots                           []dot
	Y, X                           []tick
}

type barView struct {
	Y, X, W   float64
	Name      string
	Value     string
	Class     string
	Title     string
	LabelSide float64 // x of the value
}

type segment struct {
	X, W  float64
	Class string
	Name  string
	Bytes string
	Share string
}

type marker struct {
	X      float64
	Label  string
	Anchor string
	Y      float64
}

type memoryView struct {
	W        float64
	Segments []segment
	Markers  []marker
	Total    string
}

type keyMapView struct {
	W, H, Left, Right, Top, Bottom float64
	Dots                           []dot
	X, Y                           []tick
}

type keyView struct {
	Rotation string
	Level    int
	Bytes    string
	Uses     string
}

type gaugeView struct {
	Fill, Label string
	W           float64 // percent
}

type tierView struct {
	Facts        []fact
	Compute, Gap float64 // percent of the predicted time
	Need, Extra  float64 // percent of the bytes read
	ComputeText  string
	StallText    string
	NeedText     string
	ExtraText    string
}

// htmlPage writes the page for a report.
func htmlPage(w io.Writer, r *planReport) error {
	v := &pageView{R: r, Depth: len(computing(r)), Steps: count(r.Steps), Batch: count(r.Batch), Title: r.Model, Secure: r.Params.SecurityBits >= 128 && !r.Params.Insecure}
	v.Facts = []fact{
		{"predicted time", seconds(r.Predicted.Seconds), fmt.Sprintf("%s of computing on one core", seconds(r.Predicted.CPUSeconds))},
		{"error of encryption", precision(r.OutputBits), "predicted, in the worst case; polynomials apart"},
		{"levels", fmt.Sprintf("%d of %d", r.Depth, r.Levels), bootstrapText(r)},
		{"rotations", count(r.Counts.Rotations), fmt.Sprintf("%s key switches, %s products", count(r.Counts.KeySwitches), count(r.Counts.CtMults))},
		{"keys", byteSize(r.Bytes.Keys).String(), fmt.Sprintf("%d, of which %s are for rotations", len(r.Keys), count(r.Counts.GaloisKeys))},
		{"least DRAM", byteSize(r.Bytes.DRAMMin).String(), fmt.Sprintf("%s when all is held", byteSize(r.Bytes.Footprint))},
	}
	v.Layers = layerViews(r)
	v.Levels = levelChart(r)
	v.Times, v.TimesH, v.TimeTotal = timeChart(r)
	v.Memory = memoryBar(r)
	v.KeyMap, v.Keys, v.KeyTotal = keyChart(r)
	v.gauge(r)
	v.tier(r)
	v.client(r)
	v.Columns = whatIfColumns
	for i := range r.WhatIf {
		words := r.WhatIf[i].words()
		v.WhatIf = append(v.WhatIf, append(words, make([]string, len(whatIfColumns)-len(words))...))
	}
	for _, t := range groups(r.WhatIf, func(w *whatIfReport) [3]string { return [3]string{w.Tier, rate(w.Bandwidth), w.Source} }) {
		v.Sources = append(v.Sources, fact{t[0], t[1], t[2]})
	}
	v.Curves, v.Trace = whatIfCharts(r.WhatIf), traceCharts(r)
	return page.Execute(w, v)
}

// bootstrapText says how often the modulus is raised, and in how many layers.
func bootstrapText(r *planReport) string {
	n := r.Counts.Bootstraps
	switch {
	case n == 0:
		return "no bootstrapping"
	case n == r.Refreshes:
		return fmt.Sprintf("%s bootstrap%s", count(n), plural(n))
	}
	return fmt.Sprintf("%s bootstrap%s in %s layer%s", count(n), plural(n), count(r.Refreshes), plural(r.Refreshes))
}

// kindClass groups layer kinds by colour.
func kindClass(kind string) string {
	k := strings.ToLower(kind)
	switch {
	case strings.Contains(k, "lin") || strings.Contains(k, "conv") || strings.Contains(k, "matmul"):
		return "linear"
	case strings.Contains(k, "poly") || strings.Contains(k, "act"):
		return "poly"
	case strings.Contains(k, "mul") || strings.Contains(k, "square"):
		return "mul"
	case k == plan.LayerRefresh:
		return "boot"
	}
	return "other"
}

func nonzero(n int) string {
	if n == 0 {
		return ""
	}
	return count(n)
}

// computing returns the layers between input and output, which the ports tell
// of already.
func computing(r *planReport) []layerReport {
	var out []layerReport
	for _, l := range r.Layers {
		if l.Kind != "input" && l.Kind != "output" {
			out = append(out, l)
		}
	}
	return out
}

func layerViews(r *planReport) []layerView {
	slowest := 0.0
	for _, l := range computing(r) {
		slowest = math.Max(slowest, l.Seconds)
	}
	var out []layerView
	for i, l := range computing(r) {
		v := layerView{
			Index: i + 1, Name: l.Name, Kind: l.Kind, Class: kindClass(l.Kind), Shape: dims(l.Shape), Cts: l.Ciphertexts, Level: l.Level,
			Rotations: nonzero(l.Rotations), KeySwitches: nonzero(l.KeySwitches), CtMults: nonzero(l.CtMults),
			Diagonals: nonzero(l.Diagonals), Time: seconds(l.Seconds),
		}
		if l.WeightBytes > 0 {
			v.Weights = byteSize(l.WeightBytes).String()
		}
		if slowest > 0 {
			v.Share = 100 * l.Seconds / slowest
		}
		if l.Degree > 0 {
			v.Poly = fmt.Sprintf("degree %d", l.Degree)
			if l.Bound > 0 {
				v.Poly += fmt.Sprintf(" on [%.3g, %.3g], error %.1e", l.Center-l.Bound, l.Center+l.Bound, l.PolyErr)
			}
		}
		out = append(out, v)
	}
	return out
}

// niceStep returns a step of 1, 2 or 5 times a power of ten that divides span
// into at most n parts.
func niceStep(span float64, n int) float64 {
	if span <= 0 {
		return 1
	}
	step := math.Pow(10, math.Floor(math.Log10(span/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if span/(step*m) <= float64(n) {
			return step * m
		}
	}
	return step * 10
}

func levelChart(r *planReport) levelsView {
	v := levelsView{W: 1040, H: 270, Left: 46, Right: 1024, Top: 16, Bottom: 226}
	levels, names, class := []int{}, []string{}, []string{}
	if len(r.Inputs) > 0 {
		levels, names, class = append(levels, r.Inputs[0].Level), append(names, "input "+r.Inputs[0].Name), append(class, "other")
	}
	layers := computing(r)
	for _, l := range layers {
		levels, names, class = append(levels, l.Level), append(names, l.Name), append(class, kindClass(l.Kind))
	}
	if len(levels) == 0 {
		return v
	}
	top := max(slices.Max(levels), r.Levels, 1)
	x := func(i int) float64 { return v.Left + (v.Right-v.Left)*(float64(i)+0.5)/float64(len(levels)) }
	y := func(l int) float64 { return v.Bottom - (v.Bottom-v.Top)*float64(l)/float64(top) }
	step := int(math.Max(1, niceStep(float64(top), 8)))
	for l := 0; l <= top; l += step {
		v.Y = append(v.Y, tick{y(l), fmt.Sprint(l)})
	}
	every := (len(levels) + 39) / 40
	var line strings.Builder
	for i, l := range levels {
		if i == 0 {
			fmt.Fprintf(&line, "M%.1f %.1f", v.Left, y(l))
		}
		edge := v.Right
		if i+1 < len(levels) {
			edge = (x(i) + x(i+1)) / 2
		}
		fmt.Fprintf(&line, "V%.1fH%.1f", y(l), edge)
		v.Dots = append(v.Dots, dot{x(i), y(l), 5, fmt.Sprintf("%s: level %d", names[i], l), class[i]})
		if i%every == 0 {
			label := fmt.Sprint(i)
			if len(levels) > len(layers) && i == 0 {
				label = "in"
			} else if len(levels) == len(layers) {
				label = fmt.Sprint(i + 1)
			}
			v.X = append(v.X, tick{x(i), label})
		}
	}
	v.Line = line.String()
	v.Area = v.Line + fmt.Sprintf("V%.1fH%.1fZ", v.Bottom, v.Left)
	return v
}

func timeChart(r *planReport) ([]barView, int, string) {
	const left, right, row = 300.0, 920.0, 26
	most, total := 0.0, 0.0
	layers := computing(r)
	for _, l := range layers {
		most, total = math.Max(most, l.Seconds), total+l.Seconds
	}
	var out []barView
	for i, l := range layers {
		w := 0.0
		if most > 0 {
			w = (right - left) * l.Seconds / most
		}
		share := ""
		if total > 0 {
			share = fmt.Sprintf("%.0f %%", 100*l.Seconds/total)
		}
		out = append(out, barView{
			Y: float64(i * row), X: left, W: math.Max(w, 1.5), Name: fmt.Sprintf("%d  %s", i+1, shorten(l.Name, 40)),
			Value: seconds(l.Seconds) + "  " + share, Class: kindClass(l.Kind), Title: l.Name, LabelSide: left + math.Max(w, 1.5) + 8,
		})
	}
	return out, len(out)*row + 4, seconds(total)
}

// shorten cuts the middle of a long name.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n/2-1]) + "…" + string(r[len(r)-(n-n/2):])
}

func memoryBar(r *planReport) memoryView {
	v := memoryView{W: 1040}
	parts := []struct {
		name, class string
		bytes       int64
	}{
		{"evaluation keys", "keys", r.Bytes.Keys},
		{"encoded weights", "weights", r.Bytes.Weights},
		{"bootstrapping matrices", "matrices", r.Bytes.Matrices},
		{"ciphertexts, at most", "cts", r.Bytes.CiphertextsPeak},
	}
	total := int64(0)
	for _, p := range parts {
		total += p.bytes
	}
	v.Total = byteSize(total).String()
	if total == 0 {
		return v
	}
	scale := float64(total)
	marks := []struct {
		name  string
		bytes int64
	}{{"least DRAM, runtime reserve included", r.Bytes.DRAMMin}}
	if r.Tier != nil && r.Tier.Budget > 0 {
		marks = append(marks, struct {
			name  string
			bytes int64
		}{"budget", r.Tier.Budget})
	}
	for _, m := range marks {
		if f := float64(m.bytes); f > scale && f < 3*float64(total) {
			scale = f * 1.02
		}
	}
	x := 0.0
	for _, p := range parts {
		if p.bytes == 0 {
			continue
		}
		w := v.W * float64(p.bytes) / scale
		v.Segments = append(v.Segments, segment{
			X: x, W: math.Max(w-2, 1), Class: p.class, Name: p.name,
			Bytes: byteSize(p.bytes).String(), Share: fmt.Sprintf("%.0f %%", 100*float64(p.bytes)/float64(total)),
		})
		x += w
	}
	for i, m := range marks {
		if f := float64(m.bytes); m.bytes > 0 && f <= scale {
			at := marker{X: v.W * f / scale, Label: fmt.Sprintf("%s: %s", m.name, byteSize(m.bytes)), Anchor: "start", Y: float64(92 + 18*i)}
			if at.X > v.W/2 {
				at.Anchor = "end"
			}
			v.Markers = append(v.Markers, at)
		}
	}
	return v
}

func keyChart(r *planReport) (keyMapView, []keyView, string) {
	v := keyMapView{W: 1040, H: 250, Left: 46, Right: 1024, Top: 16, Bottom: 206}
	total, most, far, top := int64(0), int64(1), 1, 1
	for _, k := range r.Keys {
		total += k.Bytes
		most = max(most, k.Bytes)
		far = max(far, abs(shift(k.Rotation, r.Params.Slots)))
		top = max(top, k.Level)
	}
	octaves := math.Max(1, math.Ceil(math.Log2(float64(far)+1)))
	mid := (v.Left + v.Right) / 2
	x := func(by int) float64 { // to both sides of the middle, a logarithm of the distance
		d := 16 + (v.Right-mid-32)*math.Log2(math.Max(1, float64(abs(by))))/octaves
		if by < 0 {
			return mid - d
		}
		return mid + d
	}
	y := func(l int) float64 { return v.Bottom - (v.Bottom-v.Top)*float64(l)/float64(top) }
	for e := 0; e <= int(octaves); e += 1 + int(octaves)/8 {
		v.X = append(v.X, tick{x(1 << e), fmt.Sprint(1 << e)}, tick{x(-(1 << e)), fmt.Sprint(1 << e)})
	}
	step := int(math.Max(1, niceStep(float64(top), 6)))
	for l := 0; l <= top; l += step {
		v.Y = append(v.Y, tick{y(l), fmt.Sprint(l)})
	}
	var keys []keyView
	for _, k := range r.Keys {
		name := k.Kind
		if k.Rotation != 0 {
			by, class := shift(k.Rotation, r.Params.Slots), "left"
			name = fmt.Sprintf("left by %s", count(by))
			if by < 0 {
				name, class = fmt.Sprintf("right by %s", count(-by)), "right"
			}
			v.Dots = append(v.Dots, dot{
				x(by), y(k.Level), 3 + 6*math.Sqrt(float64(k.Bytes)/float64(most)),
				fmt.Sprintf("%s, level %d, %s, used %d times", name, k.Level, byteSize(k.Bytes), k.Uses), class,
			})
		}
		keys = append(keys, keyView{name, k.Level, byteSize(k.Bytes).String(), count(k.Uses)})
	}
	return v, keys, byteSize(total).String()
}

// shift writes a rotation to the left the short way round: negative to the
// right.
func shift(rot, slots int) int {
	if slots > 0 && rot > slots/2 {
		return rot - slots
	}
	return rot
}

func abs(n int) int { return max(n, -n) }

func (v *pageView) gauge(r *planReport) {
	p := r.Params
	switch {
	case p.LogQPBound == 0:
		v.Gauge = gaugeView{Fill: "bad", W: 100, Label: fmt.Sprintf("log₂(QP) = %d; no 128-bit bound is known here", p.LogQP)}
	case p.LogQP > p.LogQPBound:
		v.Gauge = gaugeView{Fill: "bad", W: 100, Label: fmt.Sprintf("log₂(QP) = %d of %d bits that 128-bit security allows: too many", p.LogQP, p.LogQPBound)}
	default:
		v.Gauge = gaugeView{Fill: "good", W: 100 * float64(p.LogQP) / float64(p.LogQPBound), Label: fmt.Sprintf("log₂(QP) = %d of %d bits that 128-bit security allows", p.LogQP, p.LogQPBound)}
	}
	v.Params = []fact{
		{"ring degree", fmt.Sprintf("N = 2^%d", p.LogN), fmt.Sprintf("%s ring, %s real slots", p.Ring, count(p.Slots))},
		{"modulus", fmt.Sprintf("%d + %d primes", p.QPrimes, p.PPrimes), "of Q and of P"},
		{"scale", fmt.Sprintf("2^%d", p.LogScale), "default"},
		{"secret", p.Secret, ""},
		{"parameter set", p.Name, ""},
	}
}

func (v *pageView) tier(r *planReport) {
	t := r.Tier
	if t == nil {
		return
	}
	budget := "unlimited"
	if t.Budget > 0 {
		budget = byteSize(t.Budget).String()
	}
	tv := &tierView{Facts: []fact{
		{"DRAM budget", budget, fmt.Sprintf("%s of it for the runtime itself", byteSize(t.Reserve))},
		{"arena", byteSize(t.taken()).String(), "at most, for keys, weights and ciphertexts"},
		{"loads", count(t.Fetches), byteSize(t.BytesRead).String() + " from the slow tier" + transformText(t)},
		{"spills", count(t.Spills), byteSize(t.BytesWritten).String() + " to the slow tier"},
	}}
	if t.Keys != "" {
		tv.Facts = append(tv.Facts, fact{"keys", string(t.Keys), t.Keys.text()})
	}
	if text := t.Fused.text(); text != "" {
		tv.Facts = append(tv.Facts, fact{"plaintexts made in steps", string(t.Fused), text})
	}
	if text := t.costText(); text != "" {
		tv.Facts = append(tv.Facts, fact{"cost", seconds(t.MakeSeconds + t.InputSeconds), text})
	}
	if t.Seconds > 0 {
		tv.Gap = min(100, 100*t.StallSeconds/t.Seconds)
		tv.Compute = 100 - tv.Gap
	}
	tv.ComputeText, tv.StallText = seconds(math.Max(0, t.Seconds-t.StallSeconds)), seconds(t.StallSeconds)
	if t.BytesRead > 0 {
		tv.Need = min(100, 100*float64(t.BytesLower)/float64(t.BytesRead))
		tv.Extra = 100 - tv.Need
	}
	tv.NeedText, tv.ExtraText = byteSize(t.BytesLower).String(), byteSize(max(0, t.BytesRead-t.BytesLower)).String()
	v.Tier = tv
}

// taken is what objects take of the arena at most; of plans of older versions only
// the size of the arena is known.
func (t *tierReport) taken() int64 {
	if t.Peak > 0 {
		return t.Peak
	}
	return t.Arena
}

// transformText says how many loads are of compact forms.
func transformText(t *tierReport) string {
	if t.Transforms == 0 {
		return ""
	}
	return fmt.Sprintf(", %s in compact form", count(t.Transforms))
}

func (v *pageView) client(r *planReport) {
	lanes := func(p portReport) string {
		s := fmt.Sprintf("%d ciphertext%s at level %d", p.Ciphertexts, plural(p.Ciphertexts), p.Level)
		if p.Lanes > 1 {
			s += fmt.Sprintf(", %s samples side by side", count(p.Lanes))
		}
		return s
	}
	for _, p := range r.Inputs {
		v.Client = append(v.Client, fact{"encrypts", p.Name + "  " + dims(p.Shape), lanes(p)})
	}
	if p := r.Preprocess; p != nil {
		s := []string{p.Channels, strings.ToUpper(p.Order)}
		if p.Resize > 0 {
			s = append(s, fmt.Sprintf("short side %d", p.Resize))
		}
		if len(p.Crop) == 2 {
			s = append(s, fmt.Sprintf("centre crop %dx%d", p.Crop[0], p.Crop[1]))
		}
		s = append(s, fmt.Sprintf("pixel × %.4g", p.Scale))
		if len(p.Mean) > 0 {
			s = append(s, fmt.Sprintf("− %v", p.Mean))
		}
		if len(p.Std) > 0 {
			s = append(s, fmt.Sprintf("÷ %v", p.Std))
		}
		v.Client = append(v.Client, fact{"prepares pictures", strings.Join(s, ", "), ""})
	}
	for _, p := range r.Outputs {
		v.Client = append(v.Client, fact{"decrypts", p.Name + "  " + dims(p.Shape), lanes(p)})
	}
	for _, o := range r.ClientOps {
		v.Client = append(v.Client, fact{"computes", o.Op, o.Node})
	}
	if p := r.Preprocess; p != nil && len(p.Labels) > 0 {
		v.Client = append(v.Client, fact{"names", shorten(strings.Join(p.Labels, ", "), 90), fmt.Sprintf("%d classes", len(p.Labels))})
	}
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}
