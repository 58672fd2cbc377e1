package lattigo

import (
	"math"

	"github.com/home-fhe/home/ir"
)

// secret is a secret key expanded modulo every prime.
type secret struct {
	coef []int64    // small coefficients
	ntt  [][]uint64 // per prime, transformed, Montgomery form
}

func (r *rings) expandSecret(coef []int64) *secret {
	s := &secret{coef: coef, ntt: makeRows(len(r.mods), r.n)}
	for i, m := range r.mods {
		m.signedRow(s.ntt[i], coef)
		m.ntt(s.ntt[i], s.ntt[i])
		m.mulScalarRow(s.ntt[i], s.ntt[i], m.r2)
	}
	return s
}

// encryptRows writes a fresh encryption of the coefficients c (already scaled)
// at the given level: c1 is the uniform expansion of the seed, c0 = -c1*s + c + e.
func (r *rings) encryptRows(s *secret, seed *[SeedBytes]byte, noise *stream, c []float64, level int, c0, c1 [][]uint64) {
	e := make([]int64, r.n)
	noise.gaussPoly(e)
	t := make([]uint64, r.n)
	for i := range level + 1 {
		m := r.mods[i]
		newStream(seed, elementCipher, 0, i).uniform(c1[i], m.q)
		m.residues(c0[i], c)
		m.signedRow(t, e)
		m.addRow(c0[i], c0[i], t)
		m.ntt(c0[i], c0[i])
		m.mulRow(t, c1[i], s.ntt[i])
		m.subRow(c0[i], c0[i], t)
	}
	clear(e)
}

// decryptCoefs writes the coefficients of a ciphertext, divided by its scale.
func (r *rings) decryptCoefs(s *secret, c0, c1 [][]uint64, scale ir.Scale, c []float64) {
	rows := makeRows(len(c0), r.n)
	for i, z := range rows {
		m := r.mods[i]
		m.macRow(z, c0[i], c1[i], s.ntt[i])
		m.intt(z, z)
	}
	centred(r.mods[:len(rows)], rows, scale.Float(r.p.Q), c)
}

// keyTarget returns, in coefficients, the secret that a key switches from: s^2
// for relinearisation (nil: it is no small polynomial and is formed per prime),
// phi^-1(s) as the secret it switches to for rotations.
//
// Galois key for g: the product with c1 must decrypt under phi^-1(s) to P*c1*s,
// since phi is applied afterwards.
func (r *rings) keyPolys(s *secret, rot, prime int, from, to, t []uint64, perm []uint32, l *lanes) {
	m := r.mods[prime]
	if rot == 0 {
		// from = s^2 in plain form, to = s in Montgomery form
		copy(to, s.ntt[prime])
		m.mulRow(t, s.ntt[prime], s.ntt[prime]) // Montgomery form of s^2
		m.mulScalarRow(from, t, 1)
		return
	}
	m.mulScalarRow(from, s.ntt[prime], 1)
	r.permuteRow(to, s.ntt[prime], perm, l)
}

// keyDigitLimb writes the limb of one digit of an evaluation key: a is expanded
// from the seed, b = -a*to + e (+ P*from on the primes of the digit), both in
// Montgomery form. from and to come from keyPolys, e holds the noise of the
// digit, prime counts over Q and P.
func (r *rings) keyDigitLimb(seed *[SeedBytes]byte, digit, prime int, inGroup bool, from, to []uint64, e []int64, a, b, t []uint64) {
	m := r.mods[prime]
	r.keyUniform(seed, digit, prime, a)
	m.signedRow(b, e)
	m.ntt(b, b)
	if inGroup {
		m.macScalarRow(b, b, from, r.pModQ[prime])
	}
	m.mulScalarRow(b, b, m.r2)
	m.mulRow(t, a, to)
	m.subRow(b, b, t)
}

// keyUniform expands the uniform half of a key; a uniform residue is uniform in
// Montgomery form too.
func (r *rings) keyUniform(seed *[SeedBytes]byte, digit, prime int, a []uint64) {
	id := prime
	if nq := len(r.p.Q); prime >= nq {
		id = special + prime - nq
	}
	newStream(seed, elementKey, digit, id).uniform(a, r.mods[prime].q)
}

// makeKey generates the evaluation key of a rotation (0: relinearisation) at a
// level. b(digit, limb) returns the row to write, limb counting over QP_level;
// done is called when a row is complete.
func (r *rings) makeKey(s *secret, rot, level int, seed *[SeedBytes]byte, b func(digit, limb int) []uint64, done func(digit, limb int) error) error {
	rows := makeRows(4, r.n)
	perm := make([]uint32, r.n/8)
	var l lanes
	if rot != 0 {
		r.automorphism(perm, &l, r.galoisInverse(r.galois(rot)))
	}
	noiseSeed := newSeed()
	noise := newStream(&noiseSeed, elementNoise, 0, 0)
	digits := r.p.Digits(level)
	e := make([][]int64, digits)
	for d := range e {
		e[d] = make([]int64, r.n)
		noise.gaussPoly(e[d])
	}
	for d := range digits {
		lo, hi := r.digitPrimes(d, level)
		for i := range level + 1 + len(r.p.P) {
			prime := r.target(i, level)
			r.keyPolys(s, rot, prime, rows[0], rows[1], rows[2], perm, &l)
			r.keyDigitLimb(seed, d, prime, i >= lo && i < hi, rows[0], rows[1], e[d], rows[2], b(d, i), rows[3])
			if err := done(d, i); err != nil {
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
		return math.Min(192, float64(p.N())) / float64(p.N())
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
