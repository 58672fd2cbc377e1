package passes

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// TestUnbatch takes the batch off networks whose ops keep samples apart: each
// sample's outputs stay the same. Networks that mix samples stay as they are.
func TestUnbatch(t *testing.T) {
	const head = "graph \"g\"\n%0 = tensor.input() {shape=[3,2,4,4]} \"x\"\n"
	for _, c := range []struct {
		name, body, out string
		apart           bool
		client          []plan.ClientOp
	}{
		{"network", `%1 = tensor.const() data=[1,-2,3,0.5,1,1,-1,2] : f[2,1,2,2] "w"
%2 = tensor.const() data=[1,2] : f[2] "b"
%3 = tensor.conv(%0, %1, %2) {group=2} "conv"
%4 = tensor.act(%3) {fn="relu"} "relu"
%5 = tensor.maxpool(%4) {kernel=[2,2]} "max"
%6 = tensor.transpose(%5) {perm=[0,2,3,1]} "transpose"
%7 = tensor.reshape(%6) {shape=[3,8]} "reshape"
%8 = tensor.const() data=[1,2,3,4,5,6,7,8] : f[8] "s"
%9 = tensor.mul(%7, %8) "scale"
%10 = tensor.add(%9, %7) "sum"
%11 = tensor.slice(%10) {axes=[1], ends=[6], starts=[2]} "slice"
%12 = tensor.concat(%11, %7) {axis=-1} "concat"
%13 = tensor.pad(%12) {pads=[0,1,0,0]} "pad"
%14 = tensor.const() data=[1,0,2,1,3,0,1,1,2,2,1,0,1,1,3,1,0,1,2,1,1,0,0,1,1,2] : f[13,2] "m"
%15 = tensor.matmul(%13, %14) "fc"
%16 = tensor.reducemean(%15) {axes=[1]} "mean"
%17 = tensor.sub(%15, %16) "centred"
`, "%17", true, []plan.ClientOp{{Op: "Softmax", Axis: 1, Shape: []int{3, 2}, Input: []int{3, 2}}}},
		{"constant for each sample", "%1 = tensor.const() data=[1,2,3] : f[3,1,1,1] \"c\"\n%2 = tensor.mul(%0, %1) \"y\"\n", "%2", false, nil},
		{"mean over samples", "%1 = tensor.reducemean(%0) {axes=[0]} \"y\"\n", "%1", false, nil},
		{"mean over everything", "%1 = tensor.reducemean(%0) \"y\"\n", "%1", false, nil},
		{"broadcast along samples", "%1 = tensor.slice(%0) {axes=[-4], ends=[1], starts=[0]} \"s\"\n%2 = tensor.add(%0, %1) \"y\"\n", "%2", false, nil},
		{"joined samples", "%1 = tensor.reshape(%0) {shape=[1,96]} \"y\"\n", "%1", false, nil},
		{"moved samples", "%1 = tensor.transpose(%0) {perm=[1,0,2,3]} \"y\"\n", "%1", false, nil},
		{"best sample", "%1 = tensor.act(%0) {fn=\"relu\"} \"y\"\n", "%1", false, []plan.ClientOp{{Op: "ArgMax", Axis: 0, Shape: []int{1, 2, 4, 4}, Input: []int{3, 2, 4, 4}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := parse(t, head+c.body+"inputs(%0)\noutputs("+c.out+")\n")
			r := rand.New(rand.NewPCG(1, 4))
			x := ir.NewArray(3, 2, 4, 4)
			for i := range x.Data {
				x.Data[i] = r.NormFloat64()
			}
			u := &unit{opt: &Options{Calibrate: []*ir.Array{x}}, graph: g, client: c.client}
			if err := unbatch(u); err != nil {
				t.Fatal(err)
			}
			if (u.graph != g) != c.apart {
				t.Fatalf("rewritten: %v, want %v", u.graph != g, c.apart)
			}
			if !c.apart {
				return
			}
			if err := ir.Verify(u.graph, ir.Tensor); err != nil {
				t.Fatal(err)
			}
			if s := u.client[0]; !slices.Equal(s.Shape, []int{1, 2}) || !slices.Equal(s.Input, []int{1, 2}) || c.client[0].Shape[0] != 3 {
				t.Errorf("the client's operator takes %v and gives %v", s.Input, s.Shape)
			}
			want, _, err := clear.EvalTensor(g, []*ir.Array{x}, clear.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(u.opt.Calibrate) != 3 {
				t.Fatalf("%d calibration samples, want 3", len(u.opt.Calibrate))
			}
			var got []float64
			for _, s := range u.opt.Calibrate {
				y, _, err := clear.EvalTensor(u.graph, []*ir.Array{s}, clear.Options{})
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, y[0].Data...)
			}
			for i, w := range want[0].Data {
				if math.Abs(got[i]-w) > 1e-12 {
					t.Fatalf("output %d is %v, want %v", i, got[i], w)
				}
			}
		})
	}
}
