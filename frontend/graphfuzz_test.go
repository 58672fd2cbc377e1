package frontend

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/home-fhe/home/ir"
)

// reader hands out small numbers from fuzz bytes.
type reader struct{ b []byte }

func (r *reader) next(n int) int {
	if len(r.b) == 0 {
		return 0
	}
	v := int(r.b[0])
	r.b = r.b[1:]
	return v % n
}

// randomModel reads bytes as a sequence of well-formed nodes over the import
// table, with attributes of the right kinds and strange values, so that
// fuzzing reaches the importers rather than the protobuf.
func randomModel(data []byte) []byte {
	r := &reader{data}
	b := newBuilder([]int{7, 9, 10, 11, 12, 13, 14, 15, 18, 20, 24, 27, 6}[r.next(13)])
	ints := []int{0, 1, 2, 3, -1, -2, 4, 7, 1 << 20, 1 << 31, 1 << 40, math.MaxInt64, math.MinInt64}
	floats := []float64{0, 1, -1, 0.5, 6, 1e30, -3e38, math.Inf(1), math.NaN()}
	words := []string{"", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "tanh", "none", "reflect", "edge", "wrap", "constant", "CRD"}
	shapes := [][]any{{"N", 2, 4, 4}, {1, 3, 5}, {2, 3}, {4}, {}, {1, 4, 2, 2, 2}, {"N", 6}}
	names := []string{"", "x"}
	b.input("x", shapes[r.next(len(shapes))]...)
	if r.next(4) == 0 {
		b.input("x2", shapes[r.next(len(shapes))]...)
		names = append(names, "x2")
	}
	for i, list := range [][]int64{{0}, {1}, {-1}, {1, -1}, {2, 2}, {0, 0, 1, 1}, {0, 0, 1, 1, 0, 0, 2, -1}, {1, 2, 4, 4}, {math.MaxInt64}, {}} {
		name := fmt.Sprintf("i%d", i)
		b.initInts(name, list...)
		names = append(names, name)
	}
	for i, shape := range [][]int{{}, {2}, {3}, {2, 2, 3, 3}, {4, 1, 2}, {4, 6}, {6, 2}, {2, 1, 1}, {0}} {
		name := fmt.Sprintf("w%d", i)
		b.init(name, shape, ramp(float64(i)-2, 0.25, shape...).Data...)
		names = append(names, name)
	}
	last := "x"
	for i := range 1 + r.next(6) {
		row := importTable[(r.next(256)*256+r.next(256))%len(importTable)]
		var ins []string
		for k := range row.minIn + r.next(3) {
			if k == 0 && r.next(8) != 0 {
				ins = append(ins, last)
			} else {
				ins = append(ins, names[r.next(len(names))])
			}
		}
		var attrs []attribute
		for _, a := range row.attrs {
			if r.next(2) == 0 {
				continue
			}
			var v any
			switch a.kind {
			case attrInt:
				v = ints[r.next(len(ints))]
			case attrFloat:
				v = floats[r.next(len(floats))]
			case attrString:
				v = words[r.next(len(words))]
			case attrInts:
				list := make([]int, r.next(9))
				for k := range list {
					list[k] = ints[r.next(len(ints))]
				}
				v = list
			case attrTensor:
				v = floatTensor("", []int{1}, floats[r.next(len(floats))])
			default:
				continue
			}
			attrs = append(attrs, attribute{a.name, v})
		}
		var outs []string
		for k := range 1 + r.next(8)/6 {
			outs = append(outs, fmt.Sprintf("t%d.%d", i, k))
		}
		b.nodeIn(row.domain, row.op, ins, outs, attrs...)
		names = append(names, outs...)
		last = outs[0]
	}
	return b.output(last).bytes()
}

// FuzzGraph imports random well-formed models. What is accepted must evaluate
// to the shape it was given, without a panic.
func FuzzGraph(f *testing.F) {
	for i := range 256 {
		seed := make([]byte, 48)
		for k := range seed {
			seed[k] = byte((i*131 + k*k*37 + k*i) >> (k % 3))
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(randomModel(data), Options{})
		if err != nil {
			var ne *ir.NodeError
			if !errors.Is(err, ErrMalformed) && !errors.As(err, &ne) {
				t.Fatalf("neither malformed nor unsupported: %v", err)
			}
			return
		}
		if err := ir.Verify(m.Graph, ir.Tensor); err != nil {
			t.Fatal(err)
		}
		var feed []*ir.Array
		for _, v := range m.Graph.Values {
			if v.Type.Elems() > 1<<16 {
				return
			}
		}
		for _, v := range m.Graph.Inputs {
			feed = append(feed, ramp(-1, 0.125, v.Type.Shape...))
		}
		out, err := eval(m, feed...)
		if err != nil {
			t.Fatalf("accepted, evaluation fails: %v", err)
		}
		want := m.Graph.Outputs[0].Type.Shape
		if len(m.Client) > 0 {
			want = m.Client[len(m.Client)-1].Shape
		}
		if fmt.Sprint(out[0].Shape) != fmt.Sprint(want) {
			t.Fatalf("result of shape %v, type says %v", out[0].Shape, want)
		}
	})
}
