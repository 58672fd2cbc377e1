package kernels

import (
	"fmt"
	"math/bits"
)

// Automorphism is X -> X^g on transformed rows: it permutes their values. The zero
// value is none; see Set.
type Automorphism struct {
	from   []uint32 // word i: eight times the group that group i comes from, plus a carry
	to     []uint32 // its inverse: word i has eight times the group that group i goes to, plus the same carry
	lanes  [8][8]uint64
	vector bool
}

// Set prepares the map for rows of n values at roots psi of the given order: 2n, or 4n
// in the conjugate-invariant ring, n being a power of two from 8 on. g is odd. It
// allocates when n grows.
//
// The transform stores the value at psi^(2j+1) at the bit reversal of j, and the map
// takes it from j*g + (g-1)/2. The three low bits of a position are the three high bits
// of j, so that eight neighbours come from eight neighbours; the carry out of the other
// bits chooses among the permutations within the group.
func (a *Automorphism) Set(n int, order, g uint64, f Form) {
	if n < 8 || n&(n-1) != 0 || order != uint64(2*n) && order != uint64(4*n) || g&1 == 0 {
		panic(fmt.Sprintf("BUG: an automorphism by %d of %d values at roots of order %d", g, n, order))
	}
	if a.vector = f != Portable; cap(a.from) < n/8 {
		a.from, a.to = make([]uint32, n/8), make([]uint32, n/8)
	}
	a.from, a.to = a.from[:n/8], a.to[:n/8]
	if order > uint64(2*n) && g&3 == 3 {
		g = -g & (order - 1) // the same there; only values with j even are stored
	}
	mask := uint32(order>>1 - 1) // of exponents
	width := uint(bits.Len32(mask))
	mul, add := uint32(g), uint32((g-1)>>1)
	shift := 32 - width
	for i := range a.from {
		j := (bits.Reverse32(uint32(8*i))>>shift*mul + add) & mask
		from, carry := bits.Reverse32(j)>>shift>>3, j>>(width-3)
		a.from[i] = from<<3 | carry
		a.to[from] = uint32(8*i) | carry
	}
	rev3 := func(x uint32) uint32 { return x&1<<2 | x&2 | x>>2&1 }
	for c := range uint32(8) {
		for k := range uint32(8) {
			a.lanes[c][k] = uint64(rev3((rev3(k)*mul + c) & 7))
		}
	}
}

// Apply sets z to the image of x. The two must not overlap.
func (a *Automorphism) Apply(z, x []uint64) {
	if len(z) != 8*len(a.from) || len(z) == 0 {
		panic(fmt.Sprintf("BUG: an automorphism of %d values for %d", 8*len(a.from), len(z)))
	}
	like(z, x)
	apart(z, x)
	if a.vector {
		dqPermute(&z[0], &x[0], &a.from[0], &a.lanes, len(a.from))
		return
	}
	for i, f := range a.from {
		out, in, lane := eight(z, 8*i), eight(x, int(f&^7)), &a.lanes[f&7]
		for k := range out {
			out[k] = in[lane[k]&7]
		}
	}
}
