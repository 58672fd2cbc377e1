package passes

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"

	"github.com/home-fhe/home/ir"
)

// rung is what a polynomial may cost: levels, and whether a function that is even
// but for a line may have other odd terms as well, which takes half as many
// products again and fits values that are not spread evenly about zero better.
type rung struct {
	levels int
	full   bool
}

// The share that the whole range has in a fit beside the values that occur. Those
// carry the fit of a function with a kink, which no polynomial follows
// everywhere.
const (
	rangeShare     = 0.15
	rangeShareKink = 0.001
)

// fitPolynomial approximates f on [lo,hi] by the best polynomial that costs no
// more than the rung: least squares in the Chebyshev basis over Chebyshev nodes of
// the whole range together with the values that really occur there, nil where
// they are unknown. Where f minus a line is even about zero, unless the rung is
// full, only the linear and the even terms are used, on a symmetric range; such a
// polynomial has degree 2^levels-2.
func fitPolynomial(f func(float64) float64, shape ir.ActShape, lo, hi float64, seen *spread, k rung) (*ir.Approx, error) {
	center, bound := spanOf(shape, Range{lo, hi})
	degree := 1<<k.levels - 1
	evenOnly := shape.Sym == ir.SymEven && k.levels >= 2 && !k.full
	if evenOnly {
		degree--
	}
	var basis []int
	for k := 0; k <= degree; k++ {
		if !evenOnly || k < 2 || k%2 == 0 {
			basis = append(basis, k)
		}
	}
	nodes := max(256, 6*degree)
	share := rangeShare
	if len(shape.Kinks) > 0 {
		share = rangeShareKink
	}
	var pts, weights []float64
	if seen != nil {
		pts, weights = seen.points()
	}
	total := 0.0
	for _, w := range weights {
		total += w
	}
	if total == 0 {
		total = 1
	}
	for i := range nodes {
		pts = append(pts, math.Cos(math.Pi*(float64(i)+0.5)/float64(nodes)))
		weights = append(weights, share*total/float64(nodes))
	}
	a := mat.NewDense(len(pts), len(basis), nil)
	y := mat.NewVecDense(len(pts), nil)
	t := make([]float64, degree+1)
	for i, u := range pts {
		w := math.Sqrt(weights[i])
		t[0] = 1
		if degree > 0 {
			t[1] = u
		}
		for k := 2; k <= degree; k++ {
			t[k] = 2*u*t[k-1] - t[k-2]
		}
		for j, k := range basis {
			a.Set(i, j, w*t[k])
		}
		v := f(center + bound*u)
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("the function is not finite at %g, inside its range [%g, %g]", center+bound*u, lo, hi)
		}
		y.SetVec(i, w*v)
	}
	var qr mat.QR
	qr.Factorize(a)
	var x mat.VecDense
	if err := qr.SolveVecTo(&x, false, y); err != nil {
		return nil, fmt.Errorf("least squares of degree %d: %w", degree, err)
	}
	p := &ir.Approx{Coef: make([]float64, degree+1), Center: center, Bound: bound}
	for j, k := range basis {
		p.Coef[k] = x.AtVec(j)
	}
	p.Coef = trimCoef(p.Coef)
	p.Err = worstError(p, f, shape.Kinks)
	return p, nil
}

// spanOf returns the centre and half width that a polynomial takes for a range.
func spanOf(shape ir.ActShape, r Range) (center, bound float64) {
	center, bound = (r.Lo+r.Hi)/2, (r.Hi-r.Lo)/2
	if shape.Sym == ir.SymEven {
		center, bound = 0, max(math.Abs(r.Lo), math.Abs(r.Hi))
	}
	if !(bound > 0) {
		bound = 1e-6
	}
	return center, bound
}

// worstError returns the largest error of an approximation of f on its range,
// from a grid and the kinks, where the error is largest.
func worstError(p *ir.Approx, f func(float64) float64, kinks []float64) float64 {
	worst := 0.0
	at := func(u float64) { worst = max(worst, math.Abs(p.Unit(u)-f(p.Center+p.Bound*u))) }
	for i := range 4096 {
		at(-math.Cos(math.Pi * float64(i) / 4095))
	}
	for _, k := range kinks {
		if u := (k - p.Center) / p.Bound; math.Abs(u) <= 1 {
			at(u)
		}
	}
	return worst
}

// spread gathers values in [-1,1] with weights, in bins as wide as a polynomial
// of any degree in use can tell apart.
type spread struct{ weight, sum [spreadBins]float64 }

const spreadBins = 2048

// add counts a value; one outside [-1,1] is left out.
func (s *spread) add(u, weight float64) {
	if !(math.Abs(u) <= 1) {
		return
	}
	b := min(spreadBins-1, int(math.Acos(u)*(spreadBins/math.Pi)))
	s.weight[b] += weight
	s.sum[b] += weight * u
}

// points returns the mean and the weight of every bin in use.
func (s *spread) points() (u, weight []float64) {
	for b, w := range s.weight {
		if w > 0 {
			u, weight = append(u, s.sum[b]/w), append(weight, w)
		}
	}
	return u, weight
}

// trimCoef drops trailing coefficients and zeroes inner ones that are rounding
// noise, keeping degree at least 1.
func trimCoef(c []float64) []float64 {
	m := 0.0
	for _, v := range c {
		m = max(m, math.Abs(v))
	}
	for k, v := range c {
		if math.Abs(v) < 1e-15*m {
			c[k] = 0
		}
	}
	n := len(c)
	for n > 2 && c[n-1] == 0 {
		n--
	}
	return c[:n]
}
