package passes

import (
	"sort"

	"github.com/home-fhe/home/ir"
)

// builder appends scheme operations to a graph. Type errors here are errors of
// the lowering itself, so they panic as bugs.
type builder struct {
	g     *ir.Graph
	keys  map[int]*ir.Value // by rotation or key number
	dfts  map[dftKey]*ir.Value
	name  string            // ONNX node the next values belong to
	layer map[*ir.Value]int // report row of each value
	cur   int               // current report row
}

// dftKey tells generated diagonals apart: bootstraps share them.
type dftKey struct {
	diagonal ir.Diagonal
	points   int
	scale    string
	qp       bool
}

func newBuilder(g *ir.Graph) *builder {
	return &builder{g: g, keys: map[int]*ir.Value{}, dfts: map[dftKey]*ir.Value{}, layer: map[*ir.Value]int{}}
}

func (b *builder) emit(op ir.Op, attrs ir.Attrs, args ...*ir.Value) *ir.Value {
	v, err := b.g.Add(op, b.name, attrs, args...)
	if err != nil {
		panic("BUG: lowering: " + err.Error())
	}
	b.layer[v] = b.cur
	return v
}

// key returns the key for a rotation, raised to at least the given level. Keys
// are put in front of the graph by finish.
func (b *builder) key(rot, level int) *ir.Value {
	k := b.keys[rot]
	if k == nil {
		k = &ir.Value{Op: ir.OpHEKey, Attrs: ir.Attrs{"rot": rot, "level": level}, Type: ir.Type{Kind: ir.KeyKind, Level: level}}
		if rot == ir.KeySparse {
			k.Type.Kind = ir.SparseKeyKind
		}
		b.keys[rot] = k
		b.layer[k] = -1
	} else if k.Type.Level < level {
		k.Type.Level = level
		k.Attrs["level"] = level
	}
	return k
}

// finish puts the keys, each at the highest level of its uses, in front.
func (b *builder) finish() {
	rots := make([]int, 0, len(b.keys))
	for r := range b.keys {
		rots = append(rots, r)
	}
	sort.Ints(rots)
	values := make([]*ir.Value, 0, len(b.g.Values)+len(rots))
	for _, r := range rots {
		values = append(values, b.keys[r])
	}
	b.g.Values = append(values, b.g.Values...)
	b.g.Renumber()
}

// plain encodes slot values for a level. A generated diagonal is made once, for
// the highest level of its uses.
func (b *builder) plain(d *ir.SlotData, level int, scale ir.Scale, qp bool) *ir.Value {
	var known dftKey
	if d.DFT != nil {
		known = dftKey{*d.DFT, d.Period, scale.String(), qp}
		if v := b.dfts[known]; v != nil {
			if v.Type.Level < level {
				v.Type.Level = level
				v.Attrs["level"] = level
			}
			return v
		}
	}
	q := 0
	if qp {
		q = 1
	}
	v, err := b.g.Append(&ir.Value{Op: ir.OpHEPlain, Name: b.name, Slots: d,
		Attrs: ir.Attrs{"level": level, "scale": scale.String(), "qp": q}})
	if err != nil {
		panic("BUG: lowering: " + err.Error())
	}
	b.layer[v] = b.cur
	if d.DFT != nil {
		b.dfts[known] = v
	}
	return v
}

func (b *builder) add(x, y *ir.Value) *ir.Value {
	op := ir.OpHEAdd
	if x.Type.Kind == ir.CipherQPKind {
		op = ir.OpHEAddQP
	}
	return b.emit(op, nil, x, y)
}

func (b *builder) addPlain(x, pt *ir.Value) *ir.Value { return b.emit(ir.OpHEAddPlain, nil, x, pt) }

func (b *builder) addConst(x *ir.Value, c float64) *ir.Value {
	return b.emit(ir.OpHEAddConst, ir.Attrs{"c": c}, x)
}

// mulConst multiplies by a constant encoded at the given scale, at a level.
func (b *builder) mulConst(x *ir.Value, c float64, scale ir.Scale, level int) *ir.Value {
	return b.emit(ir.OpHEMulConst, ir.Attrs{"c": c, "scale": scale.String(), "level": level}, x)
}

// macConst adds c*x to acc; the constant is encoded so that the scales agree.
func (b *builder) macConst(acc, x *ir.Value, c float64) *ir.Value {
	s := acc.Type.Scale.Div(x.Type.Scale)
	return b.emit(ir.OpHEMacConst, ir.Attrs{"c": c, "scale": s.String(), "level": acc.Type.Level}, acc, x)
}

func (b *builder) mul(x, y *ir.Value) *ir.Value {
	return b.mulAt(x, y, min(x.Type.Level, y.Type.Level))
}

func (b *builder) mulAt(x, y *ir.Value, level int) *ir.Value {
	return b.emit(ir.OpHEMul, ir.Attrs{"level": level}, x, y, b.key(0, level))
}

func (b *builder) rescale(x *ir.Value) *ir.Value { return b.emit(ir.OpHERescale, nil, x) }

func (b *builder) rotate(x *ir.Value, rot int) *ir.Value {
	return b.emit(ir.OpHERotate, ir.Attrs{"rot": rot}, x, b.key(rot, x.Type.Level))
}
