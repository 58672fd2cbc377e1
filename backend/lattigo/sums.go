package lattigo

import (
	"fmt"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// This file holds the steps that add up products of ciphertexts with plaintexts.
// They go limb by limb, and each limb block by block, so that the sum stays in cache
// while the terms, each read once, stream past.

const (
	// sumBlock is the number of residues of a block: two of its rows fit the first
	// cache or nearly, eight the second.
	sumBlock = 4096
	// sumOnce is how many terms are read side by side. Limbs lie at multiples of their
	// own size, so that what is read side by side competes for the same places of the
	// caches: three rows a term, of twelve ways of the first.
	sumOnce = 4
)

// execSum performs a step that adds up products.
func (e *engine) execSum(s *plan.Step, args []backend.Operand, out *operand) error {
	kinds := argKinds[s.Op]
	first := len(kinds) - 2
	if n := len(args) - first; n < 2 || n%2 != 0 || n > 2*ir.MostTerms {
		return fmt.Errorf("%s: %d operands", s.Op, len(args))
	}
	w := e.take()
	defer e.give(w)
	w.l, w.out, w.in = out.t.Level, out, w.in[:0]
	for i, a := range args {
		want := kinds[0]
		if i > 0 {
			want = kinds[first+(i-first)%2]
		}
		x, err := e.argument(s.Op, i, a, want, w.l)
		if err != nil {
			return err
		}
		w.in = append(w.in, x)
	}
	for k, pt := 0, w.in[len(w.in)%2:]; k < len(pt)/2; k++ {
		if pt := pt[2*k+1]; pt.streams {
			w.plains[k] = e.stored(pt.source, w.room(k))
		}
	}
	limbs := w.l + 1
	if out.t.Kind == ir.CipherQPKind {
		limbs += len(e.p.P)
	}
	e.halves(w, 0, limbs, func(e *engine, w *scratch, from, to int) {
		for i := from; i < to; i++ {
			e.addUpLimb(w, i)
		}
	})
	return nil
}

// room returns half a row for the coefficients of plaintext k of a sum, or nil where
// there is none.
func (s *scratch) room(k int) []uint64 {
	rows := s.coef
	if k/2 >= len(rows) {
		return nil
	}
	half := len(rows[0]) / 2
	return rows[k/2][k%2*half:][:half]
}

// addUpLimb computes limb i of out = in[0] + in[1]*in[2] + ..., or without the
// accumulator where there is an even number of operands.
func (e *engine) addUpLimb(w *scratch, i int) {
	var sum *operand
	pairs := w.in
	if len(pairs)%2 != 0 {
		sum, pairs = pairs[0], pairs[1:]
	}
	m := e.mod(i, w.l)
	for k := range len(pairs) / 2 {
		if pairs[2*k+1].streams {
			w.vals[k] = m.values(w.tmp[k], &w.plains[k])
		}
	}
	x, y0, y1 := w.terms, w.y0, w.y1
	for base := 0; base < e.n; base += sumBlock {
		end := min(base+sumBlock, e.n)
		row := func(o *operand, k int) []uint64 { return o.qp(k, i, w.l)[base:end] }
		z0, z1 := row(w.out, 0), row(w.out, 1)
		s0, s1 := w.acc[0][:end-base], w.acc[1][:end-base]
		last := sum
		for at := 0; at < len(pairs); at += 2 * sumOnce {
			n := min(len(pairs)-at, 2*sumOnce) / 2
			for k := range n {
				ct, pt := pairs[at+2*k], pairs[at+2*k+1]
				y0[k], y1[k] = row(ct, 0), row(ct, 1)
				if gap := w.plains[at/2+k].gap; !pt.streams {
					x[k] = row(pt, 0)
				} else if x[k] = w.vals[at/2+k]; gap == 0 {
					x[k] = x[k][base:end]
				} else {
					part := w.block[k][:end-base]
					repeat(part, x[k][base>>gap:end>>gap], gap)
					x[k] = part
				}
			}
			switch {
			case last == nil && n == 1:
				m.Mul(z0, y0[0], x[0])
				m.Mul(z1, y1[0], x[0])
			case last == nil:
				m.Dot(z0, z1, x[:n], y0[:n], y1[:n])
			case n == 1:
				m.Mac(z0, row(last, 0), y0[0], x[0])
				m.Mac(z1, row(last, 1), y1[0], x[0])
			default:
				m.Dot(s0, s1, x[:n], y0[:n], y1[:n])
				m.Add(z0, row(last, 0), s0)
				m.Add(z1, row(last, 1), s1)
			}
			last = w.out
		}
	}
}
