package lattigo

import (
	"fmt"
	"math/big"
	"math/bits"

	"github.com/home-fhe/home/ir"
	"github.com/tuneinsight/lattigo/v5/ring"
)

// rings holds everything that follows from the parameters and is read-only
// after it was made: moduli, transforms, basis conversions, the encoder.
type rings struct {
	p     *ir.Params
	n     int
	mods  []*modulus // Q then P
	rev   []uint32   // bit reversal of exponents, see automorphism
	mask  uint32     // of exponents
	order uint64     // of the roots
	digit [][]*basis // [group][number of primes in it - 1], to all of QP
	pToQ  *basis     // P to Q, for ModDown
	scale []*basis   // [l]: q_l to all of QP, for rescaling
	pModQ []uint64   // P mod q_i, Montgomery form
	enc   *encoder
}

func newRings(p *ir.Params) (*rings, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	kind := ring.Standard
	if p.Ring == ir.RingReal {
		kind = ring.ConjugateInvariant
	}
	all := append(append([]uint64{}, p.Q...), p.P...)
	base, err := ring.NewRingFromType(p.N(), all, kind)
	if err != nil {
		return nil, fmt.Errorf("parameters %q: %w", p.Name, err)
	}
	r := &rings{p: p, n: p.N(), order: base.NthRoot(), enc: newEncoder(p)}
	for _, s := range base.SubRings {
		r.mods = append(r.mods, newModulus(s))
	}
	nq, np := len(p.Q), len(p.P)
	q, pm := r.mods[:nq], r.mods[nq:]
	for g := 0; g < nq; g += np {
		var sizes []*basis
		for size := 1; size <= np && g+size <= nq; size++ {
			sizes = append(sizes, newBasis(q[g:g+size], r.mods))
		}
		r.digit = append(r.digit, sizes)
	}
	r.pToQ = newBasis(pm, q)
	for l := range q {
		r.scale = append(r.scale, newBasis(q[l:l+1], q))
	}
	prod := big.NewInt(1)
	for _, m := range pm {
		prod.Mul(prod, new(big.Int).SetUint64(m.q))
	}
	for _, m := range q {
		r.pModQ = append(r.pModQ, m.form(m.bigMod(prod)))
	}
	half := r.order >> 1
	r.mask = uint32(half - 1)
	r.rev = make([]uint32, r.n)
	shift := 64 - uint(bits.Len64(half-1))
	for i := range r.rev {
		r.rev[i] = uint32(bits.Reverse64(uint64(i)) >> shift)
	}
	return r, nil
}

// galois returns 5^rot modulo the order of the roots: the Galois element of a
// rotation by rot slots to the left.
func (r *rings) galois(rot int) uint64 {
	// 5 generates a group of order Slots.
	e := uint64(((rot % r.p.Slots()) + r.p.Slots()) % r.p.Slots())
	g, x, m := uint64(1), uint64(5), r.order-1
	for ; e > 0; e >>= 1 {
		if e&1 == 1 {
			g = g * x & m
		}
		x = x * x & m
	}
	return g
}

// galoisInverse returns the inverse of a Galois element.
func (r *rings) galoisInverse(g uint64) uint64 {
	inv, m := uint64(1), r.order-1
	for i := 0; i < 6; i++ { // Newton iteration doubles the correct low bits
		inv = inv * (2 - g*inv)
	}
	return inv & m
}

// automorphism writes into idx the positions from which the transform of
// phi(a) takes its entries: NTT(phi(a))[i] = NTT(a)[idx[i]], phi: X -> X^g. The
// transform stores the value at psi^(2j+1) at the bit reversal of j.
func (r *rings) automorphism(idx []uint32, g uint64) {
	rev, mask := r.rev, r.mask
	mul, add := uint32(g), uint32((g-1)>>1)
	shift := 32 - uint(bits.Len32(mask))
	for i, j := range rev {
		idx[i] = bits.Reverse32((j*mul+add)&mask) >> shift
	}
}

func permuteRow(z, x []uint64, idx []uint32) {
	idx = idx[:len(z)]
	for i, k := range idx {
		z[i] = x[k]
	}
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

// group returns the primes of digit d at level l, as a half-open range.
func (r *rings) group(d, l int) (from, to int) {
	a := len(r.p.P)
	return d * a, min((d+1)*a, l+1)
}

// digitBasis returns the conversion of digit d at level l.
func (r *rings) digitBasis(d, l int) *basis {
	from, to := r.group(d, l)
	return r.digit[d][to-from-1]
}
