package kernels

import (
	"fmt"
	"math/bits"
	"unsafe"
)

// line is the size of a cache line, in bytes.
const line = 64

// DotMap checks that nothing overlaps and stores past the caches only whole lines.
func (c *checked) DotMap(z0, z1, a []uint64, f uint64, x, y0, y1 [][]uint64, phi *Automorphism, far bool) {
	c.terms(z0, z1, x, y0, y1)
	if a != nil {
		like(z0, a)
		apart(z0, a)
		apart(z1, a)
	}
	if len(phi.from)*8 != len(z0) {
		panic(fmt.Sprintf("BUG: an automorphism of %d values for %d", 8*len(phi.from), len(z0)))
	}
	from0, _ := span(z0)
	from1, _ := span(z1)
	c.Rows.DotMap(z0, z1, a, f, x, y0, y1, phi, far && (from0|from1)%line == 0)
}

// DotMap sums a block at a time and puts it into its place.
func (m *portable) DotMap(z0, z1, a []uint64, f uint64, x, y0, y1 [][]uint64, phi *Automorphism, _ bool) {
	form, late := m.Montgomery(f), len(x) == MaxTerms // then no sum takes a product more
	var b [2][dotBlock]uint64
	var u, v [MaxTerms][]uint64
	for base := 0; base < len(z0); base += dotBlock {
		end := min(base+dotBlock, len(z0))
		for r, y := range [2][][]uint64{y0, y1} {
			for k := range x {
				u[k], v[k] = x[k][base:end], y[k][base:end]
			}
			sums, first := b[r][:end-base], r == 0 && a != nil
			if first && !late {
				m.dot(sums, u[:len(x)], v[:len(x)], a[base:end], form)
				continue
			}
			if m.dot(sums, u[:len(x)], v[:len(x)], nil, 0); first {
				m.MacConst(sums, sums, a[base:end], f)
			}
		}
		for g := base / 8; g < end/8; g++ {
			to := phi.to[g]
			at, lane := int(to&^7), &phi.lanes[to&7]
			p, q := eight(z0, at), eight(z1, at)
			s, t := eight(b[0][:], 8*g-base), eight(b[1][:], 8*g-base)
			for k := range p {
				p[k], q[k] = s[lane[k]&7], t[lane[k]&7]
			}
		}
	}
}

func (m *dq) DotMap(z0, z1, a []uint64, f uint64, x, y0, y1 [][]uint64, phi *Automorphism, far bool) {
	// As for Dot, with one product more.
	if hi, lo := bits.Mul64(uint64(len(x))<<m.shift+1, m.Q); len(x) > 23 || hi > 3 || hi == 3 && lo > 0 {
		m.portable.DotMap(z0, z1, a, f, x, y0, y1, phi, far)
		return
	}
	f = m.form64(f)
	if far {
		dqDotMapFar(&z0[0], &z1[0], unsafe.SliceData(a), f, &x[0], &y0[0], &y1[0], len(x), len(z0), &phi.to[0], &phi.lanes, uint64(m.shift), m.Q, m.inv)
	} else {
		dqDotMap(&z0[0], &z1[0], unsafe.SliceData(a), f, &x[0], &y0[0], &y1[0], len(x), len(z0), &phi.to[0], &phi.lanes, uint64(m.shift), m.Q, m.inv)
	}
}

func (m *ifma) DotMap(z0, z1, a []uint64, f uint64, x, y0, y1 [][]uint64, phi *Automorphism, far bool) {
	if uint64(len(x)+1)*m.Q > 3<<52 {
		m.dq.DotMap(z0, z1, a, f, x, y0, y1, phi, far)
		return
	}
	f = m.Montgomery(f)
	if far {
		ifmaDotMapFar(&z0[0], &z1[0], unsafe.SliceData(a), f, &x[0], &y0[0], &y1[0], len(x), len(z0), &phi.to[0], &phi.lanes, m.Q, m.inv)
	} else {
		ifmaDotMap(&z0[0], &z1[0], unsafe.SliceData(a), f, &x[0], &y0[0], &y1[0], len(x), len(z0), &phi.to[0], &phi.lanes, m.Q, m.inv)
	}
}
