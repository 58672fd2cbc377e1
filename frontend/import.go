package frontend

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/home-fhe/home/ir"
	"gorgonia.org/tensor"
)

// value is one ONNX tensor during import: a constant, or a value of the graph
// that depends on an encrypted input.
type value struct {
	c    *ir.Array // constant, or nil
	v    *ir.Value // nil for a constant that the graph does not hold yet
	elem elemType  // as the model declares it
	name string
}

func (x *value) shape() []int {
	if x.c != nil {
		return x.c.Shape
	}
	return x.v.Type.Shape
}

func (x *value) rank() int { return len(x.shape()) }

func (x *value) elems() int { return ir.NumElems(x.shape()) }

// importer turns the recorded calls of onnx-go into a graph.
type importer struct {
	l          *linked
	r          *recorder
	o          Options
	g          *ir.Graph
	env        map[string]*value // by canonical name
	uses       map[string]int    // how often live nodes and outputs read a tensor
	inputNames []string
	warnings   []string
	symbolic   bool
	folded     int // elements that folding may still make
	work       int // multiply-adds that folding may still spend
}

// maxElems bounds the elements of one tensor. No network that can be encrypted
// comes near it; integers in the model that intLimit clamps exceed it.
const maxElems = 1 << 28

// Folding is bounded over the whole model, so that a few bytes of text cannot
// cost hours or gigabytes: elements made, and multiply-adds spent.
const (
	foldElems = 1 << 24
	foldWork  = 1 << 31
)

func newImporter(l *linked, r *recorder, o Options, bytes int64) *importer {
	im := &importer{l: l, r: r, o: o, g: &ir.Graph{Name: l.graph.name}, env: map[string]*value{}, uses: map[string]int{},
		folded: foldElems + 4*int(bytes), work: foldWork + 64*int(bytes)}
	for _, n := range l.nodes {
		for _, a := range n.inputs {
			im.uses[a]++
		}
	}
	for _, v := range l.graph.outputs {
		im.uses[v.name]++
	}
	return im
}

func (im *importer) warn(format string, args ...any) {
	im.warnings = append(im.warnings, fmt.Sprintf(format, args...))
}

// run imports inputs, initialisers and nodes, and returns the graph.
func (im *importer) run() (*ir.Graph, error) {
	if im.l.dead > 0 {
		im.warn("%d nodes contribute to no output and are ignored", im.l.dead)
	}
	if im.l.sorted {
		im.warn("nodes are not in order of evaluation; sorted")
	}
	if err := im.inputs(); err != nil {
		return nil, err
	}
	inits, err := im.r.initial()
	if err != nil {
		return nil, err
	}
	for _, name := range im.l.names {
		if t := im.l.inits[name]; t != nil {
			key := im.l.argName(name)
			im.env[key] = &value{c: inits[key], elem: t.orig, name: name}
		}
	}
	for i, n := range im.l.nodes {
		if err := im.node(i, n); err != nil {
			return nil, err
		}
	}
	for _, o := range im.l.graph.outputs {
		v, err := im.materialise(im.env[im.l.argName(o.name)])
		if err != nil {
			return nil, err
		}
		if v.Op == ir.OpConst {
			im.warn("output %q does not depend on an encrypted input", o.name)
		}
		im.g.Outputs = append(im.g.Outputs, v)
		if !fits(v.Type.Shape, o) {
			im.warn("output %q has shape %v, which is not what the model declares", o.name, v.Type.Shape)
		}
	}
	return im.g, nil
}

// fits reports whether a shape agrees with the dimensions that the model
// declares as numbers.
func fits(shape []int, v valueInfo) bool {
	if !v.hasShape {
		return true
	}
	for i, d := range v.dims {
		if len(v.dims) != len(shape) || d.known && d.value > 0 && d.value != int64(shape[i]) {
			return false
		}
	}
	return len(v.dims) == len(shape)
}

// inputs creates the encrypted inputs. A symbolic first dimension is the batch;
// any other symbolic dimension must carry the same symbol.
func (im *importer) inputs() error {
	batch := max(im.o.Batch, 1)
	batchSymbol := ""
	for i, in := range im.l.inputs {
		refuse := func(hint, format string, args ...any) error {
			return &ir.NodeError{Node: in.name, Op: "graph input", Err: fmt.Errorf(format, args...), Hint: hint}
		}
		key := im.l.argName(in.name)
		if a, ok := im.o.BindInputs[in.name]; ok {
			im.env[key] = &value{c: a, elem: in.elem, name: in.name}
			continue
		}
		switch {
		case in.kind != "tensor":
			return refuse("", "the input is of kind %s; only tensors are supported", in.kind)
		case !in.elem.real() && !in.elem.integer():
			return refuse("", "elements of type %s cannot be encrypted", in.elem)
		case !in.hasShape:
			return refuse("export the model with input shapes", "the input has no shape")
		case len(in.dims) > maxRank:
			return refuse("", "the input has %d dimensions; the limit is %d", len(in.dims), maxRank)
		}
		shape := make([]int, len(in.dims))
		for k, d := range in.dims {
			switch {
			case d.known && d.value > 0 && d.value <= math.MaxInt32:
				shape[k] = int(d.value)
			case d.known && d.value > 0:
				return refuse("", "dimension %d is %d", k, d.value)
			case k == 0 || d.symbol != "" && d.symbol == batchSymbol:
				if k == 0 && i == 0 {
					batchSymbol = d.symbol
				}
				shape[k] = batch
				im.symbolic = true
			default:
				name := d.symbol
				if name == "" {
					name = "?"
				}
				return refuse("give it a number in the model, for example with onnxruntime.tools.make_dynamic_shape_fixed",
					"dimension %d is %q, of unknown size", k, name)
			}
		}
		v, err := im.g.Add(ir.OpInput, in.name, ir.Attrs{"shape": shape})
		if err != nil {
			return im.blame(in.name, "graph input", err)
		}
		if n := v.Type.Elems(); n > maxElems {
			return refuse("", "shape %v has %d elements; the limit is %d", shape, n, maxElems)
		}
		im.g.Inputs = append(im.g.Inputs, v)
		im.inputNames = append(im.inputNames, in.name)
		im.env[key] = &value{v: v, elem: in.elem, name: in.name}
	}
	for name := range im.o.BindInputs {
		if !slices.ContainsFunc(im.l.inputs, func(v valueInfo) bool { return v.name == name }) {
			return fmt.Errorf("bound input %q is not an input of the model", name)
		}
	}
	return nil
}

// blame rewrites an error of the ir package in the words of the model.
func (im *importer) blame(node, op string, err error) error {
	var ne *ir.NodeError
	if errors.As(err, &ne) {
		return &ir.NodeError{Node: node, Op: op, Attr: ne.Attr, Err: ne.Err, Hint: ne.Hint}
	}
	return &ir.NodeError{Node: node, Op: op, Err: err}
}

// materialise returns the graph value of x, adding a constant where needed.
func (im *importer) materialise(x *value) (*ir.Value, error) {
	if x.v != nil {
		return x.v, nil
	}
	for i, f := range x.c.Data {
		if math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, &ir.NodeError{Node: x.name, Op: "constant", Err: fmt.Errorf("element %d of %d is %v", i, len(x.c.Data), f),
				Hint: "weights must be finite; train or export the network again"}
		}
	}
	d := ir.Real
	switch {
	case x.elem == elemBool:
		d = ir.Bool
	case x.elem.integer():
		d = ir.Int
	}
	v, err := im.g.Const(x.name, x.c, d)
	if err != nil {
		return nil, im.blame(x.name, "constant", err)
	}
	x.v = v
	return v, nil
}

// node imports one node.
func (im *importer) node(i int, n *nodeProto) error {
	row := findRow(n.domain, n.op, im.l.opsets[n.domain])
	op := im.r.ops[i]
	c := &call{im: im, n: n, opset: int(im.l.opsets[n.domain]), attrs: op.attrs, out: make([]*value, len(n.outputs))}
	for k, a := range n.inputs {
		if a == "" {
			c.in = append(c.in, nil)
			continue
		}
		x := im.env[op.args[k].name]
		if x == nil {
			return malformed("node %q (%s) reads %q before it is defined", n.name, n.op, a)
		}
		c.in = append(c.in, x)
	}
	for len(c.in) > 0 && c.in[len(c.in)-1] == nil { // trailing omitted arguments
		c.in = c.in[:len(c.in)-1]
	}
	if len(c.in) < row.minIn || row.maxIn >= 0 && len(c.in) > row.maxIn {
		want := fmt.Sprintf("%d to %d", row.minIn, row.maxIn)
		if row.maxIn < 0 {
			want = fmt.Sprintf("at least %d", row.minIn)
		}
		return c.refuse("", "", "%d inputs, opset %d takes %s", len(c.in), c.opset, want)
	}
	needed := row.minIn
	if row.maxIn < 0 {
		needed = len(c.in) // a list has no gaps
	}
	for k := range needed {
		if c.in[k] == nil {
			return c.refuse("", "", "input %d is missing", k)
		}
	}
	if row.arith {
		if err := c.refuseEncryptedInts(); err != nil {
			return err
		}
	}
	if err := row.emit(c); err != nil {
		return err
	}
	for k, o := range n.outputs {
		if o == "" {
			continue
		}
		if c.out[k] == nil {
			if im.uses[o] > 0 {
				return c.refuse("", "", "output %d (%s) is not supported", k, o)
			}
			continue
		}
		if c.out[k].name == "" {
			c.out[k].name = o
		}
		im.env[op.outputs[k].name] = c.out[k]
	}
	return nil
}

// call is what an importer of the table sees of one node.
type call struct {
	im    *importer
	n     *nodeProto
	opset int
	attrs map[string]any // decoded by onnx-go
	in    []*value       // nil where omitted
	out   []*value       // set by the importer
}

// refuse returns the error for this node.
func (c *call) refuse(attr, hint, format string, args ...any) error {
	return &ir.NodeError{Node: c.n.name, Op: c.n.op, Attr: attr, Err: fmt.Errorf(format, args...), Hint: hint}
}

// arg returns input k, or nil where it is omitted.
func (c *call) arg(k int) *value {
	if k < len(c.in) {
		return c.in[k]
	}
	return nil
}

// constArg returns input k, which must be a constant.
func (c *call) constArg(k int, what string) (*ir.Array, error) {
	x := c.arg(k)
	if x == nil {
		return nil, c.refuse("", "", "input %d (%s) is missing", k, what)
	}
	if x.c == nil {
		return nil, c.refuse("", "only encrypted data may depend on the encrypted input, shapes and parameters may not",
			"input %d (%s) is encrypted, it must be a constant", k, what)
	}
	return x.c, nil
}

// intsArg reads input k as a list of integers; a scalar is a list of one.
func (c *call) intsArg(k int, what string) ([]int, error) {
	a, err := c.constArg(k, what)
	if err != nil {
		return nil, err
	}
	if len(a.Shape) > 1 {
		return nil, c.refuse("", "", "input %d (%s) has shape %v, want a list", k, what, a.Shape)
	}
	out := make([]int, len(a.Data))
	for i, f := range a.Data {
		if f != math.Trunc(f) {
			return nil, c.refuse("", "", "input %d (%s) holds %v, not an integer", k, what, f)
		}
		out[i] = clampInt(f)
	}
	return out, nil
}

// intLimit bounds integers that serve as sizes, positions and counts. Larger
// ones mean "until the end" in ONNX.
const intLimit = math.MaxInt32

// clampInt converts to int within intLimit, which no dimension exceeds.
func clampInt(f float64) int { return int(max(-intLimit, min(intLimit, f))) }

// scalarArg reads input k as one number.
func (c *call) scalarArg(k int, what string) (float64, error) {
	a, err := c.constArg(k, what)
	if err != nil {
		return 0, err
	}
	if len(a.Data) != 1 {
		return 0, c.refuse("", "", "input %d (%s) has shape %v, want one number", k, what, a.Shape)
	}
	return a.Data[0], nil
}

// has reports whether the node gives an attribute.
func (c *call) has(name string) bool { _, ok := c.attrs[name]; return ok }

// float, integer, str and integers read attributes; the table has checked that
// their kinds fit.
func (c *call) float(name string, def float64) float64 {
	if v, ok := c.attrs[name].(float32); ok {
		return float64(v)
	}
	return def
}

func (c *call) integer(name string, def int) int {
	if v, ok := c.attrs[name].(int64); ok {
		return int(max(-intLimit, min(intLimit, v)))
	}
	return def
}

func (c *call) str(name, def string) string {
	if v, ok := c.attrs[name].(string); ok {
		return v
	}
	return def
}

func (c *call) integers(name string) []int {
	v, _ := c.attrs[name].([]int64)
	out := make([]int, len(v))
	for i, x := range v {
		out[i] = int(max(-intLimit, min(intLimit, x)))
	}
	return out
}

// flag reads an attribute that is 0 or 1.
func (c *call) flag(name string, def bool) (bool, error) {
	d := 0
	if def {
		d = 1
	}
	switch v := c.integer(name, d); v {
	case 0, 1:
		return v == 1, nil
	default:
		return false, c.refuse(name, "", "value %d, want 0 or 1", v)
	}
}

// tensorAttr reads a tensor attribute as a constant.
func (c *call) tensorAttr(name string) (*value, error) {
	t, ok := c.attrs[name].(tensor.Tensor)
	want := c.im.l.attrs[c.n.attr(name)]
	if !ok || want == nil {
		return nil, c.refuse(name, "", "not a tensor")
	}
	a, err := toArray(t, want)
	if err != nil {
		return nil, malformed("node %q (%s), attribute %s: %w", c.n.name, c.n.op, name, err)
	}
	return &value{c: a, elem: want.orig}, nil
}

// axis resolves a possibly negative axis.
func (c *call) axis(a, rank int, attr string) (int, error) {
	r := a
	if r < 0 {
		r += rank
	}
	if r < 0 || r >= rank {
		return 0, c.refuse(attr, "", "axis %d of a tensor with %d dimensions", a, rank)
	}
	return r, nil
}

// axes resolves a list of axes, which must differ, and sorts it.
func (c *call) axes(list []int, rank int, attr string) ([]int, error) {
	out := make([]int, len(list))
	for i, a := range list {
		r, err := c.axis(a, rank, attr)
		if err != nil {
			return nil, err
		}
		out[i] = r
	}
	slices.Sort(out)
	for i := 1; i < len(out); i++ {
		if out[i] == out[i-1] {
			return nil, c.refuse(attr, "", "axis %d is given twice", out[i])
		}
	}
	return out, nil
}

// refuseEncryptedInts refuses arithmetic on encrypted integers, whose
// wrap-around and truncation CKKS does not have.
func (c *call) refuseEncryptedInts() error {
	for k, x := range c.in {
		if x != nil && x.c == nil && !x.elem.real() {
			return c.refuse("", "cast it to float first", "input %d is an encrypted %s; arithmetic on encrypted integers is not supported", k, x.elem)
		}
	}
	return nil
}

// emit adds an operation whose result has the element type of its first
// argument, or folds it.
func (c *call) emit(op ir.Op, attrs ir.Attrs, args ...*value) (*value, error) {
	vs := make([]*ir.Value, len(args))
	allConst := true
	for i, a := range args {
		allConst = allConst && a.c != nil
		v, err := c.im.materialise(a)
		if err != nil {
			return nil, err
		}
		vs[i] = v
	}
	v, err := c.im.g.Add(op, c.n.name, attrs, vs...)
	if err != nil {
		return nil, c.im.blame(c.n.name, c.n.op, err)
	}
	if n := extent(v.Type.Shape); n > maxElems {
		return nil, c.refuse("", "", "result of shape %v has %d elements; the limit is %d", v.Type.Shape, n, maxElems)
	}
	out := &value{v: v, elem: args[0].elem}
	if !allConst {
		return out, nil
	}
	if err := c.spend(v); err != nil {
		return nil, err
	}
	a, ok, err := ir.Fold(v)
	if err != nil {
		return nil, c.im.blame(c.n.name, c.n.op, err)
	}
	if !ok {
		return nil, c.refuse("", "", "constant arguments do not fold")
	}
	for i, f := range a.Data {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, c.refuse("", "", "element %d of the constant result is %v", i, f)
		}
	}
	if err := c.wrap(a, out.elem); err != nil {
		return nil, err
	}
	return &value{c: a, elem: out.elem}, nil
}

// extent is the number of elements, empty dimensions counted as one: tables
// along the axes of an empty tensor cost as well.
func extent(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= max(d, 1)
	}
	return n
}

// spend takes the cost of folding v from the budget.
func (c *call) spend(v *ir.Value) error {
	n, per := extent(v.Type.Shape), 1
	switch v.Op {
	case ir.OpConv, ir.OpMatMul:
		per = v.Args[1].Type.Elems()
		if v.Op == ir.OpMatMul && len(v.Args[0].Type.Shape) > 0 {
			s := v.Args[0].Type.Shape
			per = s[len(s)-1]
		}
	case ir.OpAvgPool, ir.OpMaxPool:
		for _, k := range v.Attrs.Ints("kernel") {
			per = min(per*max(k, 1), foldWork)
		}
	case ir.OpReduceMean, ir.OpReduceSum, ir.OpReduceMax:
		per = v.Args[0].Type.Elems()/max(n, 1) + 1
	}
	return c.afford(n, per)
}

// afford takes n constant elements, each costing per steps, from the budget.
func (c *call) afford(n, per int) error {
	if n > c.im.folded || n > c.im.work/max(per, 1) {
		return c.refuse("", "simplify the model before compiling it", "constants of the model fold to too many elements or cost too much")
	}
	c.im.folded -= n
	c.im.work -= n * max(per, 1)
	return nil
}

// wrap brings constant results of integer arithmetic into the range of their
// type, as two's complement does. Integers are exact below 2^53 only, so 64-bit
// results beyond that are refused.
func (c *call) wrap(a *ir.Array, e elemType) error {
	if e.real() || e == elemBool {
		return nil
	}
	bits, signed := intBits(e)
	for i, f := range a.Data {
		if math.Abs(f) > 1<<53 && math.Abs(f) < 1<<63 || bits == 64 && !signed && f < 0 {
			return c.refuse("", "", "integer constant %v is beyond the exact range", f)
		}
		if bits == 64 {
			continue
		}
		m := math.Ldexp(1, bits)
		f = math.Mod(f, m)
		if f < 0 {
			f += m
		}
		if signed && f >= m/2 {
			f -= m
		}
		a.Data[i] = f
	}
	return nil
}

func intBits(e elemType) (bits int, signed bool) {
	switch e {
	case elemUint8:
		return 8, false
	case elemInt8:
		return 8, true
	case elemUint16:
		return 16, false
	case elemInt16:
		return 16, true
	case elemUint32:
		return 32, false
	case elemInt32:
		return 32, true
	case elemUint64:
		return 64, false
	}
	return 64, true
}

// constant makes a real constant with this node's name.
func (c *call) constant(a *ir.Array) *value { return &value{c: a, elem: elemFloat, name: c.n.name} }

func (c *call) scalar(f float64) *value { return c.constant(ir.Scalar(f)) }

// ints makes an integer constant.
func (c *call) ints(shape []int, list ...int) *value {
	a := ir.NewArray(shape...)
	for i, v := range list {
		a.Data[i] = float64(v)
	}
	return &value{c: a, elem: elemInt64, name: c.n.name}
}

// reshape emits a reshape, or nothing where the shape is right already.
func (c *call) reshape(x *value, shape ...int) (*value, error) {
	if slices.Equal(x.shape(), shape) {
		return x, nil
	}
	return c.emit(ir.OpReshape, ir.Attrs{"shape": slices.Clone(shape)}, x)
}

// set stores the first result.
func (c *call) set(x *value, err error) error {
	if err != nil {
		return err
	}
	c.out[0] = &value{c: x.c, v: x.v, elem: x.elem, name: x.name}
	return nil
}
