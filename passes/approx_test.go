package passes

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
)

// parse reads a graph of the tensor vocabulary.
func parse(t testing.TB, text string) *ir.Graph {
	t.Helper()
	g, err := ir.ParseString(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestFit approximates functions with and without kinks: each further level
// gives a smaller error, the reported error is the true one, and functions that
// are even after a line is taken off get no other odd terms.
func TestFit(t *testing.T) {
	for _, c := range []struct {
		fn     string
		lo, hi float64
		top    float64 // error wanted with eight levels, relative to the bound
	}{
		{"relu", -4, 4, 0.14 / 100}, {"relu", -1, 6, 0.14 / 100}, {"silu", -8, 8, 1e-9}, {"gelu", -5, 5, 1e-9},
		{"sigmoid", -8, 8, 1e-9}, {"sigmoid", 1, 9, 1e-9}, {"tanh", -3, 3, 1e-9}, {"softplus", -6, 9, 1e-9}, {"elu", -3, 3, 1e-3},
	} {
		t.Run(fmt.Sprintf("%s[%v,%v]", c.fn, c.lo, c.hi), func(t *testing.T) {
			attrs := ir.Attrs{"fn": c.fn}
			if c.fn == "elu" {
				attrs["alpha"] = 1.0
			}
			v := &ir.Value{Op: ir.OpAct, Attrs: attrs}
			f, err := v.Activation()
			if err != nil {
				t.Fatal(err)
			}
			shape, err := v.ActShape()
			if err != nil {
				t.Fatal(err)
			}
			last := math.Inf(1)
			for levels := minPolyLevels; levels <= maxPolyLevels; levels++ {
				p, err := fitPolynomial(f, shape, c.lo, c.hi, nil, rung{levels, false})
				if err != nil {
					t.Fatal(err)
				}
				if got := polyDepth(p.Degree()); got > levels {
					t.Errorf("%d levels: degree %d takes %d", levels, p.Degree(), got)
				}
				worst := 0.0
				for i := range 20001 {
					x := c.lo + (c.hi-c.lo)*float64(i)/20000
					if p.Channel(0).Outside(x) {
						t.Fatalf("%g lies outside the range of the polynomial", x)
					}
					worst = max(worst, math.Abs(p.At(0, x)-f(x)))
				}
				if worst > p.Err*1.02+1e-12 {
					t.Errorf("%d levels: error %g, reported %g", levels, worst, p.Err)
				}
				if p.Err > last*1.001+1e-12 {
					t.Errorf("%d levels: error %g after %g with one level less", levels, p.Err, last)
				}
				last = p.Err
				if shape.Sym == ir.SymEven {
					for k := 3; k < len(p.Coef); k += 2 {
						if p.Coef[k] != 0 {
							t.Errorf("%d levels: odd coefficient %d is %g", levels, k, p.Coef[k])
						}
					}
				}
			}
			if bound := max(math.Abs(c.lo), math.Abs(c.hi)); last > c.top*bound*2 {
				t.Errorf("error %g with %d levels, want %g", last, maxPolyLevels, c.top*bound*2)
			}
		})
	}
	v := &ir.Value{Op: ir.OpAct, Attrs: ir.Attrs{"fn": "log"}}
	f, err := v.Activation()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fitPolynomial(f, ir.ActShape{}, -1, 1, nil, rung{4, false}); err == nil {
		t.Error("the logarithm was fitted on negative numbers")
	}
}

// TestComposites approximates rectifiers by compositions of sign polynomials: each
// is more precise than the one before and than a single polynomial of the most
// levels, takes the levels it says, and its inner polynomials stay in [-1,1].
func TestComposites(t *testing.T) {
	v := &ir.Value{Op: ir.OpAct, Attrs: ir.Attrs{"fn": "leakyrelu", "alpha": 0.1}}
	f, err := v.Activation()
	if err != nil {
		t.Fatal(err)
	}
	shape, err := v.ActShape()
	if err != nil {
		t.Fatal(err)
	}
	seen := &spread{}
	r := rand.New(rand.NewPCG(4, 4))
	for range 20000 {
		seen.add(0.2*r.NormFloat64(), 1)
	}
	direct, err := fitPolynomial(f, shape, -1, 1, seen, rung{maxPolyLevels, true})
	if err != nil {
		t.Fatal(err)
	}
	last := direct.Err
	for _, c := range composites {
		p := fitComposite(f, seen, c.levels)
		levels := 1 + polyDepth(p.Degree())
		for _, inner := range p.Inner {
			levels += polyDepth(len(inner) - 1)
			for i := range 2001 {
				if y := ir.Clenshaw(inner, float64(i)/1000-1); math.Abs(y) > 1+1e-3 {
					t.Fatalf("%d levels: an inner polynomial is %v", c.levels, y)
				}
			}
		}
		if levels != c.levels {
			t.Errorf("%d levels, want %d", levels, c.levels)
		}
		worst := 0.0
		for i := range 20001 {
			u := float64(i)/10000 - 1
			worst = max(worst, math.Abs(p.Unit(u)-f(u)))
		}
		if worst > 1.02*p.Err || p.Err > 0.9*last {
			t.Errorf("%d levels: error %g, reported %g, %g with fewer levels", c.levels, worst, p.Err, last)
		}
		last = p.Err
	}
}

// TestIntervals holds interval bounds against random inputs, which must never
// leave them.
func TestIntervals(t *testing.T) {
	g := parse(t, `graph "bounds"
%0 = tensor.input() {shape=[1,2,3,3]} "x"
%1 = tensor.const() data=[0.5,-1,0.25,2,-0.75,1,1,-2,0.5,1,-0.1,0.3,0.7,-0.6,0.2,0.9] : f[2,2,2,2] "w"
%2 = tensor.conv(%0, %1) {pads=[1,0,0,1]} "conv"
%3 = tensor.act(%2) {fn="silu"} "silu"
%4 = tensor.mul(%3, %2) "gate"
%5 = tensor.sub(%4, %3) "sub"
%6 = tensor.pow(%5) {k=2} "square"
%7 = tensor.reducemean(%6) {axes=[2,3], keepdims=0} "mean"
%8 = tensor.const() data=[1,-1,0.5,2] : f[2,2] "m"
%9 = tensor.matmul(%7, %8) "fc"
%10 = tensor.act(%9) {fn="tanh"} "tanh"
inputs(%0)
outputs(%10)
`)
	in := Range{-0.5, 2}
	bounds, err := intervals(g, in, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		x := ir.NewArray(1, 2, 3, 3)
		for i := range x.Data {
			x.Data[i] = []float64{in.Lo, in.Hi, in.Lo + (in.Hi-in.Lo)*r.Float64()}[r.IntN(3)]
		}
		_, _, err := clear.EvalTensor(g, []*ir.Array{x}, clear.Options{Observe: func(v *ir.Value, a *ir.Array) {
			b, ok := bounds[v]
			if !ok {
				t.Fatalf("%s has no bound", v.Name)
			}
			for _, y := range a.Data {
				if y < b.Lo-1e-9 || y > b.Hi+1e-9 {
					t.Fatalf("%s: %g outside %v", v.Name, y, b)
				}
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for v, b := range bounds {
		if v.Op == ir.OpAct && v.Attrs.Str("fn", "") == "tanh" && (b.Lo < -1-1e-9 || b.Hi > 1+1e-9) {
			t.Errorf("tanh bounded by %v", b)
		}
	}
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

func TestAssignLevels(t *testing.T) {
	in := &fusedNode{kind: fusedInput}
	a := &fusedNode{kind: fusedLinear, args: []*fusedNode{in}}
	poly := &fusedNode{kind: fusedPoly, args: []*fusedNode{a}, approx: &ir.Approx{Coef: make([]float64, 8)}}
	b := &fusedNode{kind: fusedLinear, args: []*fusedNode{in}} // the short branch
	mul := &fusedNode{kind: fusedMul, args: []*fusedNode{poly, b}}
	c := &fusedNode{kind: fusedLinear, args: []*fusedNode{mul, in}}
	out := &fusedNode{kind: fusedOutput, args: []*fusedNode{c}}
	nodes := []*fusedNode{in, a, poly, b, mul, c, out}
	if got := assignLevels(nodes); got != 6 { // 1 + 3 + 1 + 1
		t.Fatalf("depth %d, want 6", got)
	}
	for i, want := range []int{6, 5, 2, 2, 1, 0, 0} {
		if nodes[i].level != want {
			t.Errorf("node %d (%v): level %d, want %d", i, nodes[i].kind, nodes[i].level, want)
		}
	}
}

// TestCatalogue holds every entry of the catalogue against the bounds: 128 bits,
// P beyond the largest digit, and no entry that a cheaper one makes useless.
func TestCatalogue(t *testing.T) {
	all, err := Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for i, p := range all {
		if err := errors.Join(p.Check(), p.CheckSecurity()); err != nil {
			t.Error(err)
		}
		if p.Insecure || names[p.Name] || p.Ring != ir.RingReal || p.Secret != ir.SecretTernary {
			t.Errorf("%s: stamped, named twice, or of another ring or secret", p.Name)
		}
		names[p.Name] = true
		bp := big.NewInt(1)
		for _, q := range p.P {
			bp.Mul(bp, new(big.Int).SetUint64(q))
		}
		for d := 0; d < len(p.Q); d += len(p.P) {
			digit := big.NewInt(1)
			for _, q := range p.Q[d:min(len(p.Q), d+len(p.P))] {
				digit.Mul(digit, new(big.Int).SetUint64(q))
			}
			if digit.Cmp(bp) >= 0 {
				t.Errorf("%s: digit %d has %d bits, P %d", p.Name, d/len(p.P), digit.BitLen(), bp.BitLen())
			}
		}
		if i > 0 && all[i-1].LogN > p.LogN {
			t.Errorf("%s comes after a larger ring", p.Name)
		}
		for _, c := range all[:i] {
			if c.MaxLevel() >= p.MaxLevel() && c.LogScale >= p.LogScale && c.LogN <= p.LogN {
				t.Errorf("%s is never better than %s", p.Name, c.Name)
			}
		}
	}
}

// TestSearchDegrees calibrates a small network: the polynomials chosen meet the
// budget on samples they were not fitted on, a tighter budget never takes fewer
// levels, and a budget that nothing meets is refused.
func TestSearchDegrees(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	w := func(n int) string {
		s := make([]string, n)
		for i := range s {
			s[i] = fmt.Sprintf("%.4f", r.NormFloat64()/2)
		}
		return strings.Join(s, ",")
	}
	text := `graph "mlp"
%0 = tensor.input() {shape=[1,6]} "x"
%1 = tensor.const() data=[` + w(48) + `] : f[6,8] "w1"
%2 = tensor.matmul(%0, %1) "fc1"
%3 = tensor.act(%2) {fn="relu"} "relu1"
%4 = tensor.const() data=[` + w(64) + `] : f[8,8] "w2"
%5 = tensor.matmul(%3, %4) "fc2"
%6 = tensor.act(%5) {fn="sigmoid"} "sigmoid"
%7 = tensor.const() data=[` + w(24) + `] : f[8,3] "w3"
%8 = tensor.matmul(%6, %7) "fc3"
inputs(%0)
outputs(%8)
`
	samples := func(n int) []*ir.Array {
		var s []*ir.Array
		for range n {
			a := ir.NewArray(1, 6)
			for i := range a.Data {
				a.Data[i] = r.NormFloat64()
			}
			s = append(s, a)
		}
		return s
	}
	calib, held := samples(400), samples(400)
	last := 0
	for _, drop := range []float64{0.1, 0.02, 0.005} {
		u := &unit{opt: &Options{Calibrate: calib, AccuracyDrop: drop}, graph: parse(t, text)}
		if err := activations(u); err != nil {
			t.Fatal(err)
		}
		levels := 0
		for _, a := range encryptedActs(u.graph) {
			if a.Approx == nil {
				t.Fatalf("%s has no polynomial", a.Name)
			}
			levels += polyDepth(a.Approx.Degree())
		}
		if levels < last {
			t.Errorf("budget %g takes %d levels, a looser one %d", drop, levels, last)
		}
		last = levels
		flips := 0
		for _, x := range held {
			want, _, err := clear.EvalTensor(u.graph, []*ir.Array{x}, clear.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := clear.EvalTensor(u.graph, []*ir.Array{x}, clear.Options{Approx: true})
			if err != nil {
				t.Fatal(err)
			}
			if argmax(got[0].Data) != argmax(want[0].Data) {
				flips++
			}
		}
		// Three standard deviations of a share measured on 400 samples.
		if limit := drop + 3*math.Sqrt(drop/400); float64(flips)/400 > limit {
			t.Errorf("budget %g: %d of 400 held-out classes change", drop, flips)
		}
		t.Logf("budget %g: %d levels, %d of 400 held-out classes change", drop, levels, flips)
	}
	// One output has no margin between classes, and its error counts itself.
	u := &unit{opt: &Options{Calibrate: calib, AccuracyDrop: 1e-9}, graph: parse(t, `graph "sum"
%0 = tensor.input() {shape=[1,6]} "x"
%1 = tensor.reducesum(%0) {axes=[1]} "sum"
%2 = tensor.act(%1) {fn="relu"} "relu"
inputs(%0)
outputs(%2)
`)}
	if err := activations(u); !errors.Is(err, ErrAccuracy) {
		t.Errorf("a budget of 1e-9 gave %v", err)
	}
}

// deepNet is a chain of rectifiers between dense layers, with samples for it.
func deepNet(t *testing.T, layers int) (*ir.Graph, []*ir.Array) {
	t.Helper()
	const width = 8
	r := rand.New(rand.NewPCG(8, 8))
	var b strings.Builder
	fmt.Fprintf(&b, "graph \"deep\"\n%%0 = tensor.input() {shape=[1,%d]} \"x\"\n", width)
	id := 0
	for l := range layers + 1 {
		w := make([]string, width*width)
		for i := range w {
			x := 0.2 * r.NormFloat64()
			if i/width == i%width { // each layer keeps most of what the last one found
				x += 1 + float64(i%width)/width
			}
			w[i] = fmt.Sprintf("%.4f", x)
		}
		fmt.Fprintf(&b, "%%%d = tensor.const() data=[%s] : f[%d,%d] \"w%d\"\n", id+1, strings.Join(w, ","), width, width, l)
		fmt.Fprintf(&b, "%%%d = tensor.matmul(%%%d, %%%d) \"fc%d\"\n", id+2, id, id+1, l)
		id += 2
		if l < layers {
			fmt.Fprintf(&b, "%%%d = tensor.act(%%%d) {fn=\"relu\"} \"relu%d\"\n", id+1, id, l)
			id++
		}
	}
	fmt.Fprintf(&b, "inputs(%%0)\noutputs(%%%d)\n", id)
	var samples []*ir.Array
	for range 200 {
		a := ir.NewArray(1, width)
		for i := range a.Data {
			a.Data[i] = r.NormFloat64()
		}
		samples = append(samples, a)
	}
	return parse(t, b.String()), samples
}

// TestLevelCost gives the search a price of its own: only an activation that costs
// anything is lowered below the rung that serves all.
func TestLevelCost(t *testing.T) {
	const layers = 4
	search := func(skip []string, price func([]int) float64) []int {
		g, samples := deepNet(t, layers)
		u := &unit{opt: &Options{Calibrate: samples, AccuracyDrop: 0.05, Skip: skip}, graph: g, levelCost: price}
		if err := activations(u); err != nil {
			t.Fatal(err)
		}
		var out []int
		for _, v := range encryptedActs(g) {
			if v.Approx.Channels == nil {
				t.Errorf("%s has one range for channels of different size", v.Name)
			}
			out = append(out, polyDepth(v.Approx.Degree()))
		}
		return out
	}
	alike := search([]string{"activation-trim"}, nil)
	lowered := 0
	for only := range layers {
		got := search(nil, func(d []int) float64 { return float64(d[only]) })
		for k := range layers {
			switch {
			case k != only && got[k] != alike[k] || got[k] > alike[k]:
				t.Errorf("%v levels where only activation %d costs anything, %v for all alike", got, only, alike)
			case got[k] < alike[k]:
				lowered++
			}
		}
	}
	if lowered == 0 {
		t.Error("no activation was lowered")
	}
}

// TestChain counts refreshes along a chain of activations.
func TestChain(t *testing.T) {
	g, _ := deepNet(t, 5)
	u := &unit{graph: g}
	for _, c := range []struct {
		depths        []int
		fresh, useful int
		want          int
	}{
		{[]int{4, 4, 4, 4, 4}, 26, 0, 0}, // five times five, and the last layer
		{[]int{4, 4, 4, 4, 4}, 25, 10, 1},
		{[]int{4, 4, 4, 4, 4}, 15, 11, 1},
		{[]int{4, 4, 4, 4, 4}, 15, 10, 2},
		{[]int{4, 5, 4, 5, 4}, 5, 11, 3},
		{[]int{4, 5, 4, 5, 4}, 5, 10, 4},
	} {
		if got := u.chain(c.depths, c.fresh, c.useful); got != c.want {
			t.Errorf("%v from %d, then %d: %d refreshes, want %d", c.depths, c.fresh, c.useful, got, c.want)
		}
	}
}

// TestPlaceOfZero finds the place of zero common to lopsided ranges.
func TestPlaceOfZero(t *testing.T) {
	zero := placeOfZero([]Range{{-1, 3}, {-2, 6}})
	if math.Abs(zero+0.5) > 1e-12 {
		t.Errorf("zero at %v, want -0.5", zero)
	}
	for _, r := range []Range{{-1, 3}, {-3, 1}, {-1, 1}, {0.5, 2}} {
		h := r.halfWidth(zero)
		if lo, hi := h*(-1-zero), h*(1-zero); lo > r.Lo+1e-12 || hi < r.Hi-1e-12 || math.Min(r.Lo-lo, hi-r.Hi) > 1e-12 {
			t.Errorf("%v lies in [%v, %v]", r, lo, hi)
		}
	}
}
