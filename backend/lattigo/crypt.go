package lattigo

import (
	"math"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
)

// secret is a secret key expanded modulo every prime, and the ephemeral one that
// goes with it.
type secret struct {
	coef      []int64    // small coefficients
	ntt       [][]uint64 // per prime, transformed, Montgomery form
	ephemeral []int64    // small coefficients; nil in the conjugate-invariant ring
}

func (r *rings) expandSecret(coef []int64) *secret {
	s := &secret{coef: coef, ntt: makeRows(len(r.mods), r.n)}
	for i, m := range r.mods {
		m.secretRow(s.ntt[i], coef)
	}
	if r.p.Ring == ir.RingStandard {
		s.ephemeral = ephemeral(coef)
	}
	return s
}

// secretRow writes small coefficients transformed, in Montgomery form.
func (m *modulus) secretRow(z []uint64, coef []int64) {
	m.signedRow(z, coef)
	m.NTT(z, z)
	m.MulConst(z, z, m.Montgomery(1))
}

// encryptRows writes a fresh encryption of the coefficients c (already scaled)
// at the given level: c1 is the uniform expansion of the seed, c0 = -c1*s + c + e.
func (r *rings) encryptRows(s *secret, seed *Seed, noise *stream, c []float64, level int, c0, c1 [][]uint64) {
	e := make([]int64, r.n)
	noise.gaussPoly(e)
	t := make([]uint64, r.n)
	for i := range level + 1 {
		m := r.mods[i]
		uniformRow(c1[i], m.Q, seed, rowName(elementCipher, 0, i))
		m.residues(c0[i], c)
		m.signedRow(t, e)
		m.Add(c0[i], c0[i], t)
		m.NTT(c0[i], c0[i])
		m.Mul(t, c1[i], s.ntt[i])
		m.Sub(c0[i], c0[i], t)
	}
	clear(e)
}

// decryptCoefs writes the coefficients of a ciphertext, divided by its scale.
func (r *rings) decryptCoefs(s *secret, c0, c1 [][]uint64, scale ir.Scale, c []float64) {
	rows := makeRows(len(c0), r.n)
	for i, z := range rows {
		m := r.mods[i]
		m.Mac(z, c0[i], c1[i], s.ntt[i])
		m.INTT(z, z)
	}
	centred(r.mods[:len(rows)], rows, scale.Float(r.p.Q), c)
}

// keyPrimes lists the primes of the limbs of a key, counted over Q and P: those of
// QP_level, or q_0 and p_0 alone, beyond which the ephemeral secret is not safe.
func keyPrimes(p *ir.Params, k KeySpec) []int {
	special := len(p.P)
	if k.Rot == ir.KeySparse {
		special = 1
	}
	out := make([]int, 0, k.Level+1+special)
	for i := range k.Level + 1 {
		out = append(out, i)
	}
	for j := range special {
		out = append(out, len(p.Q)+j)
	}
	return out
}

// keyKind returns the kind of object a key is.
func keyKind(k KeySpec) ir.Kind {
	if k.Rot == ir.KeySparse {
		return ir.SparseKeyKind
	}
	return ir.KeyKind
}

// keyPolys writes, modulo one prime and transformed, the secret that a key
// switches from, in plain form, and the one that it switches to, in Montgomery
// form. perm is the inverse of the automorphism of a Galois key: its
// product with c1 must decrypt under phi^-1(s) to P*c1*s, since phi is applied
// afterwards.
func (r *rings) keyPolys(s *secret, rot, prime int, from, to []uint64, perm *kernels.Automorphism) {
	m := r.mods[prime]
	switch rot {
	case ir.KeyRelin:
		copy(to, s.ntt[prime])
		m.Mul(from, s.ntt[prime], s.ntt[prime]) // Montgomery form of s^2
		m.MulConst(from, from, m.Plain(1))
	case ir.KeyDense:
		copy(to, s.ntt[prime])
		m.signedRow(from, s.ephemeral)
		m.NTT(from, from)
	case ir.KeySparse:
		m.secretRow(to, s.ephemeral)
		m.MulConst(from, s.ntt[prime], m.Plain(1))
	default:
		m.MulConst(from, s.ntt[prime], m.Plain(1))
		perm.Apply(to, s.ntt[prime])
	}
}

// keyDigitLimb writes the limb of one digit of an evaluation key: a is expanded
// from the seed, b = -a*to + e + f*from, both in Montgomery form, f being the
// product of the special primes on the primes of the digit and 0 on all others.
// from and to come from keyPolys, e holds the noise of the digit, prime counts
// over Q and P.
func (r *rings) keyDigitLimb(seed *Seed, digit, prime int, f uint64, from, to []uint64, e []int64, a, b, t []uint64) {
	m := r.mods[prime]
	keyUniform(r.p, seed, digit, prime, m.Q, a)
	m.signedRow(b, e)
	m.NTT(b, b)
	m.MacConst(b, b, from, f)
	m.MulConst(b, b, m.Montgomery(1))
	m.Mul(t, a, to)
	m.Sub(b, b, t)
}

// keyUniform expands the uniform half of a key modulo prime number i, q, counted
// over Q and P; a uniform residue is uniform in Montgomery form too.
func keyUniform(p *ir.Params, seed *Seed, digit, i int, q uint64, a []uint64) {
	uniformRow(a, q, seed, keyName(p, digit, i))
}

// keyName names a row of the uniform half of a key.
func keyName(p *ir.Params, digit, i int) [8]byte {
	if nq := len(p.Q); i >= nq {
		i += special - nq
	}
	return rowName(elementKey, digit, i)
}

// makeKey generates an evaluation key. b(digit, limb) returns the row to write,
// limb counting over the primes of keyPrimes; done is called when a row is
// complete.
func (r *rings) makeKey(s *secret, k KeySpec, seed *Seed, b func(digit, limb int) []uint64, done func(digit, limb, prime int) error) error {
	rows := makeRows(4, r.n)
	var perm kernels.Automorphism
	if g := k.galois(r.p); g != 1 {
		r.automorphism(&perm, galoisInverse(r.p, g))
	}
	noiseSeed := newSeed()
	noise := newStream(&noiseSeed, elementNoise, 0, 0)
	digits := r.p.Digits(k.Level)
	e := make([][]int64, digits)
	for d := range e {
		e[d] = make([]int64, r.n)
		noise.gaussPoly(e[d])
	}
	for d := range digits {
		lo, hi := r.digitPrimes(d, k.Level)
		for i, prime := range keyPrimes(r.p, k) {
			f := uint64(0)
			switch {
			case k.Rot == ir.KeySparse && i == 0:
				f = r.p.P[0] % r.p.Q[0]
			case k.Rot != ir.KeySparse && i >= lo && i < hi:
				f = r.pModQ[prime]
			}
			r.keyPolys(s, k.Rot, prime, rows[0], rows[1], &perm)
			r.keyDigitLimb(seed, d, prime, f, rows[0], rows[1], e[d], rows[2], b(d, i), rows[3])
			if err := done(d, i, prime); err != nil {
				return err
			}
		}
	}
	for _, x := range e {
		clear(x)
	}
	for _, x := range rows {
		clear(x)
	}
	return nil
}

// FreshNoise returns the standard deviation, per coefficient, of the noise of a
// fresh ciphertext: secret-key encryption adds one Gaussian and the rounding of
// the encoding.
func FreshNoise() float64 { return math.Sqrt(Sigma*Sigma + 1.0/12) }

// secretVariance is the variance of a coefficient of the secret.
func secretVariance(p *ir.Params) float64 {
	if p.Secret == ir.SecretH192 {
		return float64(secretWeight(p.N())) / float64(p.N())
	}
	return 2.0 / 3
}

// ringFactor is the growth of variance in a product of two polynomials, per
// coefficient: N in the standard ring; 2N in the conjugate-invariant one, where
// every coefficient but the first stands for two of a ring of rank 2N.
func ringFactor(p *ir.Params) float64 {
	if p.Ring == ir.RingReal {
		return 2 * float64(p.N())
	}
	return float64(p.N())
}

// RoundingNoise returns the standard deviation, per coefficient, of the noise
// of a division with rounding (rescale, ModDown): a uniform error in c0 and one
// in c1 times the secret.
func RoundingNoise(p *ir.Params) float64 {
	return math.Sqrt((1 + ringFactor(p)*secretVariance(p)) / 12)
}

// KeySwitchNoise returns the standard deviation, per coefficient, of the noise
// that key switching at a level adds before the final rounding: the digits,
// uniform up to the product of their primes, times the noise of the key,
// divided by P.
func KeySwitchNoise(p *ir.Params, level int) float64 {
	logP := 0.0
	for _, q := range p.P {
		logP += math.Log2(float64(q))
	}
	sum := 0.0
	for d := range p.Digits(level) {
		logD := 0.0
		for i := d * len(p.P); i < min((d+1)*len(p.P), level+1); i++ {
			logD += math.Log2(float64(p.Q[i]))
		}
		sum += math.Exp2(2 * (logD - logP))
	}
	return Sigma * math.Sqrt(ringFactor(p)*sum/12)
}

// RaiseNoise returns the standard deviation, per coefficient, of the noise that
// raising to a level adds: that of the switch to the ephemeral secret modulo
// q_0*p_0 and its rounding, and that of the switch back, whose one digit is below
// q_0.
func RaiseNoise(p *ir.Params, level int) float64 {
	q0, p0 := float64(p.Q[0]), float64(p.P[0])
	there := Sigma * q0 / p0 * math.Sqrt(ringFactor(p)/12)
	rounding := math.Sqrt((1 + math.Min(ir.EphemeralWeight, float64(p.N()))) / 12)
	logP := 0.0
	for _, q := range p.P {
		logP += math.Log2(float64(q))
	}
	back := Sigma * math.Sqrt(ringFactor(p)/12*float64(p.Digits(level))) * math.Exp2(math.Log2(q0)-logP)
	return math.Sqrt(there*there + rounding*rounding + back*back + RoundingNoise(p)*RoundingNoise(p))
}
