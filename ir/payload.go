package ir

import "math"

// Approx is a polynomial that stands in for an activation: in the Chebyshev
// basis on [-Bound, Bound] shifted to Center, so the polynomial variable is
// u = (x-Center)/Bound in [-1,1] and the value is p(u) = sum Coef[k]*T_k(u).
type Approx struct {
	Coef   []float64 // Chebyshev coefficients
	Center float64
	Bound  float64 // half width of the range, > 0
	Err    float64 // largest |approximation - function| on the range
	// Channels, where not nil, stands in for Center and Bound, which then enclose
	// all of it: one entry for every index of axis 1.
	Channels []Channel
	// Inner, where not nil, makes a composite: Chebyshev coefficients of polynomials
	// from [-1,1] to [-1,1] that are applied to u one after the other, and the value
	// is u*p(inner(u)).
	Inner [][]float64
}

// Channel is the range of one channel and the factor of its value: Gain*p(u) with
// u = (x-Center)/Bound.
type Channel struct{ Center, Bound, Gain float64 }

// Degree returns the index of the last coefficient.
func (a *Approx) Degree() int { return len(a.Coef) - 1 }

// Channel returns the range and factor of a channel.
func (a *Approx) Channel(c int) Channel {
	if a.Channels == nil {
		return Channel{a.Center, a.Bound, 1}
	}
	return a.Channels[c]
}

// At evaluates the polynomial in a channel.
func (a *Approx) At(c int, x float64) float64 {
	h := a.Channel(c)
	return h.Gain * a.Unit((x-h.Center)/h.Bound)
}

// Unit evaluates at u in [-1,1], by Clenshaw's recurrence.
func (a *Approx) Unit(u float64) float64 {
	if a.Inner == nil {
		return Clenshaw(a.Coef, u)
	}
	s := u
	for _, c := range a.Inner {
		s = Clenshaw(c, s)
	}
	return u * Clenshaw(a.Coef, s)
}

// Outside reports whether x lies beyond the range the polynomial is good for.
func (h Channel) Outside(x float64) bool { return math.Abs(x-h.Center) > h.Bound*(1+1e-12) }

// Clenshaw evaluates sum c[k]*T_k(u).
func Clenshaw(c []float64, u float64) float64 {
	var b1, b2 float64
	for k := len(c) - 1; k > 0; k-- {
		b1, b2 = 2*u*b1-b2+c[k], b1
	}
	if len(c) == 0 {
		return 0
	}
	return u*b1 - b2 + c[0]
}

// Linear is the payload of OpPackLinear: y = sum_k M_k x_k + Bias, over tensor
// elements. Layouts say where the elements sit; the matrix does not.
type Linear struct {
	Mats []*Sparse
	Bias []float64 // length Rows, or nil
}

// Sparse is a matrix in compressed row form with sorted, unique columns.
type Sparse struct {
	Rows, Cols int
	Ptr        []int32 // len Rows+1
	Col        []int32
	Val        []float64
}

// NNZ returns the number of stored entries.
func (m *Sparse) NNZ() int { return len(m.Col) }

// Row returns the columns and values of row i, aliasing the matrix.
func (m *Sparse) Row(i int) ([]int32, []float64) {
	return m.Col[m.Ptr[i]:m.Ptr[i+1]], m.Val[m.Ptr[i]:m.Ptr[i+1]]
}

// SlotData is a sparse vector over the slots of one ciphertext: the value of
// slot Index[i] is Value[i], all others are zero. Index ascends. Every 0 <= Index
// < Period, and the vector repeats with that period over the slots.
type SlotData struct {
	Period int
	Index  []int32
	Value  []float64
	// Imag says that some Index is Period + s: the imaginary part of slot s.
	Imag bool
	// DFT, where it is set, gives the slots instead, which are complex then; Index
	// and Value are empty. The matrices of bootstrapping are large and follow from
	// a few numbers.
	DFT *Diagonal
}

// Complex reports whether slots have imaginary parts.
func (d *SlotData) Complex() bool {
	return d.DFT != nil || d.Imag
}

// SetImag sets Imag by the indices.
func (d *SlotData) SetImag() {
	d.Imag = len(d.Index) > 0 && int(d.Index[len(d.Index)-1]) >= d.Period
}

// Fill writes one period of the slots into z, Period long.
func (d *SlotData) Fill(z []complex128) {
	if d.DFT != nil {
		d.DFT.fill(z)
		return
	}
	clear(z)
	for i, s := range d.Index {
		if v := d.Value[i]; int(s) < d.Period {
			z[s] = complex(v, 0)
		} else {
			z[int(s)-d.Period] += complex(0, v)
		}
	}
}

// Dense expands a real vector to n slots.
func (d *SlotData) Dense(n int) []float64 {
	out := make([]float64, n)
	for base := 0; base < n; base += d.Period {
		for i, s := range d.Index {
			out[base+int(s)] = d.Value[i]
		}
	}
	return out
}
