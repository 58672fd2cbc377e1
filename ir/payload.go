package ir

import (
	"encoding/binary"
	"iter"
	"math"
	"math/bits"
	"slices"
)

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

// SlotData is a sparse vector over the slots of one ciphertext: the 2^LogLanes
// slots from Index[i]<<LogLanes on hold Value[i], all others are zero. Index
// ascends. Every 0 <= Index < Positions(), and the vector repeats after Period
// slots.
type SlotData struct {
	Period   int // slots, a power of two
	LogLanes int // log2 of the neighbouring slots that an entry stands for (Layout.Lanes)
	Index    []int32
	Value    []float64
	// Imag says that some Index is Positions() + s: the imaginary parts at s.
	Imag bool
	// Packed, where it is set, holds the entries instead; Index and Value are empty.
	Packed *PackedEntries
	// DFT, where it is set, gives the slots instead, which are complex then; Index
	// and Value are empty. The matrices of bootstrapping are large and follow from
	// a few numbers.
	DFT *Diagonal
}

// Complex reports whether slots have imaginary parts.
func (d *SlotData) Complex() bool {
	return d.DFT != nil || d.Imag
}

// Positions returns the number of places in a period.
func (d *SlotData) Positions() int { return d.Period >> d.LogLanes }

// Repeats returns the number of slots, at most Period, after which the vector repeats: a
// diagonal of the layers of a transform below To is the same in each block of 2^To.
func (d *SlotData) Repeats() int {
	if d.DFT != nil {
		return min(d.Period, 1<<d.DFT.To)
	}
	return d.Period
}

// SetImag sets Imag by the indices.
func (d *SlotData) SetImag() {
	d.Imag = len(d.Index) > 0 && int(d.Index[len(d.Index)-1]) >= d.Positions()
}

// PackedEntries holds the entries of a long vector with few different values,
// such as a diagonal of a convolution, in a fraction of the memory.
type PackedEntries struct {
	Count int
	Table []float64 // different values, in the order in which they occur
	Code  []byte    // for each entry two varints: the gap to the index before, the place of its value
}

// packFrom is the number of entries from which Pack has something to do.
const packFrom = 256

// Pack replaces Index and Value by Packed where there are many entries of few
// values.
func (d *SlotData) Pack() {
	if len(d.Index) < packFrom || len(d.Index) != len(d.Value) {
		return
	}
	p := &PackedEntries{Count: len(d.Index), Code: make([]byte, 0, 3*len(d.Index))}
	place := make([]int32, 1<<bits.Len(uint(len(d.Index)/2))) // open addressing: place + 1, or 0
	prev := int32(-1)
	for i, s := range d.Index {
		v := math.Float64bits(d.Value[i])
		h := v * 0x9e3779b97f4a7c15
		at := (h ^ h>>29) & uint64(len(place)-1)
		for place[at] != 0 && math.Float64bits(p.Table[place[at]-1]) != v {
			at = (at + 1) & uint64(len(place)-1)
		}
		if place[at] == 0 {
			p.Table = append(p.Table, d.Value[i])
			place[at] = int32(len(p.Table))
		}
		if len(p.Table) > len(d.Index)/4 || s <= prev {
			return
		}
		p.Code = binary.AppendUvarint(p.Code, uint64(s-prev-1))
		p.Code = binary.AppendUvarint(p.Code, uint64(place[at]-1))
		prev = s
	}
	p.Code, p.Table = slices.Clip(slices.Clone(p.Code)), slices.Clip(p.Table)
	d.Index, d.Value, d.Packed = nil, nil, p
}

// Len returns the number of entries.
func (d *SlotData) Len() int {
	if d.Packed != nil {
		return d.Packed.Count
	}
	return len(d.Index)
}

// Entries visits indices and values. It stops early where packed entries are
// damaged.
func (d *SlotData) Entries() iter.Seq2[int32, float64] {
	return func(yield func(int32, float64) bool) {
		if d.Packed == nil {
			for i, s := range d.Index {
				if !yield(s, d.Value[i]) {
					return
				}
			}
			return
		}
		code, at := d.Packed.Code, int64(-1)
		next := func() uint64 {
			if len(code) > 0 && code[0] < 0x80 {
				x := code[0]
				code = code[1:]
				return uint64(x)
			}
			x, n := binary.Uvarint(code)
			if n <= 0 {
				return math.MaxUint64
			}
			code = code[n:]
			return x
		}
		for range d.Packed.Count {
			gap, v := next(), next()
			if gap >= math.MaxInt32 || v >= uint64(len(d.Packed.Table)) || at+int64(gap) >= math.MaxInt32 {
				return
			}
			if at += int64(gap) + 1; !yield(int32(at), d.Packed.Table[v]) {
				return
			}
		}
	}
}

// lists returns the entries as slices.
func (d *SlotData) lists() ([]int32, []float64) {
	if d.Packed == nil {
		return d.Index, d.Value
	}
	index, value := make([]int32, 0, d.Packed.Count), make([]float64, 0, d.Packed.Count)
	for s, v := range d.Entries() {
		index, value = append(index, s), append(value, v)
	}
	return index, value
}

// Fill writes one period of the slots into z, Period long.
func (d *SlotData) Fill(z []complex128) {
	if d.DFT != nil {
		d.DFT.fill(z)
		return
	}
	clear(z)
	for s, v := range d.Entries() {
		at, x := int(s)<<d.LogLanes, complex(v, 0)
		if at >= d.Period {
			at, x = at-d.Period, complex(0, v)
		}
		for k := range 1 << d.LogLanes {
			z[at+k] += x
		}
	}
}

// Dense expands a real vector to n slots.
func (d *SlotData) Dense(n int) []float64 {
	out := make([]float64, n)
	for base := 0; base < n; base += d.Period {
		for s, v := range d.Entries() {
			for k := range 1 << d.LogLanes {
				out[base+int(s)<<d.LogLanes+k] = v
			}
		}
	}
	return out
}
