package frontend

import (
	"fmt"
	"math"
	"testing"

	"github.com/home-fhe/home/ir"
)

// The tests of this file take their names from wrong answers and crashes that
// other compilers for encrypted networks are known for: each accepts a model
// and computes something else, or dies without naming the node.

// gemmWant computes alpha*op(a)*op(b) + beta*c for small matrices; c is per
// column.
func gemmWant(a, b *ir.Array, transA, transB bool, alpha, beta float64, c []float64) *ir.Array {
	at := func(m *ir.Array, i, j int, t bool) float64 {
		if t {
			i, j = j, i
		}
		return m.Data[i*m.Shape[1]+j]
	}
	rows, inner := a.Shape[0], a.Shape[1]
	if transA {
		rows, inner = inner, rows
	}
	cols := b.Shape[1]
	if transB {
		cols = b.Shape[0]
	}
	y := ir.NewArray(rows, cols)
	for i := range rows {
		for j := range cols {
			s := 0.0
			for k := range inner {
				s += at(a, i, k, transA) * at(b, k, j, transB)
			}
			y.Data[i*cols+j] = alpha * s
			if c != nil {
				y.Data[i*cols+j] += beta * c[j]
			}
		}
	}
	return y
}

func TestSilentGemmTransAlphaBeta(t *testing.T) {
	bias := []float64{10, -20, 30}
	for _, transA := range []bool{false, true} {
		for _, transB := range []bool{false, true} {
			for _, k := range []struct{ alpha, beta float64 }{{1, 1}, {0.5, 1}, {1, -2}, {3, 0.25}} {
				for _, withC := range []bool{true, false} {
					x, w := ramp(-1, 0.3, 2, 4), ramp(2, -0.7, 4, 3)
					if transA {
						x = ramp(-1, 0.3, 4, 2)
					}
					if transB {
						w = ramp(2, -0.7, 3, 4)
					}
					flag := map[bool]int{true: 1}
					b := newBuilder(13).input("x", x.Shape[0], x.Shape[1]).output("y").init("w", w.Shape, w.Data...).init("c", []int{3}, bias...)
					ins, c := []string{"x", "w", "c"}, bias
					if !withC {
						ins, c = ins[:2], nil
					}
					b.node("Gemm", ins, []string{"y"}, attribute{"transA", flag[transA]}, attribute{"transB", flag[transB]},
						attribute{"alpha", k.alpha}, attribute{"beta", k.beta})
					want := gemmWant(x, w, transA, transB, k.alpha, k.beta, c)
					checkArray(t, b.run(t, x), want.Shape, want.Data...)
				}
			}
		}
	}
}

// TestSilentGemmBatch multiplies more than one row.
func TestSilentGemmBatch(t *testing.T) {
	x, w := ramp(0, 1, 5, 2), ramp(1, 1, 2, 2)
	b := newBuilder(13).input("x", "N", 2).output("y").init("w", w.Shape, w.Data...).node("Gemm", []string{"x", "w"}, []string{"y"})
	m, err := Parse(b.bytes(), Options{Batch: 5})
	if err != nil {
		t.Fatal(err)
	}
	out, err := eval(m, x)
	if err != nil {
		t.Fatal(err)
	}
	want := gemmWant(x, w, false, false, 1, 0, nil)
	checkArray(t, out[0], want.Shape, want.Data...)
}

// convWant is a direct 2-D convolution.
func convWant(x, w *ir.Array, stride, dil, top, left, bottom, right, group int, bias []float64) *ir.Array {
	n, h, wd := x.Shape[0], x.Shape[2], x.Shape[3]
	out, cin, kh, kw := w.Shape[0], w.Shape[1], w.Shape[2], w.Shape[3]
	oh := (h+top+bottom-dil*(kh-1)-1)/stride + 1
	ow := (wd+left+right-dil*(kw-1)-1)/stride + 1
	y := ir.NewArray(n, out, oh, ow)
	for i := range y.Data {
		b, o, r, c := i/(out*oh*ow), i/(oh*ow)%out, i/ow%oh, i%ow
		s := 0.0
		if bias != nil {
			s = bias[o]
		}
		for k := range cin {
			ch := o/(out/group)*cin + k
			for p := range kh {
				for q := range kw {
					ih, iw := r*stride-top+p*dil, c*stride-left+q*dil
					if ih >= 0 && ih < h && iw >= 0 && iw < wd {
						s += x.Data[((b*x.Shape[1]+ch)*h+ih)*wd+iw] * w.Data[((o*cin+k)*kh+p)*kw+q]
					}
				}
			}
		}
		y.Data[i] = s
	}
	return y
}

func TestSilentConvDilations(t *testing.T) {
	for _, dil := range []int{1, 2, 3} {
		x, w := ramp(-3, 0.1, 1, 2, 9, 9), ramp(1, -0.05, 3, 2, 3, 3)
		b := newBuilder(11).input("x", 1, 2, 9, 9).output("y").init("w", w.Shape, w.Data...).
			node("Conv", []string{"x", "w"}, []string{"y"}, attribute{"dilations", []int{dil, dil}}, attribute{"kernel_shape", []int{3, 3}})
		want := convWant(x, w, 1, dil, 0, 0, 0, 0, 1, nil)
		checkArray(t, b.run(t, x), want.Shape, want.Data...)
	}
}

// TestSilentConvPadsInherited has a padded convolution before one without pads.
func TestSilentConvPadsInherited(t *testing.T) {
	x, w := ramp(0, 0.1, 1, 1, 5, 5), ramp(1, 0.2, 1, 1, 3, 3)
	b := newBuilder(11).input("x", 1, 1, 5, 5).output("y").init("w", w.Shape, w.Data...).
		node("Conv", []string{"x", "w"}, []string{"h"}, attribute{"pads", []int{1, 0, 2, 1}}, attribute{"strides", []int{1, 1}}).
		node("Conv", []string{"h", "w"}, []string{"y"})
	h := convWant(x, w, 1, 1, 1, 0, 2, 1, 1, nil)
	want := convWant(h, w, 1, 1, 0, 0, 0, 0, 1, nil)
	checkArray(t, b.run(t, x), want.Shape, want.Data...)
}

func TestSilentMaxPoolIsNotAveragePool(t *testing.T) {
	x := ir.ArrayOf([]float64{1, 5, -7, 2, 0, 3, 4, -1, 9, 8, -2, -3, 6, 7, -5, -4}, 1, 1, 4, 4)
	window := []attribute{{"kernel_shape", []int{2, 2}}, {"strides", []int{2, 2}}}
	pool := func(op string) *ir.Array {
		return newBuilder(11).input("x", 1, 1, 4, 4).output("y").node(op, []string{"x"}, []string{"y"}, window...).run(t, x)
	}
	checkArray(t, pool("MaxPool"), []int{1, 1, 2, 2}, 5, 4, 9, -2)
	checkArray(t, pool("AveragePool"), []int{1, 1, 2, 2}, 2.25, -0.5, 7.5, -3.5)
}

func TestSilentConvWithoutBias(t *testing.T) {
	x, w, bias := ramp(0, 0.1, 1, 4, 6, 6), ramp(1, 0.2, 4, 2, 3, 3), []float64{1, -2, 3, -4}
	for _, with := range []bool{false, true} {
		b := newBuilder(11).input("x", 1, 4, 6, 6).output("y").init("w", w.Shape, w.Data...).init("b", []int{4}, bias...)
		ins, c := []string{"x", "w"}, []float64(nil)
		if with {
			ins, c = append(ins, "b"), bias
		}
		b.node("Conv", ins, []string{"y"}, attribute{"group", 2})
		want := convWant(x, w, 1, 1, 0, 0, 0, 0, 2, c)
		checkArray(t, b.run(t, x), want.Shape, want.Data...)
	}
}

func TestSilentConvStride3(t *testing.T) {
	x, w := ramp(0, 0.1, 2, 1, 10, 11), ramp(1, 0.2, 2, 1, 3, 3)
	b := newBuilder(11).input("x", 2, 1, 10, 11).output("y").init("w", w.Shape, w.Data...).
		node("Conv", []string{"x", "w"}, []string{"y"}, attribute{"strides", []int{3, 3}}, attribute{"pads", []int{1, 1, 1, 1}})
	want := convWant(x, w, 3, 1, 1, 1, 1, 1, 1, nil)
	checkArray(t, b.run(t, x), want.Shape, want.Data...)
}

// TestSilentConvNoAttributes omits strides, group, pads and kernel_shape.
func TestSilentConvNoAttributes(t *testing.T) {
	x, w := ramp(0, 0.1, 1, 2, 4, 4), ramp(1, 0.2, 1, 2, 2, 2)
	b := newBuilder(7).input("x", 1, 2, 4, 4).output("y").init("w", w.Shape, w.Data...).node("Conv", []string{"x", "w"}, []string{"y"})
	want := convWant(x, w, 1, 1, 0, 0, 0, 0, 1, nil)
	checkArray(t, b.run(t, x), want.Shape, want.Data...)
}

// TestSilentConvAutoPad compares with the pads written out.
func TestSilentConvAutoPad(t *testing.T) {
	x, w := ramp(0, 0.1, 1, 1, 6, 6), ramp(1, 0.2, 1, 1, 4, 4)
	for mode, p := range map[string][4]int{"SAME_UPPER": {1, 1, 1, 1}, "SAME_LOWER": {1, 1, 1, 1}, "VALID": {}} {
		b := newBuilder(11).input("x", 1, 1, 6, 6).output("y").init("w", w.Shape, w.Data...).
			node("Conv", []string{"x", "w"}, []string{"y"}, attribute{"auto_pad", mode}, attribute{"strides", []int{2, 2}})
		want := convWant(x, w, 2, 1, p[0], p[1], p[2], p[3], 1, nil)
		checkArray(t, b.run(t, x), want.Shape, want.Data...)
	}
	for mode, p := range map[string][4]int{"SAME_UPPER": {1, 1, 2, 2}, "SAME_LOWER": {2, 2, 1, 1}} {
		b := newBuilder(11).input("x", 1, 1, 6, 6).output("y").init("w", w.Shape, w.Data...).
			node("Conv", []string{"x", "w"}, []string{"y"}, attribute{"auto_pad", mode})
		want := convWant(x, w, 1, 1, p[0], p[1], p[2], p[3], 1, nil)
		checkArray(t, b.run(t, x), want.Shape, want.Data...)
	}
}

func TestSilentMatMul(t *testing.T) {
	x, w := ramp(-1, 0.5, 2, 3), ramp(1, 1, 3, 2)
	b := newBuilder(13).input("x", 2, 3).output("y").init("w", w.Shape, w.Data...).node("MatMul", []string{"x", "w"}, []string{"y"})
	want := gemmWant(x, w, false, false, 1, 0, nil)
	checkArray(t, b.run(t, x), want.Shape, want.Data...)
}

func TestSilentSigmoid(t *testing.T) {
	b := newBuilder(13).input("x", 3).output("y").node("Sigmoid", []string{"x"}, []string{"y"})
	s := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	checkArray(t, b.run(t, ir.ArrayOf([]float64{-2, 0, 3}, 3)), []int{3}, s(-2), s(0), s(3))
}

func TestSilentBatchNormalization(t *testing.T) {
	b := newBuilder(9).input("x", 1, 2, 1, 2).output("y").init("s", []int{2}, 2, -1).init("b", []int{2}, 0.5, 1).
		init("m", []int{2}, 1, -2).init("v", []int{2}, 4, 0.25).
		node("BatchNormalization", []string{"x", "s", "b", "m", "v"}, []string{"y"}, attribute{"epsilon", 0.0})
	checkArray(t, b.run(t, ir.ArrayOf([]float64{3, 5, 0, -1}, 1, 2, 1, 2)), []int{1, 2, 1, 2}, 2.5, 4.5, -3, -1)
}

// TestSilentSub checks the order of operands, which commutative importers lose.
func TestSilentSub(t *testing.T) {
	x := ir.ArrayOf([]float64{1, 2, 3}, 3)
	for _, flip := range []bool{false, true} {
		ins, sign := []string{"x", "c"}, 1.0
		if flip {
			ins, sign = []string{"c", "x"}, -1
		}
		b := newBuilder(13).input("x", 3).output("y").init("c", []int{3}, 10, 20, 30).node("Sub", ins, []string{"y"})
		checkArray(t, b.run(t, x), []int{3}, -9*sign, -18*sign, -27*sign)
	}
}

// TestSilentSquare keeps both operands of Mul(x,x).
func TestSilentSquare(t *testing.T) {
	b := newBuilder(13).input("x", 3).output("y").node("Mul", []string{"x", "x"}, []string{"y"})
	m := b.parse(t)
	last := m.Graph.Outputs[0]
	if last.Op != ir.OpMul || len(last.Args) != 2 || last.Args[0] != last.Args[1] {
		t.Fatalf("Mul(x,x) became %s of %d", last.Op, len(last.Args))
	}
	checkArray(t, b.run(t, ir.ArrayOf([]float64{-3, 0, 2}, 3)), []int{3}, 9, 0, 4)
}

// TestRecognise spells activations out in many ways and expects one value.
func TestRecognise(t *testing.T) {
	f := func(names ...string) []string { return names }
	consts := map[string]float64{"half": 0.5, "one": 1, "six": 6, "sixth": 1. / 6, "three": 3, "sqrt2": math.Sqrt2, "isqrt2": 1 / math.Sqrt2,
		"c": math.Sqrt(2 / math.Pi), "d": 0.044715, "zero": 0, "q": 1.702, "cube": 3, "cd": math.Sqrt(2/math.Pi) * 0.044715}
	erf := []step{{"Div", f("s", "x", "sqrt2")}, {"Erf", f("e", "s")}, {"Add", f("g", "e", "one")}}
	tanh := []step{{"Pow", f("p", "x", "cube")}, {"Mul", f("dp", "p", "d")}, {"Add", f("in", "x", "dp")}, {"Mul", f("s", "in", "c")}, {"Tanh", f("e", "s")}, {"Add", f("g", "one", "e")}}
	cases := []struct {
		name, fn string
		steps    []step
	}{
		{"silu", "silu", []step{{"Sigmoid", f("s", "x")}, {"Mul", f("y", "x", "s")}}},
		{"silu flipped", "silu", []step{{"Sigmoid", f("s", "x")}, {"Mul", f("y", "s", "x")}}},
		{"quick gelu", "swish", []step{{"Mul", f("q1", "x", "q")}, {"Sigmoid", f("s", "q1")}, {"Mul", f("y", "x", "s")}}},
		{"gelu x*g*half", "gelu", append(erf[:3:3], step{"Mul", f("h", "x", "g")}, step{"Mul", f("y", "h", "half")})},
		{"gelu half*x*g", "gelu", append(erf[:3:3], step{"Mul", f("h", "half", "x")}, step{"Mul", f("y", "h", "g")})},
		{"gelu g*half*x", "gelu", append(erf[:3:3], step{"Mul", f("h", "g", "half")}, step{"Mul", f("y", "x", "h")})},
		{"gelu isqrt2", "gelu", []step{{"Mul", f("s", "isqrt2", "x")}, {"Erf", f("e", "s")}, {"Mul", f("e2", "e", "half")}, {"Add", f("g", "half", "e2")}, {"Mul", f("y", "g", "x")}}},
		{"gelu tanh pow", "gelu_tanh", append(tanh[:6:6], step{"Mul", f("h", "half", "x")}, step{"Mul", f("y", "h", "g")})},
		{"gelu tanh mul", "gelu_tanh", []step{{"Mul", f("x2", "x", "x")}, {"Mul", f("x3", "x2", "x")}, {"Mul", f("l", "x", "c")}, {"Mul", f("r", "cd", "x3")}, {"Add", f("s", "l", "r")},
			{"Tanh", f("e", "s")}, {"Add", f("g", "e", "one")}, {"Mul", f("h", "g", "x")}, {"Mul", f("y", "h", "half")}}},
		{"hardswish clip", "hardswish", []step{{"Add", f("a", "x", "three")}, {"Clip", f("b", "a", "zero", "six")}, {"Mul", f("h", "x", "b")}, {"Div", f("y", "h", "six")}}},
		{"hardswish sixth", "hardswish", []step{{"Add", f("a", "three", "x")}, {"Clip", f("b", "a", "zero", "six")}, {"Mul", f("h", "b", "sixth")}, {"Mul", f("y", "h", "x")}}},
		{"hardswish min max", "hardswish", []step{{"Add", f("a", "x", "three")}, {"Max", f("m", "a", "zero")}, {"Min", f("b", "m", "six")}, {"Div", f("h", "b", "six")}, {"Mul", f("y", "x", "h")}}},
		{"mish", "mish", []step{{"Softplus", f("s", "x")}, {"Tanh", f("e", "s")}, {"Mul", f("y", "x", "e")}}},
		{"relu6", "clip", []step{{"Relu", f("r", "x")}, {"Min", f("y", "r", "six")}}},
		{"not silu", "", []step{{"Mul", f("h", "x", "half")}, {"Sigmoid", f("s", "x")}, {"Mul", f("u", "h", "s")}, {"Add", f("y", "u", "s")}}},
		{"not gelu", "", append(erf[:3:3], step{"Mul", f("h", "x", "g")}, step{"Mul", f("y", "h", "q")})},
	}
	x := ramp(-7, 0.25, 57)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder(13).input("x", 57).output("y")
			for _, name := range []string{"half", "one", "six", "sixth", "three", "sqrt2", "isqrt2", "c", "d", "zero", "q", "cube", "cd"} {
				b.init(name, nil, consts[name])
			}
			for _, s := range c.steps {
				b.node(s.op, s.out[1:], s.out[:1])
			}
			m := b.parse(t)
			out := m.Graph.Outputs[0]
			if c.fn != "" && (out.Op != ir.OpAct || out.Attrs.Str("fn", "") != c.fn || out.Args[0] != m.Graph.Inputs[0]) {
				t.Errorf("recognised %s %v, want %s of the input", out.Op, out.Attrs, c.fn)
			}
			if c.fn == "" && out.Op == ir.OpAct {
				t.Errorf("recognised %v by mistake", out.Attrs)
			}
			got, err := eval(m, x)
			if err != nil {
				t.Fatal(err)
			}
			checkArray(t, got[0], x.Shape, stepwise(x, consts, c.steps)...)
		})
	}
}

// step is an elementwise node: its result, then its operands.
type step struct {
	op  string
	out []string
}

// stepwise evaluates elementwise nodes one by one, without the front end.
func stepwise(x *ir.Array, consts map[string]float64, steps []step) []float64 {
	out := make([]float64, len(x.Data))
	for i, v := range x.Data {
		env := map[string]float64{"x": v}
		for k, c := range consts {
			env[k] = float64(float32(c))
		}
		for _, s := range steps {
			o := s.out
			a, b := env[o[1]], 0.0
			if len(o) > 2 {
				b = env[o[2]]
			}
			var r float64
			switch s.op {
			case "Add":
				r = a + b
			case "Mul":
				r = a * b
			case "Div":
				r = a / b
			case "Pow":
				r = math.Pow(a, b)
			case "Min":
				r = math.Min(a, b)
			case "Max":
				r = math.Max(a, b)
			case "Erf":
				r = math.Erf(a)
			case "Tanh":
				r = math.Tanh(a)
			case "Sigmoid":
				r = 1 / (1 + math.Exp(-a))
			case "Softplus":
				r = math.Log1p(math.Exp(a))
			case "Relu":
				r = math.Max(a, 0)
			case "Clip":
				r = math.Min(math.Max(a, b), env[o[3]])
			default:
				panic(fmt.Sprintf("BUG: test op %s", s.op))
			}
			env[o[0]] = r
		}
		out[i] = env["y"]
	}
	return out
}
