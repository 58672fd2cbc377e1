package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// ifma is the form on 52-bit multiply-add (AVX-512 IFMA), for primes q below 2^50: 4q
// fits 52 bits. VPMADD52LUQ a, b, c adds the low 52 bits of a*b to c, VPMADD52HUQ the
// high 52; both read the low 52 bits of a and b alone. Its lazy residues are below 4q
// before and after a forward layer, below 2q in inverse ones.
type ifma struct {
	*prime
	neg  vec // -q, of which 52 bits count
	mask vec // 2^52-1
	inv  vec // 1/q, of which 52 bits count
}

func newIFMA(e *emit, q vec) form {
	p := e.prime(q)
	z := e.ZMM()
	e.VPSRLQ(U8(12), e.ones(), z)
	return &ifma{prime: p, neg: e.sub(e.zero(), p.q), mask: z}
}

func (f *ifma) lift() vec               { return f.q2 }
func (f *ifma) over() []vec             { return []vec{f.q} }
func (f *ifma) factor(w, s vec) *factor { return &factor{w: w, s: s} }

// low and highTo add the halves of a*b to c, in place.
func (f *ifma) lowTo(c, a, b vec)  { f.VPMADD52LUQ(a, b, c) }
func (f *ifma) highTo(c, a, b vec) { f.VPMADD52HUQ(a, b, c) }

// times returns y*w mod q in [0, 2q), for y below 2^52 and s = floor(w*2^52/q).
func (f *ifma) times(y vec, c *factor) vec {
	t, z := f.zero(), f.zero()
	f.highTo(t, c.s, y)
	f.lowTo(z, c.w, y)
	f.lowTo(z, f.neg, t)
	return f.and(z, f.mask)
}

// blockBytes is the size of the factors of a block of 64 residues: 7 words for all
// lanes, at 0, and their quotients at 8; 7 registers at 16 in Montgomery form, which
// does without quotients.
func (f *ifma) blockBytes() int { return 8 * 72 }

func (f *ifma) lane(w reg.GPVirtual, i int) *factor {
	return &factor{w: f.load(Mem{Base: w, Disp: 8 * (16 + 8*i)})}
}

// product adds y*w/2^52 mod q, in (-q, q), to z, for y below 2^52 and w below q.
func (f *ifma) product(z, y, w vec) vec {
	lo, t, u := f.zero(), f.zero(), f.zero()
	f.lowTo(lo, w, y)
	f.highTo(z, w, y)
	f.lowTo(t, f.inv, lo)
	f.highTo(u, f.q, t)
	return f.sub(z, u)
}

// forwardLane and inverseLane are butterflies by factors in Montgomery form.
func (f *ifma) forwardLane(x, y *vec, c *factor) {
	t := f.product(f.zero(), *y, c.w)
	*x = f.add(f.below(*x, f.q2), f.q)
	*x, *y = f.add(*x, t), f.sub(*x, t)
}

func (f *ifma) inverseLane(x, y *vec, c *factor) {
	d := f.sub(f.add(*x, f.q2), *y)
	*x = f.below(f.add(*x, *y), f.q2)
	z := f.ZMM()
	f.VMOVDQA64(f.q, z)
	*y = f.product(z, d, c.w)
}

func (f *ifma) montgomery(inv, _ vec) { f.inv = inv }

func (f *ifma) first(x vec) multiplicand  { return multiplicand{low: x} }
func (f *ifma) second(x vec) multiplicand { return multiplicand{low: x} }
func (f *ifma) clear() sum                { return sum{lo: f.zero(), hi: f.zero()} }

func (f *ifma) mac(s *sum, x, y multiplicand) {
	f.lowTo(s.lo, x.low, y.low)
	f.highTo(s.hi, x.low, y.low)
}

func (f *ifma) mul(x, y multiplicand) sum {
	s := f.clear()
	f.mac(&s, x, y)
	return s
}

func (f *ifma) mulByte(x vec, y multiplicand) sum { return f.mul(multiplicand{low: x}, y) }

func (f *ifma) twice(x, y, u, v multiplicand) sum {
	s := f.mul(x, y)
	f.mac(&s, u, v)
	return s
}

// divide returns s/2^52 mod q in (-q, s/2^52].
func (f *ifma) divide(s sum) vec {
	return f.divideProduct(sum{lo: s.lo, hi: f.add(s.hi, f.carry(s.lo))})
}

// divideProduct is divide for a single product, whose lo has 52 bits. What is
// subtracted has the same 52 bits below the point.
func (f *ifma) divideProduct(s sum) vec {
	t, u := f.zero(), f.zero()
	f.lowTo(t, f.inv, s.lo)
	f.highTo(u, f.q, t)
	return f.sub(s.hi, u)
}

func (f *ifma) other(q, inv vec) form { return &ifma{prime: &prime{emit: f.emit, q: q}, inv: inv} }
