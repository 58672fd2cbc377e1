package home_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/passes"
)

// TestActivations runs small networks encrypted, whose activations take what the
// larger ones of the models need: ranges of single channels, a composite sign, and
// rounds of a maximum. They agree with the approximated networks in the clear.
func TestActivations(t *testing.T) {
	for _, c := range []struct {
		name, text string
		drop       float64
		levels     int
		check      func(*ir.Approx) bool
	}{
		{"channels", `graph "channels"
%0 = tensor.input() {shape=[1,2,3,3]} "x"
%1 = tensor.const() data=[1,-0.5,0.1,0.05] : f[2,2,1,1] "w"
%2 = tensor.conv(%0, %1) "conv"
%3 = tensor.act(%2) {fn="relu"} "relu"
%4 = tensor.sub(%3, %2) "residual"
inputs(%0)
outputs(%4)
`, 0.05, 10, func(a *ir.Approx) bool { return len(a.Channels) == 2 && a.Channels[0].Gain > 2*a.Channels[1].Gain }},
		{"composite", `graph "composite"
%0 = tensor.input() {shape=[1,2,2]} "x"
%1 = tensor.reducesum(%0) {axes=[2]} "sum"
%2 = tensor.act(%1) {fn="leakyrelu", alpha=0.25} "leaky"
%3 = tensor.reducesum(%2) {axes=[1]} "total"
inputs(%0)
outputs(%3)
`, 0.00025, 14, func(a *ir.Approx) bool { return len(a.Inner) == 1 }},
		{"maximum", `graph "maximum"
%0 = tensor.input() {shape=[1,1,4,4]} "x"
%1 = tensor.act(%0) {fn="relu"} "relu"
%2 = tensor.maxpool(%1) {kernel=[2,2], strides=[2,2]} "pool"
inputs(%0)
outputs(%2)
`, 0.2, 20, func(a *ir.Approx) bool { return a != nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := ir.ParseString(c.text)
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(2, 3))
			var calib []*ir.Array
			for range 300 {
				x := ir.NewArray(g.Inputs[0].Type.Shape...)
				for i := range x.Data {
					x.Data[i] = 2*r.Float64() - 1
				}
				calib = append(calib, x)
			}
			p, err := passes.Compile(passes.Source{Graph: g}, passes.Options{Calibrate: calib, AccuracyDrop: c.drop, Batch: 1, Params: tinyParams(t, 6, ir.RingReal, c.levels), AllowInsecure: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range p.Network.Values {
				if v.Op == ir.OpAct && !c.check(v.Approx) {
					t.Errorf("%s: the polynomial is not of the kind that the test is about", v.Name)
				}
			}
			q := newParty(t, p, 1, lattigo.AllowInsecure())
			for _, x := range calib[:5] {
				want, _, err := clear.EvalTensor(p.Network, []*ir.Array{x}, clear.Options{Approx: true})
				if err != nil {
					t.Fatal(err)
				}
				got, _ := q.run(t, x)
				for i, w := range want[0].Data {
					if d := math.Abs(got.Data[i] - w); !(d < 1e-6) {
						t.Errorf("output %d is %v encrypted, %v in the clear", i, got.Data[i], w)
					}
				}
			}
		})
	}
}
