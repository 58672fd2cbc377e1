package passes

import (
	"fmt"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// schedule writes the scheme graph as a list of steps on numbered objects. The
// order is the graph's: inputs, then layer by layer, each baby step just before
// its first use. Accumulations whose accumulator has no other use happen in
// place.
func schedule(u *unit) error {
	p := u.plan
	g := u.scheme
	uses := g.Uses()
	id := make(map[*ir.Value]plan.ObjectID, len(g.Values))
	object := func(v *ir.Value, o plan.Object) {
		o.Type = v.Type
		o.Layer = int32(u.lw.b.layer[v])
		id[v] = plan.ObjectID(len(p.Objects))
		p.Objects = append(p.Objects, o)
	}
	for _, v := range g.Values {
		switch v.Op {
		case ir.OpHEInput:
			object(v, plan.Object{Role: plan.RoleInput})
		case ir.OpHEKey:
			object(v, plan.Object{Role: plan.RoleKey, Rot: v.Attrs.Int("rot", 0)})
		case ir.OpHEPlain:
			object(v, plan.Object{Role: plan.RolePlain, Plain: int32(len(p.Plains))})
			p.Plains = append(p.Plains, *v.Slots)
		case ir.OpHEOutput:
			o := id[v.Args[0]]
			if p.Objects[o].Role != plan.RoleTemp {
				return fmt.Errorf("output %s is no result of a step", v.Name)
			}
			p.Objects[o].Role = plan.RoleOutput
			id[v] = o
		default:
			s := plan.Step{Op: v.Op, Layer: int32(u.lw.b.layer[v]), Rot: v.Attrs.Int("rot", 0), Const: v.Attrs.Float("c", 0), Twice: v.Attrs.Int("twice", 0) != 0}
			if t := v.Attrs.Str("scale", ""); t != "" {
				sc, err := ir.ParseScale(t)
				if err != nil {
					return err
				}
				s.Scale = sc
			}
			for _, a := range v.Args {
				s.Args = append(s.Args, id[a])
			}
			if a := v.Args[0]; updates(v, uses) && p.Objects[id[a]].Role == plan.RoleTemp {
				id[v] = id[a]
				p.Objects[id[a]].Type = v.Type
			} else {
				object(v, plan.Object{Role: plan.RoleTemp})
			}
			s.Out = id[v]
			p.Steps = append(p.Steps, s)
		}
	}
	for i, n := range u.nodes {
		switch n.kind {
		case fusedInput:
			port := u.port(n, i, id)
			port.Limit = inputLimit
			if u.hasPoly() {
				port.Limit = inputLimitPoly
			}
			if len(u.opt.Calibrate) == 0 { // interval bounds hold for the range alone
				port.Limit = 1 + 1e-6
			}
			p.Inputs = append(p.Inputs, port)
		case fusedOutput:
			port := u.port(n, i, id)
			if k := len(p.Outputs); k < len(u.outputs) {
				port.Name = u.outputs[k]
			}
			p.Outputs = append(p.Outputs, port)
		}
	}
	// Outputs that stem from one node still need names of their own.
	taken := map[string]bool{}
	for i := range p.Outputs {
		name := p.Outputs[i].Name
		for k := 2; taken[p.Outputs[i].Name]; k++ {
			p.Outputs[i].Name = fmt.Sprintf("%s#%d", name, k)
		}
		taken[p.Outputs[i].Name] = true
	}
	u.describe(id)
	return nil
}

// updates reports whether a value may take the place of its first argument, where
// that is the result of a step.
func updates(v *ir.Value, uses map[*ir.Value]int) bool {
	a := v.Args[0]
	return plan.InPlace(v.Op) && uses[a] == 1 && a.Type.Level == v.Type.Level && a.Type.Complex == v.Type.Complex
}

// How far beyond its calibrated range, in half widths, an input may go before the
// client refuses it. Products and linear layers carry larger values; polynomials
// leave their ranges soon.
const (
	inputLimit     = 4
	inputLimitPoly = 2
)

func (u *unit) hasPoly() bool {
	return slices.ContainsFunc(u.nodes, func(n *fusedNode) bool { return n.kind == fusedPoly })
}

func (u *unit) port(n *fusedNode, i int, id map[*ir.Value]plan.ObjectID) plan.Port {
	port := plan.Port{Name: n.name, Shape: n.shape, Layout: u.state.layout(i), Center: n.center, Norm: n.norm}
	for _, v := range u.lw.cts[n] {
		port.Objects = append(port.Objects, id[v])
		port.Level, port.Scale = v.Type.Level, v.Type.Scale
	}
	return port
}

// describe fills the report: layers, counts and bytes.
func (u *unit) describe(id map[*ir.Value]plan.ObjectID) {
	p := u.plan
	prof := u.opt.profile()
	for i, n := range u.nodes {
		l := plan.Layer{Name: n.name, Kind: n.kind.String(), Level: n.level, Shape: n.shape, Cts: u.state.places[i].out.layout.Cts}
		if n.orig != nil {
			l.Degree, l.Bound, l.Center, l.PolyErr = n.orig.Degree(), n.orig.Bound, n.orig.Center, n.orig.Err
		}
		p.Layers = append(p.Layers, l)
	}
	slab := int64(p.Params.SlabBytes())
	size := func(o plan.Object) int64 { return slab * int64(p.Params.Slabs(o.Type.Kind, o.Type.Level)) }
	for _, o := range p.Objects {
		switch o.Role {
		case plan.RoleKey:
			p.Bytes.Keys += size(o)
		case plan.RolePlain:
			if p.Plains[o.Plain].DFT != nil {
				p.Bytes.Matrices += size(o)
			} else {
				p.Bytes.Weights += size(o)
			}
			if o.Layer >= 0 {
				p.Layers[o.Layer].WeightByte += size(o)
			}
		}
	}
	p.Counts = p.Count(nil)
	last := make([]int, len(p.Objects))
	for i, s := range p.Steps {
		for _, a := range s.Args {
			last[a] = i
		}
		last[s.Out] = i
		l := &p.Layers[s.Layer]
		l.Steps++
		var c plan.Counts
		p.CountStep(&c, i)
		l.Rotations += c.Rotations
		l.KeySwitch += c.KeySwitches
		l.CtMults += c.CtMults
		l.Diagonals += c.Diagonals
		sec := StepSeconds(p, prof, i, &plan.Forms{})
		l.Seconds += sec
		p.Predicted.CPUSeconds += sec
	}
	p.Predicted.Seconds = p.Predicted.CPUSeconds
	live, born := int64(0), make([]bool, len(p.Objects))
	for o, x := range p.Objects {
		if x.Role == plan.RoleInput {
			live += size(x)
			born[o] = true
		}
	}
	p.Bytes.CiphertextsPeak = live
	for i, s := range p.Steps {
		if !born[s.Out] {
			born[s.Out] = true
			live += size(p.Objects[s.Out])
		}
		p.Bytes.CiphertextsPeak = max(p.Bytes.CiphertextsPeak, live)
		done := append(slices.Clone(s.Args), s.Out)
		slices.Sort(done)
		for _, a := range slices.Compact(done) {
			if r := p.Objects[a].Role; last[a] == i && (r == plan.RoleTemp || r == plan.RoleInput) {
				live -= size(p.Objects[a])
			}
		}
	}
	p.Bytes.Footprint = p.Bytes.Keys + p.Bytes.Weights + p.Bytes.Matrices + p.Bytes.CiphertextsPeak
}

// StepSeconds predicts the time of step i of a plan on one core, with what it makes
// itself of its operands where the slow tier has these forms.
func StepSeconds(p *plan.Plan, prof *backend.Profile, i int, f *plan.Forms) float64 {
	s := &p.Steps[i]
	d := prof.StepSeconds(&p.Params, s.Op, StepLevel(p, i), len(s.Args), f.Streams)
	fusedIn(p, i, f, func(obj plan.ObjectID, slabs int) {
		d += float64(slabs) * prof.ExpandSeconds(&p.Params, points(p, obj), true)
	})
	return d
}

// StepBytes is what step i of a plan moves between DRAM and core.
func StepBytes(p *plan.Plan, i int, f *plan.Forms) float64 {
	s := &p.Steps[i]
	w := backend.WorkOfStep(&p.Params, s.Op, StepLevel(p, i), len(s.Args), f.Streams)
	b := w.Bytes()
	fusedIn(p, i, f, func(_ plan.ObjectID, slabs int) { b -= float64(slabs-1) * float64(p.Params.SlabBytes()) })
	return b
}

// fusedIn calls visit for the plaintexts that a step makes itself, with their slabs.
func fusedIn(p *plan.Plan, i int, f *plan.Forms, visit func(obj plan.ObjectID, slabs int)) {
	if f.Fused == plan.FusedNone {
		return
	}
	for _, a := range p.Steps[i].Args {
		if p.Objects[a].Role == plan.RolePlain && f.InSteps(p, a) {
			visit(a, p.Slabs(a))
		}
	}
}

// points returns the slots after which the values of a plaintext repeat.
func points(p *plan.Plan, obj plan.ObjectID) int {
	if k := int(p.Objects[obj].Plain); k < len(p.Plains) { // else they were dropped after the install
		return p.Plains[k].Repeats()
	}
	return p.Params.Slots()
}

// StepLevel returns the level at which step i computes, by which costs go.
func StepLevel(p *plan.Plan, i int) int {
	s := &p.Steps[i]
	return p.Objects[s.Out].Type.Level + s.Op.Drops()
}
