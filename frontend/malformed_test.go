package frontend

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/home-fhe/home/ir"
	"google.golang.org/protobuf/encoding/protowire"
)

// tiny is a network with a convolution, a reshape chain and a dense layer.
func tiny() *builder {
	return newBuilder(13).input("x", "N", 1, 4, 4).output("y").
		init("w", []int{2, 1, 3, 3}, ramp(-1, 0.1, 2, 1, 3, 3).Data...).init("b", []int{2}, 1, 2).
		init("d", []int{3, 8}, ramp(0, 0.01, 3, 8).Data...).initInts("flat", -1).initInts("zero", 0).initInts("one", 1).
		node("Conv", []string{"x", "w", "b"}, []string{"c"}).
		node("Relu", []string{"c"}, []string{"r"}).
		node("Shape", []string{"r"}, []string{"s"}).
		node("Slice", []string{"s", "zero", "one"}, []string{"n"}).
		node("Concat", []string{"n", "flat"}, []string{"t"}, attribute{"axis", 0}).
		node("Reshape", []string{"r", "t"}, []string{"f"}).
		node("Gemm", []string{"f", "d"}, []string{"y"}, attribute{"transB", 1})
}

// cleanly fails if err is nil, wraps neither sentinel, or reads badly.
func cleanly(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Error("accepted")
	case !errors.Is(err, ErrMalformed) && !errors.Is(err, ir.ErrUnsupported):
		t.Errorf("neither malformed nor unsupported: %v", err)
	case strings.Contains(err.Error(), "%!") || strings.Contains(err.Error(), "BUG"):
		t.Errorf("badly worded: %v", err)
	}
}

func TestTinyRuns(t *testing.T) {
	out := tiny().run(t, ramp(0, 1, 1, 1, 4, 4))
	if fmt.Sprint(out.Shape) != "[1 3]" {
		t.Errorf("shape %v", out.Shape)
	}
}

// TestTruncated cuts models at every length, real ones at sampled lengths. A
// prefix of a protobuf can be whole by accident; it must then still import or
// fail cleanly.
func TestTruncated(t *testing.T) {
	data := tiny().bytes()
	for n := range data {
		if m, err := Parse(data[:n], Options{}); err == nil {
			t.Errorf("accepted %d of %d bytes: %d values", n, len(data), len(m.Graph.Values))
		} else {
			cleanly(t, err)
		}
	}
	dir := testData(t, "models")
	for _, name := range []string{"wdbc_mlp_sigmoid.onnx", "mnist_trained_cnn_silu_bn.onnx", "mnist_cntk_cnn.onnx"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		step := max(1, len(data)/300)
		for n := 0; n < len(data); n += step {
			if _, err := Parse(data[:n], Options{}); err != nil {
				cleanly(t, err)
			}
		}
	}
}

// TestBitFlips flips single bits and overwrites runs of bytes.
func TestBitFlips(t *testing.T) {
	data := tiny().bytes()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		for bit := range 8 {
			d := bytes.Clone(data)
			d[i] ^= 1 << bit
			if _, err := Parse(d, Options{}); err != nil {
				cleanly(t, err)
			}
		}
	}
	for range 3000 {
		d := bytes.Clone(data)
		at := r.IntN(len(d))
		for k := at; k < min(len(d), at+1+r.IntN(9)); k++ {
			d[k] = byte(r.Uint32())
		}
		if _, err := Parse(d, Options{}); err != nil {
			cleanly(t, err)
		}
	}
}

// TestHugeClaims feeds small files that claim gigantic tensors and checks that
// little memory is taken.
func TestHugeClaims(t *testing.T) {
	huge := tensorBytes("w", elemFloat, []int{1 << 17, 1 << 17}, make([]byte, 16))
	length := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.BytesType), 1<<36)
	overflow := tensorBytes("w", elemFloat, []int{1 << 31, 1 << 31, 1 << 31}, nil)
	ext := appendMessage(varint(varint(varint(nil, 1, 1<<17), 1, 1<<17), 2, 1), 13, appendString(appendString(nil, 1, "location"), 2, "none.bin"))
	ext = varint(appendString(ext, 8, "w"), 14, 1)
	withInit := func(tensor []byte) []byte {
		b := newBuilder(13).input("x", 4, 4).output("y").node("MatMul", []string{"x", "w"}, []string{"y"})
		b.inits = appendMessage(b.inits, 5, tensor)
		return b.bytes()
	}
	huges := func(list ...int64) *builder { return newBuilder(13).input("x", 1).output("y").initInts("s", list...) }
	cases := map[string][]byte{
		"tensor of 64 GiB": withInit(huge),
		"length of 64 GiB": length,
		"shape overflows":  withInit(overflow),
		"external 64 GiB":  withInit(ext),
		"constant of shape": huges(1<<17, 1<<17).node("ConstantOfShape", []string{"s"}, []string{"c"}).
			node("Mul", []string{"x", "c"}, []string{"y"}).bytes(),
		"expand":    huges(1<<17, 1<<17).node("Expand", []string{"x", "s"}, []string{"y"}).bytes(),
		"tile":      huges(1<<40).node("Tile", []string{"x", "s"}, []string{"y"}).bytes(),
		"pad":       huges(1<<40, 1<<40).node("Pad", []string{"x", "s"}, []string{"y"}).bytes(),
		"range":     newBuilder(13).input("x", 1).output("y").init("a", nil, 0).init("b", nil, 1e18).init("c", nil, 1).node("Range", []string{"a", "b", "c"}, []string{"r"}).node("Mul", []string{"x", "r"}, []string{"y"}).bytes(),
		"input":     newBuilder(13).input("x", 1<<17, 1<<17).output("y").node("Relu", []string{"x"}, []string{"y"}).bytes(),
		"kernel":    newBuilder(13).input("x", 1, 1, 8, 8).output("y").node("AveragePool", []string{"x"}, []string{"y"}, attribute{"kernel_shape", []int{1 << 40, 1 << 40}}).bytes(),
		"pool pads": newBuilder(13).input("x", 1, 1, 8, 8).output("y").node("AveragePool", []string{"x"}, []string{"y"}, attribute{"kernel_shape", []int{1, 1}}, attribute{"pads", []int{1 << 30, 1 << 30, 1 << 30, 1 << 30}}).bytes(),
		"negative":  withInit(tensorBytes("w", elemFloat, []int{-1, -4}, make([]byte, 16))),
		"tile of nothing": newBuilder(13).input("x", 1).output("y").initInts("e").initInts("s", 1<<40).node("Tile", []string{"e", "s"}, []string{"t"}).
			node("Add", []string{"x", "t"}, []string{"y"}).bytes(),
		"expand of nothing": newBuilder(13).input("x", 1).output("y").init("e", []int{1, 0}).initInts("s", 1<<40, 0).node("Expand", []string{"e", "s"}, []string{"t"}).
			node("Add", []string{"x", "t"}, []string{"y"}).bytes(),
		"edges":       edges(3000),
		"attributes":  newBuilder(13).input("x", 1).output("y").node("Relu", []string{"x"}, []string{"y"}, manyAttrs(100_000)...).bytes(),
		"doubling":    doubling(60),
		"constant op": doublingConst(60),
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse(data, Options{})
			runtime.ReadMemStats(&after)
			cleanly(t, err)
			if took := after.TotalAlloc - before.TotalAlloc; took > 512<<20 {
				t.Errorf("%d bytes of model took %d MiB", len(data), took>>20)
			}
		})
	}
}

// edges has a node that reads n values and makes n more.
func edges(n int) []byte {
	ins, outs := make([]string, n), make([]string, n)
	for i := range n {
		ins[i], outs[i] = "x", fmt.Sprintf("y%d", i)
	}
	return newBuilder(13).input("x", 1).output("y0").node("Sum", ins, outs).bytes()
}

func manyAttrs(n int) []attribute {
	list := make([]attribute, n)
	for i := range list {
		list[i] = attribute{fmt.Sprintf("a%d", i), i}
	}
	return list
}

// doubling concatenates a value with itself n times.
func doubling(n int) []byte {
	b := newBuilder(13).input("x", 4).output("y")
	prev := "x"
	for i := range n {
		next := fmt.Sprintf("v%d", i)
		if i == n-1 {
			next = "y"
		}
		b.node("Concat", []string{prev, prev}, []string{next}, attribute{"axis", 0})
		prev = next
	}
	return b.bytes()
}

// doublingConst does so with a constant.
func doublingConst(n int) []byte {
	b := newBuilder(13).input("x", 1).output("y").init("c", []int{4}, 1, 2, 3, 4)
	prev := "c"
	for i := range n {
		next := fmt.Sprintf("v%d", i)
		b.node("Concat", []string{prev, prev}, []string{next}, attribute{"axis", 0})
		prev = next
	}
	return b.node("Mul", []string{"x", prev}, []string{"y"}).bytes()
}

// TestLongChains imports chains of many nodes, whose cost must stay about linear:
// what twice as many nodes allocate is counted. The slowest takes under a second on a
// quiet core.
func TestLongChains(t *testing.T) {
	const n = 20_000
	chains := map[string]func(b *builder, in, out string){
		"Softmax": func(b *builder, in, out string) { b.node("Softmax", []string{in}, []string{out}) },
		"Relu":    func(b *builder, in, out string) { b.node("Relu", []string{in}, []string{out}) },
		"Mul":     func(b *builder, in, out string) { b.node("Mul", []string{in, "c"}, []string{out}) },
		"Add":     func(b *builder, in, out string) { b.node("Add", []string{in, in}, []string{out}) },
		"Min":     func(b *builder, in, out string) { b.node("Min", []string{in, "c"}, []string{out}) },
	}
	for _, op := range slices.Sorted(maps.Keys(chains)) {
		t.Run(op, func(t *testing.T) {
			cost := func(n int) uint64 {
				b := newBuilder(13).input("x", 4).init("c", nil, 1)
				prev := "x"
				for i := range n {
					next := fmt.Sprintf("v%d", i)
					chains[op](b, prev, next)
					prev = next
				}
				model := b.output(prev).bytes()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				if _, err := Parse(model, Options{}); err != nil {
					t.Fatal(err)
				}
				runtime.ReadMemStats(&after)
				return after.TotalAlloc - before.TotalAlloc
			}
			half, whole := cost(n/2), cost(n)
			if t.Logf("%d bytes per node", whole/n); float64(whole) > 2.3*float64(half) {
				t.Errorf("%d nodes take %d bytes, %d nodes %d", n/2, half, n, whole)
			}
		})
	}
}

// TestDeepNesting nests messages of every recursive kind; nothing may recurse
// with the input.
func TestDeepNesting(t *testing.T) {
	nest := func(depth int, wrap func([]byte) []byte) []byte {
		var b []byte
		for range depth {
			b = wrap(b)
			if len(b) > 1<<20 {
				break
			}
		}
		return b
	}
	deepType := nest(5000, func(b []byte) []byte { return appendMessage(nil, 4, appendMessage(nil, 1, b)) })
	withType := func() []byte {
		in := appendMessage(appendString(nil, 1, "x"), 2, deepType)
		b := newBuilder(13).output("y").node("Relu", []string{"x"}, []string{"y"})
		b.ins = appendMessage(b.ins, 11, in)
		return b.bytes()
	}
	deepGraph := nest(5000, func(b []byte) []byte {
		attr := varint(appendMessage(appendString(nil, 1, "then_branch"), 6, b), 20, int64(attrGraph))
		return appendMessage(nil, 1, appendString(appendMessage(nil, 5, attr), 4, "If"))
	})
	withGraph := func() []byte {
		attr := varint(appendMessage(appendString(nil, 1, "then_branch"), 6, deepGraph), 20, int64(attrGraph))
		n := appendMessage(appendString(appendString(appendString(nil, 1, "x"), 2, "y"), 4, "If"), 5, attr)
		b := newBuilder(13).input("x", 1).output("y")
		b.nodes = appendMessage(nil, 1, n)
		return b.bytes()
	}
	groups := bytes.Repeat(protowire.AppendTag(nil, 7, protowire.StartGroupType), 100000)
	for name, data := range map[string][]byte{"types": withType(), "graphs": withGraph(), "groups": groups} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(data, Options{})
			cleanly(t, err)
		})
	}
}

// TestStructure has graphs that are wrong as graphs, and what must be named.
func TestStructure(t *testing.T) {
	one := func() *builder { return newBuilder(13).input("x", 2) }
	cases := []struct {
		name, says string
		b          *builder
	}{
		{"cycle", "cycle", one().output("y").node("Add", []string{"x", "b"}, []string{"a"}).node("Relu", []string{"a"}, []string{"b"}).node("Relu", []string{"b"}, []string{"y"})},
		{"self", "cycle", one().output("y").node("Add", []string{"x", "y"}, []string{"y"})},
		{"undefined input", `"ghost"`, one().output("y").node("Add", []string{"x", "ghost"}, []string{"y"})},
		{"undefined output", `"ghost"`, one().output("ghost").node("Relu", []string{"x"}, []string{"y"})},
		{"duplicate output", `"y"`, one().output("y").node("Relu", []string{"x"}, []string{"y"}).node("Tanh", []string{"x"}, []string{"y"})},
		{"node redefines input", `"x"`, one().output("x").node("Relu", []string{"x"}, []string{"x"})},
		{"input twice", `"x"`, one().input("x", 2).output("y").node("Relu", []string{"x"}, []string{"y"})},
		{"initialiser twice", `"w"`, one().output("y").init("w", []int{1}, 1).init("w", []int{1}, 2).node("Add", []string{"x", "w"}, []string{"y"})},
		{"output twice", `"y"`, one().output("y").output("y").node("Relu", []string{"x"}, []string{"y"})},
		{"no nodes", "no node", one().output("x")},
		{"no output", "no output", one().node("Relu", []string{"x"}, []string{"y"})},
		{"node without outputs", "no output", func() *builder {
			b := one().output("y").node("Relu", []string{"x"}, []string{"y"})
			b.nodes = appendMessage(b.nodes, 1, appendString(appendString(appendString(nil, 1, "x"), 3, "n"), 4, "Relu"))
			return b
		}()},
		{"opset too old", "opset 5", func() *builder {
			b := one().output("y").node("Relu", []string{"x"}, []string{"y"})
			b.opset = 5
			return b
		}()},
		{"opset too new", "opset 99", func() *builder {
			b := one().output("y").node("Relu", []string{"x"}, []string{"y"})
			b.opset = 99
			return b
		}()},
		{"unknown operator", "node_y (Frobnicate)", one().output("y").node("Frobnicate", []string{"x"}, []string{"y"})},
		{"unknown domain", "com.acme", one().output("y").nodeIn("com.acme", "Relu", []string{"x"}, []string{"y"})},
		{"unknown attribute", "node_y (Relu): attribute fast", one().output("y").node("Relu", []string{"x"}, []string{"y"}, attribute{"fast", 1})},
		{"attribute of wrong kind", "attribute alpha", one().output("y").node("LeakyRelu", []string{"x"}, []string{"y"}, attribute{"alpha", 1})},
		{"attribute twice", `"alpha"`, one().output("y").node("LeakyRelu", []string{"x"}, []string{"y"}, attribute{"alpha", 1.0}, attribute{"alpha", 2.0})},
		{"too many inputs", "node_y (Relu)", one().output("y").node("Relu", []string{"x", "x"}, []string{"y"})},
		{"shapes do not broadcast", "node_y (Add)", one().output("y").init("w", []int{3}, 1, 2, 3).node("Add", []string{"x", "w"}, []string{"y"})},
		{"matrix shapes", "node_y (MatMul)", newBuilder(13).input("x", 2, 3).output("y").init("w", []int{2, 2}, 1, 2, 3, 4).node("MatMul", []string{"x", "w"}, []string{"y"})},
		{"conv channels", "node_y (Conv)", newBuilder(13).input("x", 1, 3, 4, 4).output("y").init("w", []int{1, 2, 1, 1}, 1, 2).node("Conv", []string{"x", "w"}, []string{"y"})},
		{"conv group 0", "node_y (Conv)", newBuilder(13).input("x", 1, 1, 4, 4).output("y").init("w", []int{1, 1, 1, 1}, 1).node("Conv", []string{"x", "w"}, []string{"y"}, attribute{"group", 0})},
		{"conv stride 0", "attribute strides", newBuilder(13).input("x", 1, 1, 4, 4).output("y").init("w", []int{1, 1, 1, 1}, 1).node("Conv", []string{"x", "w"}, []string{"y"}, attribute{"strides", []int{0, 1}})},
		{"window too large", "node_y (MaxPool)", newBuilder(13).input("x", 1, 1, 4, 4).output("y").node("MaxPool", []string{"x"}, []string{"y"}, attribute{"kernel_shape", []int{5, 5}})},
		{"reshape does not fit", "node_y (Reshape)", one().output("y").initInts("s", 3, 5).node("Reshape", []string{"x", "s"}, []string{"y"})},
		{"NaN weights", "w (initialiser): element 1 of 2 is NaN", one().output("y").init("w", []int{2}, 1, math.NaN()).node("Mul", []string{"x", "w"}, []string{"y"})},
		{"infinite weights", "w (constant): element 0 of 2 is +Inf", one().output("y").init("w", []int{2}, math.Inf(1), 0).node("Mul", []string{"x", "w"}, []string{"y"})},
		{"NaN constant", "node_c (Constant)", one().output("y").node("Constant", nil, []string{"c"}, attribute{"value", floatTensor("", []int{1}, math.NaN())}).node("Mul", []string{"x", "c"}, []string{"y"})},
		{"folding makes NaN", "node_c (Log)", one().output("y").init("w", []int{1}, -1).node("Log", []string{"w"}, []string{"c"}).node("Mul", []string{"x", "c"}, []string{"y"})},
		{"division by zero", "node_y (Div)", one().output("y").init("w", []int{2}, 1, 0).node("Div", []string{"x", "w"}, []string{"y"})},
		{"encrypted shape", "node_y (Reshape)", newBuilder(13).input("x", 2).inputOf(elemInt64, "s", 1).output("y").node("Reshape", []string{"x", "s"}, []string{"y"})},
		{"encrypted weights", "node_y (Conv)", newBuilder(13).input("x", 1, 1, 4, 4).input("w", 1, 1, 3, 3).output("y").node("Conv", []string{"x", "w"}, []string{"y"})},
		{"encrypted integers", "node_y (Mul)", newBuilder(13).inputOf(elemInt32, "x", 2).output("y").node("Mul", []string{"x", "x"}, []string{"y"})},
		{"batch norm training", "attribute training_mode", newBuilder(15).input("x", 1, 1, 2).output("y").init("o", []int{1}, 1).node("BatchNormalization", []string{"x", "o", "o", "o", "o"}, []string{"y"}, attribute{"training_mode", 1})},
		{"batch norm spatial", "attribute spatial", newBuilder(7).input("x", 1, 1, 2).output("y").init("o", []int{1}, 1).node("BatchNormalization", []string{"x", "o", "o", "o", "o"}, []string{"y"}, attribute{"spatial", 0})},
		{"dropout mask", "output 1", one().output("y").node("Dropout", []string{"x"}, []string{"d", "mask"}).node("Mul", []string{"d", "mask"}, []string{"y"})},
		{"max pool indices", "output 1", newBuilder(13).input("x", 1, 1, 2, 2).output("i").node("MaxPool", []string{"x"}, []string{"v", "i"}, attribute{"kernel_shape", []int{2, 2}})},
		{"symbolic inner dimension", "seq", newBuilder(13).input("x", "N", "seq").output("y").node("Relu", []string{"x"}, []string{"y"})},
		{"int8 initialiser too short", `"w"`, func() *builder {
			b := one().output("y").node("Add", []string{"x", "w"}, []string{"y"})
			b.inits = appendMessage(nil, 5, tensorBytes("w", elemInt8, []int{2}, []byte{1}))
			return b
		}()},
		{"string initialiser", "w (initialiser)", func() *builder {
			b := one().output("y").node("Add", []string{"x", "w"}, []string{"y"})
			b.inits = appendMessage(nil, 5, appendString(appendString(varint(varint(nil, 1, 1), 2, int64(elemString)), 8, "w"), 6, "s"))
			return b
		}()},
		{"sparse initialiser", "sparse", func() *builder {
			b := one().output("y").node("Relu", []string{"x"}, []string{"y"})
			b.inits = appendMessage(nil, 15, appendMessage(nil, 1, floatTensor("w", []int{1}, 1)))
			return b
		}()},
		{"function", "functions", func() *builder {
			b := one().output("y").nodeIn("my", "F", []string{"x"}, []string{"y"})
			b.extra = appendMessage(nil, 25, appendString(appendString(nil, 1, "F"), 10, "my"))
			return b
		}()},
		{"two graphs", "two graphs", func() *builder {
			b := one().output("y").node("Relu", []string{"x"}, []string{"y"})
			b.extra = appendMessage(nil, 7, nil)
			return b
		}()},
		{"tensor with raw and typed data", "both", func() *builder {
			b := one().output("y").node("Add", []string{"x", "w"}, []string{"y"})
			t := protowire.AppendFixed32(protowire.AppendTag(floatTensor("w", []int{1}, 1), 4, protowire.Fixed32Type), 0)
			b.inits = appendMessage(nil, 5, t)
			return b
		}()},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.b.bytes(), Options{})
			cleanly(t, err)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("says %q, want %q in it", err, c.says)
			}
		})
	}
}

// TestUnsorted accepts nodes in the wrong order and sorts them.
func TestUnsorted(t *testing.T) {
	b := newBuilder(13).input("x", 2).output("y").node("Relu", []string{"a"}, []string{"y"}).node("Neg", []string{"x"}, []string{"a"}).
		node("Frobnicate", []string{"x"}, []string{"dead"})
	m := b.parse(t)
	if len(m.Warnings) != 2 || len(m.Nodes) != 2 || m.Nodes[0].Op != "Neg" {
		t.Errorf("warnings %q, nodes %v", m.Warnings, m.Nodes)
	}
	checkArray(t, b.run(t, ir.ArrayOf([]float64{-3, 2}, 2)), []int{2}, 3, 0)
}

// TestExternalData resolves weights from files, and refuses all that leaves the
// directory or does not add up.
func TestExternalData(t *testing.T) {
	dir := t.TempDir()
	model := filepath.Join(dir, "m")
	if err := os.MkdirAll(filepath.Join(model, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	weights := floatTensor("", nil, 1, 2, 3, 4) // raw_data ends the message
	raw := weights[len(weights)-16:]
	for _, f := range []string{"outside.bin", "m/w.bin", "m/sub/w.bin"} {
		if err := os.WriteFile(filepath.Join(dir, f), append(make([]byte, 8), raw...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "outside.bin"), filepath.Join(model, "link.bin")); err != nil {
		t.Fatal(err)
	}
	build := func(kv ...string) []byte {
		w := appendString(varint(varint(varint(nil, 1, 2), 1, 2), 2, int64(elemFloat)), 8, "w")
		for i := 0; i < len(kv); i += 2 {
			w = appendMessage(w, 13, appendString(appendString(nil, 1, kv[i]), 2, kv[i+1]))
		}
		b := newBuilder(13).input("x", 1, 2).output("y").node("MatMul", []string{"x", "w"}, []string{"y"})
		b.inits = appendMessage(nil, 5, varint(w, 14, 1))
		return b.bytes()
	}
	good := map[string][]byte{
		"offset and length": build("location", "w.bin", "offset", "8", "length", "16"),
		"rest of the file":  build("location", "w.bin", "offset", "8"),
		"subfolder":         build("location", "sub/w.bin", "offset", "8", "length", "16"),
	}
	for name, data := range good {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(model, "model.onnx")
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			m, err := Load(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			out, err := eval(m, ir.ArrayOf([]float64{1, 10}, 1, 2))
			if err != nil {
				t.Fatal(err)
			}
			checkArray(t, out[0], []int{1, 2}, 31, 42)
		})
	}
	bad := map[string][]byte{
		"missing file":     build("location", "ghost.bin"),
		"no location":      build("offset", "0"),
		"parent":           build("location", "../outside.bin", "offset", "8"),
		"hidden parent":    build("location", "sub/../../outside.bin", "offset", "8"),
		"absolute":         build("location", filepath.Join(dir, "outside.bin"), "offset", "8"),
		"symlink out":      build("location", "link.bin", "offset", "8"),
		"directory":        build("location", "sub"),
		"too short":        build("location", "w.bin", "offset", "16"),
		"beyond the end":   build("location", "w.bin", "offset", "9", "length", "16"),
		"negative offset":  build("location", "w.bin", "offset", "-8"),
		"huge offset":      build("location", "w.bin", "offset", "9223372036854775807", "length", "16"),
		"no number":        build("location", "w.bin", "offset", "eight"),
		"given twice":      build("location", "w.bin", "location", "w.bin"),
		"wrong checksum":   build("location", "w.bin", "offset", "8", "checksum", strings.Repeat("0", 40)),
		"device":           build("location", "/dev/zero"),
		"backslash parent": build("location", `..\outside.bin`),
	}
	for name, data := range bad {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(data, Options{Dir: model})
			cleanly(t, err)
			if err != nil && !strings.Contains(err.Error(), `"w"`) {
				t.Errorf("does not name the initialiser: %v", err)
			}
		})
	}
	a, err := Parse(good["rest of the file"], Options{Dir: model})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(model, "w.bin"), append(make([]byte, 9), append(raw[:15:15], 1)...)[:24], 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := Parse(good["rest of the file"], Options{Dir: model}); err == nil && a.Digest == b.Digest {
		t.Error("the digest does not cover the external data")
	}
	if _, err := Parse(good["subfolder"], Options{}); err == nil {
		t.Error("accepted external data without a directory")
	}
}

// FuzzParse feeds arbitrary bytes. Nothing may panic, hang or take much more
// memory than the input warrants; what is accepted must have a sound graph.
func FuzzParse(f *testing.F) {
	f.Add(tiny().bytes())
	f.Add(doublingConst(5))
	f.Add(newBuilder(11).input("x", 1, 1, 6, 6).output("y").node("MaxPool", []string{"x"}, []string{"y"}, attribute{"kernel_shape", []int{2, 2}}, attribute{"auto_pad", "SAME_LOWER"}).bytes())
	f.Add(newBuilder(18).input("x", 2, 6).output("a").output("b").node("Split", []string{"x"}, []string{"a", "b"}, attribute{"axis", 1}, attribute{"num_outputs", 2}).bytes())
	f.Add(newBuilder(9).input("x", 2, 3).output("y").node("Softmax", []string{"x"}, []string{"y"}).bytes())
	dir := filepath.Join("..", "..", "shared", "data")
	if d := os.Getenv("HOME_TEST_DATA"); d != "" {
		dir = d
	}
	for _, pattern := range []string{"models/*.onnx", "onnx-conformance/*/*/model.onnx"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range files {
			if data, err := os.ReadFile(path); err == nil && len(data) < 30_000 {
				f.Add(data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data, Options{})
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ir.ErrUnsupported) {
				t.Fatalf("neither malformed nor unsupported: %v", err)
			}
			return
		}
		if err := ir.Verify(m.Graph, ir.Tensor); err != nil {
			t.Fatal(err)
		}
	})
}
