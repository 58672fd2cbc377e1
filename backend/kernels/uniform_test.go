package kernels

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// uniformWords is Uniform word by word.
func uniformWords(n int, q uint64, seed *[32]byte, iv *[8]byte) []uint64 {
	b, err := aes.NewCipher(seed[:])
	if err != nil {
		panic(err)
	}
	c := cipher.NewCTR(b, append(iv[:], make([]byte, 8)...))
	var z []uint64
	for len(z) < n {
		var w [8]byte
		c.XORKeyStream(w[:], w[:])
		if x := binary.LittleEndian.Uint64(w[:]) & (1<<bits.Len64(q) - 1); x < q {
			z = append(z, x)
		}
	}
	return z
}

func uniforms() map[string]func([]uint64, uint64, *[32]byte, *[8]byte) {
	out := map[string]func([]uint64, uint64, *[32]byte, *[8]byte){"portable": uniformPortable, "chosen": Uniform}
	if hasVAES() {
		out["vaes"] = uniformVector
	}
	return out
}

// TestUniform holds every form against the stream read word by word, for moduli
// that reject nearly half of the words, hardly any, and all but one in two; and
// looks for writes beyond the row.
func TestUniform(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 8))
	for _, q := range []uint64{1, 2, 3, 257, 1 << 20, 1<<20 + 7, 1<<45 - 229375, 1<<49 + 1, 1<<50 - 1, 1<<60 + 33, 1<<61 - 1, 1<<63 + 1, 1<<64 - 1} {
		for _, n := range []int{0, 1, 7, 63, 64, 65, 127, 129, 1000, 2048, 2049, 8192, 10000} {
			var seed [32]byte
			var iv [8]byte
			for i := range seed {
				seed[i] = byte(rng.Uint32())
			}
			for i := range iv {
				iv[i] = byte(rng.Uint32())
			}
			want := uniformWords(n, q, &seed, &iv)
			for name, f := range uniforms() {
				z := slices.Repeat([]uint64{^uint64(0)}, n+72)
				f(z[3:3+n:3+n], q, &seed, &iv)
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
	f.Add([]byte("seed"), uint64(1<<49+5), uint16(700))
	f.Fuzz(func(t *testing.T, key []byte, q uint64, n uint16) {
		var seed [32]byte
		var iv [8]byte
		copy(iv[:], key[copy(seed[:], key):])
		q = max(q, 1)
		want := uniformWords(int(n%4096), q, &seed, &iv)
		for name, f := range uniforms() {
			z := make([]uint64, len(want))
			if f(z, q, &seed, &iv); !slices.Equal(z, want) {
				t.Errorf("%s differs", name)
			}
		}
	})
}

func BenchmarkUniform(b *testing.B) {
	const n = 1 << 16
	for _, q := range []uint64{1<<49 - 1, 1<<49 + 1} {
		for name, f := range uniforms() {
			b.Run(fmt.Sprintf("bits=%d/%s", bits.Len64(q), name), func(b *testing.B) {
				z := make([]uint64, n)
				for b.Loop() {
					f(z, q, new([32]byte), new([8]byte))
				}
				b.SetBytes(8 * n)
			})
		}
	}
}
