package ir

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files of testdata")

// drawGraph draws a graph of the tensor vocabulary with odd names and numbers.
func drawGraph(t *rapid.T) *Graph {
	g := &Graph{Name: rapid.String().Draw(t, "name")}
	number := rapid.OneOf(rapid.Float64Range(-1, 1), rapid.Float64(), rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 5e-324, math.MaxFloat64, 1e21, 0.1}))
	x, err := g.Add(OpInput, rapid.String().Draw(t, "input"), Attrs{"shape": []int{2, 3}})
	if err != nil {
		t.Fatal(err)
	}
	g.Inputs = []*Value{x}
	n := rapid.SampledFrom([]int{3, 1, 300}).Draw(t, "n")
	data := rapid.SliceOfN(number, n, n).Draw(t, "data")
	if _, err := g.Const("big", ArrayOf(data, n), Real); err != nil {
		t.Fatal(err)
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "ops") {
		var enc []*Value
		for _, v := range g.Values {
			if v.Type.Encrypted {
				enc = append(enc, v)
			}
		}
		a := rapid.SampledFrom(enc).Draw(t, "arg")
		v := &Value{Name: fmt.Sprintf("n%d\n\"%s", i, rapid.StringN(0, 3, 5).Draw(t, "tag")), Args: []*Value{a}}
		switch rapid.IntRange(0, 4).Draw(t, "op") {
		case 0:
			v.Op, v.Args = OpAdd, []*Value{a, rapid.SampledFrom(enc).Draw(t, "other")}
			if !slices.Equal(v.Args[1].Type.Shape, a.Type.Shape) {
				v.Args[1] = a
			}
		case 1:
			v.Op, v.Attrs = OpAct, Attrs{"fn": "clip", "min": math.Inf(-1), "max": number.Draw(t, "max")}
		case 2:
			v.Op, v.Attrs = OpAct, Attrs{"fn": "silu"}
			v.Approx = &Approx{Coef: rapid.SliceOfN(number, 1, 100).Draw(t, "coef"), Bound: 1 + number.Filter(func(x float64) bool { return x > 0 && x < 1e9 }).Draw(t, "bound"), Err: number.Draw(t, "err"),
				Inner: rapid.SliceOfN(rapid.SliceOfN(number, 1, 9), 0, 2).Draw(t, "inner")}
			if len(v.Approx.Inner) == 0 {
				v.Approx.Inner = nil
			}
			if s := a.Type.Shape; len(s) > 1 && s[1] > 0 && rapid.Bool().Draw(t, "channels") {
				for range s[1] {
					v.Approx.Channels = append(v.Approx.Channels, Channel{number.Draw(t, "center"), v.Approx.Bound, number.Draw(t, "gain")})
				}
			}
		case 3:
			v.Op, v.Attrs = OpPow, Attrs{"k": 2.0}
		case 4:
			v.Op, v.Attrs = OpReduceMean, Attrs{"axes": []int{}, "keepdims": 1}
		}
		if _, err := g.Append(v); err != nil {
			t.Fatal(err)
		}
	}
	g.Outputs = []*Value{g.Values[len(g.Values)-1], x}
	return g
}

// lowered is a graph with all payloads of the packed and scheme vocabularies:
// y = M x + b, squared, and the ciphertext program of a product.
func lowered(t testing.TB, slots int) *Graph {
	g := &Graph{Name: "lowered"}
	add := func(v *Value) *Value {
		if _, err := g.Append(v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	l := NewLayout(slots, 1, 1)
	for i := range l.Map {
		l.Map[i] = int32(i * (i + 1) / 2 % slots) // triangular numbers permute, and have no runs
	}
	x := add(&Value{Op: OpPackInput, Name: "x", Attrs: Attrs{"shape": []int{slots}}, Layout: l})
	m := &Sparse{Rows: slots, Cols: slots, Ptr: []int32{0}}
	for r := range slots {
		m.Col = append(m.Col, int32(r))
		m.Val = append(m.Val, 1/float64(r+1))
		m.Ptr = append(m.Ptr, int32(r+1))
	}
	y := add(&Value{Op: OpPackLinear, Name: "fc", Attrs: Attrs{"shape": []int{slots}}, Args: []*Value{x}, Layout: l,
		Linear: &Linear{Mats: []*Sparse{m}, Bias: make([]float64, slots)}})
	p := add(&Value{Op: OpPackPoly, Name: "act", Args: []*Value{y}, Layout: l, Approx: &Approx{Coef: []float64{0, 0.5, 0.5}, Bound: 1}})
	out := add(&Value{Op: OpPackOutput, Args: []*Value{p}})
	ct := add(&Value{Op: OpHEInput, Attrs: Attrs{"level": 3, "scale": "2^30"}})
	pt := &SlotData{Period: slots, LogLanes: 1}
	for i := range pt.Positions() {
		pt.Index = append(pt.Index, int32(i))
		pt.Value = append(pt.Value, float64(i)/7)
	}
	w := add(&Value{Op: OpHEPlain, Attrs: Attrs{"level": 3, "scale": "q3", "qp": 0}, Slots: pt})
	key := add(&Value{Op: OpHEKey, Attrs: Attrs{"level": 3, "rot": 1}})
	r := add(&Value{Op: OpHERotate, Attrs: Attrs{"rot": 1}, Args: []*Value{ct, key}})
	mul := add(&Value{Op: OpHEMulPlain, Args: []*Value{r, w}})
	res := add(&Value{Op: OpHERescale, Args: []*Value{mul}})
	fresh := add(&Value{Op: OpPackRefresh, Name: "act", Args: []*Value{p}, Layout: l})
	g.Inputs, g.Outputs = []*Value{x, ct}, []*Value{out, res, fresh}
	return g
}

func printed(t interface{ Fatal(...any) }, g *Graph) (string, Blobs) {
	var b bytes.Buffer
	blobs := Blobs{}
	if err := Print(&b, g, blobs); err != nil {
		t.Fatal(err)
	}
	return b.String(), blobs
}

// checkRoundTrip prints, parses and prints again, and compares payloads bit by
// bit.
func checkRoundTrip(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, g *Graph) {
	text, blobs := printed(t, g)
	h, err := Parse(strings.NewReader(text), blobs)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if again, _ := printed(t, h); again != text {
		t.Fatalf("printed\n%s\nthen\n%s", text, again)
	}
	for i, v := range g.Values {
		w := h.Values[i]
		if v.Op != w.Op || v.Name != w.Name || !v.Type.Equal(w.Type) || len(v.Args) != len(w.Args) {
			t.Fatalf("value %d %s %q came back as %s %q", i, v.Op, v.Name, w.Op, w.Name)
		}
		if len(v.Attrs)+len(w.Attrs) > 0 && !reflect.DeepEqual(v.Attrs, w.Attrs) {
			t.Fatalf("value %d: attributes %v came back as %v", i, v.Attrs, w.Attrs)
		}
		if v.Array != nil && !bytes.Equal(appendFloats(nil, v.Array.Data), appendFloats(nil, w.Array.Data)) {
			t.Fatalf("value %d: constants differ", i)
		}
		if !reflect.DeepEqual(v.Approx, w.Approx) || !reflect.DeepEqual(v.Linear, w.Linear) || !reflect.DeepEqual(v.Slots, w.Slots) {
			t.Fatalf("value %d: payload differs", i)
		}
	}
	if err := Verify(h); err != nil {
		t.Fatal(err)
	}
}

func TestTextRoundTrip(t *testing.T) {
	for _, slots := range []int{8, 4096} { // inline and as blobs
		checkRoundTrip(t, lowered(t, slots))
	}
	rapid.Check(t, func(t *rapid.T) { checkRoundTrip(t, drawGraph(t)) })
}

// TestTextGolden fixes the text: plans and pass tests depend on it.
func TestTextGolden(t *testing.T) {
	got, _ := printed(t, lowered(t, 8))
	const file = "testdata/lowered.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("text is\n%s\nwant\n%s", got, want)
	}
}

const small = `graph "g"
# a comment, an empty line, a type left out

%0 = tensor.input() {shape=[1,3]} : f[1,3] enc "x"
%1 = tensor.const() data=[1,2,0.5] : f[3] "w"
%2 = tensor.mul(%0, %1) "scale"
%3 = tensor.act(%2) {fn="relu"} approx=(center=0, bound=2, err=0.25, coef=[1,0.5]) : f[1,3] enc "relu"
inputs(%0)
outputs(%3)
`

// zoo has every op of the tensor vocabulary, as a start for the fuzzer.
const zoo = `graph "zoo"
%0 = tensor.input() {shape=[1,4,5,6]} "x"
%1 = tensor.const() data=[1,2,3,4,5,6,7,8,9,8,7,6,5,4,3,2] : f[4,1,2,2] "w"
%2 = tensor.const() {dtype="i"} data=[0,-1] : i[2] "i"
%3 = tensor.conv(%0, %1) {dilations=[1,2], group=4, pads=[1,0,0,1], strides=[2,1]} "conv"
%4 = tensor.avgpool(%3) {ceil=1, count_include_pad=1, kernel=[2,2], pads=[0,1,1,0], strides=[1,2]} "avg"
%5 = tensor.maxpool(%3) {dilations=[2,1], kernel=[2,3]} "max"
%6 = tensor.pad(%4) {mode="reflect", pads=[0,0,1,-1,0,0,1,1], value=0} "pad"
%7 = tensor.pad(%4) {pads=[0,0,1,-1,0,0,1,1], value=2.5} "pad0"
%8 = tensor.slice(%6) {axes=[-1,1], ends=[-9,4], starts=[-1,1], steps=[-2,2]} "slice"
%9 = tensor.gather(%8, %2) {axis=1} "gather"
%10 = tensor.transpose(%9) {perm=[0,3,2,1]} "transpose"
%11 = tensor.reducemean(%10) {axes=[1,-1], keepdims=1} "mean"
%12 = tensor.reducesum(%10) {axes=[1,-1], keepdims=0} "sum"
%13 = tensor.reducemax(%10) {keepdims=0} "top"
%14 = tensor.expand(%13) {shape=[2,3]} "expand"
%15 = tensor.reshape(%14) {shape=[3,2]} "reshape"
%16 = tensor.const() data=[1,2] : f[2] "c"
%17 = tensor.matmul(%14, %15) "matmul"
%18 = tensor.mul(%17, %16) "mul"
%19 = tensor.div(%18, %16) "div"
%20 = tensor.sub(%16, %19) "sub"
%21 = tensor.add(%20, %16) "add"
%22 = tensor.concat(%21, %20) {axis=-1} "concat"
%23 = tensor.pow(%22) {k=3} "pow"
%24 = tensor.act(%23) {fn="clip", max=+Inf, min=-1} "clip"
%25 = tensor.act(%24) {alpha=0.1, fn="leakyrelu"} "leaky"
%26 = tensor.softmax(%25) {axis=1, flat=1} "soft"
%27 = tensor.logsoftmax(%26) {axis=0} "log"
%28 = tensor.argmax(%27) {axis=-1, keepdims=0, last=1} "arg"
%29 = tensor.div(%2, %2) "foldable"
%30 = tensor.conv(%1, %1) "constants"
%31 = tensor.avgpool(%1) {kernel=[2,2]} "pooled"
inputs(%0)
outputs(%5, %7, %11, %12, %28, %29)
`

// TestZoo keeps the fuzzer's start valid and complete.
func TestZoo(t *testing.T) {
	g, err := ParseString(zoo)
	if err == nil {
		err = Verify(g, Tensor)
	}
	if err != nil {
		t.Fatal(err)
	}
	used := map[Op]bool{}
	for _, v := range g.Values {
		used[v.Op] = true
		tryCells(t, v)
	}
	for _, op := range Ops() {
		if op.Info().Vocab == Tensor && !used[op] {
			t.Errorf("%s is not in it", op)
		}
	}
}

func TestParse(t *testing.T) {
	g, err := ParseString(small)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(g, Tensor); err != nil {
		t.Fatal(err)
	}
	if v := g.Values[3]; v.Approx.Bound != 2 || v.Name != "relu" || g.Values[2].Type.String() != "f[1,3] enc" {
		t.Errorf("parsed %s", g)
	}
}

// TestParseErrors edits the small graph: each error names the line and says why.
func TestParseErrors(t *testing.T) {
	tests := []struct{ old, new, want string }{
		{`graph "g"`, `grap "g"`, `line 1: column 1: found "grap`},
		{`graph "g"`, `graph g`, "line 1: column 7"},
		{`graph "g"`, `graph "g" x`, "end of line"},
		{"tensor.input", "tensor.inputs", `line 4: unknown op "tensor.inputs"`},
		{"%1 =", "%2 =", "line 5: value %2, want %1"},
		{"(%0, %1)", "(%0, %2)", "line 6: value %2 is not defined yet"},
		{"(%0, %1)", "(%0 %1)", `want ","`},
		{"(%0, %1)", "(%0)", "line 6: scale (tensor.mul): 1 arguments"},
		{"{shape=[1,3]}", "{shape=[1,x]}", "want an integer"},
		{"{shape=[1,3]}", "{shap=[1,3]}", `no attribute "shap"`},
		{"{shape=[1,3]}", "{shape=[1,3], shape=[1,3]}", "given twice"},
		{"{shape=[1,3]}", "{shape=[99999999999,99999999999]}", "more than"},
		{"data=[1,2,0.5]", "data=[1,2]", "line 5: 2 elements for shape [3]"},
		{"data=[1,2,0.5]", "data=[1,2,0.5", `want ","`},
		{"data=[1,2,0.5]", "data=blob:12", "no blobs were given"},
		{" : f[3]", "", "data without the type"},
		{": f[3]", ": f[99999999999,99999999999]", "elements for shape"},
		{": f[3]", ": g[3]", `unknown type "g"`},
		{": f[3]", ": slots[3] @0", "layout @0 is not defined yet"},
		{": f[1,3] enc \"relu\"", ": f[1,4] enc \"relu\"", "line 7: value %3 (relu) has another type than written"},
		{": f[1,3] enc \"relu\"", ": f[1,3] \"relu\"", "another type"},
		{`fn="relu"`, `fn="step"`, `unknown function "step"`},
		{"coef=[1,0.5]", "coef=[]", "malformed"},
		{"bound=2", "bound=0", "malformed"},
		{"center=0, ", "", `want "center="`},
		{"outputs(%3)", "outputs(%4)", "line 9: value %4"},
		{"outputs(%3)", "inputs(%3)", "line 9: inputs are given twice"},
		{"outputs(%3)\n", "", "ends without"},
		{"inputs(%0)", "inputs(%0)\n%4 = tensor.act(%2) {fn=\"relu\"}", "line 9: value after"},
		{"%0 = ", "layout @0 = slots=4 cts=1 lanes=1 map=[0*3]\n%0 = ", "line 4: layout"},
		{"%0 = ", "layout @0 = slots=268435456 cts=1 lanes=1 map=[0*268435456]\n%0 = ", "too large"},
		{"%0 = ", "layout @0 = slots=2 cts=1 lanes=1 map=[0..2147483647/2147483646]\nlayout @2 = \n%0 = ", "line 5: layout @2, want @1"},
	}
	for _, c := range tests {
		text := strings.Replace(small, c.old, c.new, 1)
		if text == small {
			t.Fatalf("%q is not in the text", c.old)
		}
		if _, err := ParseString(text); err == nil {
			t.Errorf("%q for %q: no error, want %q", c.new, c.old, c.want)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q: %q, want %q", c.new, c.old, err, c.want)
		}
	}
}

// brokenBlobs returns the wrong data for every sum.
type brokenBlobs struct{ err error }

func (b brokenBlobs) GetBlob(string) ([]byte, error) { return []byte("wrong"), b.err }
func (b brokenBlobs) PutBlob(string, []byte) error   { return b.err }

func TestBlobs(t *testing.T) {
	g := lowered(t, 4096)
	text, blobs := printed(t, g)
	if len(blobs) != 3 { // layout, matrix, plaintext
		t.Errorf("%d blobs, want 3", len(blobs))
	}
	if len(text) > 2000 {
		t.Errorf("text of %d bytes has payloads inside", len(text))
	}
	full := errors.New("disk full")
	if err := Print(new(bytes.Buffer), g, brokenBlobs{full}); !errors.Is(err, full) {
		t.Errorf("printing to a full disk: %v", err)
	}
	if _, err := Parse(strings.NewReader(text), brokenBlobs{}); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("parsing with wrong blobs: %v", err)
	}
	if _, err := Parse(strings.NewReader(text), Blobs{}); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("parsing without blobs: %v", err)
	}
	for _, v := range g.Values { // every cut of an encoded payload is an error
		if v.Linear != nil {
			b := v.Linear.encode()
			for n := 0; n < len(b); n += 97 {
				if _, err := decodeLinear(b[:n]); err == nil {
					t.Fatalf("%d of %d bytes of a matrix are accepted", n, len(b))
				}
			}
			if _, err := decodeLinear(append(b, 0)); err == nil {
				t.Error("an extra byte is accepted")
			}
		}
		if v.Slots != nil {
			if b := v.Slots.encode(); len(b) > 0 {
				if _, err := decodeSlots(b[:len(b)-1]); err == nil {
					t.Error("a cut plaintext is accepted")
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(small)
	for _, slots := range []int{8, 16} {
		f.Add(lowered(f, slots).String())
	}
	f.Add(zoo)
	f.Add("graph \"\"\nlayout @0 = slots=2 cts=1 lanes=1 map=[0..2147483647/2147483646]\ninputs()\noutputs()")
	f.Add("graph \"\"\n%0 = he.input() {level=99999999, scale=\"2^30\"}\n%1 = he.rescale(%0)\ninputs(%0)\noutputs(%1)")
	rescaled := "graph \"\"\n%0 = he.key() {level=3, rot=0}\n%1 = he.input() {level=3, scale=\"2^30\"}\n%2 = he.mulrescale(%1, %1, %1, %1, %0) {c=-0.5, level=2, twice=1}\n" +
		"%3 = he.lift(%2)\n%4 = he.moddownrescale(%3)\n%5 = he.mul(%4, %4, %0)\n%6 = he.macrescale(%5, %4, %4, %0)\ninputs(%1)\noutputs(%6)"
	if _, err := ParseString(rescaled); err != nil {
		f.Fatal(err)
	}
	f.Add(rescaled)
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ParseString(text)
		if err != nil {
			return
		}
		checked := Verify(g) == nil
		out, blobs := printed(t, g)
		h, err := Parse(strings.NewReader(out), blobs)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		if again, _ := printed(t, h); again != out {
			t.Fatalf("printed\n%s\nthen\n%s", out, again)
		}
		if checked != (Verify(h) == nil) {
			t.Fatalf("the verifier changed its mind about\n%s", out)
		}
		var dot strings.Builder
		if err := DOT(&dot, g); err != nil {
			t.Fatal(err)
		}
		for _, v := range g.Values { // folding ends, with a result or an error
			if a, ok, err := Fold(v); ok && err == nil && !slices.Equal(a.Shape, v.Type.Shape) {
				t.Fatalf("value %d folds to %v, inferred %v", v.ID, a.Shape, v.Type.Shape)
			}
			tryCells(t, v)
		}
	})
}

// tryCells calls Eval and Linear of a small value: they may refuse, not panic,
// and results have the inferred shape.
func tryCells(t *testing.T, v *Value) {
	info := v.Op.Info()
	small := v.Type.Kind == TensorKind && len(v.Type.Shape) > 0 && v.Type.Elems() <= 2048
	args := make([]*Array, len(v.Args))
	for i, a := range v.Args {
		if small = small && a.Type.Kind == TensorKind && a.Type.Elems() <= 2048; small {
			if args[i] = a.Array; args[i] == nil {
				args[i] = NewArray(a.Type.Shape...)
			}
		}
	}
	if !small || info.Vocab != Tensor {
		return
	}
	if r, err := info.Eval(v, args); err == nil && (!slices.Equal(r.Shape, v.Type.Shape) || len(r.Data) != v.Type.Elems()) {
		t.Fatalf("value %d evaluates to %v, inferred %v", v.ID, r.Shape, v.Type.Shape)
	}
	if info.Linear != nil {
		_ = info.Linear(v,
			func(out, arg, in int, _ float64) {
				if out < 0 || out >= v.Type.Elems() || in < 0 || in >= v.Args[arg].Type.Elems() {
					t.Fatalf("value %d: entry (%d,%d) of argument %d", v.ID, out, in, arg)
				}
			},
			func(out int, _ float64) {
				if out < 0 || out >= v.Type.Elems() {
					t.Fatalf("value %d: bias %d", v.ID, out)
				}
			})
	}
}

// TestVerify breaks a good graph in one place at a time.
func TestVerify(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(g *Graph)
		want  string
	}{
		{"stray vocabulary", func(g *Graph) { *g = *lowered(t, 8) }, "packed vocabulary is not allowed"},
		{"id", func(g *Graph) { g.Values[2].ID = 7 }, "carries ID 7"},
		{"order", func(g *Graph) { g.Values[1], g.Values[2] = g.Values[2], g.Values[1]; g.Renumber() }, "does not come before"},
		{"foreign argument", func(g *Graph) { c := *g.Values[1]; g.Values[2].Args[1] = &c }, "does not come before"},
		{"twice", func(g *Graph) { g.Values = append(g.Values, g.Values[3]) }, "occurs twice"},
		{"missing", func(g *Graph) { g.Values[1] = nil }, "%1 is missing"},
		{"op", func(g *Graph) { g.Values[2].Op = 9999 }, "unknown op"},
		{"arity", func(g *Graph) { g.Values[2].Args = g.Values[2].Args[:1] }, "1 arguments"},
		{"shape", func(g *Graph) { g.Values[2].Type.Shape = []int{3, 1} }, "its arguments give f[1,3] enc"},
		{"encryption", func(g *Graph) { g.Values[2].Type.Encrypted = false }, "has type f[1,3], its arguments"},
		{"attribute", func(g *Graph) { g.Values[3].Attrs["fn"] = "step" }, "unknown function"},
		{"NaN weight", func(g *Graph) { g.Values[1].Array.Data[1] = math.NaN() }, "entry 1 is NaN"},
		{"infinite coefficient", func(g *Graph) { g.Values[3].Approx.Coef[0] = math.Inf(1) }, "entry 0 is +Inf"},
		{"stray payload", func(g *Graph) { g.Values[2].Array = Scalar(1) }, "constant payload"},
		{"unlisted input", func(g *Graph) { g.Inputs = nil }, "not among the inputs"},
		{"input listed twice", func(g *Graph) { g.Inputs = append(g.Inputs, g.Inputs[0]) }, "listed twice"},
		{"constant as input", func(g *Graph) { g.Inputs = append(g.Inputs, g.Values[1]) }, "no input"},
		{"no outputs", func(g *Graph) { g.Outputs = nil }, "no outputs"},
		{"foreign output", func(g *Graph) { g.Outputs = []*Value{new(Value)} }, "output 0"},
	}
	for _, c := range tests {
		g, err := ParseString(small)
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(g)
		if err := Verify(g, Tensor); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
	payloads := []struct {
		name  string
		spoil func(g *Graph)
	}{
		{"columns", func(g *Graph) { g.Values[1].Linear.Mats[0].Col[3] = 99 }},
		{"row ends", func(g *Graph) { g.Values[1].Linear.Mats[0].Ptr[3] = 7 }},
		{"bias", func(g *Graph) { g.Values[1].Linear.Bias = []float64{1} }},
		{"value", func(g *Graph) { g.Values[1].Linear.Mats[0].Val[0] = math.NaN() }},
		{"slots", func(g *Graph) { g.Values[5].Slots.Index[1] = 0 }},
		{"period", func(g *Graph) { g.Values[5].Slots.Period = 3 }},
		{"lanes", func(g *Graph) { g.Values[5].Slots.LogLanes = 2 }},
		{"layout", func(g *Graph) { g.Values[0].Layout.Map[0] = 9 }},
		{"scale", func(g *Graph) { g.Values[8].Type.Scale = ScaleTwo(1) }},
		{"level", func(g *Graph) { g.Values[9].Type.Level++ }},
	}
	for _, c := range payloads {
		g := lowered(t, 8)
		if err := Verify(g); err != nil {
			t.Fatal(err)
		}
		if c.spoil(g); Verify(g) == nil {
			t.Errorf("%s: a broken payload is accepted", c.name)
		}
	}
}

func TestDOT(t *testing.T) {
	g, err := ParseString(small)
	if err != nil {
		t.Fatal(err)
	}
	g.Values[2].Name = `q"u\o` + "\nte"
	var b strings.Builder
	if err := DOT(&b, g); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`digraph "g" {`, `v2 [label="q\"u\\o te\nmul\nconstant 3"`, `v0 -> v2 [label="1×3"]`,
		`act fn=relu\ndegree 1 on [-2, 2]`, `v3 -> out0`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "v1") {
		t.Errorf("the constant has a box of its own:\n%s", b.String())
	}
}
