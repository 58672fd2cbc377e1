package kernels

// Seeded sums products with rows that follow from a seed: what Dot and DotMap of Rows do,
// but for y1, which it makes block by block, in the caches, as it goes. It takes half of
// the reading of a key switch off the memory. It is the working memory of such sums; the
// zero value is ready for Set.
type Seeded struct {
	Seed
	rows     []seededRow
	x, y, y1 [][]uint64 // the block
}

// seededRow is one of the rows y1.
type seededRow struct {
	uniform
	buf  []uint64 // a block, and what was made beyond it
	more int      // residues beyond the block
}

// seededBlock is the number of residues of a block, a multiple of group. What is made,
// and what is read ahead meanwhile, stays in the second cache.
const seededBlock = 2048

// Row names row k of y1 in the next sum, modulo q, as Fill does. A sum uses rows up; the
// first rows are named first.
func (s *Seeded) Row(k int, q uint64, name [8]byte) {
	if k == len(s.rows) {
		s.rows = append(s.rows, seededRow{buf: make([]uint64, seededBlock+group)})
		s.x, s.y, s.y1 = append(s.x, nil), append(s.y, nil), append(s.y1, nil)
	}
	r := &s.rows[k]
	r.uniform, r.more = s.row(q, name), 0
}

// next returns the next n residues, at most a block, and reads ahead x and y.
func (r *seededRow) next(n int, x, y []uint64) []uint64 {
	have := copy(r.buf, r.buf[seededBlock:seededBlock+r.more])
	for have < n {
		have += r.fill(r.buf[have:have+(n-have+group-1)/group*group], x, y)
	}
	r.more = have - n
	return r.buf[:n]
}

// Dot is m.Dot with the rows that were named for y1.
func (s *Seeded) Dot(m Rows, z0, z1 []uint64, x, y0 [][]uint64) {
	s.blocks(len(z0), x, y0, func(from, to int, x, y0, y1 [][]uint64) {
		m.Dot(z0[from:to], z1[from:to], x, y0, y1)
	})
}

// DotMap is m.DotMap for whole rows, with the rows that were named for y1.
func (s *Seeded) DotMap(m Rows, z0, z1, a []uint64, f uint64, x, y0 [][]uint64, phi *Automorphism, far bool) {
	s.blocks(len(z0), x, y0, func(from, to int, x, y0, y1 [][]uint64) {
		part := a
		if a != nil {
			part = a[from:to]
		}
		m.DotMap(z0, z1, part, f, from, x, y0, y1, phi, far)
	})
}

// blocks calls f for blocks of rows of n residues, with their parts.
func (s *Seeded) blocks(n int, x, y [][]uint64, f func(from, to int, x, y0, y1 [][]uint64)) {
	terms := len(x)
	for from := 0; from < n; from += seededBlock {
		to := min(from+seededBlock, n)
		for k := range terms {
			s.x[k], s.y[k] = x[k][from:to], y[k][from:to]
			s.y1[k] = s.rows[k].next(to-from, s.x[k], s.y[k])
		}
		f(from, to, s.x[:terms], s.y[:terms], s.y1[:terms])
	}
}
