package frontend

import (
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
)

func alphaAttr() []attrRow { return []attrRow{{name: "alpha", kind: attrFloat}} }

var activationRows = []row{
	{op: "Relu", minIn: 1, maxIn: 1, arith: true, emit: activation("relu")},
	{op: "Sigmoid", minIn: 1, maxIn: 1, arith: true, emit: activation("sigmoid")},
	{op: "Tanh", minIn: 1, maxIn: 1, arith: true, emit: activation("tanh")},
	{op: "Softplus", minIn: 1, maxIn: 1, arith: true, emit: activation("softplus")},
	{op: "Softsign", minIn: 1, maxIn: 1, arith: true, emit: activation("softsign")},
	{op: "HardSwish", since: 14, minIn: 1, maxIn: 1, arith: true, emit: activation("hardswish")},
	{op: "Mish", since: 18, minIn: 1, maxIn: 1, arith: true, emit: activation("mish")},
	{op: "Erf", since: 9, minIn: 1, maxIn: 1, arith: true, emit: activation("erf")},
	{op: "Exp", minIn: 1, maxIn: 1, arith: true, emit: activation("exp")},
	{op: "Log", minIn: 1, maxIn: 1, arith: true, emit: activation("log")},
	{op: "Sqrt", minIn: 1, maxIn: 1, arith: true, emit: activation("sqrt")},
	{op: "Reciprocal", minIn: 1, maxIn: 1, arith: true, emit: activation("reciprocal")},
	{op: "Abs", minIn: 1, maxIn: 1, arith: true, emit: activation("abs")},
	{op: "Sin", minIn: 1, maxIn: 1, arith: true, emit: activation("sin")},
	{op: "Cos", minIn: 1, maxIn: 1, arith: true, emit: activation("cos")},
	{op: "LeakyRelu", minIn: 1, maxIn: 1, arith: true, attrs: alphaAttr(), emit: activation("leakyrelu", param{"alpha", 0.01})},
	{op: "Elu", minIn: 1, maxIn: 1, arith: true, attrs: alphaAttr(), emit: activation("elu", param{"alpha", 1})},
	{op: "Celu", since: 12, minIn: 1, maxIn: 1, arith: true, attrs: alphaAttr(), emit: activation("celu", param{"alpha", 1})},
	{op: "ThresholdedRelu", since: 10, minIn: 1, maxIn: 1, arith: true, attrs: alphaAttr(), emit: activation("thresholdedrelu", param{"alpha", 1})},
	{op: "Selu", minIn: 1, maxIn: 1, arith: true, attrs: []attrRow{{name: "alpha", kind: attrFloat}, {name: "gamma", kind: attrFloat}},
		emit: activation("selu", param{"alpha", 1.67326319217681884765625}, param{"gamma", 1.05070102214813232421875})},
	{op: "HardSigmoid", minIn: 1, maxIn: 1, arith: true, attrs: []attrRow{{name: "alpha", kind: attrFloat}, {name: "beta", kind: attrFloat}},
		emit: activation("hardsigmoid", param{"alpha", 0.2}, param{"beta", 0.5})},
	{op: "Swish", since: 24, minIn: 1, maxIn: 1, arith: true, attrs: alphaAttr(), emit: func(c *call) error {
		return c.set(c.swish(c.in[0], c.float("alpha", 1)))
	}},
	{op: "Gelu", since: 20, minIn: 1, maxIn: 1, arith: true, attrs: []attrRow{{name: "approximate", kind: attrString}}, emit: importGelu},
	{op: "PRelu", minIn: 2, maxIn: 2, arith: true, note: "slope constant", emit: importPRelu},
	{op: "Clip", until: 10, minIn: 1, maxIn: 1, emit: importClip, attrs: []attrRow{{name: "min", kind: attrFloat}, {name: "max", kind: attrFloat}}},
	{op: "Clip", since: 11, minIn: 1, maxIn: 3, note: "bounds constant", emit: importClip},
	{op: "Min", minIn: 1, maxIn: -1, emit: importExtremum(true)},
	{op: "Max", minIn: 1, maxIn: -1, emit: importExtremum(false)},
}

// param is a parameter of an activation with the default that ONNX gives it.
type param struct {
	name string
	def  float64
}

// activation imports an elementwise function whose parameters are float
// attributes of the same names.
func activation(fn string, params ...param) func(*call) error {
	return func(c *call) error {
		attrs := ir.Attrs{}
		for _, p := range params {
			attrs[p.name] = c.float(p.name, p.def)
		}
		return c.set(c.act(fn, attrs, c.in[0]))
	}
}

// act emits an elementwise function.
func (c *call) act(fn string, params ir.Attrs, x *value) (*value, error) {
	attrs := ir.Attrs{"fn": fn}
	for _, k := range params.Names() {
		attrs[k] = params[k]
	}
	return c.emit(ir.OpAct, attrs, x)
}

func (c *call) swish(x *value, alpha float64) (*value, error) {
	if alpha == 1 {
		return c.act("silu", nil, x)
	}
	return c.act("swish", ir.Attrs{"alpha": alpha}, x)
}

func importGelu(c *call) error {
	switch mode := c.str("approximate", "none"); mode {
	case "none":
		return c.set(c.act("gelu", nil, c.in[0]))
	case "tanh":
		return c.set(c.act("gelu_tanh", nil, c.in[0]))
	default:
		return c.refuse("approximate", "", "%q, want none or tanh", mode)
	}
}

// importPRelu is x for x >= 0 and slope*x below: slope*x + (1-slope)*relu(x).
func importPRelu(c *call) error {
	s, err := c.constArg(1, "slope")
	if err != nil {
		return err
	}
	x := c.in[0]
	if c.opset < 7 && len(s.Shape) == 1 && x.rank() > 1 && s.Shape[0] == x.shape()[1] { // one slope per channel
		shape := slices.Repeat([]int{1}, x.rank()-1)
		shape[0] = s.Shape[0]
		s = s.Reshape(shape...)
	}
	if out, err := ir.Broadcast(x.shape(), s.Shape); err != nil || ir.NumElems(out) != x.elems() || len(out) != x.rank() {
		return c.refuse("", "", "slope of shape %v does not broadcast to %v", s.Shape, x.shape())
	}
	if len(s.Data) > 0 {
		same := true
		for _, f := range s.Data {
			same = same && f == s.Data[0]
		}
		if same {
			return c.set(c.act("leakyrelu", ir.Attrs{"alpha": s.Data[0]}, x))
		}
	}
	rest := ir.NewArray(s.Shape...)
	for i, f := range s.Data {
		rest.Data[i] = 1 - f
	}
	line, err := c.emit(ir.OpMul, nil, x, c.constant(s))
	if err != nil {
		return err
	}
	bend, err := c.act("relu", nil, x)
	if err != nil {
		return err
	}
	if bend, err = c.emit(ir.OpMul, nil, bend, c.constant(rest)); err != nil {
		return err
	}
	return c.set(c.emit(ir.OpAdd, nil, line, bend))
}

func importClip(c *call) error {
	lo, hi := math.Inf(-1), math.Inf(1)
	if c.opset < 11 {
		lo, hi = c.float("min", lo), c.float("max", hi)
	} else {
		var err error
		if c.arg(1) != nil {
			if lo, err = c.scalarArg(1, "min"); err != nil {
				return err
			}
		}
		if c.arg(2) != nil {
			if hi, err = c.scalarArg(2, "max"); err != nil {
				return err
			}
		}
	}
	if math.IsNaN(lo) || math.IsNaN(hi) {
		return c.refuse("min", "", "a bound is NaN")
	}
	return c.set(c.clip(c.in[0], lo, hi))
}

// clip emits min(max(x, lo), hi). Bounds at the ends of float32 are none.
func (c *call) clip(x *value, lo, hi float64) (*value, error) {
	if lo <= -math.MaxFloat32 {
		lo = math.Inf(-1)
	}
	if hi >= math.MaxFloat32 {
		hi = math.Inf(1)
	}
	switch {
	case math.IsInf(lo, -1) && math.IsInf(hi, 1):
		return x, nil
	case x.c == nil && !x.elem.real():
		return nil, c.refuse("", "cast it to float first", "clipping an encrypted %s is not supported", x.elem)
	case lo == 0 && math.IsInf(hi, 1):
		return c.act("relu", nil, x)
	}
	return c.act("clip", ir.Attrs{"min": lo, "max": hi}, x)
}

// importExtremum folds the operands from left to right: a constant that is the
// same everywhere clips, anything else is max(a,b) = relu(a-b) + b and
// min(a,b) = b - relu(b-a).
func importExtremum(minimum bool) func(*call) error {
	pick := math.Max
	if minimum {
		pick = math.Min
	}
	return func(c *call) error {
		if err := c.sameType(); err != nil {
			return err
		}
		x := c.in[0]
		var err error
		for _, y := range c.in[1:] {
			if x.c != nil {
				x, y = y, x
			}
			switch {
			case x.c != nil:
				x, err = c.zip(x, y, x.elem, pick)
			case !x.elem.real() || !y.elem.real():
				err = c.refuse("", "cast it to float first", "comparing encrypted %s is not supported", x.elem)
			case y.c != nil && len(y.c.Data) == 1 && y.rank() <= x.rank():
				if minimum {
					x, err = c.clip(x, math.Inf(-1), y.c.Data[0])
				} else {
					x, err = c.clip(x, y.c.Data[0], math.Inf(1))
				}
			default:
				x, err = c.extremum(x, y, minimum)
			}
			if err != nil {
				return err
			}
		}
		return c.set(x, nil)
	}
}

func (c *call) extremum(a, b *value, minimum bool) (*value, error) {
	from, sub, join := a, b, ir.OpAdd
	if minimum {
		from, sub, join = b, a, ir.OpSub
	}
	d, err := c.emit(ir.OpSub, nil, from, sub)
	if err != nil {
		return nil, err
	}
	if d, err = c.act("relu", nil, d); err != nil {
		return nil, err
	}
	return c.emit(join, nil, b, d)
}
