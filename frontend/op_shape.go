package frontend

import (
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
)

var shapeRows = []row{
	{op: "Identity", minIn: 1, maxIn: 1, emit: func(c *call) error { return c.set(c.in[0], nil) }},
	{op: "Dropout", minIn: 1, maxIn: 3, note: "inference only, mask output not supported", emit: importDropout, attrs: []attrRow{
		{name: "is_test", kind: attrInt, until: 6}, {name: "ratio", kind: attrFloat, until: 11}, {name: "seed", kind: attrInt, since: 12}}},
	{op: "Flatten", minIn: 1, maxIn: 1, emit: importFlatten, attrs: []attrRow{{name: "axis", kind: attrInt}}},
	{op: "Reshape", minIn: 2, maxIn: 2, emit: importReshape, attrs: []attrRow{{name: "allowzero", kind: attrInt, since: 14}}},
	{op: "Squeeze", minIn: 1, maxIn: 2, emit: importSqueeze, attrs: []attrRow{{name: "axes", kind: attrInts, until: 12}}},
	{op: "Unsqueeze", minIn: 1, maxIn: 2, emit: importUnsqueeze, attrs: []attrRow{{name: "axes", kind: attrInts, until: 12}}},
	{op: "Transpose", minIn: 1, maxIn: 1, emit: importTranspose, attrs: []attrRow{{name: "perm", kind: attrInts}}},
	{op: "Concat", minIn: 1, maxIn: -1, emit: importConcat, attrs: []attrRow{{name: "axis", kind: attrInt}}},
	{op: "Slice", until: 9, minIn: 1, maxIn: 1, emit: importSlice, attrs: []attrRow{
		{name: "axes", kind: attrInts}, {name: "ends", kind: attrInts}, {name: "starts", kind: attrInts}}},
	{op: "Slice", since: 10, minIn: 3, maxIn: 5, emit: importSlice},
	{op: "Split", minIn: 1, maxIn: 2, emit: importSplit, attrs: []attrRow{
		{name: "axis", kind: attrInt}, {name: "split", kind: attrInts, until: 12}, {name: "num_outputs", kind: attrInt, since: 18}}},
	{op: "Pad", until: 10, minIn: 1, maxIn: 1, emit: importPad, attrs: []attrRow{
		{name: "mode", kind: attrString}, {name: "pads", kind: attrInts}, {name: "value", kind: attrFloat}}},
	{op: "Pad", since: 11, minIn: 2, maxIn: 4, emit: importPad, attrs: []attrRow{{name: "mode", kind: attrString}}},
	{op: "Gather", minIn: 2, maxIn: 2, note: "indices constant", emit: importGather, attrs: []attrRow{{name: "axis", kind: attrInt}}},
	{op: "GatherElements", minIn: 2, maxIn: 2, note: "indices constant", emit: importGatherElements, attrs: []attrRow{{name: "axis", kind: attrInt}}},
	{op: "Expand", minIn: 2, maxIn: 2, emit: importExpand},
	{op: "Tile", minIn: 2, maxIn: 2, emit: importTile},
	{op: "DepthToSpace", minIn: 1, maxIn: 1, emit: importDepthToSpace, attrs: []attrRow{
		{name: "blocksize", kind: attrInt}, {name: "mode", kind: attrString, since: 11}}},
	{op: "SpaceToDepth", minIn: 1, maxIn: 1, emit: importSpaceToDepth, attrs: []attrRow{{name: "blocksize", kind: attrInt}}},
	{op: "Cast", minIn: 1, maxIn: 1, note: "between real types, or of constants", emit: importCast, attrs: []attrRow{
		{name: "to", kind: attrInt}, {name: "saturate", kind: attrInt, since: 19}, {name: "round_mode", kind: attrString, since: 24}}},
	{op: "CastLike", since: 15, minIn: 2, maxIn: 2, note: "between real types, or of constants", emit: importCastLike, attrs: []attrRow{
		{name: "saturate", kind: attrInt, since: 19}, {name: "round_mode", kind: attrString, since: 24}}},
	{op: "Shape", minIn: 1, maxIn: 1, emit: importShape, attrs: []attrRow{
		{name: "start", kind: attrInt, since: 15}, {name: "end", kind: attrInt, since: 15}}},
	{op: "Size", minIn: 1, maxIn: 1, emit: func(c *call) error { return c.set(c.ints(nil, c.in[0].elems()), nil) }},
}

func importDropout(c *call) error {
	if c.opset >= 12 && c.arg(2) != nil {
		t, err := c.scalarArg(2, "training_mode")
		if err != nil {
			return err
		}
		if t != 0 {
			return c.refuse("training_mode", "export the model for inference", "dropout in training mode is not supported")
		}
	} else if c.opset < 12 && len(c.in) > 1 {
		return c.refuse("", "", "%d inputs before opset 12", len(c.in))
	} else if err := c.isTest(); err != nil {
		return err
	}
	return c.set(c.in[0], nil)
}

// isTest refuses training mode, the default before opset 7.
func (c *call) isTest() error {
	if test, err := c.flag("is_test", c.opset >= 7); err != nil {
		return err
	} else if !test {
		return c.refuse("is_test", "export the model for inference", "training mode is not supported")
	}
	return nil
}

func importFlatten(c *call) error {
	s := c.in[0].shape()
	axis := c.integer("axis", 1)
	if axis < 0 {
		axis += len(s)
	}
	if axis < 0 || axis > len(s) {
		return c.refuse("axis", "", "%d of a tensor with %d dimensions", c.integer("axis", 1), len(s))
	}
	return c.set(c.reshape(c.in[0], ir.NumElems(s[:axis]), ir.NumElems(s[axis:])))
}

func importReshape(c *call) error {
	want, err := c.intsArg(1, "shape")
	if err != nil {
		return err
	}
	allowZero, err := c.flag("allowzero", false)
	if err != nil {
		return err
	}
	if len(want) > maxRank {
		return c.refuse("", "", "result of %d dimensions; the limit is %d", len(want), maxRank)
	}
	in := c.in[0].shape()
	shape := slices.Clone(want)
	rest, known := -1, 1
	for i, d := range shape {
		switch {
		case d == 0 && !allowZero:
			if i >= len(in) {
				return c.refuse("", "", "shape %v copies dimension %d of an input with %d", want, i, len(in))
			}
			shape[i] = in[i]
		case d == -1:
			if rest >= 0 {
				return c.refuse("", "", "shape %v holds -1 twice", want)
			}
			if allowZero && slices.Contains(want, 0) {
				return c.refuse("allowzero", "", "shape %v holds both 0 and -1", want)
			}
			rest = i
			continue
		case d < 0 || d == intLimit:
			return c.refuse("", "", "shape %v holds %d", want, d)
		}
		if shape[i] > 0 && known > math.MaxInt/shape[i] {
			return c.refuse("", "", "shape %v is too large", want)
		}
		known *= shape[i]
	}
	n := c.in[0].elems()
	if rest >= 0 {
		if known == 0 || n%known != 0 {
			return c.refuse("", c.batchHint(), "shape %v does not fit an input of shape %v", want, in)
		}
		shape[rest] = n / known
		known = n
	}
	if known != n {
		return c.refuse("", c.batchHint(), "shape %v does not fit an input of shape %v", want, in)
	}
	return c.set(c.reshape(c.in[0], shape...))
}

// batchHint explains a likely cause of shapes that do not fit.
func (c *call) batchHint() string {
	if c.im.symbolic && c.im.o.Batch > 1 {
		return "the model's shapes may be made for a batch of 1: try batch 1"
	}
	return ""
}

// axesOf reads axes as an attribute before opset 13 and as an input after.
func (c *call) axesOf() (list []int, given bool, err error) {
	if c.opset < 13 {
		if c.arg(1) != nil {
			return nil, false, c.refuse("", "", "axes are an attribute before opset 13")
		}
		return c.integers("axes"), c.has("axes"), nil
	}
	if c.arg(1) == nil {
		return nil, false, nil
	}
	list, err = c.intsArg(1, "axes")
	return list, true, err
}

func importSqueeze(c *call) error {
	list, given, err := c.axesOf()
	if err != nil {
		return err
	}
	in := c.in[0].shape()
	if !given {
		for d, n := range in {
			if n == 1 {
				list = append(list, d)
			}
		}
	}
	axes, err := c.axes(list, len(in), "axes")
	if err != nil {
		return err
	}
	var shape []int
	for d, n := range in {
		if !slices.Contains(axes, d) {
			shape = append(shape, n)
		} else if n != 1 {
			return c.refuse("axes", "", "axis %d of shape %v is not 1", d, in)
		}
	}
	return c.set(c.reshape(c.in[0], shape...))
}

func importUnsqueeze(c *call) error {
	list, given, err := c.axesOf()
	if err != nil {
		return err
	}
	if !given {
		return c.refuse("axes", "", "axes are missing")
	}
	in := c.in[0].shape()
	rank := len(in) + len(list)
	if rank > maxRank {
		return c.refuse("axes", "", "result of %d dimensions; the limit is %d", rank, maxRank)
	}
	axes, err := c.axes(list, rank, "axes")
	if err != nil {
		return err
	}
	shape := make([]int, 0, rank)
	for d := range rank {
		if slices.Contains(axes, d) {
			shape = append(shape, 1)
		} else {
			shape = append(shape, in[0])
			in = in[1:]
		}
	}
	return c.set(c.reshape(c.in[0], shape...))
}

func importTranspose(c *call) error {
	rank := c.in[0].rank()
	perm := c.integers("perm")
	if !c.has("perm") {
		perm = make([]int, rank)
		for i := range perm {
			perm[i] = rank - 1 - i
		}
	}
	if len(perm) != rank {
		return c.refuse("perm", "", "%v for %d dimensions", perm, rank)
	}
	if _, err := c.axes(perm, rank, "perm"); err != nil {
		return err
	}
	for i := range perm {
		if perm[i] < 0 {
			return c.refuse("perm", "", "%v holds a negative axis", perm)
		}
	}
	return c.set(c.emit(ir.OpTranspose, ir.Attrs{"perm": perm}, c.in[0]))
}

func importConcat(c *call) error {
	if !c.has("axis") {
		return c.refuse("axis", "", "the attribute is missing")
	}
	axis, err := c.axis(c.integer("axis", 0), c.in[0].rank(), "axis")
	if err != nil {
		return err
	}
	if err := c.sameType(); err != nil {
		return err
	}
	return c.set(c.emit(ir.OpConcat, ir.Attrs{"axis": axis}, c.in...))
}

func importSlice(c *call) error {
	rank := c.in[0].rank()
	var starts, ends, axes, steps []int
	var err error
	if c.opset < 10 {
		if !c.has("starts") || !c.has("ends") {
			return c.refuse("starts", "", "starts or ends are missing")
		}
		starts, ends, axes = c.integers("starts"), c.integers("ends"), c.integers("axes")
	} else {
		for k, dst := range []*[]int{&starts, &ends, &axes, &steps} {
			if k >= 2 && c.arg(k+1) == nil {
				continue
			}
			if *dst, err = c.intsArg(k+1, []string{"starts", "ends", "axes", "steps"}[k]); err != nil {
				return err
			}
		}
	}
	if axes == nil || c.opset < 10 && !c.has("axes") {
		axes = make([]int, len(starts))
		for i := range axes {
			axes[i] = i
		}
	}
	if steps == nil {
		steps = slices.Repeat([]int{1}, len(starts))
	}
	if len(ends) != len(starts) || len(axes) != len(starts) || len(steps) != len(starts) {
		return c.refuse("", "", "%d starts, %d ends, %d axes and %d steps", len(starts), len(ends), len(axes), len(steps))
	}
	if _, err := c.axes(axes, rank, "axes"); err != nil {
		return err
	}
	for i := range axes {
		if axes[i] < 0 {
			axes[i] += rank
		}
		if steps[i] == 0 {
			return c.refuse("", "", "step 0")
		}
	}
	return c.set(c.emit(ir.OpSlice, ir.Attrs{"starts": starts, "ends": ends, "axes": axes, "steps": steps}, c.in[0]))
}

func importSplit(c *call) error {
	x := c.in[0]
	axis, err := c.axis(c.integer("axis", 0), x.rank(), "axis")
	if err != nil {
		return err
	}
	n, parts := x.shape()[axis], len(c.n.outputs)
	var sizes []int
	switch {
	case c.opset < 13 && c.arg(1) != nil:
		return c.refuse("", "", "split is an attribute before opset 13")
	case c.opset < 13 && c.has("split"):
		sizes = c.integers("split")
	case c.arg(1) != nil:
		if c.has("num_outputs") {
			return c.refuse("num_outputs", "", "both num_outputs and the input split are given")
		}
		if sizes, err = c.intsArg(1, "split"); err != nil {
			return err
		}
	default:
		if k := c.integer("num_outputs", parts); k != parts {
			return c.refuse("num_outputs", "", "%d for %d outputs", k, parts)
		}
		if c.opset < 18 && n%parts != 0 {
			return c.refuse("", "", "axis of size %d does not split into %d equal parts", n, parts)
		}
		size := (n + parts - 1) / parts
		for i := range parts {
			sizes = append(sizes, max(0, min(size, n-i*size)))
		}
	}
	if len(sizes) != parts {
		return c.refuse("split", "", "%d sizes for %d outputs", len(sizes), parts)
	}
	at := 0
	for i, s := range sizes {
		if s < 0 || s > n-at {
			return c.refuse("split", "", "sizes %v do not add up to %d", sizes, n)
		}
		y, err := c.emit(ir.OpSlice, ir.Attrs{"starts": []int{at}, "ends": []int{at + s}, "axes": []int{axis}, "steps": []int{1}}, x)
		if err != nil {
			return err
		}
		c.out[i] = y
		at += s
	}
	if at != n {
		return c.refuse("split", "", "sizes %v do not add up to %d", sizes, n)
	}
	return nil
}

func importPad(c *call) error {
	x := c.in[0]
	rank := x.rank()
	pads, value := c.integers("pads"), c.float("value", 0)
	var axes []int
	var err error
	if c.opset < 11 {
		if !c.has("pads") {
			return c.refuse("pads", "", "the attribute is missing")
		}
	} else {
		if pads, err = c.intsArg(1, "pads"); err != nil {
			return err
		}
		if c.arg(2) != nil {
			if value, err = c.scalarArg(2, "constant_value"); err != nil {
				return err
			}
		}
		if c.arg(3) != nil {
			if c.opset < 18 {
				return c.refuse("", "", "axes need opset 18")
			}
			if axes, err = c.intsArg(3, "axes"); err != nil {
				return err
			}
			if _, err := c.axes(axes, rank, "axes"); err != nil {
				return err
			}
		}
	}
	if c.arg(3) == nil {
		for d := range rank {
			axes = append(axes, d)
		}
	}
	if len(pads) != 2*len(axes) {
		return c.refuse("pads", "", "%d pads for %d axes", len(pads), len(axes))
	}
	full := make([]int, 2*rank)
	for i, a := range axes {
		if a < 0 {
			a += rank
		}
		full[a], full[rank+a] = pads[i], pads[len(axes)+i]
	}
	mode := c.str("mode", "constant")
	switch {
	case mode == "constant" || mode == "reflect" || mode == "edge" || mode == "wrap" && c.opset >= 19:
	default:
		return c.refuse("mode", "", "%q is not a padding mode of opset %d", mode, c.opset)
	}
	attrs := ir.Attrs{"pads": full, "mode": mode}
	if mode == "constant" {
		if math.IsInf(value, 0) || math.IsNaN(value) {
			return c.refuse("value", "", "padding with %v is not supported", value)
		}
		attrs["value"] = value
	}
	return c.set(c.emit(ir.OpPad, attrs, x))
}

func importGather(c *call) error {
	if _, err := c.constArg(1, "indices"); err != nil {
		return err
	}
	if !c.in[1].elem.integer() {
		return c.refuse("", "", "indices of type %s", c.in[1].elem)
	}
	axis, err := c.axis(c.integer("axis", 0), c.in[0].rank(), "axis")
	if err != nil {
		return err
	}
	return c.set(c.emit(ir.OpGather, ir.Attrs{"axis": axis}, c.in[0], c.in[1]))
}

// importGatherElements reads x[i0,..,index[i],..] for every position of the
// indices, as one gather over the flattened tensor.
func importGatherElements(c *call) error {
	idx, err := c.constArg(1, "indices")
	if err != nil {
		return err
	}
	x := c.in[0]
	s := x.shape()
	axis, err := c.axis(c.integer("axis", 0), len(s), "axis")
	if err != nil {
		return err
	}
	if len(idx.Shape) != len(s) {
		return c.refuse("", "", "indices of shape %v for data of shape %v", idx.Shape, s)
	}
	for d := range s {
		if d != axis && idx.Shape[d] > s[d] {
			return c.refuse("", "", "indices of shape %v for data of shape %v", idx.Shape, s)
		}
	}
	if err := c.afford(len(idx.Data), 1); err != nil {
		return err
	}
	flat := ir.NewArray(len(idx.Data))
	st := ir.Strides(s)
	pos := make([]int, len(s))
	for i, f := range idx.Data {
		if f < 0 {
			f += float64(s[axis])
		}
		if f < 0 || f >= float64(s[axis]) || f != math.Trunc(f) {
			return c.refuse("", "", "index %v into an axis of %d entries", idx.Data[i], s[axis])
		}
		for d := range s {
			if d == axis {
				flat.Data[i] += f * float64(st[d])
			} else {
				flat.Data[i] += float64(pos[d] * st[d])
			}
		}
		for d := len(s) - 1; d >= 0; d-- {
			if pos[d]++; pos[d] < idx.Shape[d] {
				break
			}
			pos[d] = 0
		}
	}
	y, err := c.reshape(x, x.elems())
	if err != nil {
		return err
	}
	if y, err = c.emit(ir.OpGather, ir.Attrs{"axis": 0}, y, &value{c: flat, elem: elemInt64, name: c.n.name}); err != nil {
		return err
	}
	return c.set(c.reshape(y, idx.Shape...))
}

func importExpand(c *call) error {
	shape, err := c.intsArg(1, "shape")
	if err != nil {
		return err
	}
	if err := ir.CheckDims(shape); err != nil {
		return c.refuse("", "", "%w", err)
	}
	out, err := ir.Broadcast(c.in[0].shape(), shape)
	if err != nil {
		return c.refuse("", "", "%w", err)
	}
	if slices.Equal(out, c.in[0].shape()) {
		return c.set(c.in[0], nil)
	}
	return c.set(c.emit(ir.OpExpand, ir.Attrs{"shape": out}, c.in[0]))
}

// importTile repeats along each axis: [a,b] becomes [r,a,s,b] by broadcasting,
// which reads as [r*a, s*b].
func importTile(c *call) error {
	rep, err := c.intsArg(1, "repeats")
	if err != nil {
		return err
	}
	x := c.in[0]
	s := x.shape()
	if len(rep) != len(s) {
		return c.refuse("", "", "%d repeats for %d dimensions", len(rep), len(s))
	}
	var ones, wide, out []int
	for d, n := range s {
		if rep[d] < 0 {
			return c.refuse("", "", "repeats %v", rep)
		}
		if rep[d] != 1 {
			ones, wide = append(ones, 1), append(wide, rep[d])
		}
		ones, wide, out = append(ones, n), append(wide, n), append(out, n*rep[d])
	}
	if err := ir.CheckDims(wide); err != nil {
		return c.refuse("", "", "%w", err)
	}
	if slices.Contains(rep, 0) {
		return c.refuse("", "", "repeats %v make an empty tensor", rep)
	}
	y, err := c.reshape(x, ones...)
	if err != nil {
		return err
	}
	if !slices.Equal(ones, wide) {
		if y, err = c.emit(ir.OpExpand, ir.Attrs{"shape": wide}, y); err != nil {
			return err
		}
	}
	return c.set(c.reshape(y, out...))
}

// block returns the block size and the shape of a 4-D operand.
func (c *call) block() (b int, s []int, err error) {
	s = c.in[0].shape()
	if len(s) != 4 {
		return 0, nil, c.refuse("", "", "input of shape %v, want [n, c, h, w]", s)
	}
	if b = c.integer("blocksize", 0); b < 1 || b > 1<<15 {
		return 0, nil, c.refuse("blocksize", "", "%d", b)
	}
	return b, s, nil
}

func importDepthToSpace(c *call) error {
	b, s, err := c.block()
	if err != nil {
		return err
	}
	if s[1]%(b*b) != 0 {
		return c.refuse("blocksize", "", "%d channels are not a multiple of %d", s[1], b*b)
	}
	n, d, h, w := s[0], s[1]/(b*b), s[2], s[3]
	split, perm := []int{n, b, b, d, h, w}, []int{0, 3, 4, 1, 5, 2}
	switch mode := c.str("mode", "DCR"); mode {
	case "DCR":
	case "CRD":
		split, perm = []int{n, d, b, b, h, w}, []int{0, 1, 4, 2, 5, 3}
	default:
		return c.refuse("mode", "", "%q, want DCR or CRD", mode)
	}
	return c.set(c.shuffle(split, perm, []int{n, d, h * b, w * b}))
}

func importSpaceToDepth(c *call) error {
	b, s, err := c.block()
	if err != nil {
		return err
	}
	n, d, h, w := s[0], s[1], s[2], s[3]
	if h%b != 0 || w%b != 0 {
		return c.refuse("blocksize", "", "image of %dx%d is not a multiple of %d", h, w, b)
	}
	return c.set(c.shuffle([]int{n, d, h / b, b, w / b, b}, []int{0, 3, 5, 1, 2, 4}, []int{n, d * b * b, h / b, w / b}))
}

// shuffle reshapes, transposes and reshapes the first input.
func (c *call) shuffle(split, perm, out []int) (*value, error) {
	y, err := c.reshape(c.in[0], split...)
	if err != nil {
		return nil, err
	}
	if y, err = c.emit(ir.OpTranspose, ir.Attrs{"perm": perm}, y); err != nil {
		return nil, err
	}
	return c.reshape(y, out...)
}

func importCast(c *call) error {
	if !c.has("to") {
		return c.refuse("to", "", "the attribute is missing")
	}
	return c.cast(elemType(c.integer("to", 0)))
}

func importCastLike(c *call) error { return c.cast(c.in[1].elem) }

// cast converts to an element type. Encrypted values are reals whatever type
// the model gives them, so a cast between real types, or from an integer to a
// real type, is the identity: rounding to float16 is not imitated, and bfloat16,
// whose rounding would show in the results, is refused.
func (c *call) cast(to elemType) error {
	x := c.in[0]
	if !to.known() {
		return c.refuse("to", "", "element type %s is not supported", to)
	}
	if x.c == nil {
		if to == elemBfloat16 && x.elem != to {
			return c.refuse("to", "export the model in float32", "rounding of encrypted values to bfloat16 is not imitated")
		}
		if to != x.elem && !to.real() {
			return c.refuse("to", "", "an encrypted %s cannot be rounded to %s", x.elem, to)
		}
		c.out[0] = &value{v: x.v, elem: to, name: x.name}
		return nil
	}
	if err := c.afford(len(x.c.Data), 1); err != nil {
		return err
	}
	a := ir.NewArray(x.c.Shape...)
	for i, f := range x.c.Data {
		switch {
		case to == elemBool:
			if f != 0 {
				f = 1
			}
		case to == elemFloat:
			f = float64(float32(f))
		case to == elemFloat16:
			f = roundTo(f, 10, -14, 65504)
		case to == elemBfloat16:
			f = roundTo(f, 7, -126, math.MaxFloat32)
		case to.integer() && x.elem.real():
			if math.IsInf(f, 0) || math.Abs(f) > 1<<53 {
				return c.refuse("to", "", "constant %v does not fit %s", f, to)
			}
			f = math.Trunc(f)
		}
		a.Data[i] = f
	}
	if err := c.wrap(a, to); err != nil {
		return err
	}
	c.out[0] = &value{c: a, elem: to, name: x.name}
	return nil
}

// roundTo rounds to the nearest binary float with the given bits of fraction,
// least exponent and largest value, ties to even; what is larger becomes
// infinite.
func roundTo(f float64, fraction, least int, largest float64) float64 {
	if f == 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return f
	}
	ulp := math.Ldexp(1, max(math.Ilogb(f), least)-fraction)
	r := math.RoundToEven(f/ulp) * ulp
	if math.Abs(r) > largest {
		return math.Inf(int(math.Copysign(1, f)))
	}
	return r
}

func importShape(c *call) error {
	s := c.in[0].shape()
	bound := func(name string, def int) int {
		v := c.integer(name, def)
		if v < 0 {
			v += len(s)
		}
		return max(0, min(len(s), v))
	}
	start, end := bound("start", 0), bound("end", len(s))
	s = s[start:max(start, end)]
	return c.set(c.ints([]int{len(s)}, s...), nil)
}
