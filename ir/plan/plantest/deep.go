package plantest

import (
	"fmt"
	"math/rand/v2"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// DeepConfig shapes a plan like that of a deep network. Zero fields get small
// defaults.
type DeepConfig struct {
	LogN      int
	Levels    int // above level 0
	Special   int // primes of P
	Layers    int // matrices, each with a bootstrap before it
	Diagonals int // of a matrix
	Babies    int // baby steps of a matrix
	Entries   int // of a diagonal
	Values    int // distinct numbers among the entries
	Products  int // of ciphertexts, after each bootstrap
}

// Deep returns a plan that is well typed in all its parts and passes Verify:
// bootstraps without the modular reduction, so that what it computes means
// nothing, then products, then a matrix by baby and giant steps, again and
// again. It depends only on the configuration.
func Deep(c DeepConfig) *plan.Plan {
	def(&c.LogN, 6)
	def(&c.Levels, 10)
	def(&c.Special, 2)
	def(&c.Layers, 2)
	def(&c.Diagonals, 12)
	def(&c.Babies, 4)
	def(&c.Entries, 8)
	def(&c.Values, 100)
	def(&c.Products, 2)
	logQ := []int{49}
	for range c.Levels {
		logQ = append(logQ, 45)
	}
	logP := make([]int, c.Special)
	for i := range logP {
		logP[i] = 49
	}
	secret := ir.SecretTernary
	if c.LogN > 14 {
		secret = ir.SecretH192
	}
	par, err := ir.NewParams("deep", c.LogN, ir.RingStandard, secret, logQ, logP, 45)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	par.Insecure = par.CheckSecurity() != nil || par.CheckBootstrap() != nil
	d := deep{c: c, keys: map[int]plan.ObjectID{}, used: map[plan.ObjectID]int{}, made: map[ir.Diagonal]plan.ObjectID{}, rng: rand.New(rand.NewPCG(7, 0x64656570)), p: &plan.Plan{
		Model: "deep", Params: *par, Batch: 1, Network: &ir.Graph{Name: "deep"},
	}}
	for range c.Values {
		d.values = append(d.values, (2*d.rng.Float64()-1)/float64(c.Diagonals))
	}
	slots := par.Slots()
	layout := ir.NewLayout(slots, 1, 1)
	layout.Map[0] = 0
	scale := ir.ScaleTwo(45)
	d.layer("input", "linear")
	x := d.object(plan.Object{Role: plan.RoleInput, Type: ir.Type{Kind: ir.CipherKind, Encrypted: true, Scale: scale}})
	port := plan.Port{Shape: []int{1}, Layout: layout, Objects: []plan.ObjectID{x}, Scale: scale, Limit: 1}
	port.Name = "x"
	d.p.Inputs = []plan.Port{port}
	for i := range c.Layers {
		d.layer(fmt.Sprintf("refresh%d", i), plan.LayerRefresh)
		x = d.step(plan.Step{Op: ir.OpHERaise, Args: []plan.ObjectID{x, d.key(ir.KeySparse), d.key(ir.KeyDense)}}, c.Levels)
		logSlots := c.LogN - 1
		for _, cut := range [][2]int{{0, logSlots / 2}, {logSlots / 2, logSlots}} {
			offsets := ir.Offsets(slots, cut[0], cut[1])
			x = d.matrix(x, offsets, 8, func(offset, shift int) ir.SlotData {
				return ir.SlotData{Period: slots, DFT: &ir.Diagonal{Inverse: true, From: cut[0], To: cut[1], Offset: offset, Shift: shift, Factor: 1. / 1024}}
			})
		}
		x = d.step(plan.Step{Op: ir.OpHERealPart, Args: []plan.ObjectID{x, d.key(ir.KeyConj)}}, d.level(x))
		d.layer(fmt.Sprintf("poly%d", i), "poly")
		for range c.Products {
			x = d.product(x)
		}
		d.layer(fmt.Sprintf("conv%d", i), "linear")
		var offsets []int
		for k := range c.Diagonals {
			offsets = append(offsets, k*slots/c.Diagonals)
		}
		x = d.matrix(x, offsets, c.Babies, func(_, _ int) ir.SlotData { return d.weights(slots) })
		y := d.p.Objects[x].Type
		low := d.step(plan.Step{Op: ir.OpHEMulConst, Args: []plan.ObjectID{x}, Const: 0.5, Scale: ir.ScalePrime(1)}, 1)
		x = d.step(plan.Step{Op: ir.OpHERescale, Args: []plan.ObjectID{low}}, 0)
		if !d.p.Objects[x].Type.Scale.Equal(y.Scale) {
			panic("BUG: the scale drifts")
		}
	}
	for rot, id := range d.keys { // only as high as used
		if rot != ir.KeySparse {
			d.p.Objects[id].Type.Level = d.used[id]
		}
	}
	d.p.Objects[x].Role = plan.RoleOutput
	port.Name, port.Objects = "y", []plan.ObjectID{x}
	d.p.Outputs = []plan.Port{port}
	d.p.Counts = d.p.Count(nil)
	return d.p
}

type deep struct {
	c      DeepConfig
	p      *plan.Plan
	keys   map[int]plan.ObjectID
	used   map[plan.ObjectID]int         // highest level at which a key is used
	made   map[ir.Diagonal]plan.ObjectID // generated plaintexts
	rng    *rand.Rand
	values []float64
}

func (d *deep) layer(name, kind string) {
	d.p.Layers = append(d.p.Layers, plan.Layer{Name: name, Kind: kind, Shape: []int{1}})
}

func (d *deep) object(o plan.Object) plan.ObjectID {
	o.Layer = int32(len(d.p.Layers) - 1)
	d.p.Objects = append(d.p.Objects, o)
	return plan.ObjectID(len(d.p.Objects) - 1)
}

func (d *deep) level(o plan.ObjectID) int { return d.p.Objects[o].Type.Level }

// key returns a key, at the top of the chain until all uses are known.
func (d *deep) key(rot int) plan.ObjectID {
	if id, ok := d.keys[rot]; ok {
		return id
	}
	t := ir.Type{Kind: ir.KeyKind, Level: d.c.Levels}
	if rot == ir.KeySparse {
		t = ir.Type{Kind: ir.SparseKeyKind}
	}
	d.keys[rot] = d.object(plan.Object{Role: plan.RoleKey, Type: t, Rot: rot})
	return d.keys[rot]
}

// step appends a step whose result the op table types. The level is for those
// ops that can lower it.
func (d *deep) step(s plan.Step, level int) plan.ObjectID {
	all := ir.Attrs{"rot": s.Rot, "level": level, "scale": s.Scale.String(), "c": s.Const}
	v := &ir.Value{Op: s.Op, Attrs: ir.Attrs{}}
	for _, a := range s.Op.Info().Attrs {
		v.Attrs[a.Name] = all[a.Name]
	}
	for _, a := range s.Args {
		o := &d.p.Objects[a]
		arg := &ir.Value{Type: o.Type}
		if o.Role == plan.RoleKey {
			arg.Op, arg.Attrs = ir.OpHEKey, ir.Attrs{"rot": o.Rot}
		}
		v.Args = append(v.Args, arg)
	}
	t, err := s.Op.Info().Infer(v)
	if err != nil {
		panic(fmt.Sprintf("BUG: %s: %v", s.Op, err))
	}
	for _, a := range s.Args {
		if d.p.Objects[a].Role == plan.RoleKey {
			d.used[a] = max(d.used[a], t.Level+s.Op.Drops())
		}
	}
	s.Layer = int32(len(d.p.Layers) - 1)
	if plan.InPlace(s.Op) && d.p.Objects[s.Args[0]].Role == plan.RoleTemp && d.p.Objects[s.Args[0]].Type.Equal(t) {
		s.Out = s.Args[0]
	} else {
		s.Out = d.object(plan.Object{Role: plan.RoleTemp, Type: t})
	}
	d.p.Steps = append(d.p.Steps, s)
	return s.Out
}

// matrix multiplies by diagonals and rescales: one decomposition, baby steps
// modulo QP, and a giant step for each group of them.
func (d *deep) matrix(x plan.ObjectID, offsets []int, babies int, diagonal func(offset, shift int) ir.SlotData) plan.ObjectID {
	l := d.level(x)
	slots := d.p.Params.Slots()
	digits := d.step(plan.Step{Op: ir.OpHEDecompose, Args: []plan.ObjectID{x}}, l)
	turned := map[int]plan.ObjectID{0: d.step(plan.Step{Op: ir.OpHELift, Args: []plan.ObjectID{x}}, l)}
	sum := plan.NoObject
	for at := 0; at < len(offsets); at += babies {
		inner, giant := plan.NoObject, offsets[at]
		for _, o := range offsets[at:min(at+babies, len(offsets))] {
			rot := (o - giant + slots) % slots
			if _, ok := turned[rot]; !ok {
				turned[rot] = d.step(plan.Step{Op: ir.OpHEHoistRot, Args: []plan.ObjectID{x, digits, d.key(rot)}, Rot: rot}, l)
			}
			w := d.plain(l, diagonal(o, giant))
			if inner == plan.NoObject {
				inner = d.step(plan.Step{Op: ir.OpHEMulQP, Args: []plan.ObjectID{turned[rot], w}}, l)
			} else {
				inner = d.step(plan.Step{Op: ir.OpHEMacQP, Args: []plan.ObjectID{inner, turned[rot], w}}, l)
			}
		}
		if giant != 0 {
			inner = d.step(plan.Step{Op: ir.OpHEGiant, Args: []plan.ObjectID{inner, d.key(giant)}, Rot: giant}, l)
		}
		if sum == plan.NoObject {
			sum = inner
		} else {
			sum = d.step(plan.Step{Op: ir.OpHEAddQP, Args: []plan.ObjectID{sum, inner}}, l)
		}
	}
	return d.step(plan.Step{Op: ir.OpHERescale, Args: []plan.ObjectID{
		d.step(plan.Step{Op: ir.OpHEModDown, Args: []plan.ObjectID{sum}}, l)}}, l-1)
}

// plain returns a plaintext at a level. Generated ones are shared.
func (d *deep) plain(level int, s ir.SlotData) plan.ObjectID {
	if s.DFT != nil {
		if id, ok := d.made[*s.DFT]; ok {
			return id
		}
		d.made[*s.DFT] = plan.ObjectID(len(d.p.Objects))
	}
	d.p.Plains = append(d.p.Plains, s)
	return d.object(plan.Object{Role: plan.RolePlain, Plain: int32(len(d.p.Plains) - 1), Type: ir.Type{
		Kind: ir.PlainQPKind, Level: level, Scale: ir.ScalePrime(level), Complex: s.DFT != nil}})
}

// product multiplies x by a multiple of itself, exactly at its scale.
func (d *deep) product(x plan.ObjectID) plan.ObjectID {
	l := d.level(x)
	s := ir.ScalePrime(l).Mul(ir.ScalePrime(l - 1)).Div(d.p.Objects[x].Type.Scale)
	y := d.step(plan.Step{Op: ir.OpHEMulConst, Args: []plan.ObjectID{x}, Const: 1. / 1024, Scale: s}, l)
	y = d.step(plan.Step{Op: ir.OpHERescale, Args: []plan.ObjectID{y}}, l-1)
	y = d.step(plan.Step{Op: ir.OpHEMul, Args: []plan.ObjectID{x, y, d.key(ir.KeyRelin)}}, l-1)
	return d.step(plan.Step{Op: ir.OpHERescale, Args: []plan.ObjectID{y}}, l-2)
}

// weights returns a diagonal of the configured number of entries.
func (d *deep) weights(slots int) ir.SlotData {
	n := min(d.c.Entries, slots)
	s := ir.SlotData{Period: slots, Index: make([]int32, n), Value: make([]float64, n)}
	for i := range s.Index {
		s.Index[i], s.Value[i] = int32(i*slots/n), d.values[d.rng.IntN(len(d.values))]
	}
	return s
}
