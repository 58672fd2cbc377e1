package frontend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// testData returns a folder of the test data, or skips the test aloud.
func testData(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("HOME_TEST_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	dir = filepath.Join(dir, name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("SKIPPED: no test data at %s (set HOME_TEST_DATA)", dir)
	}
	return dir
}

// eval runs a graph on inputs in order, with the clear semantics of the op
// table, and then the client's operators.
func eval(m *Model, inputs ...*ir.Array) ([]*ir.Array, error) {
	g := m.Graph
	if len(inputs) != len(g.Inputs) {
		return nil, fmt.Errorf("%d inputs for %d", len(inputs), len(g.Inputs))
	}
	val := map[*ir.Value]*ir.Array{}
	for i, v := range g.Inputs {
		val[v] = inputs[i]
	}
	for _, v := range g.Values {
		if v.Op == ir.OpInput {
			continue
		}
		args := make([]*ir.Array, len(v.Args))
		for i, a := range v.Args {
			if args[i] = val[a]; args[i] == nil {
				return nil, fmt.Errorf("%s reads a value that comes later", v.Name)
			}
		}
		out, err := v.Op.Info().Eval(v, args)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.Name, err)
		}
		val[v] = out
	}
	var outs []*ir.Array
	for _, o := range g.Outputs {
		outs = append(outs, val[o])
	}
	for _, op := range m.Client {
		a, err := applyClient(op, outs[0])
		if err != nil {
			return nil, err
		}
		outs[0] = a
	}
	return outs, nil
}

func applyClient(op plan.ClientOp, x *ir.Array) (*ir.Array, error) {
	g := new(ir.Graph)
	in, err := g.Add(ir.OpInput, "x", ir.Attrs{"shape": op.Input})
	if err != nil {
		return nil, err
	}
	bit := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	attrs := ir.Attrs{"axis": op.Axis}
	var v *ir.Value
	switch op.Op {
	case "Softmax", "LogSoftmax":
		attrs["flat"] = bit(op.Flat)
		v, err = g.Add(map[string]ir.Op{"Softmax": ir.OpSoftmax, "LogSoftmax": ir.OpLogSoftmax}[op.Op], op.Node, attrs, in)
	case "ArgMax":
		attrs["keepdims"], attrs["last"] = bit(op.Keep), bit(op.Last)
		v, err = g.Add(ir.OpArgMax, op.Node, attrs, in)
	default:
		return nil, fmt.Errorf("client op %q", op.Op)
	}
	if err != nil {
		return nil, err
	}
	if fmt.Sprint(v.Type.Shape) != fmt.Sprint(op.Shape) {
		return nil, fmt.Errorf("client op %s says shape %v, it is %v", op.Op, op.Shape, v.Type.Shape)
	}
	return v.Op.Info().Eval(v, []*ir.Array{x})
}

var npyHead = regexp.MustCompile(`'descr': '([<|][fiub]\d)', 'fortran_order': False, 'shape': \(([\d, ]*)\)`)

// readNpy reads a .npy file of real or integer numbers.
func readNpy(path string) (*ir.Array, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(b, []byte("\x93NUMPY\x01")) || len(b) < 10 {
		return nil, fmt.Errorf("%s: not a version 1 .npy file", path)
	}
	n := int(binary.LittleEndian.Uint16(b[8:]))
	h := npyHead.FindSubmatch(b[10 : 10+n])
	if h == nil {
		return nil, fmt.Errorf("%s: header %q", path, b[10:10+n])
	}
	var shape []int
	for _, f := range strings.FieldsFunc(string(h[2]), func(r rune) bool { return r == ',' || r == ' ' }) {
		d, err := strconv.Atoi(f)
		if err != nil {
			return nil, err
		}
		shape = append(shape, d)
	}
	a := ir.NewArray(shape...)
	b = b[10+n:]
	le := binary.LittleEndian
	for i := range a.Data {
		switch string(h[1]) {
		case "<f4":
			a.Data[i] = float64(math.Float32frombits(le.Uint32(b[4*i:])))
		case "<f8":
			a.Data[i] = math.Float64frombits(le.Uint64(b[8*i:]))
		case "<i4":
			a.Data[i] = float64(int32(le.Uint32(b[4*i:])))
		case "<i8":
			a.Data[i] = float64(int64(le.Uint64(b[8*i:])))
		default:
			return nil, fmt.Errorf("%s: type %s", path, h[1])
		}
	}
	return a, nil
}
func asNodeError(err error, ne **ir.NodeError) bool {
	return errors.As(err, ne) && errors.Is(err, ir.ErrUnsupported)
}

// decodeCanon reads a canonical tensor without onnx-go.
func decodeCanon(c *canonTensor) *ir.Array {
	a := ir.NewArray(c.shape...)
	le := binary.LittleEndian
	for i := range a.Data {
		switch c.elem {
		case elemFloat:
			a.Data[i] = float64(math.Float32frombits(le.Uint32(c.raw[4*i:])))
		case elemDouble:
			a.Data[i] = math.Float64frombits(le.Uint64(c.raw[8*i:]))
		default:
			a.Data[i] = float64(int64(le.Uint64(c.raw[8*i:])))
		}
	}
	return a
}
