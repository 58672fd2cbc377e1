package ir

import (
	"fmt"
	"math"
	"math/bits"
)

// The canonical embedding as a fast transform, and the matrices of its layers,
// with which bootstrapping moves coefficients into slots and back.
//
// Slot j of a polynomial is its value at zeta^(5^j), zeta a primitive root of
// order 4n for n points. With the coefficients in bit-reversed order the
// transform is a product of log2(n) layers; the layer that joins blocks of h
// points to blocks of 2h maps
//
//	(lo, hi) -> (lo + w*hi, lo - w*hi),  w_j = zeta_8h^(5^j), j < h
//
// and has three diagonals, at offsets 0, h and -h. (Cheon, Han, Kim, Kim and
// Song, EUROCRYPT 2018; layers merged as by Chen, Chillotti and Song,
// EUROCRYPT 2019.)

// Roots returns the factors of the layer that joins blocks of h points.
func Roots(h int) []complex128 {
	w := make([]complex128, h)
	g := 1
	for j := range w {
		s, c := math.Sincos(2 * math.Pi * float64(g) / float64(8*h))
		w[j] = complex(c, s)
		g = g * 5 & (8*h - 1)
	}
	return w
}

// Embedding transforms up to n points in place.
type Embedding struct {
	tw []complex128 // tw[h..2h): Roots(h)
}

// NewEmbedding makes the tables for n points, a power of two.
func NewEmbedding(n int) *Embedding {
	e := &Embedding{make([]complex128, n)}
	for h := 1; h < n; h <<= 1 {
		copy(e.tw[h:], Roots(h))
	}
	return e
}

// Bytes returns the size of the tables.
func (e *Embedding) Bytes() int64 { return 16 * int64(len(e.tw)) }

func bitReverse(a []complex128) {
	shift := 64 - uint(bits.Len(uint(len(a)-1)))
	for i := range a {
		if j := int(bits.Reverse64(uint64(i)) >> shift); len(a) > 1 && i < j {
			a[i], a[j] = a[j], a[i]
		}
	}
}

// ToSlots evaluates at the roots. Coefficient k of n points is the complex
// number c[k] + i*c[k+n] in the standard ring.
func (e *Embedding) ToSlots(a []complex128) {
	bitReverse(a)
	for half := 1; half < len(a); half <<= 1 {
		tw := e.tw[half : 2*half]
		for base := 0; base < len(a); base += 2 * half {
			lo, hi := a[base:base+half], a[base+half:base+2*half]
			lo, hi = lo[:len(tw)], hi[:len(tw)]
			for j, w := range tw {
				t := hi[j] * w
				lo[j], hi[j] = lo[j]+t, lo[j]-t
			}
		}
	}
}

// ToCoefs is the inverse of ToSlots.
func (e *Embedding) ToCoefs(a []complex128) {
	for half := len(a) / 2; half >= 1; half >>= 1 {
		tw := e.tw[half : 2*half]
		for base := 0; base < len(a); base += 2 * half {
			lo, hi := a[base:base+half], a[base+half:base+2*half]
			lo, hi = lo[:len(tw)], hi[:len(tw)]
			for j, w := range tw {
				u, v := lo[j], hi[j]
				lo[j] = u + v
				v = u - v
				hi[j] = v * complex(real(w), -imag(w))
			}
		}
	}
	bitReverse(a)
	s := complex(1/float64(len(a)), 0)
	for i := range a {
		a[i] *= s
	}
}

// Diagonal is one diagonal of a product of layers From..To-1 of the transform
// of n points, in which layer s joins blocks of 2^s; or, with Inverse, of the
// inverse of that product. Entry i is Factor times the matrix at row i, column
// i+Offset modulo n, and the vector is rotated to the right by Shift.
type Diagonal struct {
	Inverse  bool
	From, To int
	Offset   int
	Shift    int
	Factor   float64
}

// check verifies that the diagonal exists for n points.
func (d *Diagonal) check(n int) error {
	switch {
	case n < 2 || n&(n-1) != 0 || n > 1<<16:
		return fmt.Errorf("a transform of %d points", n)
	case d.From < 0 || d.To <= d.From || d.To > bits.Len(uint(n))-1:
		return fmt.Errorf("layers %d to %d of a transform of %d points", d.From, d.To, n)
	case d.Offset < 0 || d.Offset >= n || d.Shift < 0 || d.Shift >= n:
		return fmt.Errorf("diagonal %d, rotated by %d, of %d points", d.Offset, d.Shift, n)
	case math.IsNaN(d.Factor) || math.IsInf(d.Factor, 0):
		return fmt.Errorf("a factor of %v", d.Factor)
	}
	return nil
}

// Offsets lists the offsets of the diagonals of layers from..to-1 that are not
// zero, for n points, ascending modulo n.
func Offsets(n, from, to int) []int {
	seen := make([]bool, n)
	seen[0] = true
	for s := from; s < to; s++ {
		next := make([]bool, n)
		for d, ok := range seen {
			if ok {
				for _, a := range [3]int{0, 1 << s, n - 1<<s} {
					next[(d+a)&(n-1)] = true
				}
			}
		}
		seen = next
	}
	var out []int
	for d, ok := range seen {
		if ok {
			out = append(out, d)
		}
	}
	return out
}

// fill writes the n entries into z.
func (d *Diagonal) fill(z []complex128) {
	n := len(z)
	roots := make([][]complex128, d.To)
	for s := d.From; s < d.To; s++ {
		roots[s] = Roots(1 << s)
	}
	// A product is taken apart from the left: row i of layer s has entries in
	// columns i and i+h or i-h, so (S*M)[i][i+o] is the sum of S[i][i+a] times
	// M[i+a][i+o]. The layers still to come are a range that shrinks.
	type part struct{ s, offset int } // s counts the layers taken off
	memo := map[part][]complex128{}
	var get func(p part) []complex128
	get = func(p part) []complex128 {
		if v, ok := memo[p]; ok {
			return v
		}
		var v []complex128
		layers := d.To - d.From - p.s
		if layers == 0 {
			if p.offset == 0 {
				v = make([]complex128, n)
				for i := range v {
					v[i] = 1
				}
			}
			memo[p] = v
			return v
		}
		s := d.To - 1 - p.s // leftmost layer: the last one applied
		if d.Inverse {
			s = d.From + p.s
		}
		h := 1 << s
		w := roots[s]
		same := get(part{p.s + 1, p.offset})
		up := get(part{p.s + 1, (p.offset - h) & (n - 1)})   // columns i+h
		down := get(part{p.s + 1, (p.offset + h) & (n - 1)}) // columns i-h
		if same == nil && up == nil && down == nil {
			memo[p] = nil
			return nil
		}
		v = make([]complex128, n)
		for i := range v {
			j := i & (h - 1)
			lo := i&h == 0
			var diag, off complex128
			switch {
			case !d.Inverse && lo:
				diag, off = 1, w[j]
			case !d.Inverse:
				diag, off = -w[j], 1
			case lo:
				diag, off = 0.5, 0.5
			default:
				c := complex(real(w[j])/2, -imag(w[j])/2)
				diag, off = -c, c
			}
			var x complex128
			if same != nil {
				x = diag * same[i]
			}
			if lo && up != nil {
				x += off * up[(i+h)&(n-1)]
			}
			if !lo && down != nil {
				x += off * down[(i-h)&(n-1)]
			}
			v[i] = x
		}
		memo[p] = v
		return v
	}
	v := get(part{0, d.Offset})
	if v == nil {
		clear(z)
		return
	}
	f := complex(d.Factor, 0)
	for i, x := range v {
		z[(i+d.Shift)&(n-1)] = x * f
	}
}
