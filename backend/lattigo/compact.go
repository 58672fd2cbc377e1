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

// SeedBytes returns the size of a seed.
func (e *engine) SeedBytes() int { return SeedBytes }

// Stream has steps make the uniform halves of a key from its seed.
func (e *engine) Stream(key backend.Operand, seed []byte) error {
	o, err := e.operand(key)
	switch {
	case err != nil:
		return err
	case o.t.Kind != ir.KeyKind:
		return fmt.Errorf("a %s has no seed", o.t.Kind)
	}
	o.seed, err = seedOf(seed)
	o.streams = err == nil
	return err
}

// Make computes limbs of a plaintext from its coefficients, or of the uniform halves
// of a key from its seed.
func (e *engine) Make(out backend.Operand, source []byte, slabs []int32) error {
	o, err := e.operand(out)
	if err != nil {
		return err
	}
	want := e.SlabBytes()
	if o.t.Kind == ir.KeyKind {
		want = SeedBytes
	}
	switch {
	case o.t.Kind != ir.PlainKind && o.t.Kind != ir.PlainQPKind && o.t.Kind != ir.KeyKind:
		return fmt.Errorf("a %s has no source", o.t.Kind)
	case len(source) != want:
		return fmt.Errorf("the source of a %s has %d bytes, want %d", o.t.Kind, len(source), want)
	}
	for _, i := range slabs {
		switch {
		case i < 0 || int(i) >= len(o.rows) || o.rows[i] == nil:
			return fmt.Errorf("there is no room for limb %d of %d of a %s", i, len(o.rows), o.t.Kind)
		case o.t.Kind == ir.KeyKind && int(i)/o.stride%2 == 0:
			return fmt.Errorf("limb %d of a key does not follow from its seed", i)
		}
	}
	if o.t.Kind == ir.KeyKind {
		seed, err := seedOf(source)
		if err != nil {
			return err
		}
		for _, i := range slabs {
			prime := int(i) % o.stride
			if prime > o.t.Level {
				prime += len(e.p.Q) - 1 - o.t.Level
			}
			keyUniform(e.p, &seed, int(i)/(2*o.stride), prime, e.mods[prime].Q, o.rows[i])
		}
		return nil
	}
	s := e.take()
	defer e.give(s)
	at := unsafe.Pointer(unsafe.SliceData(source))
	if uintptr(at)&7 != 0 {
		return fmt.Errorf("the source of a %s is not aligned", o.t.Kind)
	}
	x := unsafe.Slice((*uint64)(at), e.n)
	all := uint64(0)
	for _, w := range x {
		all |= w
	}
	if all < fixedMod {
		e.limbs(o, slabs, s.own[0], x, nil)
	} else {
		_, c := s.encoding(e.rings)
		e.limbs(o, slabs, s.own[0], nil, append(c[:0], unsafe.Slice((*float64)(at), e.n)...))
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

// limbs writes limbs of a plaintext, given by number, or all where slabs is nil, from
// its coefficients: x as fixed rounds them, or c where x is nil. It may overwrite
// work, a row that may be x itself, and c.
func (e *engine) limbs(o *operand, slabs []int32, work, x []uint64, c []float64) {
	// Slots that repeat make a polynomial in X^k, which takes every value k times
	// in a row. All primes must have the transform for it.
	gap := e.mods[0].Gaps()
	for i := range o.rows {
		gap = min(gap, e.mod(i, o.t.Level).Gaps())
	}
	n := e.n
	if x != nil {
		gap = gapOf(x, gap)
		if n >>= gap; gap > 0 {
			gather(work, x, gap)
			x = work
		}
	} else {
		gap = gapOf(c, gap)
		if n >>= gap; gap > 0 {
			gather(c, c, gap)
		}
	}
	limb := func(i int) {
		m, row := e.mod(i, o.t.Level), o.rows[i]
		z := row
		if gap > 0 {
			z = work[len(work)/2:][:n] // in the cache; the row is written once, and in order
		}
		if x != nil {
			m.Centre(z, x[:n], fixedMod, m.Montgomery(1)) // in Montgomery form
		} else {
			m.residues(z, c[:n])
		}
		m.NTT(z, z)
		if x == nil {
			m.MulConst(z, z, m.Montgomery(1))
		}
		if gap > 0 {
			repeat(row, z, gap)
		}
	}
	if slabs == nil {
		for i := range o.rows {
			limb(i)
		}
	}
	for _, i := range slabs {
		limb(int(i))
	}
}

// gapOf returns the log2 of the largest power of two, at most 2^most, such that only
// multiples of it have coefficients.
func gapOf[T uint64 | float64](x []T, most int) int {
	for gap := range most {
		k := 1 << gap
		for i := k; i < len(x); i += 2 * k {
			if x[i] != 0 {
				return gap
			}
		}
	}
	return most
}

// gather writes every 2^gap-th entry of x to the front of z, which may be x.
func gather[T uint64 | float64](z, x []T, gap int) {
	for i := range len(x) >> gap {
		z[i] = x[i<<gap]
	}
}

// repeat puts each entry of x 2^gap times in a row, gap > 0, which fills z.
func repeat(z, x []uint64, gap int) {
	switch k := 1 << gap; k {
	case 2:
		for i, v := range x {
			y := z[2*i : 2*i+2]
			y[0], y[1] = v, v
		}
	case 4:
		for i, v := range x {
			y := z[4*i : 4*i+4]
			y[0], y[1], y[2], y[3] = v, v, v, v
		}
	default:
		for i, v := range x {
			for y := z[i<<gap : (i+1)<<gap]; len(y) >= 8; y = y[8:] {
				y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = v, v, v, v, v, v, v, v
			}
		}
	}
}
