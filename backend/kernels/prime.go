package kernels

import (
	"fmt"
	"math/bits"
)

// MaxPrime bounds the primes of every form: eight times a residue fits a word.
const MaxPrime = 1 << 61

// MaxNarrow bounds the primes that IFMA serves: four times a residue fits 52 bits. The
// Montgomery radix is 2^52 for primes below it and 2^64 for others, whatever the form,
// so that files and memory images agree.
const MaxNarrow = 1 << 50

// narrowShift is how much smaller the Montgomery radix of primes below MaxNarrow is.
const narrowShift = 12

// Prime is an odd prime below MaxPrime with the arithmetic of single residues, for
// set-up rather than inner loops. Residues are below Q.
type Prime struct {
	Q     uint64
	inv   uint64 // 1/Q mod 2^64
	bar   uint64 // floor(2^64/Q)
	shift uint   // 64 minus the exponent of the Montgomery radix
}

// NewPrime returns the arithmetic modulo q. It refuses numbers that are even or out of
// range; that q is prime is for the caller to know.
func NewPrime(q uint64) (Prime, error) {
	if q >= MaxPrime || q < 3 || q&1 == 0 {
		return Prime{}, fmt.Errorf("prime %d (%d bits): the kernels take odd primes below 2^61", q, bits.Len64(q))
	}
	p := Prime{Q: q, inv: q}
	for range 5 { // Newton iteration doubles the correct low bits, three at first
		p.inv *= 2 - q*p.inv
	}
	p.bar, _ = bits.Div64(1, 0, q)
	if q < MaxNarrow {
		p.shift = narrowShift
	}
	return p, nil
}

// Times returns x*y mod Q.
func (p *Prime) Times(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	_, r := bits.Div64(hi, lo, p.Q)
	return r
}

// Pow returns x^e mod Q for any word x.
func (p *Prime) Pow(x, e uint64) uint64 {
	r := uint64(1)
	for x %= p.Q; e > 0; e >>= 1 {
		if e&1 == 1 {
			r = p.Times(r, x)
		}
		x = p.Times(x, x)
	}
	return r
}

// Invert returns 1/x mod Q, and 0 for 0.
func (p *Prime) Invert(x uint64) uint64 { return p.Pow(x, p.Q-2) }

// Reduce returns x mod Q for any word x.
func (p *Prime) Reduce(x uint64) uint64 { return below(x-mulHi(x, p.bar)*p.Q, p.Q) }

// Montgomery returns the Montgomery form of x.
func (p *Prime) Montgomery(x uint64) uint64 {
	_, r := bits.Div64(x>>p.shift, x<<(64-p.shift), p.Q)
	return r
}

// form64 returns x*2^64 mod Q for x < Q.
func (p *Prime) form64(x uint64) uint64 {
	_, r := bits.Div64(x, 0, p.Q)
	return r
}

// Plain returns the residue whose Montgomery form is x < Q.
func (p *Prime) Plain(x uint64) uint64 { return mont(x, 1<<p.shift, p.Q, p.inv) }

// quotient returns floor(w*2^64/Q) for w < Q: with it the product of w and a word takes
// no division (Shoup's trick).
func (p *Prime) quotient(w uint64) uint64 {
	s, _ := bits.Div64(w, 0, p.Q)
	return s
}

func mulHi(x, y uint64) uint64 {
	h, _ := bits.Mul64(x, y)
	return h
}

// lazy returns x*c mod q in [0, 2q), for any word x and s the quotient of c.
func lazy(x, c, s, q uint64) uint64 { return x*c - mulHi(x, s)*q }

// reduced returns (hi*2^64+lo)/2^64 mod q, for hi < q and inv = 1/q mod 2^64.
func reduced(hi, lo, q, inv uint64) uint64 {
	h, _ := bits.Mul64(lo*inv, q)
	r, borrow := bits.Sub64(hi, h, 0)
	return r + q&-borrow
}

// mont returns x*y/2^64 mod q, for x*y < q*2^64 and inv = 1/q mod 2^64.
func mont(x, y, q, inv uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	return reduced(hi, lo, q, inv)
}

// below returns x mod q for x < 2q.
func below(x, q uint64) uint64 { return min(x, x-q) }
