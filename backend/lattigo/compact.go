package lattigo

import (
	"fmt"
	"unsafe"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

var _ backend.Compact = (*engine)(nil)

// EncodeCompact writes the coefficients of slot values at the scale of t: rounded
// as fixed does where all of them are small enough, else as floating-point
// numbers. The two cannot be mistaken for each other: the words of the first are
// below fixedMod, and a large number has bits above.
func (e *engine) EncodeCompact(values *ir.SlotData, t ir.Type, slab []byte) error {
	if t.Kind != ir.PlainKind && t.Kind != ir.PlainQPKind {
		return fmt.Errorf("cannot encode into a %s", t.Kind)
	}
	s := e.take()
	defer e.give(s)
	c, big, err := e.coefs(s, values, t)
	if err != nil {
		return err
	}
	if len(slab) != 8*len(c) {
		return fmt.Errorf("slab of %d bytes, want %d", len(slab), 8*len(c))
	}
	at := unsafe.Pointer(unsafe.SliceData(slab))
	if big < fixedMax {
		fixed(unsafe.Slice((*uint64)(at), len(c)), c)
	} else {
		copy(unsafe.Slice((*float64)(at), len(c)), c)
	}
	return nil
}

// CompactSlabs lists the limb that holds the coefficients of a plaintext, the
// last; or the b halves of a key, digit by digit, and its last limb, which begins
// with the seed.
func (e *engine) CompactSlabs(t ir.Type) []int {
	n := e.Slabs(t)
	switch t.Kind {
	case ir.PlainKind, ir.PlainQPKind:
		return []int{n - 1}
	case ir.KeyKind:
		out := make([]int, 0, n/2+1)
		stride := t.Level + 1 + len(e.p.P)
		for at := 0; at < n; at += 2 * stride {
			for i := range stride {
				out = append(out, at+i)
			}
		}
		return append(out, n-1)
	}
	return nil
}

// Expand makes a plaintext of the coefficients in its last limb, or the uniform
// halves of a key of the seed in its last limb.
func (e *engine) Expand(out backend.Operand) error {
	o, err := e.operand(out)
	if err != nil {
		return err
	}
	last := o.rows[len(o.rows)-1]
	switch o.t.Kind {
	case ir.PlainKind, ir.PlainQPKind:
		all := uint64(0)
		for _, x := range last {
			all |= x
		}
		if all < fixedMod {
			e.limbs(o, last, nil)
		} else {
			e.limbs(o, nil, unsafe.Slice((*float64)(unsafe.Pointer(&last[0])), len(last)))
		}
	case ir.KeyKind:
		var seed [SeedBytes]byte
		copy(seed[:], unsafe.Slice((*byte)(unsafe.Pointer(&last[0])), SeedBytes))
		for d := range e.p.Digits(o.t.Level) {
			for limb := range o.stride {
				i := limb
				if i > o.t.Level {
					i += len(e.p.Q) - 1 - o.t.Level
				}
				keyUniform(e.p, &seed, d, i, e.mods[i].q, o.rows[(2*d+1)*o.stride+limb])
			}
		}
	default:
		return fmt.Errorf("a %s has no compact form", o.t.Kind)
	}
	return nil
}

// coefs computes the coefficients of slot values at the level and scale of t, and
// their largest magnitude. They belong to s.
func (e *engine) coefs(s *scratch, values *ir.SlotData, t ir.Type) ([]float64, float64, error) {
	work, c := s.encoding(e.rings)
	big, err := e.enc.coefs(values, t.Scale.Float64(e.p.Q), work, c)
	if err == nil {
		err = e.fits(big, t.Level)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w at scale %s", err, t.Scale)
	}
	return c, big, nil
}

// limbs writes a plaintext from its coefficients: x as fixed rounds them, or c
// where x is nil. Either may lie in the last limb.
func (e *engine) limbs(o *operand, x []uint64, c []float64) {
	// Slots that repeat make a polynomial in X^k, which takes every value k times
	// in a row.
	gap := mostGap
	for i := range o.rows {
		if m := e.mod(i, o.t.Level); m.vec {
			gap = min(gap, len(m.tw.short))
		} else {
			gap = 0
		}
	}
	if x != nil {
		gap = gather(x, gap)
	} else {
		gap = gather(c, gap)
	}
	n := e.n >> gap
	for i, row := range o.rows {
		m, z := e.mod(i, o.t.Level), row[:n]
		if x != nil {
			m.centredRow(z, x[:n], fixedMod)
		} else {
			m.residues(z, c[:n])
		}
		if gap > 0 {
			m.tw.short[gap-1].forward(m, z, z)
		} else {
			m.ntt(z, z)
		}
		m.mulScalarRow(z, z, m.r2)
		repeat(row, gap)
	}
}

// gather finds the largest power of two 2^gap, gap at most most, such that only
// multiples of it have coefficients, moves these to the front and returns gap.
func gather[T uint64 | float64](x []T, most int) int {
	gap := 0
	for ; gap < most; gap++ {
		k := 1 << gap
		for i := k; i < len(x); i += 2 * k {
			if x[i] != 0 {
				most = gap
				break
			}
		}
		if most == gap {
			break
		}
	}
	if gap > 0 {
		for i := range len(x) >> gap {
			x[i] = x[i<<gap]
		}
	}
	return gap
}

// repeat puts each of the first len(z)>>gap entries 2^gap times in a row.
func repeat(z []uint64, gap int) {
	switch k := 1 << gap; k {
	case 1:
	case 2:
		for i := len(z)/2 - 1; i >= 0; i-- {
			v := z[i]
			y := z[2*i : 2*i+2]
			y[0], y[1] = v, v
		}
	case 4:
		for i := len(z)/4 - 1; i >= 0; i-- {
			v := z[i]
			y := z[4*i : 4*i+4]
			y[0], y[1], y[2], y[3] = v, v, v, v
		}
	default:
		for i := len(z)>>gap - 1; i >= 0; i-- {
			v := z[i]
			for y := z[i<<gap : (i+1)<<gap]; len(y) >= 8; y = y[8:] {
				y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = v, v, v, v, v, v, v, v
			}
		}
	}
}
