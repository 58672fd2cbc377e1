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

// DotMap sums a block at a time and puts it into its place.
func (m *portable) DotMap(z0, z1, a []uint64, f uint64, from int, x, y0, y1 [][]uint64, phi *Automorphism, _ bool) {
	var s sums
	var b [2][dotBlock]uint64
	var fs [dotBlock]uint64
	if a != nil {
		f = m.Montgomery(f)
		for i := range fs {
			fs[i] = f
		}
	}
	for base := 0; base < len(x[0]); base += dotBlock {
		end := min(base+dotBlock, len(x[0]))
		m.dot(&s, b[0][:end-base], a, fs[:end-base], x, y0, base)
		m.dot(&s, b[1][:end-base], nil, nil, x, y1, base)
		for g := base / 8; g < end/8; g++ {
			to := phi.to[from/8+g]
			at, lane := int(to&^7), &phi.lanes[to&7]
			p, q := eight(z0, at), eight(z1, at)
			u, v := eight(b[0][:], 8*g-base), eight(b[1][:], 8*g-base)
			k := lane[0] & 7
			p[0], q[0] = u[k], v[k]
			k = lane[1] & 7
			p[1], q[1] = u[k], v[k]
			k = lane[2] & 7
			p[2], q[2] = u[k], v[k]
			k = lane[3] & 7
			p[3], q[3] = u[k], v[k]
			k = lane[4] & 7
			p[4], q[4] = u[k], v[k]
			k = lane[5] & 7
			p[5], q[5] = u[k], v[k]
			k = lane[6] & 7
			p[6], q[6] = u[k], v[k]
			k = lane[7] & 7
			p[7], q[7] = u[k], v[k]
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
