package ir

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// input appends an encrypted input.
func input(t interface{ Fatal(...any) }, g *Graph, shape ...int) *Value {
	v, err := g.Add(OpInput, "x", Attrs{"shape": shape})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func constant(t interface{ Fatal(...any) }, g *Graph, a *Array) *Value {
	v, err := g.Const("c", a, Real)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func shapeGen(minRank, maxRank, maxDim int) *rapid.Generator[[]int] {
	return rapid.SliceOfN(rapid.IntRange(1, maxDim), minRank, maxRank)
}

func drawArray(t *rapid.T, shape []int) *Array {
	a := NewArray(shape...)
	for i := range a.Data {
		a.Data[i] = float64(rapid.IntRange(-8, 8).Draw(t, "e")) / 4
	}
	return a
}

// apply evaluates v for its encrypted arguments; constants have their arrays.
func apply(t *rapid.T, v *Value, vals map[*Value]*Array) *Array {
	args := make([]*Array, len(v.Args))
	for i, a := range v.Args {
		if args[i] = a.Array; args[i] == nil {
			args[i] = vals[a]
		}
	}
	r, err := v.Op.Info().Eval(v, args)
	if err != nil {
		t.Fatalf("eval %s: %v", v.Op, err)
	}
	if !slices.Equal(r.Shape, v.Type.Shape) || len(r.Data) != v.Type.Elems() {
		t.Fatalf("eval %s gave shape %v, inferred %v", v.Op, r.Shape, v.Type.Shape)
	}
	return r
}

// checkLinear compares Linear with Eval on random inputs.
func checkLinear(t *rapid.T, v *Value) {
	vals := map[*Value]*Array{}
	for _, a := range v.Args {
		if a.Type.Encrypted && vals[a] == nil {
			vals[a] = drawArray(t, a.Type.Shape)
		}
	}
	want := apply(t, v, vals)
	got := make([]float64, v.Type.Elems())
	at := 0
	err := v.Op.Info().Linear(v,
		func(out, arg, in int, coef float64) {
			if out < at || coef == 0 {
				t.Fatalf("%s: entry for %d after %d, coefficient %v", v.Op, out, at, coef)
			}
			at = out
			got[out] += coef * vals[v.Args[arg]].Data[in]
		},
		func(out int, c float64) { got[out] += c })
	if err != nil {
		t.Fatalf("linear %s: %v", v.Op, err)
	}
	for i, w := range want.Data {
		if math.Abs(got[i]-w) > 1e-12*math.Max(1, math.Abs(w)) {
			t.Fatalf("%s %v: element %d is %v by Linear, %v by Eval", v.Op, v.Attrs, i, got[i], w)
		}
	}
}

// drawWindow draws window attributes that fit the spatial shape.
func drawWindow(t *rapid.T, in []int) (kernel []int, a Attrs) {
	n := len(in)
	kernel, a = make([]int, n), Attrs{}
	strides, dil, pads := make([]int, n), make([]int, n), make([]int, 2*n)
	for d := range n {
		strides[d] = rapid.IntRange(1, 3).Draw(t, "stride")
		dil[d] = rapid.IntRange(1, 2).Draw(t, "dil")
		pads[d] = rapid.IntRange(0, 2).Draw(t, "before")
		pads[n+d] = rapid.IntRange(0, 2).Draw(t, "after")
		most := (in[d]+pads[d]+pads[n+d]-1)/dil[d] + 1
		kernel[d] = rapid.IntRange(1, min(3, most)).Draw(t, "kernel")
	}
	for name, l := range map[string][]int{"strides": strides, "dilations": dil, "pads": pads} {
		a[name] = l
	}
	return kernel, a
}

// naiveWindow visits output and input positions by the definition, pads as -1.
func naiveWindow(a Attrs, in, kernel, out []int, f func(o, k, at int)) {
	n := len(in)
	for o := range NumElems(out) {
		for k := range NumElems(kernel) {
			at, ro, rk, st := 0, o, k, 1
			for d := n - 1; d >= 0; d-- {
				i := ro%out[d]*a.Ints("strides")[d] - a.Ints("pads")[d] + rk%kernel[d]*a.Ints("dilations")[d]
				if i < 0 || i >= in[d] {
					at = -1 << 30
				}
				at += i * st
				st *= in[d]
				ro, rk = ro/out[d], rk/kernel[d]
			}
			f(o, k, max(at, -1))
		}
	}
}

func TestConvAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := shapeGen(1, 3, 6).Draw(t, "in")
		group := rapid.IntRange(1, 3).Draw(t, "group")
		cin, cout := rapid.IntRange(1, 3).Draw(t, "cin"), rapid.IntRange(1, 3).Draw(t, "cout")
		batch := rapid.IntRange(1, 2).Draw(t, "batch")
		kernel, attrs := drawWindow(t, in)
		attrs["group"] = group
		g := new(Graph)
		x := input(t, g, append([]int{batch, cin * group}, in...)...)
		w := constant(t, g, drawArray(t, append([]int{cout * group, cin}, kernel...)))
		args := []*Value{x, w}
		if rapid.Bool().Draw(t, "bias") {
			args = append(args, constant(t, g, drawArray(t, []int{cout * group})))
		}
		v, err := g.Add(OpConv, "conv", attrs, args...)
		if err != nil {
			t.Fatal(err)
		}
		xa := drawArray(t, x.Type.Shape)
		got := apply(t, v, map[*Value]*Array{x: xa})
		want := NewArray(v.Type.Shape...)
		out := v.Type.Shape[2:]
		nin, nout, nk := NumElems(in), NumElems(out), NumElems(kernel)
		for b := range batch {
			for m := range cout * group {
				if len(args) == 3 {
					for o := range nout {
						want.Data[(b*cout*group+m)*nout+o] = args[2].Array.Data[m]
					}
				}
				for c := range cin {
					naiveWindow(attrs, in, kernel, out, func(o, k, at int) {
						if at >= 0 {
							want.Data[(b*cout*group+m)*nout+o] += w.Array.Data[(m*cin+c)*nk+k] * xa.Data[(b*cin*group+m/cout*cin+c)*nin+at]
						}
					})
				}
			}
		}
		for i := range want.Data {
			if math.Abs(want.Data[i]-got.Data[i]) > 1e-12 {
				t.Fatalf("element %d is %v, want %v", i, got.Data[i], want.Data[i])
			}
		}
		checkLinear(t, v)
	})
}

// TestConvCutPatches has patches too large for one matrix.
func TestConvCutPatches(t *testing.T) {
	g := new(Graph)
	x := input(t, g, 1, 64, 66, 66)
	w := NewArray(2, 64, 3, 3)
	for i := range w.Data {
		w.Data[i] = float64(i%7) - 3
	}
	v, err := g.Add(OpConv, "conv", nil, x, constant(t, g, w))
	if err != nil {
		t.Fatal(err)
	}
	if n := 64 * 9 * 64 * 64; n <= patchElems {
		t.Fatalf("%d patch elements fit at once: the test tests nothing", n)
	}
	xa := NewArray(x.Type.Shape...)
	for i := range xa.Data {
		xa.Data[i] = float64(i%11) - 5
	}
	got, err := OpConv.Info().Eval(v, []*Array{xa, w})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []int{0, 63, 64, 2100, 4095, 4096, 8191} {
		m, y, z, want := o/4096, o/64%64, o%64, 0.0
		for c := range 64 {
			for k := range 9 {
				want += w.Data[(m*64+c)*9+k] * xa.Data[(c*66+y+k/3)*66+z+k%3]
			}
		}
		if got.Data[o] != want {
			t.Errorf("element %d is %v, want %v", o, got.Data[o], want)
		}
	}
}

func TestPoolAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := shapeGen(1, 3, 6).Draw(t, "in")
		kernel, attrs := drawWindow(t, in)
		attrs["kernel"] = kernel
		attrs["ceil"] = rapid.IntRange(0, 1).Draw(t, "ceil")
		g := new(Graph)
		x := input(t, g, append([]int{2, 2}, in...)...)
		xa := drawArray(t, x.Type.Shape)
		for _, op := range []Op{OpMaxPool, OpAvgPool} {
			include := 0
			if op == OpAvgPool {
				include = rapid.IntRange(0, 1).Draw(t, "include")
				attrs["count_include_pad"] = include
			}
			v, err := g.Add(op, "pool", attrs, x)
			if err != nil {
				if strings.Contains(err.Error(), "nothing but pads") {
					continue
				}
				t.Fatal(err)
			}
			got := apply(t, v, map[*Value]*Array{x: xa})
			out := v.Type.Shape[2:]
			for d := range in { // ceil rounds up, but starts no window in the trailing pad
				n := len(in)
				room := in[d] + attrs.Ints("pads")[d] + attrs.Ints("pads")[n+d] - (kernel[d]-1)*attrs.Ints("dilations")[d] - 1
				want := math.Floor(float64(room)/float64(attrs.Ints("strides")[d])) + 1
				if attrs.Int("ceil", 0) == 1 {
					want = math.Ceil(float64(room)/float64(attrs.Ints("strides")[d])) + 1
					for (int(want)-1)*attrs.Ints("strides")[d] >= in[d]+attrs.Ints("pads")[d] {
						want--
					}
				}
				if out[d] != int(want) {
					t.Fatalf("axis %d has %d windows, want %v", d, out[d], want)
				}
			}
			nin, nout := NumElems(in), NumElems(out)
			for c := range 4 {
				sum, top, count := make([]float64, nout), slices.Repeat([]float64{math.Inf(-1)}, nout), make([]float64, nout)
				naiveWindow(attrs, in, kernel, out, func(o, k, at int) {
					if at >= 0 {
						sum[o] += xa.Data[c*nin+at]
						top[o] = math.Max(top[o], xa.Data[c*nin+at])
					}
					if at >= 0 || include == 1 && !beyond(attrs, in, kernel, out, o, k) {
						count[o]++
					}
				})
				for o := range nout {
					want := top[o]
					if op == OpAvgPool {
						want = sum[o] / count[o]
					}
					if math.Abs(got.Data[c*nout+o]-want) > 1e-12 {
						t.Fatalf("%s element %d is %v, want %v", op, o, got.Data[c*nout+o], want)
					}
				}
			}
			if op == OpAvgPool {
				checkLinear(t, v)
			}
		}
	})
}

// beyond reports whether tap k of window o lies even beyond the trailing pad.
func beyond(a Attrs, in, kernel, out []int, o, k int) bool {
	n := len(in)
	for d := n - 1; d >= 0; d-- {
		if o%out[d]*a.Ints("strides")[d]-a.Ints("pads")[d]+k%kernel[d]*a.Ints("dilations")[d] >= in[d]+a.Ints("pads")[n+d] {
			return true
		}
		o, k = o/out[d], k/kernel[d]
	}
	return false
}

// TestLinearIsEval draws uses of every linear op and compares the two cells.
func TestLinearIsEval(t *testing.T) {
	draws := map[Op]func(t *rapid.T, g *Graph) (Attrs, []*Value){
		OpConv: nil, OpAvgPool: nil, // against the definition, above
		OpMatMul: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			k := rapid.IntRange(1, 4).Draw(t, "k")
			batch := shapeGen(0, 2, 3).Draw(t, "batch")
			a, b := slices.Clone(batch), slices.Clone(batch)
			if len(batch) > 0 {
				switch rapid.IntRange(0, 3).Draw(t, "bcast") {
				case 0:
					a[0] = 1
				case 1:
					b[0] = 1
				case 2:
					b = nil
				}
			}
			a, b = append(a, rapid.IntRange(1, 4).Draw(t, "m"), k), append(b, k, rapid.IntRange(1, 4).Draw(t, "n"))
			if rapid.IntRange(0, 4).Draw(t, "vector") == 0 {
				a = []int{k}
			}
			if rapid.IntRange(0, 4).Draw(t, "vector") == 0 {
				b = []int{k}
			}
			return nil, mixed(t, g, a, b, false)
		},
		OpAdd: broadcasting(true), OpSub: broadcasting(true),
		OpMul: broadcasting(false),
		OpDiv: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			a, b := drawBroadcast(t)
			c := drawArray(t, b)
			for i := range c.Data {
				c.Data[i] = c.Data[i]*c.Data[i] + 0.5
			}
			return nil, []*Value{input(t, g, a...), constant(t, g, c)}
		},
		OpReduceMean: drawReduce, OpReduceSum: drawReduce,
		OpPad: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			x := shapeGen(1, 3, 4).Draw(t, "x")
			mode := rapid.SampledFrom([]string{"constant", "reflect", "edge", "wrap"}).Draw(t, "mode")
			pads := make([]int, 2*len(x))
			for i := range pads {
				n := x[i%len(x)]
				most := map[string]int{"constant": 3, "reflect": n - 1, "edge": 3, "wrap": n}[mode]
				pads[i] = rapid.IntRange(-n/3, most).Draw(t, "pad")
			}
			return Attrs{"pads": pads, "mode": mode, "value": 1.5}, []*Value{input(t, g, x...)}
		},
		OpReshape: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			x := shapeGen(1, 3, 4).Draw(t, "x")
			y := slices.Clone(x)
			slices.Reverse(y)
			return Attrs{"shape": append(y, 1)}, []*Value{input(t, g, x...)}
		},
		OpTranspose: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			x := shapeGen(0, 4, 3).Draw(t, "x")
			return Attrs{"perm": rapid.Permutation(ramp(len(x), 1)).Draw(t, "perm")}, []*Value{input(t, g, x...)}
		},
		OpConcat: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			x := shapeGen(1, 3, 3).Draw(t, "x")
			ax := rapid.IntRange(0, len(x)-1).Draw(t, "axis")
			var args []*Value
			for range rapid.IntRange(1, 4).Draw(t, "n") {
				x[ax] = rapid.IntRange(1, 3).Draw(t, "dim")
				if rapid.Bool().Draw(t, "enc") {
					args = append(args, input(t, g, x...))
				} else {
					args = append(args, constant(t, g, drawArray(t, x)))
				}
			}
			return Attrs{"axis": ax - len(x)}, args
		},
		OpSlice: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			x := shapeGen(1, 3, 5).Draw(t, "x")
			a := Attrs{"axes": ramp(len(x), 1)}
			for _, n := range []string{"starts", "ends"} {
				a[n] = rapid.SliceOfN(rapid.IntRange(-7, 7), len(x), len(x)).Draw(t, n)
			}
			a["steps"] = rapid.SliceOfN(rapid.SampledFrom([]int{-3, -2, -1, 1, 2, 3, 1 << 60, -1 << 60}), len(x), len(x)).Draw(t, "steps")
			return a, []*Value{input(t, g, x...)}
		},
		OpGather: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			x := shapeGen(1, 3, 4).Draw(t, "x")
			ax := rapid.IntRange(-len(x), len(x)-1).Draw(t, "axis")
			n := x[(ax+len(x))%len(x)]
			i := NewArray(shapeGen(0, 2, 3).Draw(t, "i")...)
			for j := range i.Data {
				i.Data[j] = float64(rapid.IntRange(-n, n-1).Draw(t, "index"))
			}
			c, err := g.Const("i", i, Int)
			if err != nil {
				t.Fatal(err)
			}
			return Attrs{"axis": ax}, []*Value{input(t, g, x...), c}
		},
		OpExpand: func(t *rapid.T, g *Graph) (Attrs, []*Value) {
			a, b := drawBroadcast(t)
			return Attrs{"shape": a}, []*Value{input(t, g, b...)}
		},
	}
	for _, op := range Ops() {
		if op.Info().Linear == nil {
			continue
		}
		draw, ok := draws[op]
		if !ok {
			t.Errorf("%s has a Linear cell and no test", op)
		}
		if draw == nil {
			continue
		}
		t.Run(op.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				g := new(Graph)
				attrs, args := draw(t, g)
				v, err := g.Add(op, "node", attrs, args...)
				if err != nil {
					t.Fatal(err)
				}
				checkLinear(t, v)
			})
		})
	}
}

// drawBroadcast draws a shape and another that broadcasts to it.
func drawBroadcast(t *rapid.T) (a, b []int) {
	a = shapeGen(0, 3, 4).Draw(t, "a")
	b = slices.Clone(a[rapid.IntRange(0, len(a)).Draw(t, "skip"):])
	for i := range b {
		if rapid.Bool().Draw(t, "one") {
			b[i] = 1
		}
	}
	return a, b
}

// mixed makes one operand or, where both is allowed, maybe both encrypted.
func mixed(t *rapid.T, g *Graph, a, b []int, both bool) []*Value {
	switch k := rapid.IntRange(0, 2).Draw(t, "encrypted"); {
	case k == 2 && both:
		return []*Value{input(t, g, a...), input(t, g, b...)}
	case k == 1:
		return []*Value{constant(t, g, drawArray(t, a)), input(t, g, b...)}
	}
	return []*Value{input(t, g, a...), constant(t, g, drawArray(t, b))}
}

func broadcasting(both bool) func(t *rapid.T, g *Graph) (Attrs, []*Value) {
	return func(t *rapid.T, g *Graph) (Attrs, []*Value) {
		a, b := drawBroadcast(t)
		if rapid.Bool().Draw(t, "swap") {
			a, b = b, a
		}
		return nil, mixed(t, g, a, b, both)
	}
}

func drawReduce(t *rapid.T, g *Graph) (Attrs, []*Value) {
	x := shapeGen(1, 4, 3).Draw(t, "x")
	a := Attrs{"keepdims": rapid.IntRange(0, 1).Draw(t, "keep")}
	if rapid.Bool().Draw(t, "axes") {
		p := rapid.Permutation(ramp(len(x), 1)).Draw(t, "perm")
		a["axes"] = p[:rapid.IntRange(0, len(x)).Draw(t, "n")]
	}
	return a, []*Value{input(t, g, x...)}
}

// TestTensorEval fixes the semantics of what the properties above do not cover.
func TestTensorEval(t *testing.T) {
	x23 := ArrayOf([]float64{1, 2, 3, 6, 5, 4}, 2, 3)
	e := math.E
	tests := []struct {
		op    Op
		attrs Attrs
		args  []*Array
		dtype DType
		shape []int
		want  []float64
	}{
		{OpDiv, nil, []*Array{ArrayOf([]float64{7, -7}, 2), Scalar(2)}, Int, []int{2}, []float64{3, -3}},
		{OpDiv, nil, []*Array{ArrayOf([]float64{7, -7}, 2), Scalar(2)}, Real, []int{2}, []float64{3.5, -3.5}},
		{OpPow, Attrs{"k": 2.0}, []*Array{ArrayOf([]float64{3, -2}, 2)}, Real, []int{2}, []float64{9, 4}},
		{OpPow, Attrs{"k": 0.5}, []*Array{Scalar(9)}, Real, nil, []float64{3}},
		{OpReduceMax, Attrs{"axes": []int{-1}, "keepdims": 0}, []*Array{x23}, Real, []int{2}, []float64{3, 6}},
		{OpReduceMax, Attrs{"axes": []int{0}}, []*Array{x23}, Real, []int{1, 3}, []float64{6, 5, 4}},
		{OpReduceSum, Attrs{"axes": []int{1}, "keepdims": 0}, []*Array{NewArray(2, 0)}, Int, []int{2}, []float64{0, 0}},
		{OpArgMax, Attrs{"axis": 1, "keepdims": 0}, []*Array{x23}, Real, []int{2}, []float64{2, 0}},
		{OpArgMax, nil, []*Array{ArrayOf([]float64{2, 2}, 2)}, Real, []int{1}, []float64{0}},
		{OpArgMax, Attrs{"last": 1}, []*Array{ArrayOf([]float64{2, 2}, 2)}, Real, []int{1}, []float64{1}},
		{OpSoftmax, nil, []*Array{ArrayOf([]float64{1000, 1001}, 1, 2)}, Real, []int{1, 2}, []float64{1 / (1 + e), e / (1 + e)}},
		{OpSoftmax, Attrs{"axis": 0}, []*Array{ArrayOf([]float64{0, 5, 0, 5}, 2, 2)}, Real, []int{2, 2}, []float64{.5, .5, .5, .5}},
		{OpSoftmax, Attrs{"axis": 1, "flat": 1}, []*Array{NewArray(1, 2, 2)}, Real, []int{1, 2, 2}, []float64{.25, .25, .25, .25}},
		{OpLogSoftmax, nil, []*Array{ArrayOf([]float64{0, 0}, 2)}, Real, []int{2}, []float64{-math.Ln2, -math.Ln2}},
		{OpSlice, Attrs{"starts": []int{-1}, "ends": []int{math.MinInt}, "axes": []int{1}, "steps": []int{-1}}, []*Array{x23}, Real, []int{2, 3}, []float64{3, 2, 1, 4, 5, 6}},
		{OpSlice, Attrs{"starts": []int{1}, "ends": []int{math.MaxInt}, "axes": []int{1}}, []*Array{x23}, Real, []int{2, 2}, []float64{2, 3, 5, 4}},
		{OpSlice, Attrs{"starts": []int{5}, "ends": []int{9}}, []*Array{x23}, Real, []int{0, 3}, []float64{}},
		{OpPad, Attrs{"pads": []int{2, 1}, "mode": "reflect"}, []*Array{ArrayOf([]float64{1, 2, 3}, 3)}, Real, []int{6}, []float64{3, 2, 1, 2, 3, 2}},
		{OpPad, Attrs{"pads": []int{2, 1}, "mode": "wrap"}, []*Array{ArrayOf([]float64{1, 2, 3}, 3)}, Real, []int{6}, []float64{2, 3, 1, 2, 3, 1}},
		{OpPad, Attrs{"pads": []int{2, 1}, "mode": "edge"}, []*Array{ArrayOf([]float64{1, 2, 3}, 3)}, Real, []int{6}, []float64{1, 1, 1, 2, 3, 3}},
		{OpPad, Attrs{"pads": []int{-1, 1}, "value": 7.0}, []*Array{ArrayOf([]float64{1, 2, 3}, 3)}, Real, []int{3}, []float64{2, 3, 7}},
		{OpTranspose, nil, []*Array{x23}, Real, []int{3, 2}, []float64{1, 6, 2, 5, 3, 4}},
		{OpExpand, Attrs{"shape": []int{2, 1}}, []*Array{ArrayOf([]float64{1, 2}, 2)}, Int, []int{2, 2}, []float64{1, 2, 1, 2}},
		{OpMatMul, nil, []*Array{ArrayOf([]float64{1, 2}, 2), ArrayOf([]float64{3, 4}, 2)}, Int, nil, []float64{11}},
		{OpAct, Attrs{"fn": "clip", "min": -1.0, "max": math.Inf(1)}, []*Array{ArrayOf([]float64{-2, 9}, 2)}, Real, []int{2}, []float64{-1, 9}},
	}
	for i, c := range tests {
		g := new(Graph)
		var args []*Value
		for _, a := range c.args {
			v, err := g.Const("c", a, c.dtype)
			if err != nil {
				t.Fatal(err)
			}
			args = append(args, v)
		}
		v, err := g.Add(c.op, "node", c.attrs, args...)
		if err != nil {
			t.Errorf("%d %s: %v", i, c.op, err)
			continue
		}
		got, ok, err := Fold(v)
		if err != nil || !ok {
			t.Errorf("%d %s: fold %v %v", i, c.op, ok, err)
			continue
		}
		if !slices.Equal(got.Shape, c.shape) || !slices.Equal(v.Type.Shape, c.shape) {
			t.Errorf("%d %s: shape %v and %v, want %v", i, c.op, got.Shape, v.Type.Shape, c.shape)
		}
		if !slices.EqualFunc(got.Data, c.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-12 }) {
			t.Errorf("%d %s: %v, want %v", i, c.op, got.Data, c.want)
		}
	}
}

// TestInferRejects lists uses that do not fit: each must be an error that says
// why, and none may allocate what it claims.
func TestInferRejects(t *testing.T) {
	img := []int{1, 4, 5, 5}
	tests := []struct {
		op    Op
		attrs Attrs
		args  [][]int
		want  string
	}{
		{OpInput, Attrs{"shape": []int{1, -1}}, nil, "negative"},
		{OpInput, Attrs{"shape": []int{1, 0}}, nil, "no elements"},
		{OpInput, Attrs{"shape": []int{1 << 20, 1 << 20}}, nil, "more than"},
		{OpInput, Attrs{"shape": []int{math.MaxInt, math.MaxInt}}, nil, "more than"},
		{OpInput, Attrs{}, nil, "shape is missing"},
		{OpInput, Attrs{"shape": 3}, nil, "has type int"},
		{OpInput, Attrs{"shape": []int{1}, "shap": 1}, nil, "shap is unknown"},
		{OpConv, nil, [][]int{img}, "1 arguments"},
		{OpConv, nil, [][]int{img, {2, 4, 3}}, "weights of shape"},
		{OpConv, nil, [][]int{{1, 4}, {2, 4}}, "weights of shape"},
		{OpConv, Attrs{"group": 0}, [][]int{img, {2, 4, 3, 3}}, "groups"},
		{OpConv, Attrs{"group": 3}, [][]int{img, {2, 4, 3, 3}}, "groups"},
		{OpConv, nil, [][]int{img, {2, 4, 6, 6}}, "larger than the padded input"},
		{OpConv, nil, [][]int{img, {2, 4, 3, 3}, {3}}, "bias"},
		{OpConv, Attrs{"strides": []int{0, 1}}, [][]int{img, {2, 4, 3, 3}}, "strides contains 0"},
		{OpConv, Attrs{"strides": []int{1}}, [][]int{img, {2, 4, 3, 3}}, "strides has 1 entries"},
		{OpConv, Attrs{"pads": []int{0, -1, 0, 0}}, [][]int{img, {2, 4, 3, 3}}, "pads contains -1"},
		{OpConv, Attrs{"pads": []int{1 << 30, 1 << 30, 0, 0}}, [][]int{img, {2, 4, 3, 3}}, "more than"},
		{OpConv, Attrs{"dilations": []int{math.MaxInt, 1}}, [][]int{img, {2, 4, 3, 3}}, "dilations contains"},
		{OpMatMul, nil, [][]int{{2, 3}, {2, 3}}, "matrix product of shapes"},
		{OpMatMul, nil, [][]int{{}, {3}}, "scalar"},
		{OpMatMul, nil, [][]int{{2, 2, 3}, {3, 3, 2}}, "broadcast"},
		{OpAdd, nil, [][]int{{2, 3}, {2}}, "broadcast"},
		{OpPow, Attrs{"k": math.NaN()}, [][]int{{2}}, "NaN"},
		{OpAvgPool, Attrs{"kernel": []int{2}}, [][]int{img}, "kernel [2] for 2"},
		{OpAvgPool, Attrs{"kernel": []int{2, 0}}, [][]int{img}, "kernel [2 0]"},
		{OpAvgPool, Attrs{"kernel": []int{2, 2}, "ceil": 2}, [][]int{img}, "want 0 or 1"},
		{OpMaxPool, Attrs{"kernel": []int{2, 2}, "pads": []int{2, 0, 0, 0}}, [][]int{img}, "nothing but pads"},
		{OpMaxPool, Attrs{"kernel": []int{2, 2}, "count_include_pad": 1}, [][]int{img}, "unknown"},
		{OpReduceMean, Attrs{"axes": []int{4}}, [][]int{img}, "axis 4"},
		{OpReduceMean, Attrs{"axes": []int{1, -3}}, [][]int{img}, "twice"},
		{OpPad, Attrs{"pads": []int{1}}, [][]int{{3}}, "pads has 1"},
		{OpPad, Attrs{"pads": []int{1 << 40, 0}}, [][]int{{3}}, "pads contains"},
		{OpPad, Attrs{"pads": []int{-2, -2}}, [][]int{{3}}, "crop more"},
		{OpPad, Attrs{"pads": []int{3, 0}, "mode": "reflect"}, [][]int{{3}}, "too large"},
		{OpPad, Attrs{"pads": []int{1, 0}, "mode": "mirror"}, [][]int{{3}}, "mirror"},
		{OpReshape, Attrs{"shape": []int{4}}, [][]int{{3}}, "number of elements"},
		{OpReshape, Attrs{"shape": []int{-1}}, [][]int{{3}}, "negative"},
		{OpTranspose, Attrs{"perm": []int{0, 0}}, [][]int{{3, 3}}, "permute"},
		{OpConcat, Attrs{"axis": 1}, [][]int{{3}, {3}}, "axis 1"},
		{OpConcat, Attrs{"axis": 0}, [][]int{{3, 2}, {3, 1}}, "join"},
		{OpConcat, Attrs{"axis": 0}, nil, "0 arguments"},
		{OpSlice, Attrs{"starts": []int{0}, "ends": []int{1, 2}}, [][]int{{3}}, "2 ends"},
		{OpSlice, Attrs{"starts": []int{0}, "ends": []int{1}, "steps": []int{0}}, [][]int{{3}}, "step 0"},
		{OpSlice, Attrs{"starts": []int{0, 0}, "ends": []int{1, 1}, "axes": []int{0, -1}}, [][]int{{3}}, "twice"},
		{OpGather, nil, [][]int{{3}, {2}}, "encrypted"},
		{OpExpand, Attrs{"shape": []int{1 << 40}}, [][]int{{1}}, "more than"},
		{OpExpand, Attrs{"shape": []int{1 << 20}}, [][]int{{1 << 20, 1}}, "more than"},
		{OpExpand, Attrs{"shape": []int{2}}, [][]int{{3}}, "broadcast"},
		{OpAct, Attrs{"fn": "step"}, [][]int{{3}}, `unknown function "step"`},
		{OpAct, Attrs{"fn": "elu"}, [][]int{{3}}, "needs attribute alpha"},
		{OpAct, Attrs{"fn": "relu", "alpha": 1.0}, [][]int{{3}}, "no attribute alpha"},
		{OpAct, Attrs{"fn": "elu", "alpha": math.Inf(1)}, [][]int{{3}}, "Inf"},
		{OpSoftmax, Attrs{"axis": 2}, [][]int{{3, 3}}, "axis 2"},
		{OpArgMax, Attrs{"axis": 2}, [][]int{{3, 3}}, "axis 2"},
	}
	for _, c := range tests {
		g := new(Graph)
		var args []*Value
		for _, s := range c.args {
			args = append(args, input(t, g, s...))
		}
		if v, err := g.Add(c.op, "node7", c.attrs, args...); err == nil {
			t.Errorf("%s %v of %v gave %v, want an error about %q", c.op, c.attrs, c.args, v.Type.Shape, c.want)
		} else if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "node7") {
			t.Errorf("%s %v of %v: %q, want it to say node7 and %q", c.op, c.attrs, c.args, err, c.want)
		}
	}
}

// TestFoldBounds has constants that would fold to far more than they are.
func TestFoldBounds(t *testing.T) {
	g := new(Graph)
	one := constant(t, g, NewArray(1, 1, 1, 1))
	for _, c := range []struct {
		op    Op
		attrs Attrs
	}{
		{OpExpand, Attrs{"shape": []int{1 << 15, 1 << 15}}},
		{OpPad, Attrs{"pads": []int{0, 0, 1 << 14, 1 << 14, 0, 0, 0, 0}}},
		{OpAvgPool, Attrs{"kernel": []int{1 << 20, 1}, "pads": []int{1<<20 - 1, 1 << 10, 1<<20 - 1, 1 << 10}, "count_include_pad": 1}},
	} {
		v, err := g.Add(c.op, "huge", c.attrs, one)
		if err != nil {
			continue // refused even earlier
		}
		if _, _, err := Fold(v); err == nil || !strings.Contains(err.Error(), "huge") {
			t.Errorf("%s: folded %v, want an error that names the node: %v", c.op, v.Type.Shape, err)
		}
	}
}

// TestActivations checks the structure that the activation table claims, and
// the functions at points with known values.
func TestActivations(t *testing.T) {
	if !slices.IsSorted(ActNames()) {
		t.Fatal("the activation table is not in order of names")
	}
	params := [][]float64{{0.1, 0.9}, {0.2, 0.5}, {-2, 2}, {1, 1.05}, {0, math.Inf(1)}, {3, -3}}
	for _, name := range ActNames() {
		a, _ := ActByName(name)
		if a.Doc == "" || a.F == nil {
			t.Errorf("%s: empty cell", name)
		}
		for _, p := range params {
			attrs := Attrs{"fn": name}
			for i, n := range a.Params {
				attrs[n] = p[i]
			}
			v := &Value{Op: OpAct, Attrs: attrs}
			f, err := v.Activation()
			if err != nil {
				if strings.Contains(err.Error(), "Inf") || strings.Contains(err.Error(), "is 0") {
					continue
				}
				t.Fatal(err)
			}
			s, _ := v.ActShape()
			lo, _, _ := v.ActDomain()
			for x := 0.05; x < 9; x += 0.173 {
				if y := f(x); math.IsNaN(y) || math.IsInf(y, 0) {
					t.Fatalf("%s%v(%v) = %v", name, p, x, y)
				}
				if lo >= 0 && s.Sym == SymNone {
					continue
				}
				r, l := f(x)-s.Slope*x-s.Offset, f(-x)+s.Slope*x-s.Offset
				if d := r - l; s.Sym == SymEven && math.Abs(d) > 1e-12*math.Max(1, math.Abs(r)) {
					t.Fatalf("%s%v is not even at %v: %v", name, p, x, d)
				}
				if d := r + l; s.Sym == SymOdd && math.Abs(d) > 1e-12*math.Max(1, math.Abs(r)) {
					t.Fatalf("%s%v is not odd at %v: %v", name, p, x, d)
				}
			}
			for _, k := range s.Kinks { // the derivative jumps there, and nowhere near
				const h = 1e-6
				if d := (f(k+h) + f(k-h) - 2*f(k)) / h; math.Abs(d) < 1e-3 && name != "thresholdedrelu" {
					t.Errorf("%s%v has no kink at %v", name, p, k)
				}
			}
		}
	}
	points := []struct {
		attrs Attrs
		x, y  float64
	}{
		{Attrs{"fn": "relu"}, -1, 0}, {Attrs{"fn": "leakyrelu", "alpha": 0.1}, -2, -0.2},
		{Attrs{"fn": "celu", "alpha": 2.0}, -2, 2 * (math.Exp(-1) - 1)}, {Attrs{"fn": "elu", "alpha": 2.0}, -1, 2 * (math.Exp(-1) - 1)},
		{Attrs{"fn": "selu", "alpha": 2.0, "gamma": 3.0}, -1, 6 * (math.Exp(-1) - 1)}, {Attrs{"fn": "sigmoid"}, -800, 0},
		{Attrs{"fn": "softplus"}, 800, 800}, {Attrs{"fn": "softplus"}, 0, math.Ln2}, {Attrs{"fn": "hardswish"}, 1, 4. / 6},
		{Attrs{"fn": "hardsigmoid", "alpha": 0.2, "beta": 0.5}, 1, 0.7}, {Attrs{"fn": "mish"}, 1, math.Tanh(math.Log1p(math.E))},
		{Attrs{"fn": "gelu"}, 1, 0.8413447460685429}, {Attrs{"fn": "gelu_tanh"}, 1, 0.8411919906082768}, {Attrs{"fn": "silu"}, 1, 0.7310585786300049},
		{Attrs{"fn": "swish", "alpha": 2.0}, 1, 0.8807970779778823}, {Attrs{"fn": "thresholdedrelu", "alpha": 1.0}, 1, 0}, {Attrs{"fn": "softsign"}, -3, -0.75},
	}
	for _, p := range points {
		f, err := (&Value{Op: OpAct, Attrs: p.attrs}).Activation()
		if err != nil {
			t.Fatal(err)
		}
		if y := f(p.x); math.Abs(y-p.y) > 1e-12 {
			t.Errorf("%v(%v) = %v, want %v", p.attrs, p.x, y, p.y)
		}
	}
}

// TestOpTable finds rows with missing cells.
func TestOpTable(t *testing.T) {
	for _, op := range Ops() {
		r := op.Info()
		missing := func(cell string) { t.Errorf("%s: no %s", op, cell) }
		if r.Name == "" || r.Doc == "" || !strings.Contains(r.Name, ".") {
			missing("name or doc")
		}
		if r.Infer == nil {
			missing("Infer")
		}
		if r.Op != op || r.Result.Vocab() != r.Vocab {
			t.Errorf("%s: row of %s makes a %s in vocabulary %s", op, r.Op, r.Result, r.Vocab)
		}
		if r.MaxArgs >= 0 && r.MaxArgs < r.MinArgs {
			missing("arity")
		}
		if got, ok := OpByName(r.Name); !ok || got != op {
			t.Errorf("%s: name leads to %v", op, got)
		}
		for i, a := range r.Attrs {
			if slices.ContainsFunc(r.Attrs[:i], func(b AttrSpec) bool { return a.Name == b.Name }) {
				t.Errorf("%s: attribute %s twice", op, a.Name)
			}
		}
		if r.Vocab == Tensor && r.Eval == nil {
			missing("Eval")
		}
		if r.Vocab != Tensor && (r.Eval != nil || r.Linear != nil) {
			t.Errorf("%s: Eval and Linear belong to the tensor vocabulary", op)
		}
	}
	for op := OpInvalid + 1; op < numOps; op++ {
		if table[op].Op == OpInvalid {
			t.Errorf("op %d has no row", op)
		}
	}
}

func BenchmarkConv(b *testing.B) {
	for _, c := range []struct{ cin, hw, cout, k, group int }{
		{1, 28, 6, 5, 1}, {6, 14, 16, 5, 1}, {16, 32, 16, 3, 1}, {64, 8, 64, 3, 1}, {32, 32, 32, 3, 32}, {64, 16, 64, 1, 1},
	} {
		b.Run(fmt.Sprintf("in=%dx%d,out=%d,k=%d,group=%d", c.cin, c.hw, c.cout, c.k, c.group), func(b *testing.B) {
			g := new(Graph)
			x := input(b, g, 1, c.cin, c.hw, c.hw)
			w := constant(b, g, NewArray(c.cout, c.cin/c.group, c.k, c.k))
			p := c.k / 2
			v, err := g.Add(OpConv, "conv", Attrs{"pads": []int{p, p, p, p}, "group": c.group}, x, w)
			if err != nil {
				b.Fatal(err)
			}
			xa := NewArray(x.Type.Shape...)
			for i := range w.Array.Data { // the product skips zeros
				w.Array.Data[i] = float64(i%7) + 0.5
			}
			for i := range xa.Data {
				xa.Data[i] = float64(i%5) + 0.5
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := OpConv.Info().Eval(v, []*Array{xa, w.Array}); err != nil {
					b.Fatal(err)
				}
			}
			flop := 2 * float64(v.Type.Elems()*c.cin/c.group*c.k*c.k)
			b.ReportMetric(flop*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
