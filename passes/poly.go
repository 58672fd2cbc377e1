package passes

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/home-fhe/home/ir"
)

// polyDepth returns the levels a polynomial of the given degree consumes:
// ceil(log2(degree+1)).
func polyDepth(degree int) int { return bits.Len(uint(max(degree, 1))) }

// chebyshev evaluates one polynomial in the Chebyshev basis on a ciphertext by
// baby steps and giant steps (Paterson and Stockmeyer 1973; in the Chebyshev
// basis Chen, Chillotti and Song, EUROCRYPT 2019), with every scale exact:
// constants are encoded at just the scale that makes the operands of each sum
// agree (after Bossuat et al., EUROCRYPT 2021, section 4).
type chebyshev struct {
	b     *builder
	basis map[int]*ir.Value // T_k(v)
	top   int               // level at which v is read
	baby  int               // leaves hold degrees below this power of two

	// A polynomial whose odd part is linear only (every approximation of a
	// function x/2+even(x), such as ReLU) is evaluated in v = T_2(u), at half the
	// degree, with the linear term added at the end.
	extra     *ir.Value
	extraCoef float64
}

// polynomial emits sum c[k]*T_k(u), u being read at level top, with result level
// top - polyDepth and scale exactly target.
func (b *builder) polynomial(u *ir.Value, c []float64, top int, target ir.Scale) *ir.Value {
	deg := len(c) - 1
	for deg > 1 && c[deg] == 0 {
		deg--
	}
	c = c[:deg+1]
	lt := top - polyDepth(deg)
	even := deg >= 4
	for k := 3; k <= deg && even; k += 2 {
		even = c[k] == 0
	}
	e := &chebyshev{b: b, basis: map[int]*ir.Value{1: u}, top: top}
	if even {
		half := make([]float64, deg/2+1)
		for k := 0; k <= deg; k += 2 {
			half[k/2] = c[k]
		}
		v := e.power(2)
		e = &chebyshev{b: b, basis: map[int]*ir.Value{1: v}, top: v.Type.Level, extra: u, extraCoef: c[1]}
		c = half
	}
	e.baby = bestBaby(c, e.top, lt+1)
	raw := e.raw(c, lt+1, target.Mul(ir.ScalePrime(lt+1)))
	if e.extra != nil && e.extraCoef != 0 {
		raw = b.macConst(raw, e.extra, e.extraCoef)
	}
	return b.rescale(raw)
}

// bestBaby tries the sizes of the baby basis and returns the one with the
// fewest products of ciphertexts.
func bestBaby(c []float64, top, level int) int {
	best, bestCost := 2, math.MaxInt
	for baby := 2; baby <= 32 && baby <= 2*len(c); baby *= 2 {
		d := &dryCheb{have: map[int]int{1: top}, baby: baby}
		d.raw(c, level)
		if d.muls < bestCost {
			best, bestCost = baby, d.muls
		}
	}
	return best
}

// power returns T_k(v), making it from T_a and T_b with a the largest power of
// two below k: T_k = 2*T_a*T_b - T_{a-b}.
func (e *chebyshev) power(k int) *ir.Value {
	if t := e.basis[k]; t != nil {
		return t
	}
	a, b := splitPower(k)
	ta, tb := e.power(a), e.power(b)
	var td *ir.Value
	if a != b {
		td = e.power(a - b)
	}
	p := e.b.mulAt(ta, tb, min(e.top, ta.Type.Level, tb.Type.Level))
	p = e.b.add(p, p)
	if td == nil {
		p = e.b.addConst(p, -1)
	} else {
		p = e.b.macConst(p, td, -1)
	}
	t := e.b.rescale(p)
	e.basis[k] = t
	return t
}

func splitPower(k int) (a, b int) {
	a = 1 << (bits.Len(uint(k-1)) - 1)
	return a, k - a
}

// raw returns the polynomial at the given level and scale, not yet rescaled.
func (e *chebyshev) raw(c []float64, level int, scale ir.Scale) *ir.Value {
	d := len(c) - 1
	if e.leaf(c, level) {
		var acc *ir.Value
		for k := d; k >= 1; k-- {
			if c[k] == 0 && !(acc == nil && k == 1) {
				continue
			}
			t := e.power(k)
			s := scale.Div(t.Type.Scale)
			if acc == nil {
				acc = e.b.mulConst(t, c[k], s, level)
			} else {
				acc = e.b.macConst(acc, t, c[k])
			}
		}
		if c[0] != 0 {
			acc = e.b.addConst(acc, c[0])
		}
		return acc
	}
	m, q, r := divideChebyshev(c)
	g := e.power(m)
	if g.Type.Level < level {
		panic(fmt.Sprintf("BUG: T_%d at level %d, needed at %d", m, g.Type.Level, level))
	}
	sq := scale.Div(g.Type.Scale)
	var acc *ir.Value
	if len(q) == 1 {
		acc = e.b.mulConst(g, q[0], sq, level)
	} else {
		qv := e.b.rescale(e.raw(q, level+1, sq.Mul(ir.ScalePrime(level+1))))
		acc = e.b.mulAt(qv, g, level)
	}
	if len(r) == 1 {
		if r[0] != 0 {
			acc = e.b.addConst(acc, r[0])
		}
		return acc
	}
	return e.b.add(acc, e.raw(r, level, scale))
}

// leaf reports whether a sum of constants times basis elements does.
func (e *chebyshev) leaf(c []float64, level int) bool {
	return len(c)-1 < e.baby && powerLevel(len(c)-1, e.top) >= level
}

// powerLevel returns the level of T_k for a variable at level top.
func powerLevel(k, top int) int { return top - bits.Len(uint(max(k, 1)-1)) }

// divideChebyshev writes sum c[k]T_k = q*T_m + r with m the largest power of two
// not above the degree, using T_m*T_j = (T_{m+j}+T_{|m-j|})/2.
func divideChebyshev(c []float64) (m int, q, r []float64) {
	d := len(c) - 1
	m = 1 << (bits.Len(uint(d)) - 1)
	q = make([]float64, d-m+1)
	r = append([]float64{}, c[:m]...)
	q[0] = c[m]
	for k := m + 1; k <= d; k++ {
		q[k-m] = 2 * c[k]
		r[2*m-k] -= c[k]
	}
	for len(r) > 1 && r[len(r)-1] == 0 {
		r = r[:len(r)-1]
	}
	return m, q, r
}

// dryCheb counts the products that chebyshev would make.
type dryCheb struct {
	have map[int]int
	baby int
	muls int
}

func (d *dryCheb) power(k int) int {
	if l, ok := d.have[k]; ok {
		return l
	}
	a, b := splitPower(k)
	l := min(d.power(a), d.power(b)) - 1
	if a != b {
		d.power(a - b)
	}
	d.muls++
	d.have[k] = l
	return l
}

func (d *dryCheb) raw(c []float64, level int) {
	if len(c)-1 < d.baby && powerLevel(len(c)-1, d.have[1]) >= level {
		for k := 1; k < len(c); k++ {
			if c[k] != 0 {
				d.power(k)
			}
		}
		return
	}
	m, q, r := divideChebyshev(c)
	d.power(m)
	if len(q) > 1 {
		d.raw(q, level+1)
		d.muls++
	}
	if len(r) > 1 {
		d.raw(r, level)
	}
}
