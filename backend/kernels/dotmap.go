package kernels

import (
	"fmt"
	"math/bits"
	"unsafe"
)

// line is the size of a cache line, in bytes.
const line = 64

// DotMap checks that nothing overlaps and stores past the caches only whole lines.
func (c *checked) DotMap(z0, z1, a []uint64, f uint64, from int, x, y0, y1 [][]uint64, phi *Automorphism, far bool) {
	c.two(z0, z1)
	if len(phi.from)*8 != len(z0) {
		panic(fmt.Sprintf("BUG: an automorphism of %d values for %d", 8*len(phi.from), len(z0)))
	}
	n := c.terms(z0, z1, x, y0, y1)
	if a != nil {
		c.operand(z0, z1, a, n)
	}
	if from < 0 || from&7 != 0 || from > len(z0)-n {
		panic(fmt.Sprintf("BUG: %d residues from %d on of %d", n, from, len(z0)))
	}
	at0, _ := span(z0)
	at1, _ := span(z1)
	c.Rows.DotMap(z0, z1, a, f, from, x, y0, y1, phi, far && (at0|at1)%line == 0)
}

// DotMap sums a block at a time and reduces it into its place. The product of a and f is
// one more, with a row of f.
func (m *portable) DotMap(z0, z1, a []uint64, f uint64, from int, x, y0, y1 [][]uint64, phi *Automorphism, _ bool) {
	var s sums
	var fs [dotBlock]uint64
	var u, v [MaxTerms + 1][]uint64
	q, inv := m.Q, m.inv
	if a != nil {
		for i, f := 0, m.Montgomery(f); i < dotBlock; i++ {
			fs[i] = f
		}
	}
	for base := 0; base < len(x[0]); base += dotBlock {
		end := min(base+dotBlock, len(x[0]))
		part(&u, x, base, end)
		terms := len(x)
		if a != nil {
			u[terms], v[terms] = a[base:end], fs[:end-base]
			terms++
		}
		for _, to := range [2]struct {
			z []uint64
			y [][]uint64
		}{{z0, y0}, {z1, y1}} {
			part(&v, to.y, base, end)
			shift := m.sum(&s, u[:terms], v[:terms])
			terms = len(x)
			for g := base / 8; g < end/8; g++ {
				at := phi.to[from/8+g]
				z, lane := eight(to.z, int(at&^7)), &phi.lanes[at&7]
				hi, lo := eight(s.hi[:], 8*g-base), eight(s.lo[:], 8*g-base)
				for k := range z {
					i := lane[k] & 7
					z[k] = residue(hi[i], lo[i], shift, q, inv)
				}
			}
		}
	}
}

func (m *dq) DotMap(z0, z1, a []uint64, f uint64, from int, x, y0, y1 [][]uint64, phi *Automorphism, far bool) {
	// As for Dot, with one product more.
	if hi, lo := bits.Mul64(uint64(len(x))<<m.shift+1, m.Q); len(x) > 23 || hi > 3 || hi == 3 && lo > 0 {
		m.portable.DotMap(z0, z1, a, f, from, x, y0, y1, phi, far)
		return
	}
	f = m.form64(f)
	if far {
		dqDotMapFar(&z0[0], &z1[0], unsafe.SliceData(a), f, &x[0], &y0[0], &y1[0], len(x), len(x[0]), &phi.to[from/8], &phi.lanes, uint64(m.shift), m.Q, m.inv)
	} else {
		dqDotMap(&z0[0], &z1[0], unsafe.SliceData(a), f, &x[0], &y0[0], &y1[0], len(x), len(x[0]), &phi.to[from/8], &phi.lanes, uint64(m.shift), m.Q, m.inv)
	}
}

func (m *ifma) DotMap(z0, z1, a []uint64, f uint64, from int, x, y0, y1 [][]uint64, phi *Automorphism, far bool) {
	if uint64(len(x)+1)*m.Q > 3<<52 {
		m.dq.DotMap(z0, z1, a, f, from, x, y0, y1, phi, far)
		return
	}
	f = m.Montgomery(f)
	if far {
		ifmaDotMapFar(&z0[0], &z1[0], unsafe.SliceData(a), f, &x[0], &y0[0], &y1[0], len(x), len(x[0]), &phi.to[from/8], &phi.lanes, m.Q, m.inv)
	} else {
		ifmaDotMap(&z0[0], &z1[0], unsafe.SliceData(a), f, &x[0], &y0[0], &y1[0], len(x), len(x[0]), &phi.to[from/8], &phi.lanes, m.Q, m.inv)
	}
}
