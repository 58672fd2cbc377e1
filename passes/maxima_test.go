package passes

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
)

// TestMaxima rewrites maxima of all kinds: the exact network stays what it was,
// no maximum is left, and there are as many rounds as there must be.
func TestMaxima(t *testing.T) {
	for _, c := range []struct {
		shape, op string
		rounds    int // activations in a row
	}{
		{"[1,2,4,6]", `%1 = tensor.maxpool(%0) {kernel=[2,2], strides=[2,2]} "max"`, 2},
		{"[2,2,5,5]", `%1 = tensor.maxpool(%0) {kernel=[3,3], strides=[2,2], pads=[1,1,1,1]} "max"`, 4},
		{"[1,1,7,5]", `%1 = tensor.maxpool(%0) {kernel=[3,2], strides=[2,2], pads=[0,0,1,1], ceil=1} "max"`, 3},
		{"[1,2,9]", `%1 = tensor.maxpool(%0) {kernel=[3], dilations=[2], strides=[2]} "max"`, 2},
		{"[1,3,1,4]", `%1 = tensor.maxpool(%0) {kernel=[1,1], strides=[1,2]} "max"`, 0},
		{"[1,5,2,2]", `%1 = tensor.reducemax(%0) {axes=[2,-1], keepdims=0} "max"`, 2},
		{"[2,5]", `%1 = tensor.reducemax(%0) {axes=[1]} "max"`, 3},
		{"[3,2]", `%1 = tensor.reducemax(%0) {keepdims=0} "max"`, 3},
		// A rectifier is done after the pairs, or takes part in the odd place.
		{"[1,2,4,4]", "%1 = tensor.act(%0) {fn=\"relu\"} \"relu\"\n%2 = tensor.maxpool(%1) {kernel=[2,2], strides=[2,2]} \"max\"", 3},
		{"[1,2,5,5]", "%1 = tensor.act(%0) {fn=\"relu\"} \"relu\"\n%2 = tensor.maxpool(%1) {kernel=[3,3], strides=[2,2]} \"max\"", 4},
		{"[1,7]", "%1 = tensor.act(%0) {fn=\"relu\"} \"relu\"\n%2 = tensor.reducemax(%1) {axes=[1]} \"max\"", 3},
		{"[1,2,4,4]", "%1 = tensor.act(%0) {fn=\"leakyrelu\", alpha=0.1} \"leaky\"\n%2 = tensor.maxpool(%1) {kernel=[2,2], strides=[2,2]} \"max\"", 3},
	} {
		t.Run(c.op, func(t *testing.T) {
			last := "%1"
			if strings.Contains(c.op, "%2 =") {
				last = "%2"
			}
			g := parse(t, fmt.Sprintf("graph \"g\"\n%%0 = tensor.input() {shape=%s} \"x\"\n%s\ninputs(%%0)\noutputs(%s)\n", c.shape, c.op, last))
			u := &unit{opt: &Options{}, graph: g}
			if err := maxima(u); err != nil {
				t.Fatal(err)
			}
			if err := ir.Verify(u.graph, ir.Tensor); err != nil {
				t.Fatal(err)
			}
			row, most := map[*ir.Value]int{}, 0
			for _, v := range u.graph.Values {
				if isMaximum(v) {
					t.Errorf("%s is left", v.Op)
				}
				for _, a := range v.Args {
					row[v] = max(row[v], row[a])
				}
				if v.Op == ir.OpAct {
					row[v]++
				}
				most = max(most, row[v])
			}
			if most != c.rounds {
				t.Errorf("%d activations in a row, want %d", most, c.rounds)
			}
			r := rand.New(rand.NewPCG(3, 3))
			for range 20 {
				x := ir.NewArray(g.Inputs[0].Type.Shape...)
				for i := range x.Data {
					x.Data[i] = r.NormFloat64()
				}
				want, _, err := clear.EvalTensor(g, []*ir.Array{x}, clear.Options{})
				if err != nil {
					t.Fatal(err)
				}
				got, _, err := clear.EvalTensor(u.graph, []*ir.Array{x}, clear.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if fmt.Sprint(got[0].Shape) != fmt.Sprint(want[0].Shape) {
					t.Fatalf("shape %v, want %v", got[0].Shape, want[0].Shape)
				}
				for i, w := range want[0].Data {
					if math.Abs(got[0].Data[i]-w) > 1e-14 {
						t.Fatalf("element %d is %v, want %v", i, got[0].Data[i], w)
					}
				}
			}
		})
	}
}

// TestMaximaRefuse names a maximum that would take too much memory.
func TestMaximaRefuse(t *testing.T) {
	g := parse(t, "graph \"g\"\n%0 = tensor.input() {shape=[1,1,2048,2048]} \"x\"\n%1 = tensor.maxpool(%0) {kernel=[1024,2]} \"big\"\ninputs(%0)\noutputs(%1)\n")
	err := maxima(&unit{opt: &Options{}, graph: g})
	if !errors.Is(err, ir.ErrUnsupported) || !strings.Contains(err.Error(), "big") {
		t.Errorf("error %v", err)
	}
}
