package lattigo

import (
	"fmt"
	"unsafe"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
)

var _ backend.Compact = (*engine)(nil)

// EncodeCompact writes the coefficients of slot values at the scale of t: rounded
// as fixed does where all of them are small enough, else as floating-point
// numbers. The two cannot be mistaken for each other: the words of the first are
// below fixedMod, and a large number has bits above. Where only every 2^g-th of them
// counts, those stand in front, and the last word says so.
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
	x := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(slab))), len(c))
	if p := packed(x, c, big); p.gap > 0 {
		clear(x[len(p.x):])
		x[len(x)-1] = p.tag()
	}
	return nil
}

// SeedBytes returns the size of a seed.
func (e *engine) SeedBytes() int { return SeedBytes }

// Stream has steps make the uniform halves of a key from its seed, or all limbs of a
// plaintext from its coefficients.
func (e *engine) Stream(out backend.Operand, source []byte) error {
	o, err := e.operand(out)
	if err != nil {
		return err
	}
	switch o.t.Kind {
	case ir.KeyKind:
		o.seed, err = seedOf(source)
	case ir.PlainKind, ir.PlainQPKind:
		o.source, err = e.coefficientsOf(source)
	default:
		err = fmt.Errorf("a %s has no source", o.t.Kind)
	}
	o.streams = err == nil
	return err
}

// coefficientsOf returns the row that the source of a plaintext is.
func (e *engine) coefficientsOf(source []byte) ([]uint64, error) {
	at := unsafe.Pointer(unsafe.SliceData(source))
	switch {
	case len(source) != e.SlabBytes():
		return nil, fmt.Errorf("the source of a plaintext has %d bytes, want %d", len(source), e.SlabBytes())
	case uintptr(at)&7 != 0:
		return nil, fmt.Errorf("the source of a plaintext is not aligned")
	}
	return unsafe.Slice((*uint64)(at), e.n), nil
}

// Make computes limbs of a plaintext from its coefficients, or of the uniform halves
// of a key from its seed.
func (e *engine) Make(out backend.Operand, source []byte, slabs []int32) error {
	o, err := e.operand(out)
	if err != nil {
		return err
	}
	for _, i := range slabs {
		switch {
		case i < 0 || int(i) >= len(o.rows) || o.rows[i] == nil:
			return fmt.Errorf("there is no room for limb %d of %d of a %s", i, len(o.rows), o.t.Kind)
		case o.t.Kind == ir.KeyKind && int(i)/o.stride%2 == 0:
			return fmt.Errorf("limb %d of a key does not follow from its seed", i)
		}
	}
	switch o.t.Kind {
	case ir.KeyKind:
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
	case ir.PlainKind, ir.PlainQPKind:
		x, err := e.coefficientsOf(source)
		if err != nil {
			return err
		}
		s := e.take()
		defer e.give(s)
		p, err := unpacked(x)
		if err != nil {
			return err
		}
		e.limbs(o, slabs, s.own[0], p)
	default:
		return fmt.Errorf("a %s has no source", o.t.Kind)
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

// polynomial is what the limbs of a plaintext are made from: the coefficients of
// X^(k*2^gap), as fixed rounds them, or where they are too large for that the bits of
// floating-point numbers. Slots that repeat make such a polynomial, which takes every
// value 2^gap times in a row.
type polynomial struct {
	x     []uint64
	large bool
	gap   int
}

// packed writes coefficients whose magnitudes are at most big into x, which is as long,
// those that count to its front.
func packed(x []uint64, c []float64, big float64) polynomial {
	p := polynomial{large: big >= fixedMax}
	if p.large {
		copy(unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(x))), len(x)), c)
	} else {
		fixed(x, c)
	}
	p.gap = gapOf(x, kernels.Gaps(len(x)))
	p.x = x[:len(x)>>p.gap]
	for i := range p.x {
		p.x[i] = x[i<<p.gap]
	}
	return p
}

// gapTag begins the last word of a row of which only the front is coefficients: none is
// that, being no number. Below it stand the gap and whether they are large.
const gapTag = 0x7ff8_6761_7073_0000

func (p *polynomial) tag() uint64 {
	t := uint64(gapTag | p.gap<<1)
	if p.large {
		t |= 1
	}
	return t
}

// unpacked returns the polynomial of a row that EncodeCompact wrote.
func unpacked(x []uint64) (polynomial, error) {
	if t := x[len(x)-1]; t>>16 == gapTag>>16 {
		p := polynomial{large: t&1 != 0, gap: int(t & 0xffff >> 1)}
		if p.gap == 0 || p.gap > kernels.Gaps(len(x)) {
			return p, fmt.Errorf("the source of a plaintext is damaged: a gap of 2^%d between %d coefficients", p.gap, len(x))
		}
		p.x = x[:len(x)>>p.gap]
		return p, nil
	}
	all := uint64(0)
	for _, w := range x {
		all |= w
	}
	return polynomial{x: x, large: all >= fixedMod}, nil
}

// values sets the front of z to the values of a polynomial modulo m, once each where
// they repeat, in Montgomery form, and returns it.
func (m *modulus) values(z []uint64, p *polynomial) []uint64 {
	z = z[:len(p.x)]
	if p.large {
		m.residues(z, unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(p.x))), len(p.x)))
		m.NTT(z, z)
		m.MulConst(z, z, m.Montgomery(1))
	} else {
		m.Centre(z, p.x, fixedMod, m.Montgomery(1))
		m.NTT(z, z)
	}
	return z
}

// row sets z to the values of a polynomial modulo m. It overwrites the front of work.
func (m *modulus) row(z, work []uint64, p *polynomial) {
	if p.gap == 0 {
		m.values(z, p)
		return
	}
	m.Repeat(z, m.values(work, p)) // in the cache, so that z is written once, and in order
}

// limbs writes limbs of a plaintext, given by number, or all where slabs is nil. It
// overwrites the second half of work, a row.
func (e *engine) limbs(o *operand, slabs []int32, work []uint64, p polynomial) {
	limb := func(i int) { e.mod(i, o.t.Level).row(o.rows[i], work[len(work)/2:], &p) }
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
func gapOf(x []uint64, most int) int {
	for gap := range most {
		k := 1 << gap
		for i := k; i < len(x); i += 2 * k {
			if x[i]<<1 != 0 { // nor is the sign of a zero one
				return gap
			}
		}
	}
	return most
}
