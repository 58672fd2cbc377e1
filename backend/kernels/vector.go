package kernels

import "math/bits"

// vectorTransform is the transform of a vector form: passes over the row, two layers at
// a time, down to blocks of 64 residues, and the last six layers block by block.
type vectorTransform struct {
	*passes
	n     int
	fold  bool // conjugate-invariant ring
	f, fs uint64
	g, gs uint64
	w, ws []uint64 // of passes: the layer with h blocks reads h..2h
	v, vs []uint64
	ninv  uint64
	last  [][]uint64 // of blocks: [g] for rows 2^g times shorter, whose roots are the first of this ring
	first []uint64
}

// passes are the kernels of a transform; see gen/transform.go.
type passes struct {
	forward4, forward2, inverse4, inverse2 func(z, x *uint64, blocks, t int, w, s *uint64, q uint64)
	last, first                            func(z, x *uint64, blocks int, w *uint64, q, inv uint64)
	fold                                   func(z, x *uint64, n int, f, s, q uint64)
}

// newVectorTransform builds the tables; block gathers the factors of the six innermost
// layers.
func newVectorTransform(p *passes, t *Transform, quotient func(uint64) uint64, block func(roots []uint64) []uint64) vectorTransform {
	// The passes read the layers down to blocks of 128; the rest is in the block tables.
	outer := func(roots []uint64) (w, s []uint64) {
		w = append(w, roots[:max(2, len(roots)/64)]...)
		s = make([]uint64, len(w))
		for i := 1; i < len(w); i++ { // there is no root 0
			s[i] = quotient(w[i])
		}
		return w, s
	}
	v := vectorTransform{passes: p, n: t.N, fold: t.Fold, f: t.F, g: t.G, ninv: t.NInv, fs: quotient(t.F), gs: quotient(t.G)}
	v.w, v.ws = outer(t.Forward)
	v.v, v.vs = outer(t.Inverse)
	v.first = block(t.Inverse)
	for k := t.N; k >= minVector; k /= 2 {
		v.last = append(v.last, block(t.Forward[:k]))
	}
	return v
}

func (t *vectorTransform) bytes() int64 {
	words := len(t.w) + len(t.ws) + len(t.v) + len(t.vs) + len(t.first)
	for _, l := range t.last {
		words += len(l)
	}
	return 8 * int64(words)
}

func (t *vectorTransform) ntt(p *Prime, z, x []uint64) {
	n := len(z)
	if t.fold {
		t.foldRow(p, z, x, t.f, t.fs)
		x = z
	}
	blocks, size := 1, n
	if bits.TrailingZeros(uint(n/64))&1 == 1 {
		t.forward2(&z[0], &x[0], blocks, size/2, &t.w[0], &t.ws[0], p.Q)
		x, blocks, size = z, 2, n/2
	}
	for ; size > 64; blocks, size = blocks*4, size/4 {
		t.forward4(&z[0], &x[0], blocks, size/4, &t.w[0], &t.ws[0], p.Q)
		x = z
	}
	t.passes.last(&z[0], &x[0], n/64, &t.last[bits.TrailingZeros(uint(t.n/n))][0], p.Q, p.inv)
}

// intt leaves out the division by N.
func (t *vectorTransform) intt(p *Prime, z, x []uint64) {
	n := len(z)
	t.passes.first(&z[0], &x[0], n/64, &t.first[0], p.Q, p.inv)
	size := 256
	for ; size <= n; size *= 4 {
		t.inverse4(&z[0], &z[0], n/size, size/4, &t.v[0], &t.vs[0], p.Q)
	}
	if size/2 == n {
		t.inverse2(&z[0], &z[0], 1, n/2, &t.v[0], &t.vs[0], p.Q)
	}
	if t.fold {
		t.foldRow(p, z, z, t.g, t.gs)
		z[0] *= 2
	}
}

// foldRow is foldEnds for whole rows; s is f's quotient.
func (t *vectorTransform) foldRow(p *Prime, z, x []uint64, f, s uint64) {
	t.passes.fold(&z[0], &x[0], len(z), f, s, p.Q)
	p.foldEnds(z, x, f, p.quotient(f), 8)
}
