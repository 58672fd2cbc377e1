package clear

import (
	"slices"
	"testing"

	"github.com/home-fhe/home/ir"
)

// TestWalk stops before an activation, takes its polynomial away, and goes on: the
// outputs are those of the graph as it is then, of a clone those of the graph as
// it was, and neither disturbs the other.
func TestWalk(t *testing.T) {
	g := parse(t, residual)
	samples := []*ir.Array{ir.ArrayOf([]float64{5, 6}, 1, 2), ir.ArrayOf([]float64{1, 2}, 1, 2), ir.ArrayOf([]float64{0, 250}, 1, 2)}
	relu := g.Values[3]
	evaluate := func() (outs [][]float64, total int) {
		for _, s := range samples {
			o, st, err := EvalTensor(g, []*ir.Array{s}, Options{Approx: true})
			if err != nil {
				t.Fatal(err)
			}
			outs = append(outs, o[0].Data, o[1].Data)
			total += st.Total()
		}
		return outs, total
	}
	walk := func(w *Walk) (outs [][]float64, total int) {
		for i := range samples {
			o, err := w.Outputs(i)
			if err != nil {
				t.Fatal(err)
			}
			outs = append(outs, o[0].Data, o[1].Data)
		}
		st := w.Stats()
		return outs, st.Total()
	}
	w, err := NewWalk(g, samples, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Until(relu); err != nil {
		t.Fatal(err)
	}
	if got := w.Value(2, relu.Args[0]).Data; !slices.Equal(got, []float64{0, -250}) {
		t.Errorf("argument of the activation is %v", got)
	}
	if w.Value(0, relu) != nil {
		t.Error("the activation was evaluated")
	}
	same := func(name string, w *Walk) {
		t.Helper()
		want, outside := evaluate()
		got, total := walk(w)
		if !slices.EqualFunc(got, want, slices.Equal[[]float64]) || total != outside {
			t.Errorf("%s: %v with %d outside, want %v with %d", name, got, total, want, outside)
		}
	}
	before := w.Clone()
	same("as it was", before)
	saved := relu.Approx
	relu.Approx = nil
	same("without the polynomial", w)
	relu.Approx = saved
	same("walked before", before)

	if _, err := NewWalk(g, []*ir.Array{ir.NewArray(2, 2)}, false); err == nil {
		t.Error("a sample of another shape was accepted")
	}
}

// TestChannels evaluates an activation whose channels have ranges and factors of
// their own, as a composite too, element by element as Approx.At says, and counts
// by the range of the element's channel.
func TestChannels(t *testing.T) {
	g := parse(t, `graph "channels"
%0 = tensor.input() {shape=[2,3,5]} : f[2,3,5] enc "x"
%1 = tensor.act(%0) {fn="relu"} approx=(center=0, bound=9, err=0, coef=[0.3,0.5,0.2,0.1]) channels=[0,1,2,1,2,3,-1,9,0.5] : f[2,3,5] enc "plain"
%2 = tensor.act(%0) {fn="relu"} approx=(center=0, bound=9, err=0, coef=[0.5,0.5]) inner=[0,1.2,0,-0.2] inner=[0,1] channels=[0,1,2,1,2,3,-1,9,0.5] : f[2,3,5] enc "composite"
inputs(%0)
outputs(%1, %2)
`)
	x := ir.NewArray(2, 3, 5)
	for i := range x.Data {
		x.Data[i] = float64(i%7) - 3
	}
	outs, stats, err := EvalTensor(g, []*ir.Array{x}, Options{Approx: true})
	if err != nil {
		t.Fatal(err)
	}
	outside := 0
	for i, v := range x.Data {
		c := i / 5 % 3
		for k, o := range outs {
			a := g.Values[1+k].Approx
			if w := a.At(c, v); o.Data[i]-w > 1e-13 || w-o.Data[i] > 1e-13 {
				t.Errorf("element %d of output %d is %v, want %v", i, k, o.Data[i], w)
			}
			if a.Channel(c).Outside(v) {
				outside++
			}
		}
	}
	if stats.Total() != outside || outside == 0 {
		t.Errorf("%d elements outside, want %d", stats.Total(), outside)
	}
}
