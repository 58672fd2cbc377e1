package home_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/passes"
)

// residualNetwork is a small network of the shape of ResNet: a stem, a block with
// an identity shortcut, a strided block whose shortcut slices and pads, and a
// classifier after the mean.
func residualNetwork(t *testing.T) *ir.Graph {
	t.Helper()
	n := &netGen{r: rand.New(rand.NewPCG(20, 10)), g: &ir.Graph{Name: "residual"}}
	must := func(v *ir.Value) *ir.Value {
		if v == nil {
			t.Fatal("the network has a bad node")
		}
		return v
	}
	conv := func(x *ir.Value, out, stride int) *ir.Value {
		in := x.Type.Shape[1]
		w := n.normal(1/math.Sqrt(float64(9*in)), out, in, 3, 3)
		return must(n.add(ir.OpConv, ir.Attrs{"group": 1, "strides": []int{stride, stride}, "pads": []int{1, 1, 1, 1}}, x, w, n.normal(0.2, out)))
	}
	relu := func(x *ir.Value) *ir.Value { return must(n.add(ir.OpAct, ir.Attrs{"fn": "relu"}, x)) }
	x, err := n.g.Add(ir.OpInput, "image", ir.Attrs{"shape": []int{1, 3, 8, 8}})
	if err != nil {
		t.Fatal(err)
	}
	n.g.Inputs = []*ir.Value{x}
	x = relu(conv(x, 4, 1))
	x = relu(must(n.add(ir.OpAdd, nil, conv(relu(conv(x, 4, 1)), 4, 1), x)))
	short := must(n.add(ir.OpSlice, ir.Attrs{"axes": []int{2, 3}, "starts": []int{0, 0}, "ends": []int{8, 8}, "steps": []int{2, 2}}, x))
	short = must(n.add(ir.OpPad, ir.Attrs{"mode": "constant", "pads": []int{0, 2, 0, 0, 0, 2, 0, 0}}, short))
	x = relu(must(n.add(ir.OpAdd, nil, conv(relu(conv(x, 8, 2)), 8, 1), short)))
	x = must(n.add(ir.OpReduceMean, ir.Attrs{"axes": []int{2, 3}, "keepdims": 0}, x))
	x = must(n.add(ir.OpMatMul, nil, x, n.normal(1, 8, 5)))
	n.g.Outputs = []*ir.Value{x}
	return n.g
}

// TestBootstrappedResidual compiles a residual network that is far deeper than
// its chain and runs it on all three machines, with test parameters: one image a
// run, and two side by side. The plan on exact slots differs from the approximated
// network by the error of the sine alone.
func TestBootstrappedResidual(t *testing.T) {
	for _, batch := range []int{1, 2} {
		t.Run(fmt.Sprintf("batch=%d", batch), func(t *testing.T) { bootstrappedResidual(t, batch) })
	}
}

func bootstrappedResidual(t *testing.T, batch int) {
	g := residualNetwork(t)
	r := rand.New(rand.NewPCG(7, 7))
	var calib []*ir.Array
	for range 80 {
		x := ir.NewArray(1, 3, 8, 8)
		for c := range 3 { // smooth, as pictures are
			a, b, d := r.NormFloat64(), r.NormFloat64(), r.NormFloat64()
			for i := range 64 {
				x.Data[64*c+i] = a + b*math.Sin(float64(i%8)*d) + 0.3*r.NormFloat64()
			}
		}
		calib = append(calib, x)
	}
	q := []int{49}
	for range 20 {
		q = append(q, 44)
	}
	par, err := ir.NewParams("test-boot", 10, ir.RingStandard, ir.SecretTernary, q, []int{48, 48, 48, 48, 48}, 44)
	if err != nil {
		t.Fatal(err)
	}
	p, err := passes.Compile(passes.Source{Graph: g}, passes.Options{Calibrate: calib, AccuracyDrop: 0.05, Params: par, AllowInsecure: true, Batch: batch})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v, predicted %.3g s and 2^-%.1f", p.Counts, p.Predicted.CPUSeconds, p.OutputBits)
	if !p.Params.Insecure || p.Counts.Bootstraps == 0 || p.Counts.Bootstraps > 5 {
		t.Fatalf("%d bootstraps for 5 activations, stamp %v", p.Counts.Bootstraps, p.Params.Insecure)
	}
	if p.Batch != batch {
		t.Fatalf("%d images a run, want %d: %q", p.Batch, batch, p.Notes)
	}
	for i := range 3 {
		q, inputs, res := machines(t, p, 5, calib[i:i+batch], 1e-3, 2e-3, true)
		if i == 0 {
			tieredRun(t, q, inputs, res)
		}
	}
}
