package lattigo

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"sync"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
)

// SeedBytes is the size of a Seed, keyBytes that of the key in it.
const (
	SeedBytes = keyBytes + 1
	keyBytes  = 32
)

// Seed is a key of 256 bits for AES, and a byte that says how residues are drawn from
// the key stream (kernels.Draw).
type Seed [SeedBytes]byte

// newSeed draws a fresh seed from the operating system.
func newSeed() (s Seed) {
	rand.Read(s[:keyBytes]) // never fails; ends the program if the system has no entropy
	s[keyBytes] = byte(kernels.DrawWide)
	return s
}

// seedOf reads a seed.
func seedOf(b []byte) (s Seed, err error) {
	if len(b) != SeedBytes {
		return s, fmt.Errorf("a seed of %d bytes, want %d", len(b), SeedBytes)
	}
	if s = Seed(b); s.draw() >= kernels.Draws {
		return s, fmt.Errorf("residues are drawn in way %d, this version knows %d: make keys and tier again", s.draw(), kernels.Draws)
	}
	return s, nil
}

// key returns the key.
func (s *Seed) key() *[keyBytes]byte { return (*[keyBytes]byte)(s[:]) }

// draw says how residues are drawn.
func (s *Seed) draw() kernels.Draw { return kernels.Draw(s[keyBytes]) }

// stream is an AES-256 counter-mode key stream.
type stream struct {
	c   cipher.Stream
	buf [2048]byte
	at  int
}

// newStream starts the key stream of a seed for one (element, digit, prime).
// The high 64 bits of the counter block hold the triple, the low 64 count
// blocks, so no two streams of one seed overlap.
func newStream(seed *Seed, element uint16, digit, prime int) *stream {
	b, err := aes.NewCipher(seed[:keyBytes])
	if err != nil {
		panic("BUG: " + err.Error())
	}
	var iv [aes.BlockSize]byte
	half := rowName(element, digit, prime)
	copy(iv[:], half[:])
	s := &stream{c: cipher.NewCTR(b, iv[:])}
	s.at = len(s.buf)
	return s
}

// rowName is the half of the counter block that tells streams of a seed apart.
func rowName(element uint16, digit, prime int) (iv [8]byte) {
	binary.BigEndian.PutUint16(iv[0:], element)
	binary.BigEndian.PutUint16(iv[2:], uint16(digit))
	binary.BigEndian.PutUint16(iv[4:], uint16(prime))
	return iv
}

// uniformRow fills a row with exactly uniform residues modulo q from the key stream
// of a seed for the name of a row, see rowName.
func uniformRow(z []uint64, q uint64, seed *Seed, name [8]byte) {
	var s kernels.Seed
	s.Set(seed.key(), seed.draw())
	s.Fill(z, q, name)
}

// Elements of seeded objects.
const (
	elementKey    = 1 // uniform half of an evaluation key
	elementCipher = 2 // uniform half of a fresh ciphertext
	elementNoise  = 3 // noise; its seed is never stored
	elementSecret = 4 // secret key; its seed is never stored
	elementSparse = 5 // ephemeral secret, from a seed that follows from the secret key
)

// special is added to the index of a prime of P, so that a prime of Q keeps its
// stream at every level.
const special = 1 << 15

func (s *stream) refill() {
	clear(s.buf[:])
	s.c.XORKeyStream(s.buf[:], s.buf[:])
	s.at = 0
}

func (s *stream) word() uint64 {
	if s.at == len(s.buf) {
		s.refill()
	}
	w := binary.LittleEndian.Uint64(s.buf[s.at:])
	s.at += 8
	return w
}

// below returns an exactly uniform integer in [0, n): a word cut to the length of
// n, drawn again until it is below.
func (s *stream) below(n uint64) uint64 {
	mask := uint64(1)<<bits.Len64(n) - 1
	for {
		if w := s.word() & mask; w < n {
			return w
		}
	}
}

// Sigma is the standard deviation of the noise, the customary 3.2.
const Sigma = 3.2

// gaussTail is the largest noise in absolute value: beyond six deviations the
// mass is below 2^-28 and never drawn, as the security estimates assume.
const gaussTail = 19

// gaussTable holds, for k = 0..gaussTail, the probability of |X| <= k times 2^63.
var gaussTable = sync.OnceValue(func() *[gaussTail + 1]uint64 {
	var mass [gaussTail + 1]float64
	sum := 0.0
	for k := gaussTail; k >= 0; k-- { // small terms first
		mass[k] = math.Exp(-float64(k*k) / (2 * Sigma * Sigma))
		if k > 0 {
			mass[k] *= 2
		}
		sum += mass[k]
	}
	var t [gaussTail + 1]uint64
	acc := 0.0
	for k := range t {
		acc += mass[k]
		t[k] = uint64(math.Min(acc/sum, 1) * (1 << 63))
	}
	t[gaussTail] = 1 << 63
	return &t
})

// gauss draws one discrete Gaussian of deviation Sigma by inverting its
// distribution, reading the whole table each time so that the time taken does
// not depend on the value.
func (s *stream) gauss() int64 {
	w := s.word()
	u, sign := w>>1, int64(w&1)
	k := int64(0)
	for _, t := range gaussTable() {
		_, below := bits.Sub64(u, t, 0) // 1 if u < t
		k += int64(1 - below)
	}
	return (k ^ -sign) + sign
}

// gaussPoly fills c with independent noise.
func (s *stream) gaussPoly(c []int64) {
	for i := range c {
		c[i] = s.gauss()
	}
}

// secretWeight is the Hamming weight of a sparse secret, which test parameters may
// be too small to hold.
func secretWeight(n int) int { return min(192, n) }

// ternary fills c with a secret of the given distribution.
func (s *stream) ternary(c []int64, d ir.Secret) {
	if d == ir.SecretH192 {
		s.sparse(c, secretWeight(len(c)))
		return
	}
	for i := range c {
		c[i] = int64(s.below(3)) - 1
	}
}

// sparse fills c with a ternary polynomial of exactly the given weight.
func (s *stream) sparse(c []int64, weight int) {
	clear(c)
	for weight > 0 {
		i := s.below(uint64(len(c)))
		if c[i] == 0 {
			c[i] = 1 - 2*int64(s.word()&1)
			weight--
		}
	}
}

// ephemeral derives the ephemeral secret of bootstrapping from the main one, so
// that keys under either can be made at any time from the same file. Who does not
// know the main secret sees it as independent of it.
func ephemeral(coef []int64) []int64 {
	b := make([]byte, len(coef))
	for i, c := range coef {
		b[i] = byte(c + 1)
	}
	k, err := hkdf.Key(sha256.New, b, nil, "home ephemeral secret 1", keyBytes)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	var seed Seed
	copy(seed[:], k)
	out := make([]int64, len(coef))
	newStream(&seed, elementSparse, 0, 0).sparse(out, min(ir.EphemeralWeight, len(out)))
	clear(b)
	clear(k)
	clear(seed[:])
	return out
}

// signedRow writes small signed integers as residues.
func (m *modulus) signedRow(z []uint64, c []int64) {
	for i, x := range c {
		z[i] = uint64(x) + m.Q&uint64(x>>63)
	}
}
