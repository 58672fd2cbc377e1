// Package plantest makes random plans for the tests of those who schedule,
// tier and execute plans. The plans are well formed as far as objects, roles,
// order and in-place updates go; they compute nothing that means anything.
package plantest

import (
	"math/rand/v2"
	"slices"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Config shapes a random plan. Zero fields get small defaults.
type Config struct {
	LogN     int // ring degree, so the slab is 2^LogN * 8 bytes
	Levels   int // primes of Q
	Special  int // primes of P
	Steps    int
	Inputs   int
	Outputs  int
	Keys     int // distinct keys
	Plains   int // distinct plaintexts
	Terms    int // products that a step adds up at most
	Live     int // about how many ciphertexts are alive at once
	OneShot  int // percent of plaintext operands that are used only once
	Layers   int
	MaxReuse int // percent of operands drawn from the oldest live ciphertexts
}

func def(v *int, d int) {
	if *v == 0 {
		*v = d
	}
}

// Random returns a plan that depends only on the seed and the configuration.
func Random(seed uint64, c Config) *plan.Plan {
	def(&c.LogN, 6)
	def(&c.Levels, 4)
	def(&c.Special, 1)
	def(&c.Steps, 60)
	def(&c.Inputs, 2)
	def(&c.Outputs, 2)
	def(&c.Keys, 6)
	def(&c.Plains, 10)
	def(&c.Terms, 1)
	def(&c.Live, 6)
	def(&c.OneShot, 50)
	def(&c.Layers, 4)
	def(&c.MaxReuse, 20)
	rng := rand.New(rand.NewPCG(seed, 0x706c616e))
	p := &plan.Plan{Model: "random", Network: &ir.Graph{Name: "random"}, Params: ir.Params{
		Name: "random", LogN: c.LogN, Ring: ir.RingReal, Secret: ir.SecretTernary,
		Q: make([]uint64, c.Levels), P: make([]uint64, c.Special), LogScale: 30, Insecure: true,
	}}
	for i := range c.Layers {
		p.Layers = append(p.Layers, plan.Layer{Name: "layer" + string(rune('a'+i%26)), Kind: "linear"})
	}
	add := func(o plan.Object) plan.ObjectID {
		o.Layer = -1
		p.Objects = append(p.Objects, o)
		return plan.ObjectID(len(p.Objects) - 1)
	}
	level := func() int { return rng.IntN(c.Levels) }
	var live []plan.ObjectID
	in := plan.Port{Name: "x"}
	for range c.Inputs {
		id := add(plan.Object{Role: plan.RoleInput, Type: ir.Type{Kind: ir.CipherKind, Encrypted: true, Level: level()}})
		live, in.Objects = append(live, id), append(in.Objects, id)
	}
	p.Inputs = []plan.Port{in}
	var keys, plains []plan.ObjectID
	for i := range c.Keys {
		keys = append(keys, add(plan.Object{Role: plan.RoleKey, Rot: i, Type: ir.Type{Kind: ir.KeyKind, Level: level()}}))
	}
	plain := func() plan.ObjectID {
		n := len(p.Plains)
		p.Plains = append(p.Plains, ir.SlotData{Period: 4, Index: []int32{0, 3}, Value: []float64{rng.Float64(), rng.Float64()}})
		kind := ir.PlainKind
		if n%2 == 1 {
			kind = ir.PlainQPKind
		}
		return add(plan.Object{Role: plan.RolePlain, Plain: int32(n), Type: ir.Type{Kind: kind, Level: level()}})
	}
	for range c.Plains {
		plains = append(plains, plain())
	}
	written := map[plan.ObjectID]bool{}
	pick := func() plan.ObjectID {
		if rng.IntN(100) < c.MaxReuse {
			return live[rng.IntN(min(2, len(live)))]
		}
		return live[rng.IntN(len(live))]
	}
	kinds := []ir.Kind{ir.CipherKind, ir.CipherQPKind, ir.CipherKind, ir.DigitsKind}
	for s := range c.Steps {
		st := plan.Step{Layer: int32(s * c.Layers / c.Steps), Scale: ir.ScaleTwo(30)}
		fresh := func() plan.ObjectID {
			id := add(plan.Object{Role: plan.RoleTemp, Type: ir.Type{Kind: kinds[rng.IntN(len(kinds))], Encrypted: true, Level: level()}})
			p.Objects[id].Layer = st.Layer
			live, written[id] = append(live, id), true
			return id
		}
		usePlain := func() plan.ObjectID {
			if rng.IntN(100) < c.OneShot {
				return plain()
			}
			return plains[rng.IntN(len(plains))]
		}
		a, b := pick(), pick()
		switch rng.IntN(7) {
		case 0:
			k := keys[rng.IntN(len(keys))]
			st.Op, st.Args, st.Rot = ir.OpHERotate, []plan.ObjectID{a, k}, p.Objects[k].Rot
			st.Out = fresh()
		case 1:
			st.Op, st.Args = ir.OpHEMul, []plan.ObjectID{a, b, keys[0]}
			st.Out = fresh()
		case 2:
			st.Op, st.Args = ir.OpHEMulQP, []plan.ObjectID{a, usePlain()}
			st.Out = fresh()
		case 3:
			st.Op, st.Args = ir.OpHEAdd, []plan.ObjectID{a, b}
			if written[a] && a != b {
				st.Out = a
			} else {
				st.Out = fresh()
			}
		case 4, 5:
			st.Op, st.Args = ir.OpHEMacQP, []plan.ObjectID{a, b, usePlain()}
			for len(st.Args) < 2*c.Terms && rng.IntN(3) > 0 {
				if x, w := pick(), usePlain(); x != a && !slices.Contains(st.Args, w) {
					st.Args = append(st.Args, x, w)
				}
			}
			if written[a] && a != b {
				st.Out = a
			} else {
				st.Out = fresh()
			}
		default:
			k := keys[rng.IntN(len(keys))]
			st.Op, st.Args, st.Rot = ir.OpHEHoistRot, []plan.ObjectID{a, b, k}, p.Objects[k].Rot
			st.Out = fresh()
		}
		p.Steps = append(p.Steps, st)
		for len(live) > c.Live {
			i := rng.IntN(len(live))
			live = append(live[:i], live[i+1:]...)
		}
	}
	out := plan.Port{Name: "y"}
	for i := len(p.Steps) - 1; i >= 0 && len(out.Objects) < c.Outputs; i-- {
		id := p.Steps[i].Out
		if p.Objects[id].Role == plan.RoleTemp {
			p.Objects[id].Role = plan.RoleOutput
			out.Objects = append(out.Objects, id)
		}
	}
	p.Outputs = []plan.Port{out}
	return p
}
