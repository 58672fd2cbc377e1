package ir

import (
	"fmt"
	"math/big"
	"math/bits"
)

// Ring names the polynomial ring ciphertexts live in.
type Ring string

// Rings. The conjugate-invariant ring Z[X+X^-1]/(X^2N+1) has rank N and holds
// N real slots; the standard ring Z[X]/(X^N+1) holds N/2 slots, of which only
// the real part is used. (Kim and Song, ICISC 2018.)
const (
	RingStandard Ring = "standard"
	RingReal     Ring = "conjugate-invariant"
)

// Secret names the distribution of the secret key.
type Secret string

// Secret distributions.
const (
	SecretTernary Secret = "ternary"    // uniform over {-1,0,1}
	SecretH192    Secret = "sparse-192" // ternary of Hamming weight 192
)

// Params is a full set of CKKS parameters: concrete primes, not sizes, so that
// client and server agree on every bit and the client can recompute the
// security bound by itself.
type Params struct {
	Name     string   `cbor:"name"`
	LogN     int      `cbor:"log_n"`
	Ring     Ring     `cbor:"ring"`
	Secret   Secret   `cbor:"secret"`
	Q        []uint64 `cbor:"q"` // q_0 .. q_L
	P        []uint64 `cbor:"p"` // special primes of key switching
	LogScale int      `cbor:"log_scale"`
	// Insecure is a stamp set when the user asked for test parameters. It is
	// information for people; CheckSecurity never looks at it.
	Insecure bool `cbor:"insecure"`
}

// N returns the ring degree (the rank in which the secret is sampled).
func (p *Params) N() int { return 1 << p.LogN }

// Slots returns the number of real slots of a ciphertext.
func (p *Params) Slots() int {
	if p.Ring == RingReal {
		return p.N()
	}
	return p.N() / 2
}

// MaxLevel returns the level of a fresh ciphertext under the whole chain.
func (p *Params) MaxLevel() int { return len(p.Q) - 1 }

// Digits returns the number of gadget digits of a key at a level: each digit
// groups as many primes of Q as there are special primes.
func (p *Params) Digits(level int) int { return (level + len(p.P)) / len(p.P) }

// LogQP returns log2 of the product of all primes, rounded up to a whole bit.
func (p *Params) LogQP() int {
	prod := big.NewInt(1)
	for _, q := range p.Q {
		prod.Mul(prod, new(big.Int).SetUint64(q))
	}
	for _, q := range p.P {
		prod.Mul(prod, new(big.Int).SetUint64(q))
	}
	return prod.BitLen()
}

// Slabs returns the size of an object of the given kind and level in limbs of
// N*8 bytes, the unit in which residency is planned.
func (p *Params) Slabs(k Kind, level int) int {
	q, qp := level+1, level+1+len(p.P)
	switch k {
	case CipherKind:
		return 2 * q
	case CipherQPKind:
		return 2 * qp
	case DigitsKind:
		return p.Digits(level) * qp
	case PlainKind:
		return q
	case PlainQPKind:
		return qp
	case KeyKind:
		return 2 * p.Digits(level) * qp
	case SparseKeyKind:
		return 4 // two polynomials modulo q_0 and p_0
	}
	panic("BUG: no slab size for kind " + k.String())
}

// SlabBytes returns the bytes of one limb.
func (p *Params) SlabBytes() int { return p.N() * 8 }

// securityBound is the largest log2(QP) for 128 bits of classical security.
// Ternary: Bossuat et al., "Security Guidelines for Implementing Homomorphic
// Encryption", ePrint 2024/463, table 5.2. Sparse h=192: the bounds of
// Bossuat, Troncoso-Pastoriza and Hubaux, ePrint 2022/024. What is not listed
// is refused.
var securityBound = map[Secret]map[int]int{
	SecretTernary: {12: 106, 13: 214, 14: 430, 15: 868, 16: 1747},
	SecretH192:    {15: 768, 16: 1546},
}

// SecurityBound returns the largest log2(QP) that keeps 128 bits for a secret
// of rank 2^logN, and false where no bound is known.
func SecurityBound(s Secret, logN int) (int, bool) {
	b, ok := securityBound[s][logN]
	return b, ok
}

// CheckSecurity recomputes from the primes and the secret whether the
// parameters reach 128 bits. The bound of the conjugate-invariant ring is that
// of its rank N, in which the secret is sampled, never 2N. The error says what
// was found and what is allowed.
func (p *Params) CheckSecurity() error {
	bound, ok := SecurityBound(p.Secret, p.LogN)
	if !ok {
		return fmt.Errorf("parameters %q: no 128-bit bound is known for a %s secret at N=2^%d: refused", p.Name, p.Secret, p.LogN)
	}
	if got := p.LogQP(); got > bound {
		return fmt.Errorf("parameters %q: log2(QP)=%d exceeds %d, the 128-bit bound for a %s secret at N=2^%d: refused", p.Name, got, bound, p.Secret, p.LogN)
	}
	return nil
}

// EphemeralWeight is the Hamming weight of the ephemeral secret under which a
// ciphertext stands while its modulus is raised, so that the multiples of q_0
// this adds to the message stay small (sparse-secret encapsulation: Bossuat,
// Troncoso-Pastoriza and Hubaux, ePrint 2022/024).
const EphemeralWeight = 32

// ephemeralBound is the largest log2(q_0*p_0) under which an ephemeral secret
// keeps 128 bits, by log2 N.
var ephemeralBound = map[int]int{16: 121}

// CheckBootstrap recomputes whether bootstrapping keeps 128 bits: the ephemeral
// secret only ever meets q_0*p_0, and that must lie within its bound.
func (p *Params) CheckBootstrap() error {
	if p.Ring != RingStandard {
		return fmt.Errorf("parameters %q: bootstrapping needs the standard ring, not the %s one", p.Name, p.Ring)
	}
	bound, ok := ephemeralBound[p.LogN]
	if !ok {
		return fmt.Errorf("parameters %q: no 128-bit bound is known for bootstrapping at N=2^%d: refused", p.Name, p.LogN)
	}
	qp := new(big.Int).SetUint64(p.Q[0])
	if got := qp.Mul(qp, new(big.Int).SetUint64(p.P[0])).BitLen(); got > bound {
		return fmt.Errorf("parameters %q: log2(q0*p0)=%d exceeds %d, the 128-bit bound for the ephemeral secret of bootstrapping at N=2^%d: refused", p.Name, got, bound, p.LogN)
	}
	return nil
}

// Check verifies that the parameters are well formed: known ring and secret,
// sizes in range, distinct NTT-friendly primes. It does not judge security.
func (p *Params) Check() error {
	if p.LogN < 4 || p.LogN > 16 {
		return fmt.Errorf("parameters %q: ring degree 2^%d is outside 2^4..2^16", p.Name, p.LogN)
	}
	if p.Ring != RingStandard && p.Ring != RingReal {
		return fmt.Errorf("parameters %q: unknown ring %q", p.Name, p.Ring)
	}
	if p.Secret != SecretTernary && p.Secret != SecretH192 {
		return fmt.Errorf("parameters %q: unknown secret distribution %q", p.Name, p.Secret)
	}
	if len(p.Q) < 1 || len(p.Q) > 64 || len(p.P) < 1 || len(p.P) > 8 {
		return fmt.Errorf("parameters %q: %d primes of Q and %d of P", p.Name, len(p.Q), len(p.P))
	}
	if p.LogScale < 10 || p.LogScale > 60 {
		return fmt.Errorf("parameters %q: scale 2^%d is outside 2^10..2^60", p.Name, p.LogScale)
	}
	order := uint64(2) << p.LogN // primes must be 1 modulo the order of the roots
	if p.Ring == RingReal {
		order <<= 1
	}
	seen := map[uint64]bool{}
	for _, q := range append(append([]uint64{}, p.Q...), p.P...) {
		switch {
		case bits.Len64(q) < 10 || bits.Len64(q) > 61:
			return fmt.Errorf("parameters %q: prime %d has %d bits", p.Name, q, bits.Len64(q))
		case q%order != 1:
			return fmt.Errorf("parameters %q: %d is not 1 modulo %d", p.Name, q, order)
		case seen[q]:
			return fmt.Errorf("parameters %q: prime %d occurs twice", p.Name, q)
		case !new(big.Int).SetUint64(q).ProbablyPrime(20):
			return fmt.Errorf("parameters %q: %d is not prime", p.Name, q)
		}
		seen[q] = true
	}
	return nil
}
