package ir

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Symmetry says what remains of a function after a line is taken off. A pass
// that approximates an even or odd remainder needs only every other Chebyshev
// coefficient.
type Symmetry uint8

// Symmetries.
const (
	SymNone Symmetry = iota
	SymEven          // f(x) - Slope*x - Offset is even
	SymOdd           // f(x) - Slope*x - Offset is odd
)

// ActShape is the structure of an activation for given parameters.
type ActShape struct {
	Sym           Symmetry
	Slope, Offset float64
	Kinks         []float64 // where the first derivative jumps, ascending
}

// ActInfo is a row of the activation table.
type ActInfo struct {
	Name   string
	Params []string // float attributes, all required: the importer fills in ONNX's defaults
	Doc    string
	// F is the exact function; p holds the parameters in the order of Params.
	F func(x float64, p []float64) float64
	// Shape returns the structure; nil where there is none to exploit.
	Shape func(p []float64) ActShape
	// Domain is the open interval on which F is finite; nil is all reals.
	// Reciprocal has two pieces, (-inf,0) and (0,inf), written as (0,inf).
	Domain *[2]float64
}

func even(slope, offset float64, kinks ...float64) func([]float64) ActShape {
	return func([]float64) ActShape { return ActShape{SymEven, slope, offset, kinks} }
}

func odd(slope, offset float64) func([]float64) ActShape {
	return func([]float64) ActShape { return ActShape{SymOdd, slope, offset, nil} }
}

// activations is the table of elementwise functions, by name. Definitions are
// those of the ONNX operators of the same names; gelu_tanh is the approximation
// of Hendrycks and Gimpel, arXiv:1606.08415; swish has the slope alpha inside
// the sigmoid.
var activations = []ActInfo{
	{Name: "abs", Doc: "|x|", Shape: even(0, 0, 0),
		F: func(x float64, _ []float64) float64 { return math.Abs(x) }},
	{Name: "celu", Params: []string{"alpha"}, Doc: "max(0,x) + min(0, alpha(exp(x/alpha)-1))",
		F: func(x float64, p []float64) float64 {
			return math.Max(0, x) + math.Min(0, p[0]*math.Expm1(x/p[0]))
		}},
	{Name: "clip", Params: []string{"min", "max"}, Doc: "min(max(x, min), max)",
		F: func(x float64, p []float64) float64 { return math.Min(math.Max(x, p[0]), p[1]) },
		Shape: func(p []float64) ActShape {
			var s ActShape
			for _, k := range p {
				if !math.IsInf(k, 0) {
					s.Kinks = append(s.Kinks, k)
				}
			}
			if p[0] >= p[1] { // constant
				return ActShape{Sym: SymEven, Offset: p[1]}
			}
			if p[0] == -p[1] {
				s.Sym = SymOdd
			} else if p[0] == 0 && math.IsInf(p[1], 1) || p[1] == 0 && math.IsInf(p[0], -1) {
				s.Sym, s.Slope = SymEven, 0.5
			}
			return s
		}},
	{Name: "cos", Doc: "cos(x)", Shape: even(0, 0),
		F: func(x float64, _ []float64) float64 { return math.Cos(x) }},
	{Name: "elu", Params: []string{"alpha"}, Doc: "x where x >= 0, else alpha(exp(x)-1)",
		F: func(x float64, p []float64) float64 {
			if x >= 0 {
				return x
			}
			return p[0] * math.Expm1(x)
		},
		Shape: func(p []float64) ActShape {
			if p[0] == 1 {
				return ActShape{}
			}
			return ActShape{Kinks: []float64{0}}
		}},
	{Name: "erf", Doc: "error function", Shape: odd(0, 0),
		F: func(x float64, _ []float64) float64 { return math.Erf(x) }},
	{Name: "exp", Doc: "exp(x)",
		F: func(x float64, _ []float64) float64 { return math.Exp(x) }},
	{Name: "gelu", Doc: "x(1+erf(x/sqrt 2))/2", Shape: even(0.5, 0),
		F: func(x float64, _ []float64) float64 { return 0.5 * x * (1 + math.Erf(x/math.Sqrt2)) }},
	{Name: "gelu_tanh", Doc: "x(1+tanh(sqrt(2/pi)(x+0.044715x^3)))/2", Shape: even(0.5, 0),
		F: func(x float64, _ []float64) float64 {
			return 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
		}},
	{Name: "hardsigmoid", Params: []string{"alpha", "beta"}, Doc: "max(0, min(1, alpha x + beta))",
		F: func(x float64, p []float64) float64 { return math.Max(0, math.Min(1, p[0]*x+p[1])) },
		Shape: func(p []float64) ActShape {
			if p[0] == 0 {
				return ActShape{Sym: SymEven, Offset: math.Max(0, math.Min(1, p[1]))}
			}
			s := ActShape{Kinks: []float64{-p[1] / p[0], (1 - p[1]) / p[0]}}
			slices.Sort(s.Kinks)
			if p[1] == 0.5 {
				s.Sym, s.Offset = SymOdd, 0.5
			}
			return s
		}},
	{Name: "hardswish", Doc: "x max(0, min(1, x/6 + 1/2))", Shape: even(0.5, 0, -3, 3),
		F: func(x float64, _ []float64) float64 { return x * math.Max(0, math.Min(1, x/6+0.5)) }},
	{Name: "leakyrelu", Params: []string{"alpha"}, Doc: "x where x >= 0, else alpha x",
		F: func(x float64, p []float64) float64 {
			if x >= 0 {
				return x
			}
			return p[0] * x
		},
		Shape: func(p []float64) ActShape {
			s := ActShape{Sym: SymEven, Slope: (1 + p[0]) / 2}
			if p[0] != 1 {
				s.Kinks = []float64{0}
			}
			return s
		}},
	{Name: "log", Doc: "natural logarithm", Domain: &[2]float64{0, math.Inf(1)},
		F: func(x float64, _ []float64) float64 { return math.Log(x) }},
	{Name: "mish", Doc: "x tanh(softplus(x))",
		F: func(x float64, _ []float64) float64 { return x * math.Tanh(softplus(x)) }},
	{Name: "reciprocal", Doc: "1/x", Domain: &[2]float64{0, math.Inf(1)}, Shape: odd(0, 0),
		F: func(x float64, _ []float64) float64 { return 1 / x }},
	{Name: "relu", Doc: "max(0, x)", Shape: even(0.5, 0, 0),
		F: func(x float64, _ []float64) float64 { return math.Max(0, x) }},
	{Name: "selu", Params: []string{"alpha", "gamma"}, Doc: "gamma times elu",
		F: func(x float64, p []float64) float64 {
			if x > 0 {
				return p[1] * x
			}
			return p[1] * p[0] * math.Expm1(x)
		},
		Shape: func(p []float64) ActShape {
			if p[0] == 1 || p[1] == 0 {
				return ActShape{}
			}
			return ActShape{Kinks: []float64{0}}
		}},
	{Name: "sigmoid", Doc: "1/(1+exp(-x))", Shape: odd(0, 0.5),
		F: func(x float64, _ []float64) float64 { return sigmoid(x) }},
	{Name: "silu", Doc: "x sigmoid(x)", Shape: even(0.5, 0),
		F: func(x float64, _ []float64) float64 { return x * sigmoid(x) }},
	{Name: "sin", Doc: "sin(x)", Shape: odd(0, 0),
		F: func(x float64, _ []float64) float64 { return math.Sin(x) }},
	{Name: "softplus", Doc: "log(1+exp(x))", Shape: even(0.5, 0),
		F: func(x float64, _ []float64) float64 { return softplus(x) }},
	{Name: "softsign", Doc: "x/(1+|x|)", Shape: odd(0, 0),
		F: func(x float64, _ []float64) float64 { return x / (1 + math.Abs(x)) }},
	{Name: "sqrt", Doc: "square root", Domain: &[2]float64{0, math.Inf(1)},
		F: func(x float64, _ []float64) float64 { return math.Sqrt(x) }},
	{Name: "swish", Params: []string{"alpha"}, Doc: "x sigmoid(alpha x)", Shape: even(0.5, 0),
		F: func(x float64, p []float64) float64 { return x * sigmoid(p[0]*x) }},
	{Name: "tanh", Doc: "hyperbolic tangent", Shape: odd(0, 0),
		F: func(x float64, _ []float64) float64 { return math.Tanh(x) }},
	{Name: "thresholdedrelu", Params: []string{"alpha"}, Doc: "x where x > alpha, else 0; jumps at alpha",
		F: func(x float64, p []float64) float64 {
			if x > p[0] {
				return x
			}
			return 0
		},
		Shape: func(p []float64) ActShape {
			if p[0] == 0 {
				return ActShape{SymEven, 0.5, 0, []float64{0}}
			}
			return ActShape{Kinks: []float64{p[0]}}
		}},
}

// sigmoid avoids the overflow of exp for large negative arguments.
func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}

func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// ActByName returns the row of the activation table of that name.
func ActByName(name string) (*ActInfo, bool) {
	i, ok := slices.BinarySearchFunc(activations, name, func(a ActInfo, n string) int { return strings.Compare(a.Name, n) })
	if !ok {
		return nil, false
	}
	return &activations[i], true
}

// ActNames returns the names of all activations in ascending order.
func ActNames() []string {
	n := make([]string, len(activations))
	for i := range activations {
		n[i] = activations[i].Name
	}
	return n
}

// activation resolves the attributes of an OpAct.
func (v *Value) activation() (*ActInfo, []float64, error) {
	fn := v.Attrs.Str("fn", "")
	a, ok := ActByName(fn)
	if !ok {
		return nil, nil, fmt.Errorf("unknown function %q, want one of %s", fn, strings.Join(ActNames(), ", "))
	}
	p := make([]float64, len(a.Params))
	for i, n := range a.Params {
		x, ok := v.Attrs[n].(float64)
		if !ok {
			return nil, nil, fmt.Errorf("function %s needs attribute %s", fn, n)
		}
		if math.IsNaN(x) || math.IsInf(x, 0) && fn != "clip" {
			return nil, nil, fmt.Errorf("attribute %s of function %s is %v", n, fn, x)
		}
		p[i] = x
	}
	for _, n := range v.Attrs.Names() {
		if n != "fn" && !slices.Contains(a.Params, n) {
			return nil, nil, fmt.Errorf("function %s has no attribute %s", fn, n)
		}
	}
	if fn == "celu" && p[0] == 0 {
		return nil, nil, fmt.Errorf("attribute alpha of function celu is 0")
	}
	return a, p, nil
}

// Activation returns the exact function of an OpAct, with its parameters
// bound. It ignores Value.Approx.
func (v *Value) Activation() (func(float64) float64, error) {
	a, p, err := v.activation()
	if err != nil {
		return nil, err
	}
	return func(x float64) float64 { return a.F(x, p) }, nil
}

// ActShape returns the structure of the function of an OpAct: symmetry after a
// line is taken off, and kinks.
func (v *Value) ActShape() (ActShape, error) {
	a, p, err := v.activation()
	if err != nil || a.Shape == nil {
		return ActShape{}, err
	}
	return a.Shape(p), nil
}

// ActDomain returns the open interval on which the function of an OpAct is
// finite.
func (v *Value) ActDomain() (lo, hi float64, err error) {
	a, _, err := v.activation()
	if err != nil {
		return 0, 0, err
	}
	if a.Domain != nil {
		return a.Domain[0], a.Domain[1], nil
	}
	return math.Inf(-1), math.Inf(1), nil
}
