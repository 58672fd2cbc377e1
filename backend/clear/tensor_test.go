package clear

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/home-fhe/home/ir"
)

// residual is y = x*w + relu(x*w) with the relu replaced by 0.25+u/2 on [-2,2],
// u = x/2, and a scalar mean beside it.
const residual = `graph "residual"
%0 = tensor.input() {shape=[1,2]} : f[1,2] enc "x"
%1 = tensor.const() data=[1,0,0,-1] : f[2,2] "w"
%2 = tensor.matmul(%0, %1) : f[1,2] enc "fc"
%3 = tensor.act(%2) {fn="relu"} approx=(center=0, bound=2, err=0.75, coef=[0.25,0.5]) : f[1,2] enc "relu"
%4 = tensor.act(%2) {fn="tanh"} approx=(center=0, bound=100, err=1, coef=[0]) : f[1,2] enc "unused"
%5 = tensor.add(%2, %3) : f[1,2] enc "sum"
%6 = tensor.reducemean(%5) {keepdims=0} : f[] enc "mean"
inputs(%0)
outputs(%5, %6, %0)
`

func parse(t testing.TB, text string) *ir.Graph {
	t.Helper()
	g, err := ir.ParseString(text)
	if err == nil {
		err = ir.Verify(g, ir.Tensor)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestEvalTensor(t *testing.T) {
	g := parse(t, residual)
	tests := []struct {
		approx bool
		x      []float64
		batch  int
		want   [][]float64
		seen   string // sum of worst and counts per violating node
	}{
		{false, []float64{1, 2}, 0, [][]float64{{2, -2}, {0}, {1, 2}}, ""},
		{true, []float64{1, 2}, 1, [][]float64{{1.5, -2.25}, {-0.375}, {1, 2}}, ""},
		{true, []float64{5, 6}, 1, [][]float64{{6.5, -7.25}, {-0.375}, {5, 6}}, "relu 2 3;"},
		{false, []float64{1, 2, 3, -4, 0, 0}, 3, [][]float64{{2, -2, 6, 8, 0, 0}, {0, 7, 0}, {1, 2, 3, -4, 0, 0}}, ""},
		{true, []float64{1, 2, 3, -4, 0, 250}, 3, [][]float64{{1.5, -2.25, 4, 5.25, 0.25, -312.25}, {-0.375, 4.625, -156}, {1, 2, 3, -4, 0, 250}}, "relu 3 125;unused 1 2.5;"},
	}
	for i, c := range tests {
		shape := []int{max(c.batch, 1), 2}
		var order []string
		outs, stats, err := EvalTensor(g, []*ir.Array{ir.ArrayOf(c.x, shape...)}, Options{Approx: c.approx, Batch: c.batch,
			Observe: func(v *ir.Value, a *ir.Array) {
				order = append(order, v.Name)
				if len(a.Data) != v.Type.Elems() {
					t.Errorf("%d: observed %d elements of %s", i, len(a.Data), v.Name)
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		for k, w := range c.want {
			if !slices.Equal(outs[k].Data, w) {
				t.Errorf("%d: output %d is %v, want %v", i, k, outs[k].Data, w)
			}
		}
		seen, total := "", 0
		for _, v := range stats.Violations {
			seen += fmt.Sprintf("%s %d %v;", v.Value.Name, v.Count, v.Worst)
			total += v.Count
		}
		if seen != c.seen || stats.Total() != total {
			t.Errorf("%d: violations %q, want %q", i, seen, c.seen)
		}
		want := slices.Repeat([]string{"x", "fc", "relu", "unused", "sum", "mean"}, shape[0])
		if !slices.Equal(order, want) {
			t.Errorf("%d: observed %v, want %v", i, order, want)
		}
	}
}

func TestEvalTensorRefuses(t *testing.T) {
	x := ir.NewArray(1, 2)
	tests := []struct {
		name   string
		spoil  func(g *ir.Graph)
		inputs []*ir.Array
		o      Options
		want   string
	}{
		{"no input", nil, nil, Options{}, "takes 1 inputs, got 0"},
		{"nil input", nil, []*ir.Array{nil}, Options{}, `input "x" is missing`},
		{"wrong shape", nil, []*ir.Array{ir.NewArray(2, 1)}, Options{}, `input "x" has shape [2 1], want [1 2]`},
		{"short data", nil, []*ir.Array{{Shape: []int{1, 2}}}, Options{}, `input "x" has shape`},
		{"wrong batch", nil, []*ir.Array{x}, Options{Batch: 2}, `input "x" has shape [1 2], want [2 2]`},
		{"foreign vocabulary", func(g *ir.Graph) { g.Values[2].Op = ir.OpHEAdd }, []*ir.Array{x}, Options{}, "another vocabulary"},
		{"order", func(g *ir.Graph) { g.Values[2], g.Values[3] = g.Values[3], g.Values[2]; g.Renumber() }, []*ir.Array{x}, Options{}, "does not come before"},
		{"unlisted input", func(g *ir.Graph) { g.Inputs = nil }, nil, Options{}, "not among the inputs"},
	}
	for _, c := range tests {
		g := parse(t, residual)
		if c.spoil != nil {
			c.spoil(g)
		}
		if _, _, err := EvalTensor(g, c.inputs, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

// TestEvalTensorNamesNode has a node fail in one sample of a batch.
func TestEvalTensorNamesNode(t *testing.T) {
	g := parse(t, `graph "g"
%0 = tensor.input() {shape=[1,2]} : f[1,2] enc "x"
%1 = tensor.const() {dtype="i"} data=[1,0] : i[2] "n"
%2 = tensor.div(%1, %1) : i[2] "quotient"
%3 = tensor.add(%0, %2) : f[1,2] enc "sum"
inputs(%0)
outputs(%3)
`)
	for _, batch := range []int{1, 4} {
		_, _, err := EvalTensor(g, []*ir.Array{ir.NewArray(batch, 2)}, Options{Batch: batch})
		var node *ir.NodeError
		if !errors.As(err, &node) || node.Node != "quotient" || !strings.Contains(err.Error(), "division by zero") {
			t.Errorf("batch %d: error %v, want one that names the node", batch, err)
		}
	}
}

// lenet is the shape of a LeNet-5 with random weights.
func lenet(t testing.TB) *ir.Graph {
	g := &ir.Graph{Name: "lenet"}
	seed := 1.0
	weights := func(shape ...int) *ir.Value {
		a := ir.NewArray(shape...)
		for i := range a.Data {
			seed = math.Mod(seed*16807, 2147483647)
			a.Data[i] = (seed/2147483647 - 0.5) / 4
		}
		v, err := g.Const("w", a, ir.Real)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	add := func(op ir.Op, attrs ir.Attrs, args ...*ir.Value) *ir.Value {
		v, err := g.Add(op, op.String(), attrs, args...)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	relu := ir.Attrs{"fn": "relu"}
	pool := ir.Attrs{"kernel": []int{2, 2}, "strides": []int{2, 2}}
	x := add(ir.OpInput, ir.Attrs{"shape": []int{1, 1, 28, 28}})
	v := add(ir.OpConv, ir.Attrs{"pads": []int{2, 2, 2, 2}}, x, weights(6, 1, 5, 5), weights(6))
	v = add(ir.OpAvgPool, pool, add(ir.OpAct, relu, v))
	v = add(ir.OpConv, nil, v, weights(16, 6, 5, 5), weights(16))
	v = add(ir.OpAvgPool, pool, add(ir.OpAct, relu, v))
	v = add(ir.OpReshape, ir.Attrs{"shape": []int{1, 400}}, v)
	for _, n := range [][2]int{{400, 120}, {120, 84}, {84, 10}} {
		v = add(ir.OpAdd, nil, add(ir.OpMatMul, nil, v, weights(n[0], n[1])), weights(n[1]))
		if n[1] > 10 {
			v = add(ir.OpAct, relu, v)
		}
	}
	g.Inputs, g.Outputs = []*ir.Value{x}, []*ir.Value{v}
	return g
}

// TestBatchIsSingles evaluates samples together and one by one.
func TestBatchIsSingles(t *testing.T) {
	g := lenet(t)
	const batch = 9
	x := ir.NewArray(batch, 1, 28, 28)
	for i := range x.Data {
		x.Data[i] = math.Sin(float64(i))
	}
	all, _, err := EvalTensor(g, []*ir.Array{x}, Options{Batch: batch})
	if err != nil {
		t.Fatal(err)
	}
	for i := range batch {
		one, _, err := EvalTensor(g, []*ir.Array{ir.ArrayOf(x.Data[i*784:(i+1)*784], 1, 1, 28, 28)}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(one[0].Data, all[0].Data[i*10:(i+1)*10]) {
			t.Errorf("sample %d is %v alone, %v in a batch", i, one[0].Data, all[0].Data[i*10:(i+1)*10])
		}
	}
	if !slices.Equal(all[0].Shape, []int{batch, 10}) {
		t.Errorf("shape %v", all[0].Shape)
	}
}

func BenchmarkLeNet(b *testing.B) {
	g := lenet(b)
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			x := ir.NewArray(batch, 1, 28, 28)
			for i := range x.Data {
				x.Data[i] = math.Sin(float64(i))
			}
			for b.Loop() {
				if _, _, err := EvalTensor(g, []*ir.Array{x}, Options{Batch: batch}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "samples/s")
		})
	}
}
