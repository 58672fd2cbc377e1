package kernels

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// uniformWords is Seed.Fill word by word.
func uniformWords(n int, q uint64, seed *[32]byte, draw Draw, name [8]byte) []uint64 {
	b, err := aes.NewCipher(seed[:])
	if err != nil {
		panic(err)
	}
	c := cipher.NewCTR(b, append(name[:], make([]byte, 8)...))
	width := uint(bits.Len64(q) + 3*int(draw))
	modulus := new(big.Int).SetUint64(q)
	bound := new(big.Int).Lsh(big.NewInt(1), width) // the largest multiple of q up to 2^width
	bound.Sub(bound, new(big.Int).Mod(bound, modulus))
	var z []uint64
	for len(z) < n {
		var w [8]byte
		c.XORKeyStream(w[:], w[:])
		x := new(big.Int).SetUint64(binary.LittleEndian.Uint64(w[:]) << (64 - width) >> (64 - width))
		if x.Cmp(bound) < 0 {
			z = append(z, x.Mod(x, modulus).Uint64())
		}
	}
	return z
}

// seeds are the forms.
func seeds() map[string]func(seed *[32]byte, draw Draw) *Seed {
	form := func(vector bool) func(*[32]byte, Draw) *Seed {
		return func(seed *[32]byte, draw Draw) *Seed {
			s := new(Seed)
			s.set(seed, draw, vector)
			return s
		}
	}
	out := map[string]func(*[32]byte, Draw) *Seed{"portable": form(false)}
	if hasVAES() {
		out["vaes"] = form(true)
	}
	return out
}

// TestUniform holds every form against the stream read word by word, for moduli
// that leave out hardly a word, one in nine and nearly half; and looks for writes beyond the row.
func TestUniform(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 8))
	for _, q := range []uint64{2, 3, 257, 1 << 20, 1<<20 + 7, 1<<45 - 229375, 1<<45 + 1, 1<<49 + 1, 1<<50 - 1, 1 << 60, 1<<60 + 33, 9<<57 + 1, 1<<61 - 1} {
		for _, n := range []int{0, 1, 7, 62, 63, 64, 65, 127, 128, 129, 1000, 2048, 2049, 8192, 9999} {
			var seed [32]byte
			var iv [8]byte
			for i := range seed {
				seed[i] = byte(rng.Uint32())
			}
			for i := range iv {
				iv[i] = byte(rng.Uint32())
			}
			draw := Draw(n % int(Draws))
			want := uniformWords(n, q, &seed, draw, iv)
			for name, seeded := range seeds() {
				z := slices.Repeat([]uint64{^uint64(0)}, n+72)
				seeded(&seed, draw).Fill(z[3:3+n:3+n], q, iv)
				if !slices.Equal(z[3:3+n], want) {
					t.Fatalf("%s: %d residues below %d differ", name, n, q)
				}
				clear(z[3 : 3+n])
				for i, x := range z {
					if x != ^uint64(0) && (i < 3 || i >= 3+n) {
						t.Fatalf("%s: %d residues below %d: word %d beyond the row was written", name, n, q, i-3-n)
					}
				}
			}
		}
	}
}

func FuzzUniform(f *testing.F) {
	f.Add([]byte("seed"), uint64(1<<49+5), uint16(700), true)
	f.Fuzz(func(t *testing.T, key []byte, q uint64, n uint16, wide bool) {
		draw := DrawNarrow
		if wide {
			draw = DrawWide
		}
		var seed [32]byte
		var iv [8]byte
		copy(iv[:], key[copy(seed[:], key):])
		q = 2 + q%(MaxUniform-2)
		want := uniformWords(int(n%4096), q, &seed, draw, iv)
		for name, seeded := range seeds() {
			z := make([]uint64, len(want))
			if seeded(&seed, draw).Fill(z, q, iv); !slices.Equal(z, want) {
				t.Errorf("%s differs", name)
			}
		}
	})
}

func BenchmarkUniform(b *testing.B) {
	const n = 1 << 16
	for _, q := range []uint64{1<<49 - 1, 1<<49 + 1} {
		for name, seeded := range seeds() {
			b.Run(fmt.Sprintf("bits=%d/%s", bits.Len64(q), name), func(b *testing.B) {
				z, s := make([]uint64, n), seeded(new([32]byte), DrawWide)
				for b.Loop() {
					s.Fill(z, q, [8]byte{})
				}
				b.SetBytes(8 * n)
			})
		}
	}
}
