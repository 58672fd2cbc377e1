package passes

import (
	"errors"
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
	share := rangeShare
	if len(shape.Kinks) > 0 {
		share = rangeShareKink
	}
	pts, weights := withRange(seen, share, max(256, 6*degree))
	y := make([]float64, len(pts))
	for i, u := range pts {
		if y[i] = f(center + bound*u); math.IsNaN(y[i]) || math.IsInf(y[i], 0) {
			return nil, fmt.Errorf("the function is not finite at %g, inside its range [%g, %g]", center+bound*u, lo, hi)
		}
	}
	c, err := chebyshevFit(pts, y, weights, degree, func(k int) bool { return !evenOnly || k < 2 || k%2 == 0 })
	if err != nil {
		return nil, fmt.Errorf("least squares of degree %d: %w", degree, err)
	}
	p := &ir.Approx{Coef: c, Center: center, Bound: bound}
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
	points := 4096
	if p.Inner != nil { // composites oscillate faster
		points *= 16
	}
	for i := range points {
		at(-math.Cos(math.Pi * float64(i) / float64(points-1)))
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
type spread struct {
	weight, sum [spreadBins]float64
	count       int
}

const spreadBins = 2048

// add counts a value; one outside [-1,1] is left out.
func (s *spread) add(u, weight float64) {
	if !(math.Abs(u) <= 1) {
		return
	}
	s.count++
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

// chebyshevFit returns the coefficients of the least squares polynomial through
// weighted points of [-1,1], with the terms that use allows.
func chebyshevFit(u, y, weight []float64, degree int, use func(k int) bool) ([]float64, error) {
	var basis []int
	for k := 0; k <= degree; k++ {
		if use(k) {
			basis = append(basis, k)
		}
	}
	// The products of the basis follow from its moments: T_i*T_j is half of
	// T_{i+j}+T_{|i-j|}.
	moment, right := make([]float64, 2*degree+1), make([]float64, degree+1)
	for i, x := range u {
		w := weight[i]
		t, next := 1.0, x
		for k := range moment {
			moment[k] += w * t
			if k <= degree {
				right[k] += w * y[i] * t
			}
			t, next = next, 2*x*next-t
		}
	}
	gram, rhs := mat.NewSymDense(len(basis), nil), mat.NewVecDense(len(basis), nil)
	for i, k := range basis {
		for j, l := range basis[:i+1] {
			gram.SetSym(i, j, (moment[k+l]+moment[k-l])/2)
		}
		gram.SetSym(i, i, gram.At(i, i)*(1+1e-14))
		rhs.SetVec(i, right[k])
	}
	var chol mat.Cholesky
	if !chol.Factorize(gram) {
		return nil, errors.New("the points do not determine it")
	}
	var x mat.VecDense
	if err := chol.SolveVecTo(&x, rhs); err != nil {
		return nil, err
	}
	c := make([]float64, degree+1)
	for j, k := range basis {
		c[k] = x.AtVec(j)
	}
	return trimCoef(c), nil
}

// fewValues are so few that a polynomial fitted to them alone would be arbitrary
// between them.
const fewValues = 16

// withRange returns the values seen with their weights, and Chebyshev nodes of the
// whole of [-1,1] that have the given share beside them, and more where values are
// few.
func withRange(seen *spread, share float64, nodes int) (u, weight []float64) {
	total := 0.0
	if seen != nil {
		u, weight = seen.points()
		for _, w := range weight {
			total += w
		}
		share += fewValues / float64(max(1, seen.count))
	}
	if total == 0 {
		total = 1
	}
	for i := range nodes {
		u = append(u, math.Cos(math.Pi*(float64(i)+0.5)/float64(nodes)))
		weight = append(weight, share*total/float64(nodes))
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
