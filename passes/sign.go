package passes

import (
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
)

// composites are what an activation with f(b*x) = b*f(x) takes where no single
// polynomial is precise enough: x*h(sgn(x)), with the sign as a composition of odd
// polynomials (Cheon, Kim and Kim, ASIACRYPT 2020; Lee, Lee, No and Kim, IEEE
// TDSC 2021) and h joined with the last. Compositions of fewer levels are less
// precise than a single polynomial of maxPolyLevels.
var composites = []composite{
	{11, []int{31}, 31},
	{13, []int{15, 15}, 15},
	{14, []int{15, 15}, 31},
}

type composite struct {
	levels int // the product included
	inner  []int
	last   int // degrees
}

// fitComposite approximates f with f(b*x) = b*f(x) on [-1,1]. The first
// polynomials bring what lies outside (-gap, gap) close to the sign, as close as
// can be at the worst; the last is fitted to the values that occur, and so is the
// gap.
func fitComposite(f func(float64) float64, seen *spread, levels int) *ir.Approx {
	row := composites[slices.IndexFunc(composites, func(c composite) bool { return c.levels == levels })]
	u, weight := withRange(seen, rangeShareKink, 2048)
	var best *ir.Approx
	least := math.Inf(1)
	for gap := 0.25; gap > 1e-4; gap /= math.Sqrt2 {
		p := &ir.Approx{Bound: 1}
		s := append([]float64(nil), u...)
		near := gap
		for _, d := range row.inner {
			var c []float64
			c, near = signPolynomial(d, near)
			p.Inner = append(p.Inner, c)
			ir.ClenshawAll(s, c)
		}
		// Least squares for u*p(s) = f(u).
		y, w := make([]float64, len(u)), make([]float64, len(u))
		for i, x := range u {
			if x != 0 {
				y[i], w[i] = f(x)/x, weight[i]*x*x
			}
		}
		var err error
		if p.Coef, err = chebyshevFit(s, y, w, row.last, func(int) bool { return true }); err != nil {
			continue
		}
		sum := 0.0
		for i, x := range u {
			d := p.Unit(x) - f(x)
			sum += weight[i] * d * d
		}
		if sum < least {
			best, least = p, sum
		}
	}
	best.Err = worstError(best, f, []float64{0})
	return best
}

// signPolynomial returns the odd polynomial of the given degree that on
// [gap, 1] lies closest to a constant, by Lawson's reweighted least squares, scaled
// so that it maps [-1,1] into itself; near is its least value on [gap, 1].
func signPolynomial(degree int, gap float64) (c []float64, near float64) {
	n := 16 * (degree + 1)
	u, one, w := make([]float64, n), make([]float64, n), make([]float64, n)
	for i := range u {
		u[i] = (1+gap)/2 + (1-gap)/2*math.Cos(math.Pi*(float64(i)+0.5)/float64(n))
		one[i], w[i] = 1, 1
	}
	odd := func(k int) bool { return k%2 == 1 }
	lo, hi := 0.0, 0.0
	for range 60 {
		next, err := chebyshevFit(u, one, w, degree, odd)
		if err != nil {
			break
		}
		c = next
		lo, hi = math.Inf(1), math.Inf(-1)
		total := 0.0
		for i, x := range u {
			y := ir.Clenshaw(c, x)
			lo, hi = min(lo, y), max(hi, y)
			w[i] *= math.Abs(y-1) + 1e-12
			total += w[i]
		}
		for i := range w {
			w[i] *= float64(n) / total
		}
	}
	for i := range 4096 {
		hi = max(hi, ir.Clenshaw(c, float64(i)/4095))
	}
	for i := range c {
		c[i] /= hi
	}
	return c, lo / hi
}
