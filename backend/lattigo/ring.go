package lattigo

import (
	"fmt"
	"math/big"
	"math/bits"

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
	rev   []uint32   // bit reversal of exponents, see automorphism
	mask  uint32     // of exponents
	digit [][]*basis // [group][number of primes in it - 1], to all of QP
	pToQ  *basis     // P to Q, for ModDown
	scale []*basis   // [l]: q_l to all of QP, for rescaling
	pModQ []uint64   // P mod q_i, Montgomery form
	small *basis     // p_0 to q_0, for the key to the ephemeral secret
	// imag is X^(N/2) modulo q_i, Montgomery form: what the first half of a
	// transformed limb is multiplied with, the second with its negative. Standard ring.
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

// newRingsWith uses the given kernels, which the machine must support; results
// are the same with all.
func newRingsWith(p *ir.Params, form kernels.Form) (*rings, error) {
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
	r := &rings{p: p, n: p.N(), enc: newEncoder(p), group: groupSize(p)}
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
	r.small = newBasis(pm[:1], q[:1])
	if p.Ring == ir.RingStandard {
		x := make([]uint64, r.n)
		for _, m := range q {
			clear(x)
			x[r.n/2] = 1
			m.ntt(x, x)
			r.imag = append(r.imag, m.form(x[0]))
		}
	}
	half := order(p) >> 1
	r.mask = uint32(half - 1)
	r.rev = make([]uint32, r.n/8)
	shift := 64 - uint(bits.Len64(half-1))
	for i := range r.rev {
		r.rev[i] = uint32(bits.Reverse64(uint64(8*i)) >> shift)
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

// lanes holds, for every carry c and one odd multiplier modulo 8, the permutation
// of the residues of a group of eight, see automorphism.
type lanes [8][8]uint64

// automorphism prepares the permutation that maps NTT(a) to NTT(phi(a)), phi: X
// -> X^g. The transform stores the value at psi^(2j+1) at the bit reversal of j,
// and phi takes it from j*g + (g-1)/2. The three low bits of a position are the
// three high bits of j, so that eight neighbours come from eight neighbours: word
// i of from is eight times the group from which group i is taken, plus a carry
// that chooses among the permutations within the group.
func (r *rings) automorphism(from []uint32, l *lanes, g uint64) {
	mask := r.mask
	mul, add := uint32(g), uint32((g-1)>>1)
	width := uint(bits.Len32(mask))
	shift := 32 - width
	for i := range from {
		j := (r.rev[i]*mul + add) & mask // r.rev[i]: exponent of residue 8i
		from[i] = bits.Reverse32(j)>>shift&^7 | j>>(width-3)
	}
	rev3 := func(x uint32) uint32 { return x&1<<2 | x&2 | x>>2&1 }
	for c := range uint32(8) {
		for k := range uint32(8) {
			l[c][k] = uint64(rev3((rev3(k)*mul + c) & 7))
		}
	}
}

// permuteRow sets z to the permuted x. The two may not overlap.
func (r *rings) permuteRow(z, x []uint64, from []uint32, l *lanes) {
	if r.mods[0].any {
		permuteVec(&z[0], &x[0], &from[0], (*[8][8]uint64)(l), len(from))
		return
	}
	for i, f := range from {
		out, in, lane := z[8*i:8*i+8:8*i+8], x[f&^7:f&^7+8:f&^7+8], &l[f&7]
		for k := range out {
			out[k] = in[lane[k]&7]
		}
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

// digitPrimes returns the primes of digit d at level l, as a half-open range.
func (r *rings) digitPrimes(d, l int) (from, to int) {
	a := len(r.p.P)
	return d * a, min((d+1)*a, l+1)
}

// digitBasis returns the conversion of digit d at level l.
func (r *rings) digitBasis(d, l int) *basis {
	from, to := r.digitPrimes(d, l)
	return r.digit[d][to-from-1]
}
