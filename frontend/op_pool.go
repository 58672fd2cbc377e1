package frontend

import (
	"slices"

	"github.com/home-fhe/home/ir"
)

var poolRows = []row{
	{op: "AveragePool", minIn: 1, maxIn: 1, arith: true, emit: importPool(ir.OpAvgPool), attrs: []attrRow{
		{name: "auto_pad", kind: attrString}, {name: "ceil_mode", kind: attrInt, since: 10}, {name: "count_include_pad", kind: attrInt, since: 7},
		{name: "dilations", kind: attrInts, since: 19}, {name: "kernel_shape", kind: attrInts}, {name: "pads", kind: attrInts},
		{name: "strides", kind: attrInts}}},
	{op: "MaxPool", minIn: 1, maxIn: 1, arith: true, note: "Indices output not supported", emit: importPool(ir.OpMaxPool), attrs: []attrRow{
		{name: "auto_pad", kind: attrString}, {name: "ceil_mode", kind: attrInt, since: 10}, {name: "dilations", kind: attrInts, since: 10},
		{name: "kernel_shape", kind: attrInts}, {name: "pads", kind: attrInts}, {name: "storage_order", kind: attrInt, since: 8},
		{name: "strides", kind: attrInts}}},
	{op: "GlobalAveragePool", minIn: 1, maxIn: 1, arith: true, emit: importGlobalPool(ir.OpReduceMean)},
	{op: "GlobalMaxPool", minIn: 1, maxIn: 1, arith: true, emit: importGlobalPool(ir.OpReduceMax)},
}

// window is the geometry of a sliding window with all defaults filled in.
type window struct {
	strides, pads, dilations []int
}

// window reads strides, dilations, pads and auto_pad for an input of shape
// [n, c, spatial...].
func (c *call) window(shape, kernel []int) (*window, error) {
	n := len(shape) - 2
	if n < 1 {
		return nil, c.refuse("", "", "input of shape %v has no spatial axes, want [batch, channels, ...]", shape)
	}
	if len(kernel) != n {
		return nil, c.refuse("kernel_shape", "", "%v for %d spatial axes", kernel, n)
	}
	list := func(name string, size, def, least int) ([]int, error) {
		if !c.has(name) {
			return slices.Repeat([]int{def}, size), nil
		}
		l := c.integers(name)
		if len(l) != size {
			return nil, c.refuse(name, "", "%v has %d entries, want %d", l, len(l), size)
		}
		for _, v := range l {
			if v < least || v == intLimit {
				return nil, c.refuse(name, "", "%v holds %d", l, v)
			}
		}
		return l, nil
	}
	var w window
	var err error
	if w.strides, err = list("strides", n, 1, 1); err != nil {
		return nil, err
	}
	if w.dilations, err = list("dilations", n, 1, 1); err != nil {
		return nil, err
	}
	for _, k := range kernel {
		if k < 1 || k == intLimit {
			return nil, c.refuse("kernel_shape", "", "%v", kernel)
		}
	}
	mode := c.str("auto_pad", "NOTSET")
	if mode != "NOTSET" && mode != "" && slices.ContainsFunc(c.integers("pads"), func(p int) bool { return p != 0 }) {
		return nil, c.refuse("pads", "", "pads %v beside auto_pad %s", c.integers("pads"), mode)
	}
	switch mode {
	case "NOTSET", "":
		w.pads, err = list("pads", 2*n, 0, 0)
		return &w, err
	case "VALID":
		w.pads = make([]int, 2*n)
		return &w, nil
	case "SAME_UPPER", "SAME_LOWER":
		// The output has ceil(in/stride) positions; an odd pad goes to the end
		// for UPPER and to the start for LOWER.
		w.pads = make([]int, 2*n)
		for d, in := range shape[2:] {
			out := (in + w.strides[d] - 1) / w.strides[d]
			total := max(0, (out-1)*w.strides[d]+w.dilations[d]*(kernel[d]-1)+1-in)
			less, more := total/2, total-total/2
			if mode == "SAME_UPPER" {
				w.pads[d], w.pads[n+d] = less, more
			} else {
				w.pads[d], w.pads[n+d] = more, less
			}
		}
		return &w, nil
	}
	return nil, c.refuse("auto_pad", "", "%q is not an ONNX padding mode", mode)
}

func importPool(op ir.Op) func(*call) error {
	return func(c *call) error {
		if !c.has("kernel_shape") {
			return c.refuse("kernel_shape", "", "the attribute is missing")
		}
		kernel := c.integers("kernel_shape")
		ceil, err := c.flag("ceil_mode", false)
		if err != nil {
			return err
		}
		w, err := c.window(c.in[0].shape(), kernel)
		if err != nil {
			return err
		}
		attrs := ir.Attrs{"kernel": kernel, "strides": w.strides, "pads": w.pads, "dilations": w.dilations}
		// With SAME and VALID the output size does not depend on the rounding:
		// ceil((in-extent+1)/stride) = floor((in-extent)/stride)+1.
		if auto := c.str("auto_pad", "NOTSET"); ceil && (auto == "NOTSET" || auto == "") {
			attrs["ceil"] = 1
		}
		if op == ir.OpAvgPool {
			include, err := c.flag("count_include_pad", false)
			if err != nil {
				return err
			}
			if include {
				attrs["count_include_pad"] = 1
			}
		} else if _, err := c.flag("storage_order", false); err != nil {
			return err // it orders Indices, an output that is refused
		}
		return c.set(c.emit(op, attrs, c.in[0]))
	}
}

func importGlobalPool(op ir.Op) func(*call) error {
	return func(c *call) error {
		x := c.in[0]
		if x.rank() < 3 {
			return c.refuse("", "", "input of shape %v has no spatial axes, want [batch, channels, ...]", x.shape())
		}
		var axes []int
		for d := 2; d < x.rank(); d++ {
			axes = append(axes, d)
		}
		return c.set(c.reduce(op, x, axes, true))
	}
}
