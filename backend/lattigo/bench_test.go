package lattigo

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

func sizes(first, rest, n int) []int {
	s := []int{first}
	for range n {
		s = append(s, rest)
	}
	return s
}

// BenchmarkSteps times every step at the levels that the networks of the test
// set use. Parameters are named in the sub-benchmark.
func BenchmarkSteps(b *testing.B) {
	for _, c := range []struct {
		logN  int
		ring  ir.Ring
		q, p  []int
		scale int
		level int
	}{
		{13, ir.RingReal, sizes(33, 29, 5), []int{35}, 29, 5},
		{15, ir.RingReal, sizes(41, 37, 16), []int{38, 38, 38, 38, 38, 38}, 37, 13},
		{15, ir.RingStandard, sizes(45, 34, 20), []int{45, 45, 45}, 34, 20},
		{16, ir.RingStandard, sizes(49, 44, 29), []int{46, 46, 46, 46, 46, 46}, 44, 26},
	} {
		p, err := ir.NewParams("bench", c.logN, c.ring, ir.SecretTernary, c.q, c.p, c.scale)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("N%d/%s/L%d/P%d", c.logN, c.ring, c.level, len(c.p)), func(b *testing.B) { benchSteps(b, p, c.level) })
	}
}

func benchSteps(b *testing.B, p *ir.Params, l int) {
	e, err := Open(p)
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	client := newTestClient(b, e)
	rng := rand.New(rand.NewPCG(1, 2))
	v := make([]float64, p.Slots())
	for i := range v {
		v[i] = 2*rng.Float64() - 1
	}
	d := ir.ScaleTwo(p.LogScale)
	mk := func(k ir.Kind, l int) backend.Operand {
		t := ir.Type{Kind: k, Encrypted: true, Level: l, Scale: d}
		o, err := e.Bind(t, conformance.Slabs(e, t))
		if err != nil {
			b.Fatal(err)
		}
		return o
	}
	x, y, pt, ptqp, key := mk(ir.CipherKind, l), mk(ir.CipherKind, l), mk(ir.PlainKind, l), mk(ir.PlainQPKind, l), mk(ir.KeyKind, l)
	for _, err := range []error{client.Encrypt(v, x), client.Encrypt(v, y), second(client.MakeKey(1, key)), e.Encode(dense(v), pt), e.Encode(dense(v), ptqp)} {
		if err != nil {
			b.Fatal(err)
		}
	}
	digits, qp, qp2, out := mk(ir.DigitsKind, l), mk(ir.CipherQPKind, l), mk(ir.CipherQPKind, l), mk(ir.CipherKind, l)
	low := mk(ir.CipherKind, l-1)
	type bench struct {
		op   ir.Op
		out  backend.Operand
		args []backend.Operand
	}
	steps := []bench{
		{ir.OpHEDecompose, digits, []backend.Operand{x}},
		{ir.OpHELift, qp, []backend.Operand{x}},
		{ir.OpHEAdd, out, []backend.Operand{x, y}},
		{ir.OpHEAddPlain, out, []backend.Operand{x, pt}},
		{ir.OpHEMulPlain, out, []backend.Operand{x, pt}},
		{ir.OpHEMulConst, out, []backend.Operand{x}},
		{ir.OpHEMacConst, out, []backend.Operand{x, y}},
		{ir.OpHEMul, out, []backend.Operand{x, y, key}},
		{ir.OpHERescale, low, []backend.Operand{x}},
		{ir.OpHEMulRescale, low, []backend.Operand{x, y, key}},
		{ir.OpHEMacRescale, low, []backend.Operand{out, x, y, key}},
		{ir.OpHERotate, out, []backend.Operand{x, key}},
		{ir.OpHEHoistRot, qp2, []backend.Operand{x, digits, key}},
		{ir.OpHEMulQP, qp2, []backend.Operand{qp, ptqp}},
		{ir.OpHEMacQP, qp2, []backend.Operand{qp2, qp, ptqp}},
		{ir.OpHEAddQP, qp2, []backend.Operand{qp2, qp}},
		{ir.OpHEGiant, qp2, []backend.Operand{qp, key}},
		{ir.OpHEModDown, out, []backend.Operand{qp}},
		{ir.OpHEModDownRescale, low, []backend.Operand{qp}},
	}
	if p.Ring == ir.RingStandard { // timing only: any key will do
		sparse, bottom := mk(ir.SparseKeyKind, 0), mk(ir.CipherKind, 0)
		for _, err := range []error{client.Encrypt(v, bottom), second(client.MakeKey(ir.KeySparse, sparse))} {
			if err != nil {
				b.Fatal(err)
			}
		}
		steps = append(steps, bench{ir.OpHERaise, out, []backend.Operand{bottom, sparse, key}},
			bench{ir.OpHERealPart, out, []backend.Operand{x, key}}, bench{ir.OpHEMulI, out, []backend.Operand{x}})
	}
	for _, s := range steps {
		step := &plan.Step{Op: s.op, Rot: 1, Const: 0.5, Scale: d}
		name := fmt.Sprint(s.op)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Exec(step, s.args, s.out); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/op")
		})
	}
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			if err := e.Encode(dense(v), ptqp); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/op")
	})
}

// second is an error that comes with something else.
func second(_ []byte, err error) error { return err }
