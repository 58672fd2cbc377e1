package passes_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
)

// TestOrder holds the list of passes against the pairs that say why one comes
// before another.
func TestOrder(t *testing.T) {
	at := map[string]int{}
	for i, p := range passes.Passes {
		if _, twice := at[p.Name]; twice || p.Name == "" || p.Doc == "" {
			t.Errorf("pass %d: name %q empty or used twice, or no doc", i, p.Name)
		}
		at[p.Name] = i
	}
	mentioned := map[string]bool{}
	for _, o := range passes.Order {
		before, ok1 := at[o[0]]
		after, ok2 := at[o[1]]
		if !ok1 || !ok2 {
			t.Errorf("order of %q and %q: no such pass", o[0], o[1])
			continue
		}
		if before >= after {
			t.Errorf("%s must come before %s: %s", o[0], o[1], o[2])
		}
		if o[2] == "" {
			t.Errorf("%s before %s: no reason", o[0], o[1])
		}
		mentioned[o[0]], mentioned[o[1]] = true, true
	}
	for _, p := range passes.Passes {
		if !mentioned[p.Name] {
			t.Errorf("pass %s occurs in no pair: nothing says where it belongs", p.Name)
		}
	}
	for i, p := range passes.Passes[1:] {
		if prev := passes.Passes[i]; p.Reads != prev.Writes {
			t.Errorf("%s reads the %s vocabulary, %s leaves %s", p.Name, p.Reads, prev.Name, prev.Writes)
		}
	}
}

// smallModel loads the smallest network that the project ships.
func smallModel(t testing.TB) passes.Source {
	t.Helper()
	return shipped(t, "wdbc_mlp_sigmoid")
}

func shipped(t testing.TB, name string) passes.Source {
	t.Helper()
	m, err := frontend.Load(filepath.Join("..", "models", name, name+".onnx"), frontend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return passes.Source{Graph: m.Graph, Client: m.Client, Digest: m.Digest}
}

func TestSkip(t *testing.T) {
	src := smallModel(t)
	for _, p := range passes.Passes {
		if p.Optional {
			continue
		}
		if _, err := passes.Compile(src, passes.Options{Skip: []string{p.Name}}); err == nil || !strings.Contains(err.Error(), p.Name) {
			t.Errorf("pass %s is required and was left out: %v", p.Name, err)
		}
	}
	for _, o := range []passes.Options{{Skip: []string{"nonsense"}}, {StopAfter: "nonsense"}} {
		if _, err := passes.Compile(src, o); err == nil || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("unknown pass in %+v: %v", o, err)
		}
	}
}

// TestStopAfter stops after every pass: the observer has seen the passes up to
// there, each leaving the vocabulary it declares.
func TestStopAfter(t *testing.T) {
	vocab := map[string]ir.Vocab{}
	for _, p := range passes.Passes {
		vocab[p.Name] = p.Writes
	}
	for _, stop := range passes.Passes {
		if stop.Name == "activation-trim" { // part of the pass before it
			continue
		}
		var seen []string
		_, err := passes.Compile(smallModel(t), passes.Options{StopAfter: stop.Name, Observe: func(name string, g *ir.Graph) error {
			seen = append(seen, name)
			for _, v := range g.Values {
				if got := v.Op.Info().Vocab; got != vocab[name] {
					t.Errorf("after %s: %s belongs to the %s vocabulary", name, v.Op, got)
					break
				}
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		if len(seen) == 0 || seen[len(seen)-1] != stop.Name {
			t.Errorf("stopped after %s, last seen %v", stop.Name, seen)
		}
	}
	stop := errors.New("enough")
	if _, err := passes.Compile(smallModel(t), passes.Options{Observe: func(string, *ir.Graph) error { return stop }}); !errors.Is(err, stop) {
		t.Errorf("the observer's error is lost: %v", err)
	}
}

// noise returns samples to calibrate with where no data is needed.
func noise(shape []int) []*ir.Array {
	r := rand.New(rand.NewPCG(1, 9))
	var all []*ir.Array
	for range 40 {
		a := ir.NewArray(shape...)
		for i := range a.Data {
			a.Data[i] = r.Float64()
		}
		all = append(all, a)
	}
	return all
}

// TestDeterminism compiles networks twice, from two readings of the model: the
// files are equal byte by byte, and a plan that was loaded saves to the same
// bytes again.
func TestDeterminism(t *testing.T) {
	for _, name := range []string{"wdbc_mlp_sigmoid", "mnist_mlp_square", "mnist_cryptonet_square"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var files [3][]byte
			var prints [3]string
			save := func(i int, p *plan.Plan) {
				t.Helper()
				path := filepath.Join(dir, "p.hplan")
				if err := p.Save(path); err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				files[i] = b
				if prints[i], err = p.Fingerprint(); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 2 {
				if i == 1 { // nor does the number of processors matter
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
				}
				src := shipped(t, name)
				p, err := passes.Compile(src, passes.Options{Calibrate: noise(src.Graph.Inputs[0].Type.Shape)})
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Verify(); err != nil {
					t.Fatal(err)
				}
				save(i, p)
			}
			p, err := plan.Load(filepath.Join(dir, "p.hplan"))
			if err != nil {
				t.Fatal(err)
			}
			save(2, p)
			for i := range files {
				if !bytes.Equal(files[i], files[0]) || prints[i] != prints[0] {
					t.Errorf("file %d differs from file 0 (fingerprints %v)", i, prints)
				}
			}
		})
	}
}

// TestCompileLeavesSourceAlone compiles one reading of a model under two
// budgets: the first plan must not change, nor may the second depend on it.
func TestCompileLeavesSourceAlone(t *testing.T) {
	src := smallModel(t)
	before := src.Graph.String()
	wide := passes.Options{InputLo: -4, InputHi: 4}
	first, err := passes.Compile(src, passes.Options{InputLo: -1, InputHi: 1})
	if err != nil {
		t.Fatal(err)
	}
	printed := first.Network.String()
	second, err := passes.Compile(src, wide)
	if err != nil {
		t.Fatal(err)
	}
	if first.Network.String() != printed {
		t.Error("compiling again changed the network of the first plan")
	}
	if src.Graph.String() != before {
		t.Error("compiling changed the source")
	}
	fresh, err := passes.Compile(smallModel(t), wide)
	if err != nil {
		t.Fatal(err)
	}
	a, err1 := second.Fingerprint()
	b, err2 := fresh.Fingerprint()
	if err := errors.Join(err1, err2); err != nil || a != b {
		t.Errorf("fingerprint %s after another compilation, %s fresh (%v)", a, b, err)
	}
}

// TestRefusals compiles what cannot run on ciphertexts: each error names the
// node and is of the kind that the command turns into its exit code.
func TestRefusals(t *testing.T) {
	tensor := func(body, out string) string {
		return "graph \"bad\"\n%0 = tensor.input() {shape=[1,2,4,4]} \"x\"\n" + body + "inputs(%0)\noutputs(" + out + ")\n"
	}
	for _, c := range []struct{ name, text, want string }{
		{"softmax inside", tensor("%1 = tensor.softmax(%0) \"soft\"\n%2 = tensor.add(%1, %0) \"sum\"\n", "%2"), "soft"},
		{"both encrypted", tensor("%1 = tensor.matmul(%0, %0) \"gram\"\n", "%1"), "gram"},
		{"division", tensor("%1 = tensor.div(%0, %0) \"ratio\"\n", "%1"), "ratio"},
		{"cube", tensor("%1 = tensor.pow(%0) {k=3.0} \"cube\"\n", "%1"), "cube"},
		{"constant output", tensor("%1 = tensor.const() data=[1,2] : f[2] \"bias\"\n", "%0, %1"), "bias"},
		{"logarithm", tensor("%1 = tensor.act(%0) {fn=\"log\"} \"ln\"\n", "%1"), "ln"},
		{"two inputs", "graph \"two\"\n%0 = tensor.input() {shape=[2]} \"a\"\n%1 = tensor.input() {shape=[2]} \"b\"\n%2 = tensor.add(%0, %1) \"sum\"\ninputs(%0, %1)\noutputs(%2)\n", "b (tensor.input)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := ir.ParseString(c.text)
			if err != nil {
				t.Fatal(err)
			}
			_, err = passes.Compile(passes.Source{Graph: g}, passes.Options{})
			if !errors.Is(err, ir.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v", err)
			}
		})
	}
	// Sixty squares in a row need more levels than any chain of the ring has that
	// cannot bootstrap.
	text := "graph \"deep\"\n%0 = tensor.input() {shape=[1,4]} \"x\"\n"
	for i := 1; i <= 60; i++ {
		text += "%" + strconv.Itoa(i) + " = tensor.pow(%" + strconv.Itoa(i-1) + ") {k=2} \"square" + strconv.Itoa(i) + "\"\n"
	}
	g, err := ir.ParseString(text + "inputs(%0)\noutputs(%60)\n")
	if err != nil {
		t.Fatal(err)
	}
	all, err := passes.Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	if _, err = passes.Compile(passes.Source{Graph: g}, passes.Options{Params: all[len(all)-1]}); !errors.Is(err, passes.ErrTooDeep) || !errors.Is(err, ir.ErrUnsupported) {
		t.Errorf("too deep: %v", err)
	}
	weak, err := ir.NewParams("weak", 6, ir.RingReal, ir.SecretTernary, []int{50, 40, 40, 40, 40, 40, 40, 40, 40}, []int{51}, 40)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = passes.Compile(smallModel(t), passes.Options{Params: weak}); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("weak parameters: %v", err)
	}
	_, err = passes.Compile(smallModel(t), passes.Options{DRAM: 1 << 20})
	var budget *plan.BudgetError
	if !errors.As(err, &budget) || budget.Least <= 1<<20 {
		t.Errorf("a budget of 1 MiB: %v", err)
	}
}

// TestProductsInARow squares up to fourteen times without a layer in between, where
// scales drift apart by powers: the catalogue must hold them all the same. After
// six, and then every four, a layer brings back the scale and what the margins of
// ranges have cost.
func TestProductsInARow(t *testing.T) {
	text := "graph \"powers\"\n%0 = tensor.input() {shape=[1,4]} \"x\"\n%1 = tensor.const() data=[1,-1,0.5,1] : f[4] \"w\"\n%2 = tensor.mul(%0, %1) \"scale\"\n"
	for n := 1; n <= 14; n++ {
		text += "%" + strconv.Itoa(n+2) + " = tensor.pow(%" + strconv.Itoa(n+1) + ") {k=2.0} \"square\"\n"
		levels := n + 2 + max(0, n-3)/4
		g, err := ir.ParseString(text + "inputs(%0)\noutputs(%" + strconv.Itoa(n+2) + ")\n")
		if err != nil {
			t.Fatal(err)
		}
		par, err := ir.NewParams("tiny", 6, ir.RingReal, ir.SecretTernary, slices.Concat([]int{50}, slices.Repeat([]int{40}, levels)), []int{51}, 40)
		if err != nil {
			t.Fatal(err)
		}
		p, err := passes.Compile(passes.Source{Graph: g}, passes.Options{Calibrate: noise([]int{1, 4}), Params: par, AllowInsecure: true})
		if err != nil {
			t.Errorf("%d squares: %v", n, err)
			continue
		}
		if err := p.Verify(); err != nil || p.Depth != levels || p.Predicted.Bits < 11 {
			t.Errorf("%d squares: depth %d, %.1f bits (%v)", n, p.Depth, p.Predicted.Bits, err)
		}
	}
}

// TestOutputNames compiles a network whose outputs stem from one node: clients
// find each by a name of its own.
func TestOutputNames(t *testing.T) {
	g, err := ir.ParseString(`graph "split"
%0 = tensor.input() {shape=[1,4]} "x"
%1 = tensor.slice(%0) {axes=[1], ends=[2], starts=[0]} "split"
%2 = tensor.slice(%0) {axes=[1], ends=[4], starts=[2]} "split"
inputs(%0)
outputs(%1, %2, %1)
`)
	if err != nil {
		t.Fatal(err)
	}
	p, err := passes.Compile(passes.Source{Graph: g}, passes.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range p.Outputs {
		names = append(names, o.Name)
	}
	if want := []string{"split", "split#2", "split#3"}; !slices.Equal(names, want) {
		t.Errorf("outputs %q, want %q", names, want)
	}
}

// TestHeavyGraphs compiles graphs of few lines that could take the compiler
// forever or more memory than there is.
func TestHeavyGraphs(t *testing.T) {
	// Sixty doublings have 2^60 paths from the input to the output.
	text := "graph \"doubling\"\n%0 = tensor.input() {shape=[1,4]} \"x\"\n"
	for i := 1; i <= 60; i++ {
		v := strconv.Itoa(i - 1)
		text += "%" + strconv.Itoa(i) + " = tensor.add(%" + v + ", %" + v + ") \"double\"\n"
	}
	g, err := ir.ParseString(text + "inputs(%0)\noutputs(%60)\n")
	if err != nil {
		t.Fatal(err)
	}
	p, err := passes.Compile(passes.Source{Graph: g}, passes.Options{})
	if err != nil || p.Depth != 1 {
		t.Errorf("sixty doublings: %v", err)
	}
	// A convolution of VGG size: 1.8e9 products.
	x := ir.TensorType(1, 64, 224, 224)
	g = &ir.Graph{Name: "large"}
	in, err1 := g.Add(ir.OpInput, "x", ir.Attrs{"shape": x.Shape}, nil...)
	w, err2 := g.Const("w", ir.NewArray(64, 64, 3, 3), ir.Real)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	w.Array.Data[0] = 1
	conv, err := g.Add(ir.OpConv, "conv", ir.Attrs{"pads": []int{1, 1, 1, 1}}, in, w)
	if err != nil {
		t.Fatal(err)
	}
	g.Inputs, g.Outputs = []*ir.Value{in}, []*ir.Value{conv}
	if _, err := passes.Compile(passes.Source{Graph: g}, passes.Options{}); !errors.Is(err, ir.ErrUnsupported) || !strings.Contains(err.Error(), "conv") {
		t.Errorf("a convolution of 1.8e9 products: %v", err)
	}
}

// TestInputLimit compiles from interval bounds: the client refuses what lies
// beyond them, and nothing it accepts leaves the range of a polynomial.
func TestInputLimit(t *testing.T) {
	src := smallModel(t)
	p, err := passes.Compile(src, passes.Options{InputLo: -3, InputHi: 3})
	if err != nil {
		t.Fatal(err)
	}
	in := p.Inputs[0]
	if edge := in.Restore(0, in.Limit); math.Abs(edge-3) > 1e-3 {
		t.Errorf("inputs up to %g are accepted, ranges hold up to 3", edge)
	}
	r := rand.New(rand.NewPCG(1, 5))
	for range 50 {
		x := ir.NewArray(in.Shape...)
		for i := range x.Data {
			x.Data[i] = in.Restore(i, in.Limit*(2*float64(r.IntN(2))-1))
		}
		_, stats, err := clear.EvalTensor(p.Network, []*ir.Array{x}, clear.Options{Approx: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range stats.Violations {
			if v.Worst > 1.001 {
				t.Fatalf("%s: %d values outside, up to %g times the range", v.Value.Name, v.Count, v.Worst)
			}
		}
	}
}
