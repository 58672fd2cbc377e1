package ir

import (
	"fmt"
	"math"
	"slices"
)

// Every op that only moves elements is described by one table per axis of its
// result: the element at coordinates (c0, c1, ...) comes from element
// t0[c0]+t1[c1]+... of the argument, or is the fill value where a table says
// none. Eval and Linear of such an op are read off the same tables.
type tables func(v *Value, shape []int) (t [][]int, fill float64, err error)

// none marks a coordinate that no element of the argument is moved to.
const none = -1

// eachMove visits the elements of the result in row-major order.
func eachMove(t [][]int, f func(out, in int)) {
	out := 0
	var visit func(d, base int)
	visit = func(d, base int) {
		last := d == len(t)-1
		for _, off := range t[d] {
			at := none
			if base != none && off != none {
				at = base + off
			}
			if last {
				f(out, at)
				out++
			} else {
				visit(d+1, at)
			}
		}
	}
	if len(t) == 0 {
		f(0, 0)
		return
	}
	visit(0, 0)
}

func evalMove(tab tables) func(v *Value, args []*Array) (*Array, error) {
	return func(v *Value, args []*Array) (*Array, error) {
		t, fill, err := tab(v, args[0].Shape)
		if err != nil {
			return nil, err
		}
		out := NewArray(v.Type.Shape...)
		src := args[0].Data
		eachMove(t, func(o, i int) {
			if i == none {
				out.Data[o] = fill
			} else {
				out.Data[o] = src[i]
			}
		})
		return out, nil
	}
}

func linearMove(tab tables) linearFn {
	return func(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
		t, fill, err := tab(v, v.Args[0].Type.Shape)
		if err != nil {
			return err
		}
		if !v.Args[0].Type.Encrypted {
			return fmt.Errorf("%s of a constant is not folded", v.Op)
		}
		eachMove(t, func(o, i int) {
			if i == none {
				bias(o, fill)
			} else {
				emit(o, 0, i, 1)
			}
		})
		return nil
	}
}

// ramp returns 0, step, 2*step, ... of length n.
func ramp(n, step int) []int {
	r := make([]int, n)
	for i := range r {
		r[i] = i * step
	}
	return r
}

func padShape(v *Value) ([]int, error) {
	x, pads := v.Args[0].Type.Shape, v.Attrs.Ints("pads")
	if len(pads) != 2*len(x) {
		return nil, fmt.Errorf("attribute pads has %d entries, want %d", len(pads), 2*len(x))
	}
	mode := v.Attrs.Str("mode", "constant")
	shape := make([]int, len(x))
	for d, n := range x {
		before, after := pads[d], pads[len(x)+d]
		if max(before, after) > MaxElems || min(before, after) < -MaxElems {
			return nil, fmt.Errorf("attribute pads contains %d and %d", before, after)
		}
		shape[d] = before + n + after
		if shape[d] < 0 {
			return nil, fmt.Errorf("pads %d and %d crop more than the %d entries of axis %d", before, after, n, d)
		}
		most := MaxElems
		switch mode {
		case "constant":
		case "reflect":
			most = n - 1
		case "edge":
			if n == 0 {
				most = 0
			}
		case "wrap":
			most = n
		default:
			return nil, fmt.Errorf("attribute mode is %q, want constant, reflect, edge or wrap", mode)
		}
		if max(before, after, 0) > max(most, 0) {
			return nil, fmt.Errorf("%s pads %d and %d are too large for the %d entries of axis %d", mode, before, after, n, d)
		}
	}
	return shape, nil
}

func inferPad(v *Value) ([]int, DType, error) {
	s, err := padShape(v)
	if x := v.Attrs.Float("value", 0); err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
		err = fmt.Errorf("attribute value is %v", x)
	}
	return s, v.Args[0].Type.DType, err
}

func padTables(v *Value, x []int) ([][]int, float64, error) {
	shape, err := padShape(v)
	if err != nil {
		return nil, 0, err
	}
	pads, mode, strides := v.Attrs.Ints("pads"), v.Attrs.Str("mode", "constant"), Strides(x)
	t := make([][]int, len(x))
	for d, n := range x {
		t[d] = make([]int, shape[d])
		for o := range t[d] {
			i := o - pads[d]
			if i < 0 || i >= n {
				switch mode {
				case "constant":
					t[d][o] = none
					continue
				case "reflect":
					if i < 0 {
						i = -i
					} else {
						i = 2*(n-1) - i
					}
				case "edge":
					i = min(max(i, 0), n-1)
				case "wrap":
					i = (i + n) % n
				}
			}
			t[d][o] = i * strides[d]
		}
	}
	return t, v.Attrs.Float("value", 0), nil
}

func inferReshape(v *Value) ([]int, DType, error) {
	s := v.Attrs.Ints("shape")
	if err := CheckDims(s); err != nil {
		return nil, 0, err
	}
	if x := v.Args[0].Type; NumElems(s) != x.Elems() {
		return nil, 0, fmt.Errorf("reshape of %v to %v changes the number of elements", x.Shape, s)
	}
	return s, v.Args[0].Type.DType, nil
}

// evalReshape shares the data: arrays are never written after they are made.
func evalReshape(v *Value, args []*Array) (*Array, error) {
	return args[0].Reshape(v.Type.Shape...), nil
}

func reshapeTables(_ *Value, x []int) ([][]int, float64, error) {
	return [][]int{ramp(NumElems(x), 1)}, 0, nil
}

// permOf returns the permutation of a transpose.
func permOf(v *Value, rank int) ([]int, error) {
	p, ok := v.Attrs["perm"].([]int)
	if !ok {
		p = ramp(rank, 1)
		slices.Reverse(p)
		return p, nil
	}
	sorted := slices.Clone(p)
	slices.Sort(sorted)
	if !slices.Equal(sorted, ramp(rank, 1)) {
		return nil, fmt.Errorf("attribute perm %v does not permute %d axes", p, rank)
	}
	return p, nil
}

func inferTranspose(v *Value) ([]int, DType, error) {
	x := v.Args[0].Type
	p, err := permOf(v, len(x.Shape))
	if err != nil {
		return nil, 0, err
	}
	s := make([]int, len(p))
	for i, a := range p {
		s[i] = x.Shape[a]
	}
	return s, x.DType, nil
}

func transposeTables(v *Value, x []int) ([][]int, float64, error) {
	p, err := permOf(v, len(x))
	if err != nil {
		return nil, 0, err
	}
	strides := Strides(x)
	t := make([][]int, len(p))
	for i, a := range p {
		t[i] = ramp(x[a], strides[a])
	}
	return t, 0, nil
}

func inferConcat(v *Value) ([]int, DType, error) {
	first := v.Args[0].Type
	ax, err := axis(v.Attrs.Int("axis", 0), len(first.Shape))
	if err != nil {
		return nil, 0, err
	}
	s := slices.Clone(first.Shape)
	d := first.DType
	for i, a := range v.Args[1:] {
		t := a.Type.Shape
		if len(t) != len(s) || !slices.Equal(t[:ax], s[:ax]) || !slices.Equal(t[ax+1:], s[ax+1:]) {
			return nil, 0, fmt.Errorf("argument %d of shape %v does not join %v along axis %d", i+1, t, first.Shape, ax)
		}
		if s[ax] += t[ax]; s[ax] > MaxElems {
			return nil, 0, fmt.Errorf("result has more than %d elements", MaxElems)
		}
		if a.Type.DType != d {
			d = Real
		}
	}
	return s, d, nil
}

// eachPart visits the runs of consecutive elements a concatenation consists of:
// n elements of argument arg from in on become those of the result from out on.
func eachPart(v *Value, f func(out, arg, in, n int)) {
	ax, _ := axis(v.Attrs.Int("axis", 0), len(v.Type.Shape)) // checked by Infer
	outer, inner := NumElems(v.Type.Shape[:ax]), NumElems(v.Type.Shape[ax+1:])
	out := 0
	for o := range outer {
		for i, a := range v.Args {
			n := a.Type.Shape[ax] * inner
			f(out, i, o*n, n)
			out += n
		}
	}
}

func evalConcat(v *Value, args []*Array) (*Array, error) {
	out := NewArray(v.Type.Shape...)
	eachPart(v, func(o, arg, in, n int) { copy(out.Data[o:o+n], args[arg].Data[in:]) })
	return out, nil
}

func linearConcat(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
	eachPart(v, func(o, arg, in, n int) {
		a := v.Args[arg]
		for i := range n {
			if a.Type.Encrypted {
				emit(o+i, arg, in+i, 1)
			} else {
				bias(o+i, a.Array.Data[in+i])
			}
		}
	})
	return nil
}

// sliceRange is what a slice takes of one axis.
type sliceRange struct{ start, step, n int }

func sliceRanges(v *Value, x []int) ([]sliceRange, error) {
	starts, ends := v.Attrs.Ints("starts"), v.Attrs.Ints("ends")
	axes, ok := v.Attrs["axes"].([]int)
	if !ok {
		axes = ramp(len(starts), 1)
	}
	steps, ok := v.Attrs["steps"].([]int)
	if !ok {
		steps = slices.Repeat([]int{1}, len(starts))
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || len(steps) != len(starts) {
		return nil, fmt.Errorf("%d starts, %d ends, %d axes, %d steps", len(starts), len(ends), len(axes), len(steps))
	}
	r := make([]sliceRange, len(x))
	for d, n := range x {
		r[d] = sliceRange{0, 1, n}
	}
	seen := make([]bool, len(x))
	for i, a := range axes {
		d, err := axis(a, len(x))
		if err != nil {
			return nil, err
		}
		if seen[d] {
			return nil, fmt.Errorf("axis %d is sliced twice", d)
		}
		seen[d] = true
		n, step := x[d], steps[i]
		if step == 0 {
			return nil, fmt.Errorf("step 0 along axis %d", d)
		}
		// A step beyond the axis takes one element, whatever its size.
		step = min(max(step, -n-1), n+1)
		bound := func(b, lo, hi int) int {
			if b < 0 {
				b = max(b, -2*MaxElems) + n
			}
			return min(max(b, lo), hi)
		}
		count, start := 0, 0
		if step > 0 {
			start = bound(starts[i], 0, n)
			end := bound(ends[i], 0, n)
			count = (end - start + step - 1) / step
		} else {
			start = bound(starts[i], -1, n-1)
			end := bound(ends[i], -1, n-1)
			count = (start - end - step - 1) / -step
		}
		r[d] = sliceRange{max(start, 0), step, max(count, 0)}
	}
	return r, nil
}

func inferSlice(v *Value) ([]int, DType, error) {
	x := v.Args[0].Type
	r, err := sliceRanges(v, x.Shape)
	if err != nil {
		return nil, 0, err
	}
	s := make([]int, len(r))
	for d := range r {
		s[d] = r[d].n
	}
	return s, x.DType, nil
}

func sliceTables(v *Value, x []int) ([][]int, float64, error) {
	r, err := sliceRanges(v, x)
	if err != nil {
		return nil, 0, err
	}
	strides := Strides(x)
	t := make([][]int, len(x))
	for d := range t {
		t[d] = ramp(r[d].n, r[d].step*strides[d])
		for i := range t[d] {
			t[d][i] += r[d].start * strides[d]
		}
	}
	return t, 0, nil
}

func inferGather(v *Value) ([]int, DType, error) {
	x, idx := v.Args[0].Type, v.Args[1]
	ax, err := axis(v.Attrs.Int("axis", 0), len(x.Shape))
	if err != nil {
		return nil, 0, err
	}
	if idx.Type.Encrypted {
		return nil, 0, fmt.Errorf("indices are encrypted; they must be constants")
	}
	if idx.Op == OpConst {
		if _, err := gatherIndex(idx.Array, x.Shape[ax]); err != nil {
			return nil, 0, err
		}
	}
	s := slices.Clone(x.Shape[:ax])
	s = append(s, idx.Type.Shape...)
	return append(s, x.Shape[ax+1:]...), x.DType, nil
}

func gatherIndex(a *Array, n int) ([]int, error) {
	idx := make([]int, len(a.Data))
	for i, f := range a.Data {
		if f != math.Trunc(f) || f < -float64(n) || f >= float64(n) {
			return nil, fmt.Errorf("index %v into an axis of %d entries", f, n)
		}
		if idx[i] = int(f); f < 0 {
			idx[i] += n
		}
	}
	return idx, nil
}

// gatherTables sees x as [before, axis, after]: the shape of the indices does
// not matter for the order of the elements.
func gatherTables(v *Value, index *Array) ([][]int, error) {
	x := v.Args[0].Type.Shape
	ax, err := axis(v.Attrs.Int("axis", 0), len(x))
	if err != nil {
		return nil, err
	}
	idx, err := gatherIndex(index, x[ax])
	if err != nil {
		return nil, err
	}
	inner := NumElems(x[ax+1:])
	return [][]int{ramp(NumElems(x[:ax]), x[ax]*inner), scaled(idx, inner), ramp(inner, 1)}, nil
}

func evalGather(v *Value, args []*Array) (*Array, error) {
	t, err := gatherTables(v, args[1])
	if err != nil {
		return nil, err
	}
	out := NewArray(v.Type.Shape...)
	eachMove(t, func(o, i int) { out.Data[o] = args[0].Data[i] })
	return out, nil
}

func linearGather(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
	if !v.Args[0].Type.Encrypted {
		return fmt.Errorf("gather of a constant is not folded")
	}
	t, err := gatherTables(v, v.Args[1].Array)
	if err != nil {
		return err
	}
	eachMove(t, func(o, i int) { emit(o, 0, i, 1) })
	return nil
}

func inferExpand(v *Value) ([]int, DType, error) {
	s := v.Attrs.Ints("shape")
	if err := CheckDims(s); err != nil {
		return nil, 0, err
	}
	s, err := Broadcast(v.Args[0].Type.Shape, s)
	return s, v.Args[0].Type.DType, err
}

func expandTables(v *Value, x []int) ([][]int, float64, error) {
	shape := v.Type.Shape
	t := make([][]int, len(shape))
	for d, s := range broadcastStrides(x, shape) {
		t[d] = ramp(shape[d], s)
	}
	return t, 0, nil
}

// reduced says which axes a reduction removes, and whether they stay as ones.
func reduced(v *Value, rank int) (gone []bool, keep bool, err error) {
	gone = make([]bool, rank)
	axes, ok := v.Attrs["axes"].([]int)
	if !ok {
		axes = ramp(rank, 1)
	}
	for _, a := range axes {
		d, err := axis(a, rank)
		if err != nil {
			return nil, false, err
		}
		if gone[d] {
			return nil, false, fmt.Errorf("axis %d is reduced twice", d)
		}
		gone[d] = true
	}
	keep, err = boolAttr(v, "keepdims", 1)
	return gone, keep, err
}

func inferReduce(v *Value) ([]int, DType, error) {
	x := v.Args[0].Type
	gone, keep, err := reduced(v, len(x.Shape))
	if err != nil {
		return nil, 0, err
	}
	s, n := []int{}, 1
	for d, g := range gone {
		switch {
		case !g:
			s = append(s, x.Shape[d])
		case keep:
			s = append(s, 1)
		}
		if g {
			n *= x.Shape[d]
		}
	}
	if n == 0 && v.Op != OpReduceSum {
		return nil, 0, fmt.Errorf("%s over no elements", v.Op)
	}
	d := Real
	if v.Op != OpReduceMean {
		d = arithmetic(v.Args)
	}
	return s, d, nil
}

// reduceIndex returns where each result starts in the argument, and the offsets
// of the elements it is made of.
func reduceIndex(v *Value, x []int) (base, offs []int, err error) {
	gone, _, err := reduced(v, len(x))
	if err != nil {
		return nil, nil, err
	}
	var kept, keptStrides, red, redStrides []int
	for d, s := range Strides(x) {
		if gone[d] {
			red, redStrides = append(red, x[d]), append(redStrides, s)
		} else {
			kept, keptStrides = append(kept, x[d]), append(keptStrides, s)
		}
	}
	return strideIndex(kept, keptStrides), strideIndex(red, redStrides), nil
}

func evalReduce(v *Value, args []*Array) (*Array, error) {
	base, offs, err := reduceIndex(v, args[0].Shape)
	if err != nil {
		return nil, err
	}
	out, x := NewArray(v.Type.Shape...), args[0].Data
	for o, b := range base {
		acc := 0.0
		if v.Op == OpReduceMax {
			acc = math.Inf(-1)
			for _, i := range offs {
				acc = math.Max(acc, x[b+i])
			}
		} else {
			for _, i := range offs {
				acc += x[b+i]
			}
			if v.Op == OpReduceMean {
				acc /= float64(len(offs))
			}
		}
		out.Data[o] = acc
	}
	return out, nil
}

func linearReduce(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
	if !v.Args[0].Type.Encrypted {
		return fmt.Errorf("reduction of a constant is not folded")
	}
	base, offs, err := reduceIndex(v, v.Args[0].Type.Shape)
	if err != nil {
		return err
	}
	coef := 1.0
	if v.Op == OpReduceMean {
		coef = 1 / float64(len(offs))
	}
	for o, b := range base {
		for _, i := range offs {
			emit(o, 0, b+i, coef)
		}
	}
	return nil
}

// softmaxDims sees the argument as [outer, n, inner] with the softmax over n.
func softmaxDims(v *Value, x []int) (outer, n, inner int, err error) {
	flat, err := boolAttr(v, "flat", 0)
	if err != nil {
		return 0, 0, 0, err
	}
	a := v.Attrs.Int("axis", -1)
	if flat && a == len(x) { // everything before axis: rows of one element
		return NumElems(x), 1, 1, nil
	}
	ax, err := axis(a, len(x))
	if err != nil {
		return 0, 0, 0, err
	}
	if flat {
		return NumElems(x[:ax]), NumElems(x[ax:]), 1, nil
	}
	return NumElems(x[:ax]), x[ax], NumElems(x[ax+1:]), nil
}

func inferSoftmax(v *Value) ([]int, DType, error) {
	_, _, _, err := softmaxDims(v, v.Args[0].Type.Shape)
	return v.Args[0].Type.Shape, Real, err
}

func evalSoftmax(v *Value, args []*Array) (*Array, error) {
	outer, n, inner, err := softmaxDims(v, args[0].Shape)
	if err != nil {
		return nil, err
	}
	out := NewArray(args[0].Shape...)
	for o := range outer {
		for i := range inner {
			at := o*n*inner + i
			top := math.Inf(-1)
			for k := range n {
				top = math.Max(top, args[0].Data[at+k*inner])
			}
			sum := 0.0
			for k := range n {
				sum += math.Exp(args[0].Data[at+k*inner] - top)
			}
			for k := range n {
				if x := args[0].Data[at+k*inner] - top; v.Op == OpLogSoftmax {
					out.Data[at+k*inner] = x - math.Log(sum)
				} else {
					out.Data[at+k*inner] = math.Exp(x) / sum
				}
			}
		}
	}
	return out, nil
}

func inferArgMax(v *Value) ([]int, DType, error) {
	x := v.Args[0].Type.Shape
	ax, err := axis(v.Attrs.Int("axis", 0), len(x))
	if err != nil {
		return nil, 0, err
	}
	if x[ax] == 0 {
		return nil, 0, fmt.Errorf("maximum over no elements")
	}
	if _, err := boolAttr(v, "last", 0); err != nil {
		return nil, 0, err
	}
	keep, err := boolAttr(v, "keepdims", 1)
	if err != nil {
		return nil, 0, err
	}
	s := slices.Clone(x)
	if keep {
		s[ax] = 1
	} else {
		s = slices.Delete(s, ax, ax+1)
	}
	return s, Int, nil
}

func evalArgMax(v *Value, args []*Array) (*Array, error) {
	x := args[0].Shape
	ax, err := axis(v.Attrs.Int("axis", 0), len(x))
	if err != nil {
		return nil, err
	}
	last := v.Attrs.Int("last", 0) == 1
	outer, n, inner := NumElems(x[:ax]), x[ax], NumElems(x[ax+1:])
	out := NewArray(v.Type.Shape...)
	for o := range outer {
		for i := range inner {
			at, best := o*n*inner+i, 0
			for k := 1; k < n; k++ {
				y, top := args[0].Data[at+k*inner], args[0].Data[at+best*inner]
				if y > top || last && y == top {
					best = k
				}
			}
			out.Data[o*inner+i] = float64(best)
		}
	}
	return out, nil
}
