package store

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// Whatever computes it, the checksum is that of the standard library: at every length
// around the sizes that matter, at every alignment.
func TestChecksum(t *testing.T) {
	b := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{1})
	if _, err := rng.Read(b); err != nil {
		t.Fatal(err)
	}
	check := func(at, n int) {
		t.Helper()
		if got, want := checksum(b[at:at+n]), crc32.Checksum(b[at:at+n], castagnoli); got != want {
			t.Fatalf("%d bytes from %d on: %08x, want %08x", n, at, got, want)
		}
	}
	for n := range 2048 {
		check(n%97, n)
	}
	for _, n := range []int{256 << 10, 512 << 10, 1<<20 - 64} {
		for d := -3; d <= 3; d++ {
			check(13, n-16+d)
		}
	}
	b = make([]byte, 4096)
	check(0, len(b))
	for i := range b { // every bit of a message counts
		b[i] = 1 << (i % 8)
		check(0, len(b))
		b[i] = 0
	}
	if got, want := checksum([]byte("123456789")), uint32(0xe3069283); got != want {
		t.Errorf("the check value is %08x, want %08x", got, want)
	}
	t.Logf("carry-less products: %v", canFold)
}

func BenchmarkChecksum(b *testing.B) {
	const size = 512 << 10
	for _, m := range []struct {
		name  string
		slabs int
	}{{"one", 1}, {"many", 512}} {
		mem := make([]byte, m.slabs*size)
		b.Run(m.name, func(b *testing.B) {
			b.SetBytes(size)
			for i := range b.N {
				checksum(mem[i%m.slabs*size:][:size])
			}
		})
	}
}
