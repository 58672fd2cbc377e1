package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// dq is the form on 64-bit products of 32-bit halves (AVX-512 DQ), for primes q below
// 2^61: 8q fits a word. Its lazy residues are below 8q before and after a forward
// layer, below 4q in inverse ones.
type dq struct {
	*prime
	q4 vec

	inv   vec // 1/q mod 2^32
	top   vec // high half of q
	shift vec // of the second factors of products
	mask  vec // low half
}

func newDQ(e *emit, q vec) form {
	d := &dq{prime: e.prime(q)}
	d.q4 = d.add(d.q2, d.q2)
	return d
}

func (d *dq) lift() vec               { return d.q4 }
func (d *dq) over() []vec             { return []vec{d.q2, d.q} }
func (d *dq) factor(w, s vec) *factor { return &factor{w, s, d.high(s)} }

// times returns y*w mod q in [0, 4q), for any word y and s = floor(w*2^64/q). The
// quotient leaves out the product of the low halves and carries, at most 2 of it: 3q,
// and q for Shoup's own error.
func (d *dq) times(y vec, f *factor) vec {
	top := d.high(y)
	t := d.add(d.mulu(top, f.high), d.high(d.mulu(top, f.s)))
	t = d.add(t, d.high(d.mulu(y, f.high)))
	return d.sub(d.mull(y, f.w), d.mull(t, d.q))
}

// blockBytes is the size of the factors of a block of 64 residues: 7 words for all
// lanes, at 0, and their quotients at 8; 7 registers at 16, and theirs at 72.
func (d *dq) blockBytes() int { return 8 * 128 }

func (d *dq) lane(w reg.GPVirtual, i int) *factor {
	return d.factor(d.load(Mem{Base: w, Disp: 8 * (16 + 8*i)}), d.load(Mem{Base: w, Disp: 8 * (72 + 8*i)}))
}

func (d *dq) forwardLane(x, y *vec, f *factor) { forward(d, x, y, f) }
func (d *dq) inverseLane(x, y *vec, f *factor) { inverse(d, x, y, f) }

func (d *dq) montgomery(inv, shift vec) {
	d.inv, d.top, d.shift, d.mask = inv, d.high(d.q), shift, d.high(d.ones())
}

// sum is lo + mid*2^32 + hi*2^64; lo may exceed 32 bits. IFMA has lo + hi*2^52, lo of
// more than 52 bits.
type sum struct{ lo, mid, hi vec }

// multiplicand is a word and, for DQ, its high half.
type multiplicand struct{ low, high vec }

func (d *dq) first(x vec) multiplicand { return multiplicand{x, d.high(x)} }

func (d *dq) second(y vec) multiplicand {
	z := d.ZMM()
	d.VPSLLVQ(d.shift, y, z)
	return d.first(z)
}

func (d *dq) clear() sum { return sum{d.zero(), d.zero(), d.zero()} }

// mul returns x*y, both below 2^62 and one below 2^61: mid is below 2^63.
func (d *dq) mul(x, y multiplicand) sum {
	return sum{d.mulu(x.low, y.low), d.add(d.mulu(x.low, y.high), d.mulu(x.high, y.low)), d.mulu(x.high, y.high)}
}

// mulByte returns x*y for x below 2^32, ready for mac.
func (d *dq) mulByte(x vec, y multiplicand) sum {
	mid := d.mulu(x, y.high)
	return sum{d.mulu(x, y.low), d.and(mid, d.mask), d.high(mid)}
}

// mac adds a product to s, whose mid is and stays below 2^32.
func (d *dq) mac(s *sum, x, y multiplicand) {
	p := d.mul(x, y)
	s.lo = d.add(s.lo, d.and(p.lo, d.mask))
	t := d.add(d.add(s.mid, p.mid), d.high(p.lo))
	s.hi = d.add(d.add(s.hi, p.hi), d.high(t))
	s.mid = d.and(t, d.mask)
}

// twice returns the sum of two products.
func (d *dq) twice(x, y, u, v multiplicand) sum {
	s := d.mul(x, y)
	s.hi, s.mid = d.add(s.hi, d.high(s.mid)), d.and(s.mid, d.mask)
	// lo holds the whole low product: its high half goes to mid.
	s.mid, s.lo = d.add(s.mid, d.high(s.lo)), d.and(s.lo, d.mask)
	d.mac(&s, u, v)
	return s
}

// divide returns s/2^64 mod q in (-q, s/2^64], in two steps of 32 bits. The low
// halves of what is subtracted equal those it is subtracted from, so that only high
// halves need be.
func (d *dq) divide(s sum) vec {
	k := d.mulu(s.lo, d.inv)
	mid := d.sub(d.add(s.mid, d.high(s.lo)), d.mulu(k, d.top))
	mid = d.sub(mid, d.high(d.mulu(k, d.q)))
	k = d.mulu(mid, d.inv)
	hi := d.sub(d.add(s.hi, d.sra(mid)), d.mulu(k, d.top))
	return d.sub(hi, d.high(d.mulu(k, d.q)))
}

func (d *dq) divideProduct(s sum) vec { return d.divide(s) }

func (d *dq) other(q, inv vec) form {
	return &dq{prime: &prime{emit: d.emit, q: q}, inv: inv, top: d.high(q), mask: d.mask}
}
