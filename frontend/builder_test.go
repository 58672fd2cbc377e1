package frontend

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/home-fhe/home/ir"
	"google.golang.org/protobuf/encoding/protowire"
)

// builder writes small ONNX models for tests.
type builder struct {
	opset int
	nodes []byte
	inits []byte
	ins   []byte
	outs  []byte
	extra []byte // further fields of the model
}

func newBuilder(opset int) *builder { return &builder{opset: opset} }

func varint(b []byte, num protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v))
}

// valueInfoBytes writes a graph input or output; a dimension is an int or a
// symbol.
func valueInfoBytes(name string, elem elemType, dims ...any) []byte {
	var shape []byte
	for _, d := range dims {
		switch d := d.(type) {
		case int:
			shape = appendMessage(shape, 1, varint(nil, 1, int64(d)))
		case string:
			shape = appendMessage(shape, 1, appendString(nil, 2, d))
		}
	}
	tt := varint(nil, 1, int64(elem))
	tt = appendMessage(tt, 2, shape)
	return appendMessage(appendString(nil, 1, name), 2, appendMessage(nil, 1, tt))
}

func (b *builder) input(name string, dims ...any) *builder {
	return b.inputOf(elemFloat, name, dims...)
}

func (b *builder) inputOf(e elemType, name string, dims ...any) *builder {
	b.ins = appendMessage(b.ins, 11, valueInfoBytes(name, e, dims...))
	return b
}

func (b *builder) output(name string) *builder {
	b.outs = appendMessage(b.outs, 12, appendString(nil, 1, name))
	return b
}

// init adds a float32 initialiser.
func (b *builder) init(name string, shape []int, data ...float64) *builder {
	b.inits = appendMessage(b.inits, 5, floatTensor(name, shape, data...))
	return b
}

// initInts adds an int64 initialiser, a list.
func (b *builder) initInts(name string, data ...int64) *builder {
	b.inits = appendMessage(b.inits, 5, intTensor(name, data...))
	return b
}

func floatTensor(name string, shape []int, data ...float64) []byte {
	var raw []byte
	for _, f := range data {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(f)))
	}
	return tensorBytes(name, elemFloat, shape, raw)
}

func intTensor(name string, data ...int64) []byte {
	var raw []byte
	for _, v := range data {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	return tensorBytes(name, elemInt64, []int{len(data)}, raw)
}

func tensorBytes(name string, e elemType, shape []int, raw []byte) []byte {
	var t []byte
	for _, d := range shape {
		t = varint(t, 1, int64(d))
	}
	t = varint(t, 2, int64(e))
	if name != "" {
		t = appendString(t, 8, name)
	}
	return protowire.AppendBytes(protowire.AppendTag(t, 9, protowire.BytesType), raw)
}

// attribute is a named value of a Go type: int, float64, string, []int, or
// []byte for a tensor.
type attribute struct {
	name  string
	value any
}

func (b *builder) node(op string, ins, outs []string, attrs ...attribute) *builder {
	return b.nodeIn("", op, ins, outs, attrs...)
}

func (b *builder) nodeIn(domain, op string, ins, outs []string, attrs ...attribute) *builder {
	var n []byte
	for _, s := range ins {
		n = appendString(n, 1, s)
	}
	for _, s := range outs {
		n = appendString(n, 2, s)
	}
	if len(outs) > 0 {
		n = appendString(n, 3, "node_"+outs[0])
	}
	n = appendString(n, 4, op)
	for _, a := range attrs {
		m := appendString(nil, 1, a.name)
		kind := attrInt
		switch v := a.value.(type) {
		case int:
			m = varint(m, 3, int64(v))
		case float64:
			kind = attrFloat
			m = protowire.AppendFixed32(protowire.AppendTag(m, 2, protowire.Fixed32Type), math.Float32bits(float32(v)))
		case string:
			kind = attrString
			m = appendString(m, 4, v)
		case []int:
			kind = attrInts
			for _, x := range v {
				m = varint(m, 8, int64(x))
			}
		case []byte:
			kind = attrTensor
			m = appendMessage(m, 5, v)
		}
		n = appendMessage(n, 5, varint(m, 20, int64(kind)))
	}
	if domain != "" {
		n = appendString(n, 7, domain)
	}
	b.nodes = appendMessage(b.nodes, 1, n)
	return b
}

func (b *builder) bytes() []byte {
	var g []byte
	g = append(g, b.nodes...)
	g = appendString(g, 2, "test")
	g = append(append(append(g, b.inits...), b.ins...), b.outs...)
	m := varint(nil, 1, 8)
	m = appendString(m, 2, "builder")
	m = appendMessage(m, 7, g)
	m = appendMessage(m, 8, varint(appendString(nil, 1, ""), 2, int64(b.opset)))
	return append(m, b.extra...)
}

// parse imports the model, which must be accepted.
func (b *builder) parse(t testing.TB) *Model {
	t.Helper()
	m, err := Parse(b.bytes(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// run imports and evaluates a model with one input and one output.
func (b *builder) run(t testing.TB, x *ir.Array) *ir.Array {
	t.Helper()
	out, err := eval(b.parse(t), x)
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// ramp returns an array that counts up from start by step.
func ramp(start, step float64, shape ...int) *ir.Array {
	a := ir.NewArray(shape...)
	for i := range a.Data {
		a.Data[i] = start + float64(i)*step
	}
	return a
}

// checkArray compares within a tolerance relative to the magnitude.
func checkArray(t testing.TB, got *ir.Array, shape []int, want ...float64) {
	t.Helper()
	if len(got.Shape) != len(shape) || ir.NumElems(shape) != len(want) {
		t.Fatalf("shape %v, want %v", got.Shape, shape)
	}
	for i, d := range shape {
		if got.Shape[i] != d {
			t.Fatalf("shape %v, want %v", got.Shape, shape)
		}
	}
	for i, w := range want {
		if d := math.Abs(got.Data[i] - w); !(d <= 1e-5*math.Max(1, math.Abs(w))) {
			t.Fatalf("element %d is %v, want %v\n got %v\nwant %v", i, got.Data[i], w, got.Data, want)
		}
	}
}
