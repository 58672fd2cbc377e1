package home_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/passes"
)

// deepNetwork returns a network with many nonlinear steps in a row, some of which
// read what was made long before.
func deepNetwork(seed uint64) *ir.Graph {
	r := rand.New(rand.NewPCG(seed, 0x64656570))
	n := &netGen{r: r, g: &ir.Graph{Name: fmt.Sprintf("deep-%d", seed)}}
	shape := [][]int{{1, 1 + r.IntN(40)}, {1, 1 + r.IntN(3), 1 + r.IntN(8), 1 + r.IntN(8)}, {1, 2, 8, 8}, {1, 4, 12, 12}}[r.IntN(4)]
	in, err := n.g.Add(ir.OpInput, "input", ir.Attrs{"shape": shape})
	if err != nil {
		panic(err)
	}
	n.g.Inputs, n.live = []*ir.Value{in}, []*ir.Value{in}
	last := in
	grow := func(v *ir.Value) {
		if v != nil {
			last = v
		}
	}
	for range 5 + r.IntN(5) {
		for range r.IntN(3) {
			grow(n.linear())
		}
		if r.IntN(4) == 0 {
			grow(n.nonlinear())
		}
		if r.IntN(4) > 0 {
			grow(n.add(ir.OpAct, ir.Attrs{"fn": []string{"tanh", "sigmoid", "silu"}[r.IntN(3)]}, last))
		} else {
			grow(n.add(ir.OpMul, nil, last, last))
		}
	}
	n.g.Outputs = append(n.g.Outputs, last)
	for r.IntN(4) == 0 {
		n.g.Outputs = append(n.g.Outputs, n.live[r.IntN(len(n.live))])
	}
	n.g.Prune()
	return n.g
}

// TestRandomDeep runs random networks on chains that are too short for them: on
// exact slots, where the error is that of the bootstraps' sine, simulated, and
// some encrypted. Every third is for several samples at once.
func TestRandomDeep(t *testing.T) {
	cases, encrypted := 16, 6
	if longTests() {
		cases, encrypted = 600, 100
	}
	bootstraps := 0
	for seed := range uint64(cases) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { bootstraps += deepCase(t, seed, seed < uint64(encrypted)) })
	}
	if bootstraps < cases/2 {
		t.Errorf("%d bootstraps in %d networks: too few to tell", bootstraps, cases)
	}
}

func deepCase(t *testing.T, seed uint64, encrypted bool) (bootstraps int) {
	g := deepNetwork(seed)
	if err := ir.Verify(g, ir.Tensor); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 0x73616d70))
	shape := g.Inputs[0].Type.Shape
	style := inputStyle(r, ir.NumElems(shape))
	var calib []*ir.Array
	for range 40 {
		x := randomSample(r, shape)
		for i, u := range x.Data {
			x.Data[i] = style(i, u)
		}
		calib = append(calib, x)
	}
	q := slices.Concat([]int{49}, slices.Repeat([]int{44}, 17+r.IntN(6)))
	par, err := ir.NewParams("test-deep", 7+r.IntN(3), ir.RingStandard, ir.SecretTernary, q, slices.Repeat([]int{48}, 5), 44)
	if err != nil {
		t.Fatal(err)
	}
	p, err := passes.Compile(passes.Source{Graph: g}, passes.Options{Calibrate: calib, AccuracyDrop: 0.3, Margin: 0.5, AllowInsecure: true, Params: par, Batch: []int{0, 2, 0, 0, 4, 0}[seed%6]})
	if errors.Is(err, passes.ErrAccuracy) || errors.Is(err, passes.ErrTooDeep) || errors.Is(err, passes.ErrPrecision) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d, %+v:\n%s", seed, p.Counts, g)
		}
	}()
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	samples := make([]*ir.Array, min(3, p.Batch))
	for i := range samples {
		samples[i] = calib[r.IntN(6)]
	}
	machines(t, p, seed+2, samples, 2e-4, 8*math.Exp2(-p.OutputBits), encrypted)
	return p.Counts.Bootstraps
}
