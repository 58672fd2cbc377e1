package frontend

import (
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The side-car: what the protobuf of a model says, read once with every length
// checked before anything is allocated. Field numbers are those of
// onnx.proto (ONNX IR version 13). Messages nest to a fixed depth because
// subgraphs, functions and type parameters other than tensors are noted and
// never descended into; memory is proportional to the bytes read.

type modelProto struct {
	irVersion int64
	producer  string
	opsets    map[string]int64 // "" is the ai.onnx domain
	graph     *graphProto
	functions map[string]bool // "domain:name"
}

type graphProto struct {
	name    string
	nodes   []*nodeProto
	inits   []*tensorProto
	inputs  []valueInfo
	outputs []valueInfo
	sparse  []string // names of sparse initialisers
}

// maxAttrs bounds the attributes of a node; no ONNX operator has half as many.
const maxAttrs = 64

type nodeProto struct {
	name    string // of the node, or of its first output
	op      string
	domain  string
	inputs  []string
	outputs []string
	attrs   []*attrProto
}

func (n *nodeProto) attr(name string) *attrProto {
	for _, a := range n.attrs {
		if a.name == name {
			return a
		}
	}
	return nil
}

// attrKind is AttributeProto.AttributeType.
type attrKind uint8

const (
	attrUndefined attrKind = iota
	attrFloat
	attrInt
	attrString
	attrTensor
	attrGraph
	attrFloats
	attrInts
	attrStrings
	attrTensors
	attrGraphs
	attrSparse
	attrSparses
	attrType
	attrTypes
)

func (k attrKind) String() string {
	names := [...]string{"undefined", "float", "int", "string", "tensor", "graph", "floats", "ints", "strings",
		"tensors", "graphs", "sparse tensor", "sparse tensors", "type", "types"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("attribute type %d", uint8(k))
}

type attrProto struct {
	name    string
	kind    attrKind
	f       float32
	i       int64
	s       []byte
	t       *tensorProto
	floats  []float32
	ints    []int64
	strings [][]byte
	ref     string // set inside functions only
}

type tensorProto struct {
	name     string
	dims     []int64
	elem     elemType
	raw      []byte // aliases the file
	hasRaw   bool
	floats   []float32
	doubles  []float64
	int32s   []int32
	int64s   []int64
	uint64s  []uint64
	strings  int // number of string elements
	external map[string]string
	isExt    bool
	segment  bool
}

// dim is one dimension of a declared shape: a value, a symbol, or neither.
type dim struct {
	value  int64
	symbol string
	known  bool
}

type valueInfo struct {
	name     string
	elem     elemType
	dims     []dim
	hasShape bool
	kind     string // "tensor", or what else it is
}

// elemType is TensorProto.DataType.
type elemType int32

const (
	elemUndefined elemType = 0
	elemFloat     elemType = 1
	elemUint8     elemType = 2
	elemInt8      elemType = 3
	elemUint16    elemType = 4
	elemInt16     elemType = 5
	elemInt32     elemType = 6
	elemInt64     elemType = 7
	elemString    elemType = 8
	elemBool      elemType = 9
	elemFloat16   elemType = 10
	elemDouble    elemType = 11
	elemUint32    elemType = 12
	elemUint64    elemType = 13
	elemBfloat16  elemType = 16
)

func (e elemType) String() string {
	names := [...]string{"undefined", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool",
		"float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz",
		"float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0", "uint2", "int2"}
	if e >= 0 && int(e) < len(names) {
		return names[e]
	}
	return fmt.Sprintf("element type %d", int32(e))
}

// real reports whether the type stands for real numbers.
func (e elemType) real() bool {
	return e == elemFloat || e == elemFloat16 || e == elemDouble || e == elemBfloat16
}

// integer reports whether the type is an integer that fits a float64 exactly
// for all values below 2^53.
func (e elemType) integer() bool {
	switch e {
	case elemUint8, elemInt8, elemUint16, elemInt16, elemInt32, elemInt64, elemUint32, elemUint64:
		return true
	}
	return false
}

// known reports whether tensors of the type can be read.
func (e elemType) known() bool { return e.real() || e.integer() || e == elemBool }

// field is one decoded protobuf field.
type field struct {
	num protowire.Number
	typ protowire.Type
	n   uint64 // varint, fixed32, fixed64
	b   []byte // length-delimited
}

// fields calls f for every field of a message, in order.
func fields(b []byte, what string, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed("%s: bad field tag: %v", what, protowire.ParseError(n))
		}
		b = b[n:]
		fd := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			fd.n, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			fd.n = uint64(v)
		case protowire.Fixed64Type:
			fd.n, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			fd.b, n = protowire.ConsumeBytes(b)
		default:
			return malformed("%s: field %d has wire type %d, which ONNX does not use", what, num, typ)
		}
		if n < 0 {
			return malformed("%s: field %d: %v", what, num, protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(fd); err != nil {
			return err
		}
	}
	return nil
}

func (f field) bytes(what string) ([]byte, error) {
	if f.typ != protowire.BytesType {
		return nil, malformed("%s has wire type %d", what, f.typ)
	}
	return f.b, nil
}

func (f field) str(dst *string, what string) error {
	b, err := f.bytes(what)
	if err != nil {
		return err
	}
	if !utf8.Valid(b) {
		return malformed("%s is not UTF-8", what)
	}
	*dst = string(b)
	return nil
}

func (f field) int(dst *int64, what string) error {
	if f.typ != protowire.VarintType {
		return malformed("%s has wire type %d", what, f.typ)
	}
	*dst = int64(f.n)
	return nil
}

// varints reads a repeated varint field, packed or not, through add.
func (f field) varints(what string, add func(uint64)) error {
	if f.typ == protowire.VarintType {
		add(f.n)
		return nil
	}
	b, err := f.bytes(what)
	if err != nil {
		return err
	}
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return malformed("%s: %v", what, protowire.ParseError(n))
		}
		add(v)
		b = b[n:]
	}
	return nil
}

// fixed32s reads a repeated fixed32 field, packed or not.
func (f field) fixed32s(what string, add func(uint32)) error {
	if f.typ == protowire.Fixed32Type {
		add(uint32(f.n))
		return nil
	}
	b, err := f.bytes(what)
	if err != nil {
		return err
	}
	if len(b)%4 != 0 {
		return malformed("%s: %d bytes", what, len(b))
	}
	for ; len(b) > 0; b = b[4:] {
		v, _ := protowire.ConsumeFixed32(b)
		add(v)
	}
	return nil
}

// fixed64s reads a repeated fixed64 field, packed or not.
func (f field) fixed64s(what string, add func(uint64)) error {
	if f.typ == protowire.Fixed64Type {
		add(f.n)
		return nil
	}
	b, err := f.bytes(what)
	if err != nil {
		return err
	}
	if len(b)%8 != 0 {
		return malformed("%s: %d bytes", what, len(b))
	}
	for ; len(b) > 0; b = b[8:] {
		v, _ := protowire.ConsumeFixed64(b)
		add(v)
	}
	return nil
}

func readModel(b []byte) (*modelProto, error) {
	m := &modelProto{opsets: map[string]int64{}, functions: map[string]bool{}}
	err := fields(b, "model", func(f field) error {
		switch f.num {
		case 1:
			return f.int(&m.irVersion, "ir_version")
		case 2:
			return f.str(&m.producer, "producer_name")
		case 3:
			var v string
			if err := f.str(&v, "producer_version"); err != nil {
				return err
			}
			if v != "" {
				m.producer += " " + v
			}
		case 7:
			if m.graph != nil {
				return malformed("model has two graphs")
			}
			b, err := f.bytes("graph")
			if err != nil {
				return err
			}
			m.graph, err = readGraph(b)
			return err
		case 8:
			return readOpset(f, m.opsets)
		case 25:
			return readFunctionName(f, m.functions)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if m.graph == nil {
		return nil, malformed("no graph: this is not an ONNX model")
	}
	return m, nil
}

func readOpset(f field, opsets map[string]int64) error {
	b, err := f.bytes("opset_import")
	if err != nil {
		return err
	}
	var domain string
	var version int64
	err = fields(b, "opset_import", func(f field) error {
		switch f.num {
		case 1:
			return f.str(&domain, "opset domain")
		case 2:
			return f.int(&version, "opset version")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if domain == "ai.onnx" {
		domain = ""
	}
	if old, ok := opsets[domain]; ok && old != version {
		return malformed("opset %q is imported as version %d and %d", domain, old, version)
	}
	opsets[domain] = version
	return nil
}

func readFunctionName(f field, names map[string]bool) error {
	b, err := f.bytes("function")
	if err != nil {
		return err
	}
	var name, domain string
	err = fields(b, "function", func(f field) error {
		switch f.num {
		case 1:
			return f.str(&name, "function name")
		case 10:
			return f.str(&domain, "function domain")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if domain == "ai.onnx" {
		domain = ""
	}
	names[domain+":"+name] = true
	return nil
}

func readGraph(b []byte) (*graphProto, error) {
	g := new(graphProto)
	err := fields(b, "graph", func(f field) error {
		switch f.num {
		case 1:
			b, err := f.bytes("node")
			if err != nil {
				return err
			}
			n, err := readNode(b)
			if err != nil {
				return err
			}
			g.nodes = append(g.nodes, n)
		case 2:
			return f.str(&g.name, "graph name")
		case 5:
			b, err := f.bytes("initializer")
			if err != nil {
				return err
			}
			t, err := readTensor(b)
			if err != nil {
				return err
			}
			g.inits = append(g.inits, t)
		case 11, 12:
			b, err := f.bytes("value info")
			if err != nil {
				return err
			}
			v, err := readValueInfo(b)
			if err != nil {
				return err
			}
			if f.num == 11 {
				g.inputs = append(g.inputs, v)
			} else {
				g.outputs = append(g.outputs, v)
			}
		case 15:
			b, err := f.bytes("sparse initializer")
			if err != nil {
				return err
			}
			name := "?"
			err = fields(b, "sparse initializer", func(f field) error {
				if f.num != 1 { // values, a TensorProto whose name is the initialiser's
					return nil
				}
				b, err := f.bytes("sparse values")
				if err != nil {
					return err
				}
				t, err := readTensor(b)
				if err == nil {
					name = t.name
				}
				return err
			})
			if err != nil {
				return err
			}
			g.sparse = append(g.sparse, name)
		}
		return nil
	})
	return g, err
}

func readNode(b []byte) (*nodeProto, error) {
	n := new(nodeProto)
	err := fields(b, "node", func(f field) error {
		switch f.num {
		case 1, 2:
			var s string
			if err := f.str(&s, "node input or output"); err != nil {
				return err
			}
			if f.num == 1 {
				n.inputs = append(n.inputs, s)
			} else {
				n.outputs = append(n.outputs, s)
			}
		case 3:
			return f.str(&n.name, "node name")
		case 4:
			return f.str(&n.op, "op_type")
		case 5:
			b, err := f.bytes("attribute")
			if err != nil {
				return err
			}
			a, err := readAttr(b)
			if err != nil {
				return err
			}
			if len(n.attrs) == maxAttrs {
				return malformed("a node has more than %d attributes", maxAttrs)
			}
			if n.attr(a.name) != nil {
				return malformed("attribute %q appears twice in one node", a.name)
			}
			n.attrs = append(n.attrs, a)
		case 7:
			return f.str(&n.domain, "node domain")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n.domain == "ai.onnx" {
		n.domain = ""
	}
	for _, o := range n.outputs {
		if n.name == "" {
			n.name = o
		}
	}
	if n.op == "" {
		return nil, malformed("node %q has no op_type", n.name)
	}
	if n.name == "" {
		return nil, malformed("a %s node has neither name nor output", n.op)
	}
	return n, nil
}

func readAttr(b []byte) (*attrProto, error) {
	a := new(attrProto)
	has := attrUndefined
	set := func(k attrKind) { has = k }
	err := fields(b, "attribute", func(f field) error {
		switch f.num {
		case 1:
			return f.str(&a.name, "attribute name")
		case 2:
			set(attrFloat)
			if f.typ != protowire.Fixed32Type {
				return malformed("float attribute has wire type %d", f.typ)
			}
			a.f = math.Float32frombits(uint32(f.n))
		case 3:
			set(attrInt)
			return f.int(&a.i, "int attribute")
		case 4:
			set(attrString)
			b, err := f.bytes("string attribute")
			a.s = b
			return err
		case 5:
			set(attrTensor)
			b, err := f.bytes("tensor attribute")
			if err != nil {
				return err
			}
			if a.t != nil {
				return malformed("attribute %q holds two tensors", a.name)
			}
			a.t, err = readTensor(b)
			return err
		case 6:
			set(attrGraph)
		case 7:
			set(attrFloats)
			return f.fixed32s("floats attribute", func(v uint32) { a.floats = append(a.floats, math.Float32frombits(v)) })
		case 8:
			set(attrInts)
			return f.varints("ints attribute", func(v uint64) { a.ints = append(a.ints, int64(v)) })
		case 9:
			set(attrStrings)
			b, err := f.bytes("strings attribute")
			a.strings = append(a.strings, b)
			return err
		case 10:
			set(attrTensors)
		case 11:
			set(attrGraphs)
		case 14:
			set(attrType)
		case 15:
			set(attrTypes)
		case 20:
			var k int64
			if err := f.int(&k, "attribute type"); err != nil {
				return err
			}
			if k < 0 || k > int64(attrTypes) {
				return malformed("attribute %q has type %d", a.name, k)
			}
			a.kind = attrKind(k)
		case 21:
			return f.str(&a.ref, "ref_attr_name")
		case 22:
			set(attrSparse)
		case 23:
			set(attrSparses)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	switch {
	case a.name == "":
		return nil, malformed("attribute without a name")
	case a.kind == attrUndefined: // IR version 1 left the type out
		a.kind = has
	case has != attrUndefined && has != a.kind:
		return nil, malformed("attribute %q says it is of type %s and holds %s", a.name, a.kind, has)
	case a.kind == attrTensor && a.t == nil:
		return nil, malformed("attribute %q of type tensor holds none", a.name)
	}
	return a, nil
}

func readTensor(b []byte) (*tensorProto, error) {
	t := new(tensorProto)
	err := fields(b, "tensor", func(f field) error {
		switch f.num {
		case 1:
			return f.varints("dims", func(v uint64) { t.dims = append(t.dims, int64(v)) })
		case 2:
			var k int64
			if err := f.int(&k, "data_type"); err != nil {
				return err
			}
			if k < 0 || k > math.MaxInt32 {
				return malformed("tensor data type %d", k)
			}
			t.elem = elemType(k)
		case 3:
			t.segment = true
		case 4:
			return f.fixed32s("float_data", func(v uint32) { t.floats = append(t.floats, math.Float32frombits(v)) })
		case 5:
			return f.varints("int32_data", func(v uint64) { t.int32s = append(t.int32s, int32(v)) })
		case 6:
			t.strings++
		case 7:
			return f.varints("int64_data", func(v uint64) { t.int64s = append(t.int64s, int64(v)) })
		case 8:
			return f.str(&t.name, "tensor name")
		case 9:
			b, err := f.bytes("raw_data")
			t.raw, t.hasRaw = b, true
			return err
		case 10:
			return f.fixed64s("double_data", func(v uint64) { t.doubles = append(t.doubles, math.Float64frombits(v)) })
		case 11:
			return f.varints("uint64_data", func(v uint64) { t.uint64s = append(t.uint64s, v) })
		case 13:
			b, err := f.bytes("external_data")
			if err != nil {
				return err
			}
			var k, v string
			err = fields(b, "external_data", func(f field) error {
				switch f.num {
				case 1:
					return f.str(&k, "external_data key")
				case 2:
					return f.str(&v, "external_data value")
				}
				return nil
			})
			if err != nil {
				return err
			}
			if t.external == nil {
				t.external = map[string]string{}
			}
			if _, ok := t.external[k]; ok {
				return malformed("tensor %q: external_data gives %q twice", t.name, k)
			}
			t.external[k] = v
		case 14:
			var loc int64
			if err := f.int(&loc, "data_location"); err != nil {
				return err
			}
			if loc != 0 && loc != 1 {
				return malformed("tensor %q: data_location %d", t.name, loc)
			}
			t.isExt = loc == 1
		}
		return nil
	})
	return t, err
}

func readValueInfo(b []byte) (valueInfo, error) {
	v := valueInfo{kind: "untyped"}
	err := fields(b, "value info", func(f field) error {
		switch f.num {
		case 1:
			return f.str(&v.name, "value name")
		case 2:
			b, err := f.bytes("type")
			if err != nil {
				return err
			}
			return fields(b, "type", func(f field) error {
				switch f.num {
				case 1:
					v.kind = "tensor"
					b, err := f.bytes("tensor type")
					if err != nil {
						return err
					}
					return readTensorType(b, &v)
				case 4:
					v.kind = "sequence"
				case 5:
					v.kind = "map"
				case 7:
					v.kind = "opaque"
				case 8:
					v.kind = "sparse tensor"
				case 9:
					v.kind = "optional"
				}
				return nil
			})
		}
		return nil
	})
	if err == nil && v.name == "" {
		err = malformed("graph input or output without a name")
	}
	return v, err
}

func readTensorType(b []byte, v *valueInfo) error {
	return fields(b, "tensor type", func(f field) error {
		switch f.num {
		case 1:
			var k int64
			if err := f.int(&k, "elem_type"); err != nil {
				return err
			}
			if k < 0 || k > math.MaxInt32 {
				return malformed("element type %d", k)
			}
			v.elem = elemType(k)
		case 2:
			b, err := f.bytes("shape")
			if err != nil {
				return err
			}
			v.hasShape = true
			return fields(b, "shape", func(f field) error {
				if f.num != 1 {
					return nil
				}
				b, err := f.bytes("dim")
				if err != nil {
					return err
				}
				var d dim
				err = fields(b, "dim", func(f field) error {
					switch f.num {
					case 1:
						d.known, d.symbol = true, ""
						return f.int(&d.value, "dim_value")
					case 2:
						d.known = false
						return f.str(&d.symbol, "dim_param")
					}
					return nil
				})
				v.dims = append(v.dims, d)
				return err
			})
		}
		return nil
	})
}
