package runtime

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// ApplyClientOps evaluates the operators that were moved behind decryption, in
// order, on an output of the network. The leading axis may hold any number of
// samples; the other dimensions must be those that the operators were compiled
// for.
func ApplyClientOps(ops []plan.ClientOp, a *ir.Array) (*ir.Array, error) {
	for i := range ops {
		o := &ops[i]
		fail := func(format string, args ...any) error {
			return fmt.Errorf("client operator %s (%s): %s", o.Node, o.Op, fmt.Sprintf(format, args...))
		}
		if len(a.Shape) != len(o.Input) || len(a.Shape) > 0 && !slices.Equal(a.Shape[1:], o.Input[1:]) {
			return nil, fail("operand of shape %v, compiled for %v", a.Shape, o.Input)
		}
		if o.Axis < 0 || o.Axis >= max(1, len(a.Shape)) {
			return nil, fail("axis %d of shape %v", o.Axis, a.Shape)
		}
		switch o.Op {
		case "Softmax", "LogSoftmax":
			a = softmax(a, o.Axis, o.Flat, o.Op == "LogSoftmax")
		case "ArgMax":
			a = argMax(a, o.Axis, o.Keep, o.Last)
		default:
			return nil, fail("not known to this build")
		}
	}
	return a, nil
}

// lines calls f for every line of a along axis: the line's first element and
// the step between its elements. With flat a line takes all axes from axis on.
func lines(shape []int, axis int, flat bool, f func(line, first, step, n int)) {
	if len(shape) == 0 {
		f(0, 0, 1, 1)
		return
	}
	n, step := shape[axis], ir.NumElems(shape[axis+1:])
	if flat {
		n, step = n*step, 1
	}
	line := 0
	for outer := range ir.NumElems(shape[:axis]) {
		for inner := range step {
			f(line, outer*n*step+inner, step, n)
			line++
		}
	}
}

// softmax subtracts the largest score first, so that no exponential overflows.
func softmax(a *ir.Array, axis int, flat, log bool) *ir.Array {
	out := a.Clone()
	lines(a.Shape, axis, flat, func(_, first, step, n int) {
		top := math.Inf(-1)
		for i := range n {
			top = max(top, a.Data[first+i*step])
		}
		sum := 0.0
		for i := range n {
			sum += math.Exp(a.Data[first+i*step] - top)
		}
		for i := range n {
			d := &out.Data[first+i*step]
			if log {
				*d = *d - top - math.Log(sum)
			} else {
				*d = math.Exp(*d-top) / sum
			}
		}
	})
	return out
}

func argMax(a *ir.Array, axis int, keep, last bool) *ir.Array {
	shape := slices.Clone(a.Shape)
	switch {
	case len(shape) == 0:
	case keep:
		shape[axis] = 1
	default:
		shape = slices.Delete(shape, axis, axis+1)
	}
	out := ir.NewArray(shape...)
	lines(a.Shape, axis, false, func(line, first, step, n int) {
		best := 0
		for i := 1; i < n; i++ {
			if d := a.Data[first+i*step] - a.Data[first+best*step]; d > 0 || last && d == 0 {
				best = i
			}
		}
		out.Data[line] = float64(best)
	})
	return out
}

// Unpack reads the samples of an output port from decrypted slot vectors, one
// per ciphertext of the port, and undoes the normalisation: the array has the
// port's shape, lanes along the first axis.
func Unpack(port *plan.Port, slots [][]float64, batch int) (*ir.Array, error) {
	l := port.Layout
	n := ir.NumElems(port.Shape)
	if len(slots) != l.Cts {
		return nil, fmt.Errorf("output %s: %d ciphertexts, want %d", port.Name, len(slots), l.Cts)
	}
	for i, s := range slots {
		if len(s) != l.Slots {
			return nil, fmt.Errorf("output %s: ciphertext %d has %d slots, want %d", port.Name, i, len(s), l.Slots)
		}
	}
	if batch < 1 || batch > l.Lanes {
		return nil, fmt.Errorf("output %s: %d samples in %d lanes", port.Name, batch, l.Lanes)
	}
	var data []float64
	for lane := range batch {
		data = append(data, l.Unpack(slots, lane, n)...)
		one := data[lane*n:]
		for i := range one {
			one[i] = port.Restore(i, one[i])
		}
	}
	if batch == 1 {
		return ir.ArrayOf(data, port.Shape...), nil
	}
	return ir.ArrayOf(data, laneShape(port.Shape, batch)...), nil
}

// Pack is the inverse of Unpack for an input port: it takes an array of the
// port's shape, or with lanes of that of a lane repeated along the first axis.
// An element beyond the port's limit is refused: the polynomials of the network
// know nothing there.
func Pack(port *plan.Port, a *ir.Array) ([][]float64, error) {
	l := port.Layout
	n := ir.NumElems(port.Shape)
	if n == 0 || len(a.Data)%n != 0 || len(a.Data)/n < 1 || len(a.Data)/n > l.Lanes {
		return nil, fmt.Errorf("input %s: array of shape %v does not fit %v in %d lanes", port.Name, a.Shape, port.Shape, l.Lanes)
	}
	samples := make([][]float64, len(a.Data)/n)
	for s := range samples {
		samples[s] = make([]float64, n)
		for i, x := range a.Data[s*n : (s+1)*n] {
			u := port.Normalise(i, x)
			if port.Limit > 0 && !(math.Abs(u) <= port.Limit) {
				lo, hi := port.Restore(i, -port.Limit), port.Restore(i, port.Limit)
				return nil, fmt.Errorf("input %s: element %d is %g, outside %.6g to %.6g, which the plan was compiled for; calibrate with samples that cover it", port.Name, i, x, min(lo, hi), max(lo, hi))
			}
			samples[s][i] = u
		}
	}
	return l.Pack(samples...), nil
}

func laneShape(shape []int, lanes int) []int {
	if len(shape) == 0 {
		return []int{lanes}
	}
	s := slices.Clone(shape)
	s[0] *= lanes
	return s
}

// Class is one class of a prediction.
type Class struct {
	Index int     `json:"index"`
	Label string  `json:"label,omitempty"`
	Score float64 `json:"score"`
}

// Top returns the k largest scores, largest first and equal ones by index.
// labels may be nil or too short: classes beyond it have none.
func Top(scores []float64, labels []string, k int) []Class {
	c := make([]Class, len(scores))
	for i, s := range scores {
		c[i] = Class{Index: i, Score: s}
		if i < len(labels) {
			c[i].Label = labels[i]
		}
	}
	slices.SortStableFunc(c, func(a, b Class) int { return cmp.Compare(b.Score, a.Score) })
	return c[:min(max(k, 0), len(c))]
}

// Round rounds v to a multiple of 2^-bits, the precision that the plan
// predicts: what lies below it is noise, which would only tell about the key.
func Round(v, bits float64) float64 {
	if math.IsInf(bits, 1) {
		return v
	}
	unit := math.Exp2(-math.Floor(bits))
	return math.Round(v/unit) * unit
}
