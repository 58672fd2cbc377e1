package conformance

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// touched shows that Forms.Touched, by which residency is planned, says the truth:
// for every step with a key, of the level of the result and above, the slabs that
// the step is said not to touch may hold anything, or not be there, and the result
// is the same bit for bit; and a change to any other slab changes the result.
func (r *runner) touched() {
	top := r.p.MaxLevel()
	if r.e.Slabs(kind(ir.KeyKind, top, ir.Scale{})) == 0 {
		r.t.Skip("keys take no slabs in this engine")
	}
	d := r.delta()
	qp := func(level int) ir.Type { return kind(ir.CipherQPKind, level, d) }
	for _, c := range []struct{ arg, key, out int }{
		{top, top, top}, {top, top, top - 1}, {2, top, 2}, {2, 3, 2}, {3, top, 1}, {1, 2, 1}, {0, top, 0}, {0, 1, 0},
	} {
		x, y := r.encrypt(r.vector(), c.arg), r.encrypt(r.vector(), c.arg)
		digits := r.do(plan.Step{Op: ir.OpHEDecompose}, kind(ir.DigitsKind, c.arg, ir.Scale{}), x)
		lift := r.do(plan.Step{Op: ir.OpHELift}, qp(c.arg), x)
		check := func(s plan.Step, out ir.Type, rot int, args ...backend.Operand) {
			r.t.Helper()
			r.touchedBy(fmt.Sprintf("%v from level %d to %d with a key at %d", s.Op, c.arg, out.Level, c.key), s, out, rot, c.key, args)
		}
		check(plan.Step{Op: ir.OpHEMul}, ct(c.out, d.Mul(d)), ir.KeyRelin, x, y)
		if c.out > 0 {
			low := ct(c.out-1, d.Mul(d).Div(ir.ScalePrime(c.out)))
			acc := r.do(plan.Step{Op: ir.OpHEMulConst, Const: 1, Scale: d}, ct(c.arg, d.Mul(d)), y)
			check(plan.Step{Op: ir.OpHEMulRescale}, low, ir.KeyRelin, x, y)
			check(plan.Step{Op: ir.OpHEMacRescale, Twice: true}, low, ir.KeyRelin, acc, x, y)
		}
		check(plan.Step{Op: ir.OpHERotate, Rot: 1}, ct(c.out, d), 1, x)
		check(plan.Step{Op: ir.OpHEHoistRot, Rot: 1}, qp(c.out), 1, x, digits)
		check(plan.Step{Op: ir.OpHEGiant, Rot: 1}, qp(c.out), 1, lift)
		if r.p.Ring != ir.RingStandard {
			continue
		}
		check(plan.Step{Op: ir.OpHERealPart}, ct(c.out, d), ir.KeyConj, x)
		if r.p.N() >= 2*ir.EphemeralWeight {
			low := r.encrypt(r.vector(), 0)
			check(plan.Step{Op: ir.OpHERaise}, asComplex(ct(c.out, d)), ir.KeyDense, low, r.key(ir.KeySparse, 0))
		}
	}
}

// touchedBy checks one step, whose last argument is the key.
func (r *runner) touchedBy(what string, s plan.Step, out ir.Type, rot, level int, args []backend.Operand) {
	r.t.Helper()
	p := plan.Plan{Params: *r.p}
	object := func(role plan.Role, t ir.Type) plan.ObjectID {
		p.Objects = append(p.Objects, plan.Object{Role: role, Type: t})
		return plan.ObjectID(len(p.Objects) - 1)
	}
	for _, a := range args {
		s.Args = append(s.Args, object(plan.RoleInput, a.Type()))
	}
	keyType := kind(ir.KeyKind, level, ir.Scale{})
	s.Args = append(s.Args, object(plan.RoleKey, keyType))
	s.Out = object(plan.RoleTemp, out)
	p.Steps = []plan.Step{s}
	touched := make([]bool, p.Slabs(s.Args[len(args)]))
	for _, x := range new(plan.Forms).Touched(&p, nil, 0, len(args)) {
		for i := range x.Count {
			touched[x.First+i] = true
		}
	}
	key, slabs := r.bind(keyType)
	seed, err := r.c.MakeKey(rot, key)
	if err != nil {
		r.t.Fatal(err)
	}
	// with returns the bytes of the result with a key.
	with := func(k backend.Operand) []byte {
		r.t.Helper()
		o, result := r.bind(out)
		if err := r.e.Exec(&s, append(slices.Clone(args), k), o); err != nil {
			r.t.Fatal(err)
		}
		return bytes.Join(result, nil)
	}
	// exec returns the bytes of the result with a key over other slabs.
	exec := func(slabs [][]byte) []byte {
		r.t.Helper()
		k, err := r.e.Bind(keyType, slabs)
		if err != nil {
			r.t.Fatal(err)
		}
		return with(k)
	}
	want := exec(slabs)
	spoilt, absent := Slabs(r.e, keyType), make([][]byte, len(slabs))
	for i := range slabs {
		if touched[i] {
			copy(spoilt[i], slabs[i])
			absent[i] = slabs[i]
			continue
		}
		for k := range spoilt[i] {
			spoilt[i][k] = 0xff
		}
	}
	if !bytes.Equal(exec(spoilt), want) {
		r.t.Errorf("%s: the result depends on slabs that the step does not touch", what)
	}
	if !bytes.Equal(exec(absent), want) {
		r.t.Errorf("%s: another result when slabs that the step does not touch are absent", what)
	}
	if c, ok := r.e.(backend.Compact); ok && len(seed) > 0 {
		forms, absent := plan.Forms{Seeds: true, Streams: true}, make([][]byte, len(slabs))
		for _, x := range forms.Touched(&p, nil, 0, len(args)) {
			copy(absent[x.First:x.First+x.Count], slabs[x.First:])
		}
		k, err := r.e.Bind(keyType, absent)
		if err == nil {
			err = c.Stream(k, seed)
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if !bytes.Equal(with(k), want) {
			r.t.Errorf("%s: another result when the step makes half of the key from its seed", what)
		}
	}
	if r.p.LogN > 6 {
		return // one small ring is enough, and quick
	}
	for i := range slabs {
		if touched[i] {
			slabs[i][0] ^= 1
			if bytes.Equal(exec(slabs), want) {
				r.t.Errorf("%s: the result does not depend on slab %d, which the step is said to touch", what, i)
			}
			slabs[i][0] ^= 1
		}
	}
}
