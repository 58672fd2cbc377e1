package ir

import (
	"fmt"
	"math"
	"math/big"
)

// rootOrder returns the order of the roots of unity a prime must have: 2N in
// the standard ring, 4N in the conjugate-invariant one.
func rootOrder(r Ring, logN int) uint64 {
	if r == RingReal {
		return uint64(4) << logN
	}
	return uint64(2) << logN
}

// primeSearch walks the primes that are 1 modulo order, outwards from 2^bits.
type primeSearch struct {
	order        uint64
	centre       uint64 // 2^bits
	below, above uint64 // last candidate tried on each side
	seen         map[uint64]bool
}

func isPrime(q uint64) bool { return new(big.Int).SetUint64(q).ProbablyPrime(20) }

// next returns the nearest unused prime on one side of 2^bits, or 0 when the
// side is exhausted within half a bit.
func (s *primeSearch) next(up bool) uint64 {
	limit := uint64(float64(s.centre) * math.Sqrt2)
	if s.centre >= 1<<61 {
		limit = s.centre // 61 bits is the most a residue may have
	}
	for {
		var q uint64
		if up {
			s.above += s.order
			q = s.above
			if q > limit {
				return 0
			}
		} else {
			if s.below < s.order || float64(s.below-s.order) < float64(s.centre)/math.Sqrt2 {
				return 0
			}
			s.below -= s.order
			q = s.below
		}
		if !s.seen[q] && isPrime(q) {
			return q
		}
	}
}

// NewParams chooses NTT-friendly primes of the requested sizes, in bits, and
// returns checked parameters. The choice is deterministic: the first prime of Q
// and those of P are the largest unused ones below 2^size; the others lie as
// near to 2^size as unused primes do, alternating around it so that the product
// of any run of them stays near the power of two and scales do not drift.
// Security is not judged here; see CheckSecurity.
func NewParams(name string, logN int, ring Ring, secret Secret, logQ, logP []int, logScale int) (*Params, error) {
	p := &Params{Name: name, LogN: logN, Ring: ring, Secret: secret, LogScale: logScale}
	if logN < 4 || logN > 16 {
		return nil, fmt.Errorf("parameters %q: ring degree 2^%d is outside 2^4..2^16", name, logN)
	}
	order := rootOrder(ring, logN)
	seen := map[uint64]bool{}
	searches := map[int]*primeSearch{}
	drift := map[int]float64{} // log2 of product over target, per size
	pick := func(size int, centred bool) (uint64, error) {
		if size < 10 || size > 61 || uint64(1)<<size <= order {
			return 0, fmt.Errorf("parameters %q: no prime of %d bits is 1 modulo %d", name, size, order)
		}
		s := searches[size]
		if s == nil {
			c := uint64(1) << size
			s = &primeSearch{order: order, centre: c, below: c + 1, above: c + 1 - order, seen: seen}
			searches[size] = s
		}
		up := centred && drift[size] <= 0
		q := s.next(up)
		if q == 0 && centred {
			q = s.next(!up)
		}
		if q == 0 {
			return 0, fmt.Errorf("parameters %q: too few primes of %d bits are 1 modulo %d", name, size, order)
		}
		seen[q] = true
		if centred {
			drift[size] += math.Log2(float64(q)) - float64(size)
		}
		return q, nil
	}
	for i, size := range logQ {
		q, err := pick(size, i > 0)
		if err != nil {
			return nil, err
		}
		p.Q = append(p.Q, q)
	}
	for _, size := range logP {
		q, err := pick(size, false)
		if err != nil {
			return nil, err
		}
		p.P = append(p.P, q)
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}
