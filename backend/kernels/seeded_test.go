package kernels

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSeeded holds sums over rows that are made on the way against those over the rows
// as Fill makes them, for rows of less than a block, of one and of several, one sum after
// the other with the same working memory.
func TestSeeded(t *testing.T) {
	for _, form := range Supported() {
		rng := rand.New(rand.NewPCG(7, 1))
		var s Seeded
		for _, q := range testPrimes {
			m := rowsOf(t, q, form)
			for _, n := range []int{64, seededBlock, 4 * seededBlock} {
				for _, terms := range []int{3, 1, 7} {
					testSeeded(t, rng, &s, m, n, terms)
				}
			}
		}
	}
}

func testSeeded(t *testing.T, rng *rand.Rand, s *Seeded, m *Modulus, n, terms int) {
	t.Helper()
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rng.Uint32())
	}
	s.Set(&seed, DrawWide)
	name := func(k int) (b [8]byte) {
		binary.BigEndian.PutUint64(b[:], uint64(k)<<40|1)
		return b
	}
	var x, y0, y1 [][]uint64
	for k := range terms {
		row := make([]uint64, n)
		s.Fill(row, m.Q, name(k))
		x, y0, y1 = append(x, words(rng, n, m.Q, m.Q)), append(y0, words(rng, n, m.Q, m.Q)), append(y1, row)
	}
	begin := func() {
		for k := range terms {
			s.Row(k, m.Q, name(k))
		}
	}
	want, got := [2][]uint64{make([]uint64, n), make([]uint64, n)}, [2][]uint64{make([]uint64, n), make([]uint64, n)}
	compare := func(what string) {
		t.Helper()
		for k := range want {
			if !slices.Equal(got[k], want[k]) {
				t.Errorf("%s modulo %d, %d values, %d terms: sum %d of %s is wrong", m.Form(), m.Q, n, terms, k, what)
			}
			clear(got[k])
		}
	}
	m.Dot(want[0], want[1], x, y0, y1)
	begin()
	s.Dot(m, got[0], got[1], x, y0)
	compare("Dot")
	var phi Automorphism
	phi.Set(n, uint64(2*n), 5, m.Form())
	for _, a := range [][]uint64{nil, words(rng, n, m.Q, m.Q)} {
		for _, far := range []bool{false, true} {
			m.DotMap(want[0], want[1], a, 2, 0, x, y0, y1, &phi, far)
			begin()
			s.DotMap(m, got[0], got[1], a, 2, x, y0, &phi, far)
			compare("DotMap")
		}
	}
}

// TestSeededAllocates holds the vector forms to no allocation.
func TestSeededAllocates(t *testing.T) {
	if !VectorSeeds() {
		t.Skip("no vector kernels for uniform rows here")
	}
	m := rowsOf(t, testPrimes[0], IFMA)
	var s Seeded
	x, y, z0, z1 := [][]uint64{make([]uint64, 64)}, [][]uint64{make([]uint64, 64)}, make([]uint64, 64), make([]uint64, 64)
	if n := testing.AllocsPerRun(10, func() {
		s.Set(new([32]byte), DrawWide)
		s.Row(0, m.Q, [8]byte{})
		s.Dot(m, z0, z1, x, y)
	}); n != 0 {
		t.Errorf("a sum allocates %v objects", n)
	}
}
