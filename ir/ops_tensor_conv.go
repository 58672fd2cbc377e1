package ir

import (
	"fmt"
	"math"
	"slices"
)

// window is the geometry of a sliding window over the spatial axes of a tensor
// [n, c, spatial...]: tap j of the window for output position o along axis d
// reads input position o*stride[d] - before[d] + j*dil[d].
type window struct {
	in, kernel, stride, dil, before, after, out []int
}

// windowOf reads and checks the window attributes of v for an input shape. The
// output size is floor((in+before+after-extent)/stride)+1; with ceil it is
// rounded up, but a window must not start beyond the input and its leading pad.
func windowOf(v *Value, shape, kernel []int) (*window, error) {
	if len(shape) < 3 {
		return nil, fmt.Errorf("input of shape %v has no spatial axes, want [batch, channels, ...]", shape)
	}
	w := &window{in: shape[2:], kernel: kernel}
	n := len(w.in)
	if len(kernel) != n {
		return nil, fmt.Errorf("kernel %v for %d spatial axes", kernel, n)
	}
	ceil, err := boolAttr(v, "ceil", 0)
	if err != nil {
		return nil, err
	}
	list := func(name string, n, def, least int) ([]int, error) {
		l, ok := v.Attrs[name].([]int)
		if !ok {
			return slices.Repeat([]int{def}, n), nil
		}
		if len(l) != n {
			return nil, fmt.Errorf("attribute %s has %d entries, want %d", name, len(l), n)
		}
		for _, x := range l {
			if x < least || x > MaxElems {
				return nil, fmt.Errorf("attribute %s contains %d", name, x)
			}
		}
		return l, nil
	}
	if w.stride, err = list("strides", n, 1, 1); err != nil {
		return nil, err
	}
	if w.dil, err = list("dilations", n, 1, 1); err != nil {
		return nil, err
	}
	pads, err := list("pads", 2*n, 0, 0)
	if err != nil {
		return nil, err
	}
	w.before, w.after = pads[:n], pads[n:]
	for d, in := range w.in {
		if kernel[d] < 1 || kernel[d] > MaxElems {
			return nil, fmt.Errorf("kernel %v", kernel)
		}
		extent := w.dil[d]*(kernel[d]-1) + 1
		room := in + w.before[d] + w.after[d] - extent
		if room < 0 {
			return nil, fmt.Errorf("window of extent %d is larger than the padded input of %d along spatial axis %d", extent, extent+room, d)
		}
		o := room/w.stride[d] + 1
		if ceil {
			o = min((room+w.stride[d]-1)/w.stride[d]+1, (in+w.before[d]-1)/w.stride[d]+1)
		}
		w.out = append(w.out, o)
	}
	return w, nil
}

// taps returns the range of window taps that read inside the input at output
// position o along axis d, and the input position the first of them reads.
func (w *window) taps(d, o int) (lo, hi, at int) {
	start := o*w.stride[d] - w.before[d]
	if start < 0 {
		lo = (-start + w.dil[d] - 1) / w.dil[d]
	}
	if room := w.in[d] - 1 - start; room >= 0 {
		hi = room/w.dil[d] + 1
	}
	hi = min(hi, w.kernel[d])
	return lo, max(lo, hi), start + lo*w.dil[d]
}

// covered counts the taps at output position o along axis d that read inside
// the input or its pads: the divisor of an average that includes the pads.
func (w *window) covered(d, o int) int {
	room := w.in[d] + w.after[d] - 1 - (o*w.stride[d] - w.before[d])
	return min(w.kernel[d], room/w.dil[d]+1)
}

func inferConv(v *Value) ([]int, DType, error) {
	x, k := v.Args[0].Type.Shape, v.Args[1].Type.Shape
	if len(k) != len(x) || len(x) < 3 {
		return nil, 0, fmt.Errorf("weights of shape %v for input of shape %v", k, x)
	}
	group := v.Attrs.Int("group", 1)
	if group < 1 || x[1]%group != 0 || k[0]%group != 0 || x[1]/group != k[1] {
		return nil, 0, fmt.Errorf("weights of shape %v in %d groups do not fit %d input channels", k, group, x[1])
	}
	if len(v.Args) == 3 {
		if b := v.Args[2].Type.Shape; len(b) != 1 || b[0] != k[0] {
			return nil, 0, fmt.Errorf("bias of shape %v for %d output channels", b, k[0])
		}
	}
	w, err := windowOf(v, x, k[2:])
	if err != nil {
		return nil, 0, err
	}
	// the gathered patches of one group must stay addressable
	patches := append([]int{k[1]}, k[2:]...)
	if err := CheckDims(append(patches, w.out...)); err != nil {
		return nil, 0, fmt.Errorf("patches of the convolution: %w", err)
	}
	return append([]int{x[0], k[0]}, w.out...), Real, nil
}

// patchElems bounds the patch matrix a convolution works on at a time.
const patchElems = 1 << 15

func evalConv(v *Value, args []*Array) (*Array, error) {
	x, k := args[0], args[1]
	w, err := windowOf(v, x.Shape, k.Shape[2:])
	if err != nil {
		return nil, err
	}
	group := v.Attrs.Int("group", 1)
	batch, cin, cout := x.Shape[0], x.Shape[1]/group, k.Shape[0]/group
	inElems, outElems, kElems := NumElems(w.in), NumElems(w.out), NumElems(w.kernel)
	depth := cin * kElems
	out := NewArray(v.Type.Shape...)
	if len(out.Data) == 0 {
		return out, nil
	}
	last := len(w.out) - 1
	row := w.out[last]
	rows := outElems / row // output rows: the patch matrix is cut between them
	pointwise := kElems == 1 && outElems == inElems && !slices.ContainsFunc(w.stride, func(s int) bool { return s != 1 })
	step := max(1, min(rows, patchElems/max(1, depth*row)))
	var patch, tmp []float64
	if !pointwise && cout > 1 {
		patch = make([]float64, depth*step*row)
		if step < rows {
			tmp = make([]float64, cout*step*row)
		}
	}
	for b := range batch {
		for g := range group {
			src := x.Data[(b*group+g)*cin*inElems:][:cin*inElems]
			dst := out.Data[(b*group+g)*cout*outElems:][:cout*outElems]
			weights := ArrayOf(k.Data[g*cout*depth:(g+1)*cout*depth], cout, depth)
			if cout == 1 { // depthwise: one row of weights gains nothing from a product
				w.accumulate(dst, src, weights.Data, cin)
				continue
			}
			if pointwise {
				if err := MatMulInto(ArrayOf(dst, cout, outElems), weights, ArrayOf(src, depth, outElems)); err != nil {
					return nil, err
				}
				continue
			}
			for r := 0; r < rows; r += step {
				n := min(step, rows-r) * row
				w.patches(patch[:depth*n], src, cin, r, n/row)
				to := ArrayOf(dst, cout, outElems)
				if n < outElems {
					to = ArrayOf(tmp[:cout*n], cout, n)
				}
				if err := MatMulInto(to, weights, ArrayOf(patch[:depth*n], depth, n)); err != nil {
					return nil, err
				}
				if n < outElems {
					for c := range cout {
						copy(dst[c*outElems+r*row:][:n], tmp[c*n:(c+1)*n])
					}
				}
			}
		}
	}
	if len(args) == 3 {
		for i, c := range args[2].Data {
			for b := range batch {
				o := out.Data[(b*len(args[2].Data)+i)*outElems:][:outElems]
				for j := range o {
					o[j] += c
				}
			}
		}
	}
	return out, nil
}

// eachTapRow visits, for one tap of the window (its coordinates in tap), the
// output rows first..first+count-1. It reports the row, the input offset its
// last axis starts from (with tap and leading pad taken into account, so it may
// be negative), and whether the row reads inside the input along the other axes.
func (w *window) eachTapRow(tap []int, first, count int, f func(row, base int, inside bool)) {
	last := len(w.out) - 1
	pos := make([]int, last)
	for d, r := last-1, first; d >= 0; d-- {
		pos[d] = r % w.out[d]
		r /= w.out[d]
	}
	for r := range count {
		base, inside := 0, true
		for d, p := range pos {
			i := p*w.stride[d] - w.before[d] + tap[d]*w.dil[d]
			inside = inside && i >= 0 && i < w.in[d]
			base = base*w.in[d] + i
		}
		f(r, base*w.in[last], inside)
		for d := last - 1; d >= 0; d-- {
			if pos[d]++; pos[d] < w.out[d] {
				break
			}
			pos[d] = 0
		}
	}
}

// span returns the output positions along the last axis for which the given
// tap reads inside the input, and the input position of the first of them.
func (w *window) span(tap int) (lo, hi, at int) {
	d := len(w.out) - 1
	start, s := tap*w.dil[d]-w.before[d], w.stride[d]
	if start < 0 {
		lo = (-start + s - 1) / s
	}
	if room := w.in[d] - 1 - start; room >= 0 {
		hi = room/s + 1
	}
	hi = min(hi, w.out[d])
	lo = min(lo, w.out[d])
	return lo, max(lo, hi), start + lo*s
}

// next advances kernel coordinates in row-major order.
func (w *window) next(tap []int) {
	for d := len(tap) - 1; d >= 0; d-- {
		if tap[d]++; tap[d] < w.kernel[d] {
			return
		}
		tap[d] = 0
	}
}

// patches fills dst [channels*taps, count*row] with the input that the output
// rows first..first+count-1 see through each tap (im2col).
func (w *window) patches(dst, src []float64, channels, first, count int) {
	last := len(w.out) - 1
	row, stride, inElems := w.out[last], w.stride[last], NumElems(w.in)
	kElems := NumElems(w.kernel)
	n := count * row
	tap := make([]int, len(w.kernel))
	for k := range kElems {
		lo, hi, at := w.span(tap[last])
		w.eachTapRow(tap, first, count, func(r, base int, inside bool) {
			for c := range channels {
				d := dst[(c*kElems+k)*n+r*row:][:row]
				if !inside || lo == hi {
					clear(d)
					continue
				}
				clear(d[:lo])
				clear(d[hi:])
				s := src[c*inElems+base+at:]
				if stride == 1 {
					copy(d[lo:hi], s)
					continue
				}
				for i, p := lo, 0; i < hi; i, p = i+1, p+stride {
					d[i] = s[p]
				}
			}
		})
		w.next(tap)
	}
}

// accumulate adds to one output channel the taps of all input channels.
func (w *window) accumulate(dst, src, weights []float64, channels int) {
	last := len(w.out) - 1
	row, stride, inElems := w.out[last], w.stride[last], NumElems(w.in)
	kElems := NumElems(w.kernel)
	tap := make([]int, len(w.kernel))
	for k := range kElems {
		lo, hi, at := w.span(tap[last])
		w.eachTapRow(tap, 0, len(dst)/row, func(r, base int, inside bool) {
			if !inside || lo == hi {
				return
			}
			d := dst[r*row+lo : r*row+hi]
			for c := range channels {
				f := weights[c*kElems+k]
				s := src[c*inElems+base+at:]
				if stride == 1 {
					s = s[:len(d)]
					for i := range d {
						d[i] += f * s[i]
					}
					continue
				}
				for i, p := 0, 0; i < len(d); i, p = i+1, p+stride {
					d[i] += f * s[p]
				}
			}
		})
		w.next(tap)
	}
}

// eachTap visits the taps of the window at an output position that read inside
// the input: k is the tap, at the input position, both row-major.
func (w *window) eachTap(pos []int, f func(k, at int)) {
	var visit func(d, k, at int)
	visit = func(d, k, at int) {
		if d == len(pos) {
			f(k, at)
			return
		}
		lo, hi, first := w.taps(d, pos[d])
		for j := lo; j < hi; j++ {
			visit(d+1, k*w.kernel[d]+j, at*w.in[d]+first+(j-lo)*w.dil[d])
		}
	}
	visit(0, 0, 0)
}

// eachOut visits the output positions in row-major order.
func (w *window) eachOut(f func(o int, pos []int)) {
	pos := make([]int, len(w.out))
	for o := range NumElems(w.out) {
		f(o, pos)
		for d := len(pos) - 1; d >= 0; d-- {
			if pos[d]++; pos[d] < w.out[d] {
				break
			}
			pos[d] = 0
		}
	}
}

func linearConv(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
	x, k := v.Args[0], v.Args[1]
	if k.Type.Encrypted || !x.Type.Encrypted {
		return fmt.Errorf("a convolution is linear only for constant weights and an encrypted input")
	}
	w, err := windowOf(v, x.Type.Shape, k.Type.Shape[2:])
	if err != nil {
		return err
	}
	group := v.Attrs.Int("group", 1)
	batch, cin, cout := x.Type.Shape[0], k.Type.Shape[1], k.Type.Shape[0]
	inElems, outElems, kElems := NumElems(w.in), NumElems(w.out), NumElems(w.kernel)
	for b := range batch {
		for m := range cout {
			g := m / (cout / group)
			weights := k.Array.Data[m*cin*kElems : (m+1)*cin*kElems]
			w.eachOut(func(o int, pos []int) {
				o += (b*cout + m) * outElems
				for c := range cin {
					in := ((b*group+g)*cin + c) * inElems
					w.eachTap(pos, func(t, at int) { emit(o, 0, in+at, weights[c*kElems+t]) })
				}
				if len(v.Args) == 3 {
					if v.Args[2].Type.Encrypted {
						emit(o, 2, m, 1)
					} else {
						bias(o, v.Args[2].Array.Data[m])
					}
				}
			})
		}
	}
	return nil
}

func inferPool(v *Value) ([]int, DType, error) {
	x := v.Args[0].Type.Shape
	w, err := windowOf(v, x, v.Attrs.Ints("kernel"))
	if err != nil {
		return nil, 0, err
	}
	shape := append([]int{x[0], x[1]}, w.out...)
	if err := CheckDims(shape); err != nil {
		return nil, 0, err
	}
	most := slices.Clone(shape) // the axes are reduced one after the other
	for d, in := range w.in {
		most[2+d] = max(most[2+d], in)
	}
	if err := CheckDims(most); err != nil {
		return nil, 0, err
	}
	withPads, err := boolAttr(v, "count_include_pad", 0)
	if err != nil {
		return nil, 0, err
	}
	if withPads {
		return shape, Real, nil
	}
	for d, n := range w.out { // no mean or maximum of nothing
		if w.dil[d] == 1 && w.before[d] < w.kernel[d] && w.after[d] < w.kernel[d] && w.in[d] > 0 {
			continue
		}
		for o := range n {
			if lo, hi, _ := w.taps(d, o); lo == hi {
				return nil, 0, fmt.Errorf("window %d along spatial axis %d reads nothing but pads", o, d)
			}
		}
	}
	return shape, Real, nil
}

// pool reduces the window axis by axis, which is exact for sums and maxima of
// boxes: start is the neutral element.
func (w *window) pool(x *Array, start float64, join func(acc, x float64) float64) []float64 {
	data, outer := x.Data, x.Shape[0]*x.Shape[1]
	for d := range w.in {
		inner := NumElems(w.in[d+1:]) // axes after d are not reduced yet
		in, out := w.in[d], w.out[d]
		next := make([]float64, outer*out*inner)
		for o := range out {
			lo, hi, at := w.taps(d, o)
			for b := range outer {
				acc := next[(b*out+o)*inner:][:inner]
				for i := range acc {
					acc[i] = start
				}
				for j := lo; j < hi; j++ {
					for i, y := range data[(b*in+at+(j-lo)*w.dil[d])*inner:][:inner] {
						acc[i] = join(acc[i], y)
					}
				}
			}
		}
		data, outer = next, outer*out
	}
	return data
}

// divisor is the number an average over the window at pos divides by.
func (w *window) divisor(pos []int, withPads bool) float64 {
	n := 1.0
	for d, o := range pos {
		lo, hi, _ := w.taps(d, o)
		if withPads {
			n *= float64(w.covered(d, o))
		} else {
			n *= float64(hi - lo)
		}
	}
	return n
}

func evalAvgPool(v *Value, args []*Array) (*Array, error) {
	w, err := windowOf(v, args[0].Shape, v.Attrs.Ints("kernel"))
	if err != nil {
		return nil, err
	}
	out := ArrayOf(w.pool(args[0], 0, func(acc, x float64) float64 { return acc + x }), v.Type.Shape...)
	withPads := v.Attrs.Int("count_include_pad", 0) == 1
	n := NumElems(w.out)
	w.eachOut(func(o int, pos []int) {
		div := w.divisor(pos, withPads)
		for i := o; i < len(out.Data); i += n {
			out.Data[i] /= div
		}
	})
	return out, nil
}

func linearAvgPool(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
	shape := v.Args[0].Type.Shape
	w, err := windowOf(v, shape, v.Attrs.Ints("kernel"))
	if err != nil {
		return err
	}
	if !v.Args[0].Type.Encrypted {
		return fmt.Errorf("pool of a constant is not folded")
	}
	withPads := v.Attrs.Int("count_include_pad", 0) == 1
	inElems, outElems := NumElems(w.in), NumElems(w.out)
	for c := range shape[0] * shape[1] {
		w.eachOut(func(o int, pos []int) {
			coef := 1 / w.divisor(pos, withPads)
			w.eachTap(pos, func(_, at int) { emit(c*outElems+o, 0, c*inElems+at, coef) })
		})
	}
	return nil
}

func evalMaxPool(v *Value, args []*Array) (*Array, error) {
	w, err := windowOf(v, args[0].Shape, v.Attrs.Ints("kernel"))
	if err != nil {
		return nil, err
	}
	return ArrayOf(w.pool(args[0], math.Inf(-1), math.Max), v.Type.Shape...), nil
}

// matDims is a matrix product with its batch axes: for each entry of the
// batch, matrix a starts at a[i] and b at b[i].
type matDims struct {
	m, k, n int
	batch   []int // shape
	a, b    []int // offsets per batch entry
	shape   []int // of the result
}

func matDimsOf(sa, sb []int) (*matDims, error) {
	if len(sa) == 0 || len(sb) == 0 {
		return nil, fmt.Errorf("matrix product of a scalar: shapes %v and %v", sa, sb)
	}
	ma, mb := sa, sb
	if len(sa) == 1 {
		ma = []int{1, sa[0]}
	}
	if len(sb) == 1 {
		mb = []int{sb[0], 1}
	}
	la, lb := len(ma)-2, len(mb)-2
	d := &matDims{m: ma[la], k: ma[la+1], n: mb[lb+1]}
	if mb[lb] != d.k {
		return nil, fmt.Errorf("matrix product of shapes %v and %v", sa, sb)
	}
	var err error
	if d.batch, err = Broadcast(ma[:la], mb[:lb]); err != nil {
		return nil, fmt.Errorf("matrix product: %w", err)
	}
	d.shape = slices.Clone(d.batch)
	if len(sa) > 1 {
		d.shape = append(d.shape, d.m)
	}
	if len(sb) > 1 {
		d.shape = append(d.shape, d.n)
	}
	if err := CheckDims(d.shape); err != nil {
		return nil, err
	}
	if len(sa) > 1 && len(sb) > 1 && la > 0 && lb == 0 { // one product of taller matrices
		d.m, d.batch = d.m*NumElems(ma[:la]), nil
		ma = []int{d.m, d.k}
		la = 0
	}
	d.a = strideIndex(d.batch, scaled(broadcastStrides(ma[:la], d.batch), d.m*d.k))
	d.b = strideIndex(d.batch, scaled(broadcastStrides(mb[:lb], d.batch), d.k*d.n))
	return d, nil
}

func scaled(s []int, by int) []int {
	for i := range s {
		s[i] *= by
	}
	return s
}

func inferMatMul(v *Value) ([]int, DType, error) {
	d, err := matDimsOf(v.Args[0].Type.Shape, v.Args[1].Type.Shape)
	if err != nil {
		return nil, 0, err
	}
	return d.shape, arithmetic(v.Args), nil
}

func evalMatMul(v *Value, args []*Array) (*Array, error) {
	d, err := matDimsOf(args[0].Shape, args[1].Shape)
	if err != nil {
		return nil, err
	}
	out := NewArray(v.Type.Shape...)
	for i := range d.a {
		err := MatMulInto(ArrayOf(out.Data[i*d.m*d.n:(i+1)*d.m*d.n], d.m, d.n),
			ArrayOf(args[0].Data[d.a[i]:d.a[i]+d.m*d.k], d.m, d.k),
			ArrayOf(args[1].Data[d.b[i]:d.b[i]+d.k*d.n], d.k, d.n))
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func linearMatMul(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error {
	a, b := v.Args[0], v.Args[1]
	if a.Type.Encrypted == b.Type.Encrypted {
		return fmt.Errorf("a matrix product is linear only where exactly one side is encrypted")
	}
	d, err := matDimsOf(a.Type.Shape, b.Type.Shape)
	if err != nil {
		return err
	}
	o := 0
	for t := range d.a {
		for i := range d.m {
			for j := range d.n {
				for l := range d.k {
					ia, ib := d.a[t]+i*d.k+l, d.b[t]+l*d.n+j
					if a.Type.Encrypted {
						emit(o, 0, ia, b.Array.Data[ib])
					} else {
						emit(o, 1, ib, a.Array.Data[ia])
					}
				}
				o++
			}
		}
	}
	return nil
}

// innerProduct returns how many products one element of a convolution or matrix
// product sums up.
func innerProduct(v *Value) int {
	if v.Op == OpConv {
		return NumElems(v.Args[1].Type.Shape[1:])
	}
	s := v.Args[0].Type.Shape
	return s[len(s)-1]
}
