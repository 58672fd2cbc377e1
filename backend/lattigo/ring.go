package lattigo

import (
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/tuneinsight/lattigo/v5/ring"
)

// rings holds everything that follows from the parameters and is read-only
// after it was made: moduli, transforms, basis conversions, the encoder.
type rings struct {
	p     *ir.Params
	n     int
	mods  []*modulus // Q then P
	form  kernels.Form
	digit [][]*kernels.Basis // [group][number of primes in it - 1], to all of QP
	pToQ  *kernels.Basis     // P to Q, for ModDown
	scale []*kernels.Basis   // [l]: q_l to Q, for rescaling
	// [l]: q_l and P to q_0..q_{l-1}, for both at once, and for both at once of twice a
	// number; nil at level 0.
	joined, twice []*kernels.Basis
	pModQ         []uint64       // P mod q_i
	small         *kernels.Basis // p_0 to q_0, for the key to the ephemeral secret
	// imag is X^(N/2) modulo q_i: what the first half of a transformed limb is
	// multiplied with, the second with its negative. Standard ring.
	imag  []uint64
	enc   *encoder
	group int   // targets of conversions at once
	all   []int // 0, 1, 2, ...: every prime as a target of conversions
}

// newRings uses the kernels that this process has chosen.
func newRings(p *ir.Params) (*rings, error) {
	form, err := kernels.Chosen()
	if err != nil {
		return nil, err
	}
	return newRingsWith(p, form)
}

// ringType returns the name of a ring at Lattigo.
func ringType(r ir.Ring) ring.Type {
	if r == ir.RingReal {
		return ring.ConjugateInvariant
	}
	return ring.Standard
}

// newRingsWith uses the given kernels, which the machine must support; results
// are the same with all.
func newRingsWith(p *ir.Params, form kernels.Form) (*rings, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	all := append(append([]uint64{}, p.Q...), p.P...)
	base, err := ring.NewRingFromType(p.N(), all, ringType(p.Ring))
	if err != nil {
		return nil, fmt.Errorf("parameters %q: %w", p.Name, err)
	}
	r := &rings{p: p, n: p.N(), enc: newEncoder(p), group: groupSize(p), form: form}
	for _, s := range base.SubRings {
		r.all = append(r.all, len(r.all))
		m, err := newModulus(s, p.Ring == ir.RingReal, form)
		if err != nil {
			return nil, fmt.Errorf("parameters %q: %w", p.Name, err)
		}
		r.mods = append(r.mods, m)
	}
	nq, np := len(p.Q), len(p.P)
	q, pm := r.mods[:nq], r.mods[nq:]
	var failed error
	basis := func(src, targets []*modulus) *kernels.Basis {
		b, err := newBasis(src, targets)
		failed = errors.Join(failed, err)
		return b
	}
	for g := 0; g < nq; g += np {
		var sizes []*kernels.Basis
		for size := 1; size <= np && g+size <= nq; size++ {
			sizes = append(sizes, basis(q[g:g+size], r.mods))
		}
		r.digit = append(r.digit, sizes)
	}
	r.pToQ = basis(pm, q)
	for l := range q {
		r.scale = append(r.scale, basis(q[l:l+1], q))
	}
	r.joined, r.twice = make([]*kernels.Basis, nq), make([]*kernels.Basis, nq)
	for l := 1; l < nq; l++ {
		r.joined[l] = basis(slices.Concat(q[l:l+1], pm), q[:l])
	}
	r.small = basis(pm[:1], q[:1])
	if failed != nil {
		return nil, fmt.Errorf("parameters %q: %w", p.Name, failed)
	}
	for l := 1; l < nq; l++ {
		r.twice[l] = r.joined[l].Doubled()
	}
	prod := big.NewInt(1)
	for _, m := range pm {
		prod.Mul(prod, new(big.Int).SetUint64(m.Q))
	}
	for _, m := range q {
		r.pModQ = append(r.pModQ, m.bigMod(prod))
	}
	if p.Ring == ir.RingStandard {
		x := make([]uint64, r.n)
		for _, m := range q {
			clear(x)
			x[r.n/2] = 1
			m.NTT(x, x)
			r.imag = append(r.imag, x[0])
		}
	}
	return r, nil
}

// rotation returns the Galois element of a rotation by rot slots to the left, or
// to the right if negative: 5^rot modulo the order of the roots, where 5 generates
// a group of order Slots.
func rotation(p *ir.Params, rot int) uint64 {
	m, n := order(p)-1, p.Slots()
	g, x := uint64(1), uint64(5)
	for e := uint64((rot%n + n) % n); e > 0; e >>= 1 {
		if e&1 == 1 {
			g = g * x & m
		}
		x = x * x & m
	}
	return g
}

// conjugation returns the Galois element of complex conjugation.
func conjugation(p *ir.Params) uint64 { return order(p) - 1 }

// order returns the order of the roots, a power of two.
func order(p *ir.Params) uint64 {
	if p.Ring == ir.RingReal {
		return 4 * uint64(p.N())
	}
	return 2 * uint64(p.N())
}

// galoisInverse returns the inverse of a Galois element.
func galoisInverse(p *ir.Params, g uint64) uint64 {
	inv, m := uint64(1), order(p)-1
	for i := 0; i < 6; i++ { // Newton iteration doubles the correct low bits
		inv = inv * (2 - g*inv)
	}
	return inv & m
}

// automorphism prepares the map X -> X^g on transformed limbs.
func (r *rings) automorphism(a *kernels.Automorphism, g uint64) {
	a.Set(r.n, order(r.p), g, r.form)
}

// mod returns the modulus of limb i of a QP object of level l.
func (r *rings) mod(i, l int) *modulus {
	if i <= l {
		return r.mods[i]
	}
	return r.mods[len(r.p.Q)+i-l-1]
}

// target returns the number of that modulus among all, as used by digit bases.
func (r *rings) target(i, l int) int {
	if i <= l {
		return i
	}
	return len(r.p.Q) + i - l - 1
}

// digitPrimes returns the primes of digit d at level l, as a half-open range.
func (r *rings) digitPrimes(d, l int) (from, to int) {
	a := len(r.p.P)
	return d * a, min((d+1)*a, l+1)
}

// digitBasis returns the conversion of digit d at level l.
func (r *rings) digitBasis(d, l int) *kernels.Basis {
	from, to := r.digitPrimes(d, l)
	return r.digit[d][to-from-1]
}
