package lattigo

import (
	"math/bits"

	"github.com/home-fhe/home/backend/kernels"
)

// twiddles are the constants of the vector transform of one prime below 2^50:
// the roots of Lattigo's tables in plain form with their 52-bit quotients
// (Shoup's trick), in the order in which the passes read them. The transform is
// that of Lattigo, entry for entry (Harvey, J. Symb. Comp. 2014, for the lazy
// butterflies; Kim and Song, ICISC 2018, for the conjugate-invariant ring).
type twiddles struct {
	fold      bool // conjugate-invariant: fold before the transform
	f, fs     uint64
	w, ws     []uint64 // layer with h blocks reads w[h..2h)
	last      []uint64 // blockWords per block of 64 residues, see blockTwiddles
	inv, invS []uint64
	first     []uint64
	g, gs     uint64 // inverse fold
	n, ns     uint64 // 1/N, or 1/2N in the conjugate-invariant ring
	// short transforms polynomials in X^(2^(i+1)) forward: it has the tables of
	// the ring of as many times fewer coefficients, whose roots are the first of
	// this ring.
	short []*twiddles
}

// mostGap is log2 of the widest gap between coefficients for which there is a
// shorter transform.
const mostGap = 3

// shoup returns floor(w*2^52/q).
func shoup(w, q uint64) uint64 {
	hi, lo := bits.Mul64(w, 1<<52)
	s, _ := bits.Div64(hi, lo, q)
	return s
}

// layerRoots returns Lattigo's roots in plain form, the layer with h blocks at h..2h.
func layerRoots(m *modulus, roots []uint64, n int, fold bool) []uint64 {
	w := make([]uint64, n)
	for h := 1; h < n; h <<= 1 {
		for i := range h {
			at := h + i
			if fold {
				at += h
			}
			w[h+i] = m.mul64(roots[at], 1)
		}
	}
	return w
}

// wideTransform returns the transform of Lattigo's tables for the wide kernels.
func wideTransform(m *modulus, n int, fold bool) *kernels.Transform {
	t := &kernels.Transform{
		N: n, Forward: layerRoots(m, m.sub.RootsForward, n, fold), Inverse: layerRoots(m, m.sub.RootsBackward, n, fold),
		NInv: m.mul64(m.sub.NInv, 1), Fold: fold,
	}
	if fold {
		t.F, t.G = m.mul64(m.sub.RootsForward[1], 1), m.mul64(m.sub.RootsBackward[1], 1)
	}
	return t
}

// newTwiddles builds the tables for a prime of a ring of n coefficients.
func newTwiddles(m *modulus, n int, fold bool) *twiddles {
	plain := func(root uint64) uint64 { return m.mul64(root, 1) } // out of Lattigo's Montgomery form
	t := &twiddles{fold: fold}
	layers := func(roots []uint64) (w, ws []uint64) {
		w, ws = layerRoots(m, roots, n, fold), make([]uint64, n)
		for i := range w {
			ws[i] = shoup(w[i], m.q)
		}
		return w, ws
	}
	t.w, t.ws = layers(m.sub.RootsForward)
	t.inv, t.invS = layers(m.sub.RootsBackward)
	for k := n / 2; k >= max(64, n>>mostGap); k /= 2 {
		t.short = append(t.short, &twiddles{fold: fold, last: blockTwiddles(m, t.w[:k], t.ws[:k])})
	}
	t.last, t.first = blockTwiddles(m, t.w, t.ws), blockTwiddles(m, t.inv, t.invS)
	// The passes read the layers down to blocks of 128; the rest is in the block
	// tables.
	keep := max(2, n/64)
	t.w, t.ws, t.inv, t.invS = t.w[:keep:keep], t.ws[:keep:keep], t.inv[:keep:keep], t.invS[:keep:keep]
	if fold {
		t.f, t.g = plain(m.sub.RootsForward[1]), plain(m.sub.RootsBackward[1])
		t.fs, t.gs = shoup(t.f, m.q), shoup(t.g, m.q)
	}
	for _, u := range t.short {
		u.w, u.ws, u.f, u.fs = t.w, t.ws, t.f, t.fs
	}
	t.n = plain(m.sub.NInv)
	t.ns = shoup(t.n, m.q)
	return t
}

// blockWords is the number of constants of a block of 64 residues.
const blockWords = 72

// blockTwiddles gathers the constants of the six innermost layers block by block.
// The first three layers have word 0 for pairs at distance 32, 1-2 at 16, 3-6 at
// 8, and their quotients eight words on. The others work on the transposed block
// (lane r belongs to row r of eight residues) and, having a constant for every
// pair, do without quotients, in Montgomery form: words 16-23 at distance 4, 24-39
// at 2 (first pair of each row, then second), 40-71 at 1.
func blockTwiddles(m *modulus, w, ws []uint64) []uint64 {
	n := len(w)
	out := make([]uint64, n/64*blockWords)
	for b := range n / 64 {
		o := out[b*blockWords : (b+1)*blockWords]
		for k, w := range [2][]uint64{w, ws} {
			o := o[8*k : 8*k+8]
			o[0] = w[n/64+b]
			copy(o[1:3], w[n/32+2*b:])
			copy(o[3:7], w[n/16+4*b:n/16+4*b+4])
		}
		o = o[16:]
		for r := range 8 {
			o[r] = w[n/8+8*b+r]
			for k := range 2 {
				o[8+8*k+r] = w[n/4+16*b+2*r+k]
			}
			for k := range 4 {
				o[24+8*k+r] = w[n/2+32*b+4*r+k]
			}
		}
		for i := range o {
			o[i] = m.form(o[i])
		}
	}
	return out
}

// forward transforms x, with entries below 4q, to z, fully reduced.
func (t *twiddles) forward(m *modulus, z, x []uint64) {
	n := len(z)
	src := &x[0]
	if t.fold {
		t.foldRow(m, z, x, t.f, t.fs)
		src = &z[0]
	}
	blocks, size := 1, n
	if bits.TrailingZeros(uint(n/64))&1 == 1 {
		nttPass2(&z[0], src, blocks, size/2, &t.w[0], &t.ws[0], m.q)
		src = &z[0]
		blocks, size = 2, n/2
	}
	for ; size > 64; blocks, size = blocks*4, size/4 {
		nttPass4(&z[0], src, blocks, size/4, &t.w[0], &t.ws[0], m.q)
		src = &z[0]
	}
	nttLast(&z[0], src, n/64, &t.last[0], m.q, m.inv)
}

// inverse is the inverse of forward, for entries below q.
func (t *twiddles) inverse(m *modulus, z, x []uint64) {
	n := len(z)
	inttFirst(&z[0], &x[0], n/64, &t.first[0], m.q, m.inv)
	blocks, size := n/256, 256
	for ; size <= n; blocks, size = blocks/4, size*4 {
		inttPass4(&z[0], blocks, size/4, &t.inv[0], &t.invS[0], m.q)
	}
	if size/2 == n {
		inttPass2(&z[0], 1, n/2, &t.inv[0], &t.invS[0], m.q)
	}
	if t.fold {
		first := z[0]
		t.foldRow(m, z, z, t.g, t.gs)
		z[0] = 2 * first // 4q at most
	}
	mulConstVec(&z[0], &z[0], n, t.n, t.ns, m.q)
}

// foldRow computes x[j] - f*x[n-j] for all j; entry 0 is copied.
func (t *twiddles) foldRow(m *modulus, z, x []uint64, f, fs uint64) {
	n := len(z)
	foldVec(&z[0], &x[0], n, f, fs, m.q)
	q2 := 2 * m.q
	lazy := func(y uint64) uint64 { // y*f in [0, 2q)
		h, l := bits.Mul64(y, fs)
		return y*f - (h<<12|l>>52)*m.q
	}
	red := func(y uint64) uint64 {
		if y >= q2 {
			y -= q2
		}
		return y
	}
	z[0] = x[0]
	for j := 1; j < 8; j++ {
		a, b := x[j], x[n-j]
		z[j], z[n-j] = red(a)+q2-lazy(b), red(b)+q2-lazy(a)
	}
	a := x[n/2]
	z[n/2] = red(a) + q2 - lazy(a)
}
