package lattigo

import (
	"fmt"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// This file holds the steps that work limb by limb: limb i of the result follows from
// limbs i of the operands. Several of them can be done together, each limb of all before
// the next limb of any. What one reads and another wrote or read is then still in the
// cache: of a hoisted linear transform the digits are read once for all rotations, and
// the rotated ciphertexts not at all.

// limbwise has what computes limb i of the result of such steps.
var limbwise = map[ir.Op]func(e *engine, w *scratch, i int){
	ir.OpHEAdd: addLimb, ir.OpHEAddQP: addLimb, ir.OpHESub: subLimb,
	ir.OpHEAddPlain: addPlainLimb, ir.OpHEAddConst: addConstLimb,
	ir.OpHEMulConst: mulConstLimb, ir.OpHEMacConst: macConstLimb,
	ir.OpHEMulI: mulILimb, ir.OpHELift: liftLimb, ir.OpHEHoistRot: hoistLimb, ir.OpHEOutput: copyLimb,
	ir.OpHEMulPlain: addUpLimb, ir.OpHEMacPlain: addUpLimb, ir.OpHEMulQP: addUpLimb, ir.OpHEMacQP: addUpLimb,
}

var _ backend.Joint = (*engine)(nil)

// Joins reports whether steps of an op work limb by limb.
func (e *engine) Joins(op ir.Op) bool { return limbwise[op] != nil }

// ExecJoined performs such steps together.
func (e *engine) ExecJoined(calls []backend.Call) error {
	w := e.take()
	defer e.give(w)
	return e.execLimbs(w, calls)
}

// execLimbs performs steps that work limb by limb.
func (e *engine) execLimbs(w *scratch, calls []backend.Call) error {
	w.l, w.beside = 0, w.beside[:0]
	for k, c := range calls {
		if k == len(w.steps) {
			w.steps = append(w.steps, &job{in: make([]*operand, 0, 2*ir.MostTerms+1)})
		}
		j := w.steps[k]
		if err := e.begin(j, c.Step, c.Args, c.Out); err != nil {
			return err
		}
		w.l, w.beside = max(w.l, j.l), append(w.beside, j)
	}
	for k, j := range w.beside {
		j.near = false
		for _, next := range w.beside[k+1:] {
			for _, o := range next.in {
				j.near = j.near || sameRow(o.rows[0], j.out.rows[0])
			}
		}
	}
	e.splitBy(w, 1, 0, w.l+1+len(e.p.P), func(e *engine, w *scratch, from, to int) {
		all := w.job
		for ; from < to; from++ {
			for _, j := range all.beside {
				if i := j.limbOf(from, all.l); i >= 0 {
					w.job = j
					j.limb(e, w, i)
				}
			}
		}
		w.job = all
	})
	return nil
}

// sameRow reports whether two rows, which may be missing, are one.
func sameRow(x, y []uint64) bool { return len(x) > 0 && len(y) > 0 && &x[0] == &y[0] }

// limbOf returns which limb of the result has the prime of limb i of QP_l, l being no
// lower than the level of the result, or -1 where it has none.
func (j *job) limbOf(i, l int) int {
	switch {
	case i <= j.l:
		return i
	case i > l && j.out.t.Kind == ir.CipherQPKind:
		return i - l + j.l
	}
	return -1
}

// begin verifies a step that works limb by limb and readies what its limbs share.
func (e *engine) begin(j *job, s *plan.Step, args []backend.Operand, out backend.Operand) error {
	if j.limb = limbwise[s.Op]; j.limb == nil {
		return fmt.Errorf("%s does not work limb by limb", s.Op)
	}
	if err := e.accept(j, s, args, out); err != nil {
		return err
	}
	if s.Op == ir.OpHEHoistRot {
		e.automorphism(&j.auto, rotation(e.p, s.Rot))
	}
	terms := 0
	for _, o := range j.in {
		if o.t.Kind != ir.PlainKind && o.t.Kind != ir.PlainQPKind {
			continue
		}
		if o.streams {
			var err error
			if j.plains[terms], err = unpacked(o.source); err != nil {
				return err
			}
		}
		terms++
	}
	return nil
}

func addLimb(e *engine, w *scratch, i int) {
	a, b, m := w.in[0], w.in[1], e.mod(i, w.l)
	for k := range 2 {
		m.Add(w.out.q(k, i), a.qp(k, i, w.l), b.qp(k, i, w.l))
	}
}

func subLimb(e *engine, w *scratch, i int) {
	a, b, m := w.in[0], w.in[1], e.mods[i]
	for k := range 2 {
		m.Sub(w.out.q(k, i), a.q(k, i), b.q(k, i))
	}
}

func addPlainLimb(e *engine, w *scratch, i int) {
	a, b, m := w.in[0], w.in[1], e.mods[i]
	row := b.q(0, i)
	if b.streams {
		row = w.tmp[0]
		m.row(row, w.tmp[1], &w.plains[0])
	}
	m.MacConst(w.out.q(0, i), a.q(0, i), row, m.Plain(1))
	copyRow(w.out.q(1, i), a.q(1, i))
}

func addConstLimb(e *engine, w *scratch, i int) {
	m := e.mods[i]
	m.AddConst(w.out.q(0, i), w.in[0].q(0, i), w.c.mod(m))
	copyRow(w.out.q(1, i), w.in[0].q(1, i))
}

func mulConstLimb(e *engine, w *scratch, i int) {
	m := e.mods[i]
	f := w.c.mod(m)
	for k := range 2 {
		m.MulConst(w.out.q(k, i), w.in[0].q(k, i), f)
	}
}

func macConstLimb(e *engine, w *scratch, i int) {
	m := e.mods[i]
	f := w.c.mod(m)
	for k := range 2 {
		m.MacConst(w.out.q(k, i), w.in[0].q(k, i), w.in[1].q(k, i), f)
	}
}

// mulILimb multiplies with the imaginary unit.
func mulILimb(e *engine, w *scratch, i int) {
	m, f, half := e.mods[i], e.imag[i], e.n/2
	for k := range 2 {
		z, x := w.out.q(k, i), w.in[0].q(k, i)
		m.MulConst(z[:half], x[:half], f)
		m.MulConst(z[half:], x[half:], m.Q-f)
	}
}

// liftLimb multiplies with P.
func liftLimb(e *engine, w *scratch, i int) {
	for k := range 2 {
		if z := w.out.q(k, i); i <= w.l {
			e.mods[i].MulConst(z, w.in[0].q(k, i), e.pModQ[i])
		} else {
			clear(z)
		}
	}
}

func copyLimb(e *engine, w *scratch, i int) {
	for k := range 2 {
		copyRow(w.out.q(k, i), w.in[0].q(k, i))
	}
}

// hoistLimb rotates a ciphertext whose digits are known; the result is P times the
// ciphertext, modulo QP.
func hoistLimb(e *engine, w *scratch, i int) {
	in, digits, key := w.in[0], w.in[1], w.in[2]
	x := w.terms[:e.p.Digits(w.l)]
	for k := range x {
		x[k] = digits.qp(k, i, w.l)
	}
	if far := !w.near && e.far(w.l); i <= w.l {
		e.rotateDot(w, i, in.q(0, i), e.pModQ[i], x, key, far)
	} else {
		e.rotateDot(w, i, nil, 0, x, key, far)
	}
}

// copyRow copies a limb unless the step works in place.
func copyRow(z, x []uint64) {
	if &z[0] != &x[0] {
		copy(z, x)
	}
}
