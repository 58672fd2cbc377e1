package kernels

import (
	"fmt"
	"math/bits"
	"unsafe"
)

// Rows is the arithmetic of rows of residues modulo one prime q < 2^61: what limbs go
// through. There is one implementation per form; New chooses. Results are exact and
// the same in all of them.
//
// A row is a slice of residues below q, its length a positive multiple of 32, or of 8
// where Form returns Portable, the same for all rows of a call. Rows need no alignment.
// Unless a method says otherwise, results are fully reduced, and a result may be one of
// the operands but must not overlap one, or another result, in part. What breaks these
// rules panics before anything is written; whether residues are in range is not looked
// at. Constants are plain residues. Methods may run concurrently on different results.
//
// Rows that a method names "in Montgomery form" hold x*R mod q, with R as at MaxNarrow.
type Rows interface {
	// Form returns the kernels that serve this prime: IFMA only for primes below
	// MaxNarrow, and Portable for transforms of fewer than 64 points.
	Form() Form

	// NTT transforms the coefficients x, below 4q, to z: value i is that at the root of
	// which Transform.Forward says, as stock Lattigo orders them. Rows may be shorter than
	// the ring's N by a factor 2^g, g <= Gaps(N): these are the coefficients of a
	// polynomial in X^(2^g), which takes each of its values 2^g times in a row, and z is
	// these values, once each. (Harvey, J. Symb. Comp. 2014, for the butterflies; Kim and
	// Song, ICISC 2018, for the conjugate-invariant ring.)
	NTT(z, x []uint64)
	// INTT is the inverse of NTT for rows of N residues.
	INTT(z, x []uint64)
	// Repeat puts each entry of x, shorter than z by a power of two, as many times in a
	// row, which fills z.
	Repeat(z, x []uint64)

	// Add sets z = x + y.
	Add(z, x, y []uint64)
	// Sub sets z = x - y.
	Sub(z, x, y []uint64)
	// AddConst sets z = x + c.
	AddConst(z, x []uint64, c uint64)
	// MulConst sets z = x*c, for x below 4q.
	MulConst(z, x []uint64, c uint64)
	// MacConst sets z = a + x*c, for x below 4q.
	MacConst(z, a, x []uint64, c uint64)
	// SubMul sets z = (x - y)*c: with y the remainder of a division and c the inverse of
	// the divisor it is the step of rescaling and ModDown.
	SubMul(z, x, y []uint64, c uint64)
	// Mul sets z = x*y, y in Montgomery form.
	Mul(z, x, y []uint64)
	// Mac sets z = a + x*y, y in Montgomery form.
	Mac(z, a, x, y []uint64)
	// Tensor sets d0 = a0*b0, d1 = a0*b1 + a1*b0, d2 = a1*b1, all plain. A square, a
	// being b, takes fewer products.
	Tensor(d0, d1, d2, a0, a1, b0, b1 []uint64)
	// Dot sets z0 = sum of x_k*y0_k and z1 = sum of x_k*y1_k, for 1 to MaxTerms terms with
	// the x or the y in Montgomery form: the products are summed first, and each result is
	// reduced once. Results must not overlap operands at all. It is the inner product of
	// key switching, and of diagonals.
	Dot(z0, z1 []uint64, x, y0, y1 [][]uint64)
	// DotMap sets z0 = phi(sum of x_k*y0_k + a*f) and z1 = phi(sum of x_k*y1_k), as Dot and
	// an automorphism of rows of their length do; without a if it is nil. It is a hoisted
	// rotation. The operands may be parts of rows, residues from on, a multiple of 8: then
	// it sets only what comes from them. far says that the results will not be read soon:
	// where it can, it leaves the caches to others.
	DotMap(z0, z1, a []uint64, f uint64, from int, x, y0, y1 [][]uint64, phi *Automorphism, far bool)
	// Centre sets z, below 4q, to c times x read as numbers in [-s/2, s/2], the x being
	// below s, any modulus.
	Centre(z, x []uint64, s, c uint64)

	// Bytes returns the size of the tables.
	Bytes() int64
}

// MaxTerms is the number of products that Dot sums at most.
const MaxTerms = 64

// Gaps returns log2 of the widest gap between coefficients for which NTT has a shorter
// transform, in rings of degree n.
func Gaps(n int) int { return max(0, bits.Len(uint(n/minVector))-1) }

// Transform is what a number-theoretic transform of N points is made of: plain roots
// such that the layer with h blocks has Forward[h..2h), Inverse likewise, 1/N (or
// 1/2N) and, in the conjugate-invariant ring, the constants of the fold before the
// transform and after its inverse.
type Transform struct {
	N                int
	Forward, Inverse []uint64
	NInv             uint64
	Fold             bool
	F, G             uint64
}

// minVector is the number of points from which on the vector forms transform.
const minVector = 64

// New returns the kernels of a form for a prime and transforms over it, or those next
// below where the form does not serve them. The process must support the form. It keeps
// nothing of t.
func New(p Prime, form Form, t *Transform) (Rows, error) {
	n := t.N
	if n < 8 || n&(n-1) != 0 || len(t.Forward) != n || len(t.Inverse) != n {
		return nil, fmt.Errorf("a transform of %d points with %d and %d roots: the kernels take powers of two from 8 on and as many roots", n, len(t.Forward), len(t.Inverse))
	}
	if p.Q == 0 {
		return nil, fmt.Errorf("kernels for no prime: see NewPrime")
	}
	c := &checked{n: n, unit: 8}
	if n < minVector {
		form = Portable
	}
	if form > DQ && p.Q >= MaxNarrow {
		form = DQ
	}
	switch form {
	case Portable:
		c.Rows = newPortable(p, t)
	case DQ:
		c.Rows, c.unit = newDQ(p, t), 32
	default:
		c.Rows, c.unit = newIFMA(p, t), 32
	}
	return c, nil
}

// checked holds the rules of Rows for the forms below it, which trust their callers.
type checked struct {
	Rows
	n, unit int
}

// length returns the length of a row.
func (c *checked) length(z []uint64) int {
	if len(z) == 0 || len(z)%c.unit != 0 {
		panic(fmt.Sprintf("BUG: a row of %d residues, which is no multiple of %d", len(z), c.unit))
	}
	return len(z)
}

// like panics unless x, an operand, is as long as the result z and the same or apart.
func like(z, x []uint64) {
	if len(x) != len(z) {
		panic(fmt.Sprintf("BUG: rows of %d and %d residues", len(z), len(x)))
	}
	if &z[0] != &x[0] {
		apart(z, x)
	}
}

// apart panics unless z and x have no word in common.
func apart[T, U any](z []T, x []U) {
	from, to := span(z)
	lo, hi := span(x)
	if from < hi && lo < to {
		panic("BUG: a result overlaps an operand or another result")
	}
}

// span returns the addresses that a slice covers.
func span[T any](x []T) (from, to uintptr) {
	var one T
	from = uintptr(unsafe.Pointer(unsafe.SliceData(x)))
	return from, from + uintptr(len(x))*unsafe.Sizeof(one)
}

func (c *checked) NTT(z, x []uint64) {
	n := c.length(z)
	if g := bits.Len(uint(c.n / n)); n > c.n || n&(n-1) != 0 || g-1 > Gaps(c.n) {
		panic(fmt.Sprintf("BUG: a transform of %d residues in a ring of degree %d", n, c.n))
	}
	like(z, x)
	c.Rows.NTT(z, x)
}

func (c *checked) INTT(z, x []uint64) {
	if len(z) != c.n {
		panic(fmt.Sprintf("BUG: an inverse transform of %d residues in a ring of degree %d", len(z), c.n))
	}
	like(z, x)
	c.Rows.INTT(z, x)
}

func (c *checked) Repeat(z, x []uint64) {
	n := c.length(z)
	if len(x) == 0 || n%len(x) != 0 || n/len(x)&(n/len(x)-1) != 0 {
		panic(fmt.Sprintf("BUG: %d residues repeated to make %d", len(x), n))
	}
	apart(z, x)
	c.Rows.Repeat(z, x)
}

func (c *checked) two(z, x []uint64) {
	c.length(z)
	like(z, x)
}

func (c *checked) three(z, x, y []uint64) {
	c.two(z, x)
	like(z, y)
}

func (c *checked) Add(z, x, y []uint64)              { c.three(z, x, y); c.Rows.Add(z, x, y) }
func (c *checked) Sub(z, x, y []uint64)              { c.three(z, x, y); c.Rows.Sub(z, x, y) }
func (c *checked) AddConst(z, x []uint64, w uint64)  { c.two(z, x); c.Rows.AddConst(z, x, w) }
func (c *checked) MulConst(z, x []uint64, w uint64)  { c.two(z, x); c.Rows.MulConst(z, x, w) }
func (c *checked) SubMul(z, x, y []uint64, w uint64) { c.three(z, x, y); c.Rows.SubMul(z, x, y, w) }
func (c *checked) Mul(z, x, y []uint64)              { c.three(z, x, y); c.Rows.Mul(z, x, y) }
func (c *checked) Centre(z, x []uint64, s, w uint64) { c.two(z, x); c.Rows.Centre(z, x, s, w) }

func (c *checked) MacConst(z, a, x []uint64, w uint64) {
	c.three(z, a, x)
	c.Rows.MacConst(z, a, x, w)
}

func (c *checked) Mac(z, a, x, y []uint64) {
	c.three(z, a, x)
	like(z, y)
	c.Rows.Mac(z, a, x, y)
}

func (c *checked) Tensor(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	c.length(d0)
	for _, d := range [3][]uint64{d0, d1, d2} {
		c.three(d, a0, a1)
		like(d, b0)
		like(d, b1)
	}
	apart(d0, d1)
	apart(d0, d2)
	apart(d1, d2)
	c.Rows.Tensor(d0, d1, d2, a0, a1, b0, b1)
}

func (c *checked) Dot(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	c.two(z0, z1)
	if n := c.terms(z0, z1, x, y0, y1); n != len(z0) {
		panic(fmt.Sprintf("BUG: rows of %d and %d residues", n, len(z0)))
	}
	c.Rows.Dot(z0, z1, x, y0, y1)
}

// terms checks the rows of a sum of products and returns their length.
func (c *checked) terms(z0, z1 []uint64, x, y0, y1 [][]uint64) int {
	if k := len(x); k == 0 || k > MaxTerms || len(y0) != k || len(y1) != k {
		panic(fmt.Sprintf("BUG: a sum of %d products of %d and %d rows", k, len(y0), len(y1)))
	}
	apart(z0, z1)
	n := c.length(x[0])
	for k := range x {
		for _, r := range [3][]uint64{x[k], y0[k], y1[k]} {
			c.operand(z0, z1, r, n)
		}
	}
	return n
}

// operand checks an operand of n residues, which no result may overlap.
func (c *checked) operand(z0, z1, x []uint64, n int) {
	if len(x) != n {
		panic(fmt.Sprintf("BUG: rows of %d and %d residues", len(x), n))
	}
	apart(z0, x)
	apart(z1, x)
}
