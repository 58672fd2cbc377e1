package home_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/backend/sim"
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
	exact, err := clear.NewEngine(&p.Params)
	if err != nil {
		t.Fatal(err)
	}
	noisy, err := sim.New(&p.Params, backend.DefaultProfile(), 5)
	if err != nil {
		t.Fatal(err)
	}
	pair := newParty(t, p, 2, lattigo.AllowInsecure())
	for i := range 3 {
		x := &ir.Array{Shape: []int{batch, 3, 8, 8}}
		var want []float64
		top := 1.0
		for _, image := range calib[i : i+batch] {
			y, _, err := clear.EvalTensor(p.Network, []*ir.Array{image}, clear.Options{Approx: true})
			if err != nil {
				t.Fatal(err)
			}
			x.Data, want, top = append(x.Data, image.Data...), append(want, y[0].Data...), max(top, y[0].MaxAbs())
		}
		check := func(machine string, got []*ir.Array, err error, tolerance float64) {
			t.Helper()
			if err != nil {
				t.Fatalf("image %d: %s: %v", i, machine, err)
			}
			e, err := largestError(got, [][]float64{want})
			if err != nil || !(e <= tolerance*top) {
				t.Errorf("image %d: %s: error %.3g exceeds %.3g (%v)", i, machine, e, tolerance*top, err)
			}
			t.Logf("image %d: %s: error %.3g", i, machine, e/top)
		}
		got, err := runSlots(p, exact, func(v []float64, o backend.Operand) error {
			z, _ := clear.Slots(o)
			copy(z, v)
			return nil
		}, x, batch)
		check("clear", got, err, 1e-3)
		got, err = runSlots(p, noisy, noisy.Encrypt, x, batch)
		check("simulate", got, err, 2e-3)
		ct, inputs := pair.encrypt(t, x, batch)
		res, rep, err := pair.exec.Run(t.Context(), inputs)
		if err != nil {
			t.Fatal(err)
		}
		check("encrypted", pair.decrypt(t, ct, res, batch), nil, 2e-3)
		if rep.Counts != p.Counts {
			t.Errorf("executed %+v, planned %+v", rep.Counts, p.Counts)
		}
		if i == 0 {
			tieredRun(t, pair, inputs, res)
		}
	}
}
