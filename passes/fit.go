package passes

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/home-fhe/home/ir"
)

// fitPolynomial approximates f on [lo,hi] by the best polynomial that costs the
// given number of levels: least squares in the Chebyshev basis over Chebyshev
// nodes of the whole range together with a sample of the values that really
// occur there, which count more. Where f minus a line is even about zero, only
// the linear and the even terms are used, on a symmetric range; such a
// polynomial has degree 2^levels-2 and costs half the products.
func fitPolynomial(f func(float64) float64, shape ir.ActShape, lo, hi float64, sample []float64, levels int) (*ir.Approx, error) {
	center, bound := (lo+hi)/2, (hi-lo)/2
	degree := 1<<levels - 1
	evenOnly := shape.Sym == ir.SymEven && levels >= 2
	if evenOnly {
		center, bound = 0, max(math.Abs(lo), math.Abs(hi))
		degree--
	}
	if !(bound > 0) {
		bound = 1e-6
	}
	var basis []int
	for k := 0; k <= degree; k++ {
		if !evenOnly || k < 2 || k%2 == 0 {
			basis = append(basis, k)
		}
	}
	nodes := max(256, 6*degree)
	pts := make([]float64, 0, nodes+len(sample))
	for i := range nodes {
		pts = append(pts, math.Cos(math.Pi*(float64(i)+0.5)/float64(nodes)))
	}
	for _, x := range sample {
		if u := (x - center) / bound; math.Abs(u) <= 1 {
			pts = append(pts, u)
		}
	}
	wNode := 1.0
	if len(pts) > nodes && len(shape.Kinks) > 0 {
		wNode = 0.15 // the occurring values carry the fit of a function with a kink
	}
	rows := len(pts)
	a := mat.NewDense(rows, len(basis), nil)
	y := mat.NewVecDense(rows, nil)
	t := make([]float64, degree+1)
	for i, u := range pts {
		w := 1.0
		if i < nodes {
			w = wNode
		}
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
	worst := func(u float64) { p.Err = max(p.Err, math.Abs(ir.Clenshaw(p.Coef, u)-f(center+bound*u))) }
	for i := range 4096 {
		worst(-math.Cos(math.Pi * float64(i) / 4095))
	}
	for _, k := range shape.Kinks { // where the error of a function with a kink is largest
		if u := (k - center) / bound; math.Abs(u) <= 1 {
			worst(u)
		}
	}
	return p, nil
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

// quantiles returns about n values spread evenly over the sorted sample.
func quantiles(s []float64, n int) []float64 {
	s = slices.Clone(s)
	slices.Sort(s)
	if len(s) <= n {
		return s
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = s[i*(len(s)-1)/(n-1)]
	}
	return out
}
