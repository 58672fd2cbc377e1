package passes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// tierProgram returns a random program whose keys are of higher levels than some
// of the steps that use them, whose plaintexts are shared or used once, and that
// updates in place.
func tierProgram(rng *rand.Rand, steps int) *plan.Plan {
	p := &plan.Plan{Model: "random", Network: &ir.Graph{Name: "random"}, Params: ir.Params{
		Name: "random", LogN: 4, Ring: ir.RingStandard, Secret: ir.SecretTernary, Q: make([]uint64, 5), P: make([]uint64, 1+rng.IntN(3)), LogScale: 30, Insecure: true,
	}, Layers: []plan.Layer{{Name: "conv1", Kind: "linear"}, {Name: "refresh1", Kind: plan.LayerRefresh}}}
	add := func(role plan.Role, kind ir.Kind, level, layer int) plan.ObjectID {
		o := plan.Object{Role: role, Type: ir.Type{Kind: kind, Encrypted: role != plan.RolePlain, Level: level}, Layer: int32(layer)}
		switch role {
		case plan.RolePlain:
			o.Plain = int32(len(p.Plains))
			p.Plains = append(p.Plains, ir.SlotData{Period: 1})
		case plan.RoleKey:
			o.Rot = len(p.Objects)
		}
		p.Objects = append(p.Objects, o)
		return plan.ObjectID(len(p.Objects) - 1)
	}
	level := func() int { return rng.IntN(len(p.Params.Q)) }
	var live, keys, plains []plan.ObjectID
	in := plan.Port{Name: "x"}
	for range 1 + rng.IntN(2) {
		live = append(live, add(plan.RoleInput, ir.CipherKind, level(), -1))
	}
	in.Objects = slices.Clone(live)
	for range 2 + rng.IntN(3) {
		keys = append(keys, add(plan.RoleKey, ir.KeyKind, max(level(), level()), -1))
	}
	sparse := add(plan.RoleKey, ir.SparseKeyKind, 0, -1)
	p.Objects[sparse].Rot = ir.KeySparse
	plain := func() plan.ObjectID {
		return add(plan.RolePlain, []ir.Kind{ir.PlainKind, ir.PlainQPKind}[rng.IntN(2)], level(), rng.IntN(2))
	}
	for range 3 {
		plains = append(plains, plain())
	}
	pick := func(v []plan.ObjectID) plan.ObjectID { return v[rng.IntN(len(v))] }
	for s := range steps {
		layer := int32(s * len(p.Layers) / steps)
		a, b, w := pick(live), pick(live), pick(plains)
		if rng.IntN(2) == 0 {
			w = plain()
		}
		st := plan.Step{Layer: layer}
		update := false
		switch rng.IntN(7) {
		case 0:
			st.Op, st.Args = ir.OpHEMul, []plan.ObjectID{a, b, pick(keys)}
		case 1:
			st.Op, st.Args = ir.OpHERotate, []plan.ObjectID{a, pick(keys)}
		case 2:
			st.Op, st.Args = ir.OpHEHoistRot, []plan.ObjectID{a, b, pick(keys)}
		case 3:
			st.Op, st.Args = ir.OpHERaise, []plan.ObjectID{a, sparse, pick(keys)}
		case 4:
			st.Op, st.Args = ir.OpHEMulPlain, []plan.ObjectID{a, w}
		case 5:
			st.Op, st.Args, update = ir.OpHEMacPlain, []plan.ObjectID{a, b, w}, true
		default:
			st.Op, st.Args, update = ir.OpHEAdd, []plan.ObjectID{a, b}, true
		}
		if role := p.Objects[a].Role; update && a != b && role == plan.RoleTemp {
			st.Out = a
		} else {
			st.Out = add(plan.RoleTemp, []ir.Kind{ir.CipherKind, ir.CipherQPKind, ir.DigitsKind}[rng.IntN(3)], level(), int(layer))
			live = append(live, st.Out)
		}
		p.Steps = append(p.Steps, st)
		for len(live) > 4 {
			k := rng.IntN(len(live))
			live = slices.Delete(live, k, k+1)
		}
	}
	out := plan.Port{Name: "y"}
	for _, s := range []int{steps - 1, steps / 2} {
		if o := p.Steps[s].Out; p.Objects[o].Role == plan.RoleTemp {
			p.Objects[o].Role = plan.RoleOutput
			out.Objects = append(out.Objects, o)
		}
	}
	p.Inputs, p.Outputs = []plan.Port{in}, []plan.Port{out}
	return p
}

// tierForms are the forms that the tests use.
var tierForms = []plan.Forms{
	{}, {Compact: 1}, {Seeds: true}, {Compact: 4, Seeds: true},
	{Compact: 2, Seeds: true, Twice: plan.TwiceReused}, {Compact: 1, Seeds: true, Twice: plan.TwiceAll},
	{Compact: 4, Seeds: true, Streams: true}, {Seeds: true, Twice: plan.TwiceAll, Streams: true},
	{Compact: 2, Seeds: true, Streams: true, Fused: plan.FusedAll}, {Compact: 1, Twice: plan.TwiceAll, Fused: plan.FusedOnce},
}

// tierID names a slab.
type tierID struct{ obj, slab int }

// tierSimple makes a tier plan that is correct by construction and chosen at
// random where there is a choice: what stays, which of the ways a slab is had in,
// what is fetched although nobody asks. Extra is how many slabs the arena has
// beyond what the neediest moment takes.
func tierSimple(rng *rand.Rand, p *plan.Plan, forms plan.Forms, extra int, mapping bool) *plan.Tier {
	t := &plan.Tier{Forms: forms, Profile: "test", Reserve: 1000}
	last := map[int]int{}
	for s, st := range p.Steps {
		for _, a := range st.Args {
			last[int(a)] = s
		}
	}
	for _, o := range p.Outputs[0].Objects {
		last[int(o)] = len(p.Steps)
	}
	readOnly := func(o int) bool {
		return p.Objects[o].Role == plan.RoleKey || p.Objects[o].Role == plan.RolePlain
	}
	slabsOf := func(s int) map[tierID]bool {
		m := map[tierID]bool{}
		for k, a := range p.Steps[s].Args {
			for _, x := range forms.Touched(p, nil, s, k) {
				for i := range int(x.Count) {
					m[tierID{int(a), int(x.First) + i}] = true
				}
			}
		}
		return m
	}
	// The neediest moment: a step with its result and all sources of what it touches.
	for s, st := range p.Steps {
		need := slabsOf(s)
		for i := range p.Slabs(st.Out) {
			need[tierID{int(st.Out), i}] = true
		}
		t.ArenaSlabs = max(t.ArenaSlabs, len(need)+len(st.Args))
	}
	outs := 0
	for _, o := range p.Outputs[0].Objects {
		outs += p.Slabs(o)
	}
	t.ArenaSlabs = max(t.ArenaSlabs, outs) + extra
	t.Budget = t.Reserve + int64(t.ArenaSlabs)*int64(p.Params.SlabBytes())

	in := map[tierID]bool{}    // there; true where it takes room
	copied := map[int]bool{}   // ciphertexts with a copy
	computed := map[int]bool{} // ciphertexts that exist
	taken := func() int {
		n := 0
		for _, room := range in {
			if room {
				n++
			}
		}
		return n
	}
	step := 0
	act := func(kind plan.ActionKind, o, first, count int) {
		t.Actions = append(t.Actions, plan.Action{Step: int32(step), Kind: kind, Obj: plan.ObjectID(o), First: int32(first), Count: int32(count)})
		for i := range count {
			id := tierID{o, first + i}
			switch kind {
			case plan.ActDrop, plan.ActSpill:
				delete(in, id)
			default:
				in[id] = kind != plan.ActMap
			}
		}
	}
	sorted := func(m map[tierID]bool) []tierID {
		return slices.SortedFunc(maps.Keys(m), func(a, b tierID) int { return (a.obj-b.obj)*10000 + a.slab - b.slab })
	}
	// leave lets a ciphertext or a slab go.
	leave := func(id tierID) {
		switch n := p.Slabs(plan.ObjectID(id.obj)); {
		case readOnly(id.obj):
			act(plan.ActDrop, id.obj, id.slab, 1)
		case p.Objects[id.obj].Role == plan.RoleInput || last[id.obj] < step || copied[id.obj] || !computed[id.obj]:
			act(plan.ActDrop, id.obj, 0, n)
		default:
			act(plan.ActSpill, id.obj, 0, n)
			copied[id.obj] = true
		}
	}
	// room makes room for n slabs beside those that must stay.
	room := func(n int, stay map[tierID]bool) {
		for taken()+n > t.ArenaSlabs {
			var may []tierID
			for _, id := range sorted(in) {
				if in[id] && !stay[id] {
					may = append(may, id)
				}
			}
			leave(may[rng.IntN(len(may))])
		}
	}
	for step = 0; step <= len(p.Steps); step++ {
		need := map[tierID]bool{}
		if step < len(p.Steps) {
			need = slabsOf(step)
		} else {
			for _, o := range p.Outputs[0].Objects {
				for i := range p.Slabs(o) {
					need[tierID{int(o), i}] = true
				}
			}
		}
		// What is dead goes, and something else at times.
		for _, id := range sorted(in) {
			if _, there := in[id]; !there || need[id] {
				continue
			}
			if !readOnly(id.obj) && last[id.obj] < step || readOnly(id.obj) && last[id.obj] < step && rng.IntN(2) == 0 || rng.IntN(30) == 0 {
				leave(id)
			}
		}
		stay := maps.Clone(need)
		for _, id := range sorted(need) {
			if _, there := in[id]; there {
				continue
			}
			o, n := id.obj, p.Slabs(plan.ObjectID(id.obj))
			if !readOnly(o) {
				room(n, stay)
				act(plan.ActFetch, o, 0, n)
				continue
			}
			_, stored := forms.StoredAt(p, plan.ObjectID(o), id.slab)
			if forms.Makes(p, plan.ObjectID(o), id.slab) && (!stored || rng.IntN(2) == 0) {
				if source := (tierID{o, n}); p.Objects[o].Role == plan.RolePlain {
					stay[source] = true
					if _, there := in[source]; !there {
						if mapping && rng.IntN(2) == 0 {
							act(plan.ActMap, o, n, 1)
						} else {
							room(1, stay)
							act(plan.ActFetch, o, n, 1)
						}
					}
				}
				// As many as follow and are wanted, at times.
				count := 1
				for rng.IntN(4) > 0 && need[tierID{o, id.slab + count}] && forms.Makes(p, plan.ObjectID(o), id.slab+count) {
					if _, there := in[tierID{o, id.slab + count}]; there {
						break
					}
					count++
				}
				room(count, stay)
				act(plan.ActMake, o, id.slab, count)
				if source := (tierID{o, n}); stay[source] && rng.IntN(3) == 0 {
					act(plan.ActDrop, o, n, 1)
					delete(stay, source)
				}
			} else if mapping && rng.IntN(3) == 0 {
				act(plan.ActMap, o, id.slab, 1)
			} else {
				room(1, stay)
				act(plan.ActFetch, o, id.slab, 1)
			}
		}
		if step == len(p.Steps) {
			break
		}
		out := int(p.Steps[step].Out)
		result := p.Slabs(plan.ObjectID(out))
		if later := step + 1 + rng.IntN(3); later < len(p.Steps) { // something that is needed soon, or its source
			for _, id := range sorted(slabsOf(later)) {
				if rng.IntN(8) == 0 {
					id.slab = p.Slabs(plan.ObjectID(id.obj))
				}
				_, there := in[id]
				_, stored := forms.StoredAt(p, plan.ObjectID(id.obj), id.slab)
				if there || !stored || rng.IntN(4) > 0 || taken()+result >= t.ArenaSlabs || p.Objects[id.obj].Role == plan.RoleKey && id.slab == p.Slabs(plan.ObjectID(id.obj)) {
					continue
				}
				act(plan.ActFetch, id.obj, id.slab, 1)
			}
		}
		if !need[tierID{out, 0}] {
			room(result, need)
			for i := range result {
				in[tierID{out, i}] = true
			}
		}
		computed[out], copied[out] = true, false
	}
	for _, id := range sorted(in) {
		if _, there := in[id]; there && p.Objects[id.obj].Role == plan.RoleTemp {
			leave(id)
		}
	}
	t.Actions = tierJoin(t.Actions)
	if r := tierTwin(p, t); r.err != "" {
		panic("the generator is wrong: " + r.err)
	} else {
		r.state(p, t)
	}
	return t
}

// tierJoin joins neighbouring actions on neighbouring slabs of keys and plaintexts.
func tierJoin(actions []plan.Action) []plan.Action {
	var out []plan.Action
	for _, a := range actions {
		if n := len(out); n > 0 && a.Kind != plan.ActMake {
			if b := &out[n-1]; b.Step == a.Step && b.Kind == a.Kind && b.Obj == a.Obj && b.First+b.Count == a.First {
				b.Count += a.Count
				continue
			}
		}
		out = append(out, a)
	}
	return out
}

// twin is what tierTwin finds.
type twin struct {
	err           string
	peak          int
	read, written int64
	fixed         int64 // of read, what is of keys and plaintexts
	trace         [][]tierID
	maps          bool
	stays         [][2]int   // first and last point of slabs that are made and used
	ciphers       [][]tierID // ciphertexts that each point touches
}

// state writes the totals into the tier plan.
func (w *twin) state(p *plan.Plan, t *plan.Tier) {
	slab := int64(p.Params.SlabBytes())
	t.PeakSlabs, t.BytesRead, t.BytesWritten, t.BytesBound = w.peak, w.read*slab, w.written*slab, tierMIN(w.trace, w.maps, func(int) int { return t.ArenaSlabs })*slab
}

// agrees reports whether the totals in the tier plan are right.
func (w *twin) agrees(p *plan.Plan, t *plan.Tier) bool {
	c := *t
	w.state(p, &c)
	return c.PeakSlabs == t.PeakSlabs && c.BytesRead == t.BytesRead && c.BytesWritten == t.BytesWritten && c.BytesBound == t.BytesBound
}

// tierTwin is a slow replay with contents: each slab of a ciphertext holds the
// number of the step that computed it, and whoever reads it wants the newest.
func tierTwin(p *plan.Plan, t *plan.Tier) (w twin) {
	type slab struct {
		value int
		how   plan.ActionKind // ActDrop: computed by a step
		// Of what is made: the point at which it is, and the last that uses it.
		made, used int
	}
	dram, slow := map[tierID]slab{}, map[tierID]int{}
	newest := map[int]int{}
	fail := func(format string, args ...any) twin {
		w.err = fmt.Sprintf(format, args...)
		return w
	}
	if slab := int64(p.Params.SlabBytes()); t.ArenaSlabs < 1 || t.ArenaSlabs > 1<<40 || t.Reserve < 0 || t.Budget < 0 || t.Budget > 0 && float64(t.Reserve)+float64(t.ArenaSlabs)*float64(slab) > float64(t.Budget) {
		return fail("room")
	}
	if t.Forms.Compact < 0 || t.Forms.Twice > plan.TwiceAll || t.Forms.Fused > plan.FusedAll || t.Forms.Streams && !t.Forms.Seeds || t.Forms.Fused > 0 && t.Forms.Compact == 0 {
		return fail("forms")
	}
	for _, x := range []float64{t.Seconds, t.StallSeconds, t.MakeSeconds, t.InputSeconds, t.BoughtSeconds, t.CostBound} {
		if math.IsNaN(x) || x < 0 || x > math.MaxFloat64 {
			return fail("seconds")
		}
	}
	if t.BytesBought < 0 || t.BytesBought > t.BytesRead {
		return fail("bytes")
	}
	leaves := func(x slab) {
		if x.how == plan.ActMake && x.used >= 0 {
			w.stays = append(w.stays, [2]int{x.made, x.used})
		}
	}
	fits := func() bool {
		n := 0
		for _, x := range dram {
			if x.how != plan.ActMap {
				n++
			}
		}
		w.peak = max(w.peak, n)
		return n <= t.ArenaSlabs
	}
	k := 0
	for s := 0; s <= len(p.Steps); s++ {
		var args []plan.ObjectID
		var touched []tierID
		if s < len(p.Steps) {
			args = p.Steps[s].Args
			for i, a := range args {
				for _, x := range t.Forms.Touched(p, nil, s, i) {
					for j := range x.Count {
						if id := (tierID{int(a), int(x.First + j)}); !slices.Contains(args[:i], a) {
							touched = append(touched, id)
						}
					}
				}
			}
		}
		for ; k < len(t.Actions) && int(t.Actions[k].Step) == s; k++ {
			a := t.Actions[k]
			if a.Obj < 0 || int(a.Obj) >= len(p.Objects) || a.Count < 1 || a.First < 0 {
				return fail("action %d names nothing", k)
			}
			o, n, role := int(a.Obj), p.Slabs(a.Obj), p.Objects[a.Obj].Role
			fixed := role == plan.RoleKey || role == plan.RolePlain
			if !fixed && (a.First != 0 || int(a.Count) != n) || a.Count > 1<<20 {
				return fail("action %d: a part of a ciphertext", k)
			}
			source, point := tierID{o, n}, len(w.trace)
			if a.Kind == plan.ActMake && role == plan.RolePlain {
				x, ok := dram[source]
				if !ok {
					return fail("action %d: no source", k)
				}
				if x.how == plan.ActMap {
					w.read, w.fixed, w.maps = w.read+1, w.fixed+1, true
				}
				w.trace, w.ciphers = append(w.trace, []tierID{source}), append(w.ciphers, nil)
			}
			for i := range int(a.Count) {
				id := tierID{o, int(a.First) + i}
				_, there := dram[id]
				switch a.Kind {
				case plan.ActFetch, plan.ActMap:
					value := 0
					if fixed {
						if _, ok := t.Forms.StoredAt(p, a.Obj, id.slab); !ok || role == plan.RoleKey && id.slab >= n {
							return fail("action %d: not stored", k)
						}
					} else if role != plan.RoleInput {
						v, ok := slow[id]
						if !ok || v != newest[o] {
							return fail("action %d: no copy", k)
						}
						value = v
					}
					if there || a.Kind == plan.ActMap && !fixed {
						return fail("action %d: it is there", k)
					}
					dram[id] = slab{value, a.Kind, 0, 0}
					if a.Kind == plan.ActFetch && role != plan.RoleInput {
						w.read++
						if fixed {
							w.fixed++
						}
					}
				case plan.ActMake:
					if there || !t.Forms.Makes(p, a.Obj, id.slab) {
						return fail("action %d: cannot be made", k)
					}
					dram[id] = slab{0, a.Kind, point, -1}
				case plan.ActDrop, plan.ActSpill:
					if !there || slices.Contains(touched, id) {
						return fail("action %d: must not go", k)
					}
					if a.Kind == plan.ActSpill {
						if role != plan.RoleTemp && role != plan.RoleOutput {
							return fail("action %d: read-only", k)
						}
						slow[id] = dram[id].value
						w.written++
					}
					leaves(dram[id])
					delete(dram, id)
				default:
					return fail("action %d: kind", k)
				}
			}
			if !fits() {
				return fail("action %d: no room", k)
			}
		}
		if s == len(p.Steps) {
			break
		}
		var point, ciphers []tierID
		for _, id := range touched {
			x, ok := dram[id]
			if !ok || x.value != newest[id.obj] {
				return fail("step %d: %v is missing", s, id)
			}
			switch role := p.Objects[id.obj].Role; {
			case role != plan.RoleKey && role != plan.RolePlain:
				ciphers = append(ciphers, id)
			case x.how == plan.ActMake:
				x.used = len(w.trace)
				dram[id] = x
			case x.how == plan.ActMap:
				w.read, w.fixed, w.maps = w.read+1, w.fixed+1, true
				fallthrough
			default:
				point = append(point, id)
			}
		}
		out := p.Steps[s].Out
		newest[int(out)] = s + 1
		for i := range p.Slabs(out) {
			if id := (tierID{int(out), i}); !slices.Contains(ciphers, id) {
				ciphers = append(ciphers, id)
			}
			dram[tierID{int(out), i}] = slab{s + 1, plan.ActDrop, 0, 0}
		}
		if !fits() {
			return fail("step %d: no room", s)
		}
		w.trace, w.ciphers = append(w.trace, point), append(w.ciphers, ciphers)
	}
	for id := range dram {
		if p.Objects[id.obj].Role == plan.RoleTemp {
			return fail("%v stays", id)
		}
	}
	for _, x := range dram {
		leaves(x)
	}
	var outputs []tierID
	for _, o := range p.Outputs[0].Objects {
		for i := range p.Slabs(o) {
			outputs = append(outputs, tierID{int(o), i})
			if x, ok := dram[tierID{int(o), i}]; !ok || x.value != newest[int(o)] || x.value == 0 {
				return fail("output %d is missing", o)
			}
		}
	}
	if k < len(t.Actions) {
		return fail("action %d is never due", k)
	}
	w.trace, w.ciphers = append(w.trace, nil), append(w.ciphers, outputs)
	return w
}

// tierPlans calls f with random tier plans that are correct.
func tierPlans(t *testing.T, seeds uint64, steps int, f func(t *testing.T, rng *rand.Rand, p *plan.Plan, tier *plan.Tier)) {
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 4))
		p := tierProgram(rng, steps)
		for k, forms := range tierForms {
			extra, mapping := []int{0, 1, 7, 60, 4000}[rng.IntN(5)], rng.IntN(3) == 0
			t.Run(fmt.Sprintf("%d/form%d/extra%d/maps=%v", seed, k, extra, mapping), func(t *testing.T) {
				f(t, rng, p, tierSimple(rng, p, forms, extra, mapping))
			})
		}
	}
}

// Tier plans that are correct by construction pass, whatever they choose; and what
// they read is never below any of the bounds, which are in their order.
func TestCheckTierAcceptsWhatIsRight(t *testing.T) {
	var spills, fetches, makes, mappings, wider int
	tierPlans(t, 40, 25, func(t *testing.T, _ *rand.Rand, p *plan.Plan, tier *plan.Tier) {
		if err := CheckTier(p, tier); err != nil {
			t.Fatal(err)
		}
		for _, a := range tier.Actions {
			switch {
			case a.Kind == plan.ActSpill:
				spills++
			case a.Kind == plan.ActFetch && p.Objects[a.Obj].Role == plan.RoleTemp:
				fetches++
			case a.Kind == plan.ActMake:
				makes++
			case a.Kind == plan.ActMap:
				mappings++
			}
		}
		b, err := TierBound(p, tier)
		if err != nil {
			t.Fatal(err)
		}
		w := tierTwin(p, tier)
		if fixed := w.fixed * int64(p.Params.SlabBytes()); b.Cold > b.Belady || b.Belady > b.Pinned || b.Pinned > b.Held || b.Held > fixed || b.Pinned > b.All || b.All > tier.BytesRead {
			t.Errorf("bounds %+v, %d bytes of keys and plaintexts are read, %d in all", b, fixed, tier.BytesRead)
		}
		if b.Belady < b.Pinned && b.Pinned < b.Held {
			wider++
		}
	})
	if spills == 0 || fetches == 0 || makes == 0 || mappings == 0 || wider == 0 {
		t.Errorf("%d spills, %d fetches of temporaries, %d makes, %d mappings, %d plans with three different bounds: some case is not tested", spills, fetches, makes, mappings, wider)
	}
}

// breakage is one way to break a tier plan.
type breakage struct {
	name string
	// at edits the tier plan at action i, and reports whether there is something to edit.
	at func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool
	// Only the first action is tried: the edit does not concern one.
	once bool
	// What the checker may say.
	want string
	// The edit may leave a valid tier plan, of another cost: what was edited was not
	// necessary.
	luck bool
}

func has(kinds ...plan.ActionKind) func(a *plan.Action) bool {
	return func(a *plan.Action) bool { return slices.Contains(kinds, a.Kind) }
}

// edit applies f to the actions that pass a test.
func edit(test func(a *plan.Action) bool, f func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool) func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
	return func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
		return i < len(t.Actions) && test(&t.Actions[i]) && f(rng, p, t, i)
	}
}

func whole(f func(p *plan.Plan, t *plan.Tier)) func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
	return func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, _ int) bool { f(p, t); return true }
}

func remove(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
	t.Actions = slices.Delete(t.Actions, i, i+1)
	return true
}

// shift moves an action by n steps, behind or before what happens there.
func shift(t *plan.Tier, i, n int) {
	a := t.Actions[i]
	a.Step += int32(n)
	t.Actions = slices.Delete(t.Actions, i, i+1)
	k := 0
	for k < len(t.Actions) && (t.Actions[k].Step < a.Step || n > 0 && t.Actions[k].Step == a.Step) {
		k++
	}
	t.Actions = slices.Insert(t.Actions, k, a)
}

// touchedAt reports whether the step of an action touches one of its slabs.
func touchedAt(p *plan.Plan, a *plan.Action) bool {
	if int(a.Step) >= len(p.Steps) {
		return false
	}
	for k, o := range p.Steps[a.Step].Args {
		for _, x := range new(plan.Forms).Touched(p, nil, int(a.Step), k) {
			if o == a.Obj && max(x.First, a.First) < min(x.First+x.Count, a.First+a.Count) {
				return true
			}
		}
	}
	return false
}

const (
	missing = ": not in DRAM|source is not there|: not there|is not in DRAM at the end"
	twiceIn = ": there already"
	noRoom  = "raise the arena"
	totals  = "peak_slabs says|bytes_read says|bytes_written says|bytes_bound says"
)

func breakages() []breakage {
	in := has(plan.ActFetch, plan.ActMake, plan.ActMap)
	out := has(plan.ActDrop, plan.ActSpill)
	every := func(*plan.Action) bool { return true }
	return []breakage{
		{name: "arrival left out", at: edit(in, remove), want: missing + "|" + totals, luck: true},
		{name: "arrival of what the step needs left out", at: edit(in, func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			return touchedAt(p, &t.Actions[i]) && remove(rng, p, t, i)
		}), want: missing},
		{name: "drop left out", at: edit(has(plan.ActDrop), remove), want: twiceIn + "|" + noRoom + "|never dropped|a second time|" + totals, luck: true},
		{name: "drop of a temporary left out", at: edit(has(plan.ActDrop), func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			return p.Objects[t.Actions[i].Obj].Role == plan.RoleTemp && remove(rng, p, t, i)
		}), want: twiceIn + "|" + noRoom + "|never dropped"},
		{name: "spill left out", at: edit(has(plan.ActSpill), remove), want: twiceIn + "|" + noRoom + "|never dropped|no copy is kept|" + totals},
		{name: "spill becomes drop", at: edit(has(plan.ActSpill), func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Kind = plan.ActDrop
			return true
		}), want: "no copy is kept, and it is needed until"},
		{name: "drop becomes spill", at: edit(has(plan.ActDrop), func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Kind = plan.ActSpill
			return true
		}), want: "read-only is never written|bytes_written says"},
		{name: "arrival moved after its use", at: edit(in, func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			if !touchedAt(p, &t.Actions[i]) {
				return false
			}
			shift(t, i, 1)
			return true
		}), want: missing},
		{name: "arrival moved", at: edit(in, func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			n := 1 + rng.IntN(3)
			if rng.IntN(2) == 0 {
				n = -n
			}
			if s := int(t.Actions[i].Step) + n; s < 0 || s > len(p.Steps) {
				return false
			}
			shift(t, i, n)
			return true
		}), want: missing + "|" + twiceIn + "|" + noRoom + "|no step has computed|no copy is kept of its|" + totals, luck: true},
		{name: "departure moved to an earlier step", at: edit(out, func(rng *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			n := 1 + rng.IntN(3)
			if int(t.Actions[i].Step) < n {
				return false
			}
			shift(t, i, -n)
			return true
		}), want: missing + "|the step needs it|no copy is kept|" + totals, luck: true},
		{name: "departure moved to a later step", at: edit(out, func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			if int(t.Actions[i].Step) >= len(p.Steps) {
				return false
			}
			shift(t, i, 1)
			return true
		}), want: twiceIn + "|" + noRoom + "|the step needs it|no copy is kept|never dropped|" + totals, luck: true},
		{name: "two actions swapped", at: edit(every, func(rng *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			if i+1 == len(t.Actions) {
				return false
			}
			t.Actions[i], t.Actions[i+1] = t.Actions[i+1], t.Actions[i]
			return true
		}), want: "out of order|" + missing + "|" + twiceIn + "|" + noRoom + "|the step needs it|" + totals, luck: true},
		{name: "source dropped before it is read", at: edit(has(plan.ActMake), func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			a := t.Actions[i]
			if p.Objects[a.Obj].Role != plan.RolePlain {
				return false
			}
			t.Actions = slices.Insert(t.Actions, i, plan.Action{Step: a.Step, Kind: plan.ActDrop, Obj: a.Obj, First: int32(p.Slabs(a.Obj)), Count: 1})
			return true
		}), want: "its source is not there"},
		{name: "range shortened", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Count--
			return true
		}), want: "comes and goes whole|0 slabs from slab|" + missing + "|" + twiceIn + "|" + noRoom + "|" + totals, luck: true},
		{name: "range moved", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].First++
			return true
		}), want: "comes and goes whole|slabs from slab|does not hold it|cannot be computed|seeds of keys|the step needs it|" + missing + "|" + twiceIn + "|" + noRoom + "|" + totals, luck: true},
		{name: "range beyond the object", at: edit(every, func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].First = int32(p.Slabs(t.Actions[i].Obj)) + 1
			return true
		}), want: "comes and goes whole|slabs from slab"},
		{name: "range that overflows", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].First, t.Actions[i].Count = math.MaxInt32, math.MaxInt32
			return true
		}), want: "slabs from slab"},
		{name: "negative range", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].First = -1
			return true
		}), want: "slabs from slab -1"},
		{name: "done twice", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions = slices.Insert(t.Actions, i, t.Actions[i])
			return true
		}), want: twiceIn + "|not there"},
		{name: "fetch becomes make", at: edit(has(plan.ActFetch), func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Kind = plan.ActMake
			return true
		}), want: "cannot be computed|source is not there|only keys and plaintexts|slabs from slab|seeds of keys|" + totals},
		{name: "make becomes fetch", at: edit(has(plan.ActMake), func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Kind = plan.ActFetch
			return true
		}), want: "does not hold|" + totals, luck: true}, // from a source that is mapped as much is read
		{name: "ciphertext mapped", at: edit(has(plan.ActFetch), func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Kind = plan.ActMap
			role := p.Objects[t.Actions[i].Obj].Role
			return role != plan.RoleKey && role != plan.RolePlain
		}), want: "only keys and plaintexts"},
		{name: "what the step needs is dropped", at: edit(in, func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			a := t.Actions[i]
			if !touchedAt(p, &a) {
				return false
			}
			a.Kind = plan.ActDrop
			t.Actions = slices.Insert(t.Actions, i+1, a)
			return true
		}), want: "the step needs it"},
		{name: "seed of a key fetched", at: edit(in, func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			a := &t.Actions[i]
			a.Kind, a.First, a.Count = plan.ActFetch, int32(p.Slabs(a.Obj)), 1
			return p.Objects[a.Obj].Role == plan.RoleKey
		}), want: "holds the seeds|slabs from slab"},
		{name: "unknown object", at: edit(every, func(_ *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Obj = plan.ObjectID(len(p.Objects))
			return true
		}), want: "is for object"},
		{name: "negative object", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Obj = -1
			return true
		}), want: "is for object -1"},
		{name: "other object", at: edit(every, func(rng *rand.Rand, p *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Obj = plan.ObjectID(rng.IntN(len(p.Objects)))
			return true
		}), want: ".", luck: true},
		{name: "unknown kind", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Kind = 200
			return true
		}), want: "of kind 200"},
		{name: "steps out of order", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			a := t.Actions[i]
			a.Step--
			t.Actions = append(t.Actions, a)
			return a.Step >= 0 && t.Actions[len(t.Actions)-2].Step > a.Step
		}), want: "out of order"},
		{name: "negative step", at: edit(every, func(_ *rand.Rand, _ *plan.Plan, t *plan.Tier, i int) bool {
			t.Actions[i].Step = -1
			return true
		}), want: "out of order"},
		{name: "action after the end", once: true, at: whole(func(p *plan.Plan, t *plan.Tier) {
			t.Actions = append(t.Actions, plan.Action{Step: int32(len(p.Steps)) + 1, Kind: plan.ActDrop, Count: 1})
		}), want: "the plan has"},
		{name: "output dropped at the end", once: true, at: whole(func(p *plan.Plan, t *plan.Tier) {
			o := p.Outputs[0].Objects[0]
			t.Actions = append(t.Actions, plan.Action{Step: int32(len(p.Steps)), Kind: plan.ActDrop, Obj: o, Count: int32(p.Slabs(o))})
		}), want: "no copy is kept, and it is needed until the end|not in DRAM at the end"},
		{name: "output spilled at the end", once: true, at: whole(func(p *plan.Plan, t *plan.Tier) {
			o := p.Outputs[0].Objects[0]
			t.Actions = append(t.Actions, plan.Action{Step: int32(len(p.Steps)), Kind: plan.ActSpill, Obj: o, Count: int32(p.Slabs(o))})
		}), want: "is not in DRAM at the end"},
		{name: "no actions", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Actions = nil }), want: ": not in DRAM"},
		{name: "arena one slab below the peak", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.ArenaSlabs = t.PeakSlabs - 1 }), want: noRoom},
		{name: "no arena", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.ArenaSlabs = 0 }), want: "arena of 0 slabs"},
		{name: "arena that overflows", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.ArenaSlabs = math.MaxInt }), want: "exceed the budget"},
		{name: "budget one byte below", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Budget-- }), want: "exceed the budget"},
		{name: "reserve above the budget", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Reserve = math.MaxInt64 }), want: "exceed the budget"},
		{name: "negative reserve", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Reserve = -1 }), want: "reserve -1"},
		{name: "peak above", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.PeakSlabs++ }), want: "peak_slabs says"},
		{name: "peak below", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.PeakSlabs-- }), want: "peak_slabs says"},
		{name: "bytes read", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.BytesRead++ }), want: "bytes_read says"},
		{name: "bytes written", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.BytesWritten++ }), want: "bytes_written says"},
		{name: "bytes bound", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.BytesBound-- }), want: "bytes_bound says"},
		{name: "time without end", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Seconds = math.Inf(1) }), want: "seconds is"},
		{name: "time that is no number", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.StallSeconds = math.NaN() }), want: "stall_seconds is"},
		{name: "negative time", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.MakeSeconds = -1 }), want: "make_seconds is"},
		{name: "negative time of input", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.InputSeconds = -1 }), want: "input_seconds is"},
		{name: "more bytes bought than read", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.BytesBought = t.BytesRead + 1 }), want: "bytes_bought is"},
		{name: "form that is unknown", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Forms.Twice = 3 }), want: "forms of the slow tier"},
		{name: "form without seeds that streams", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Forms.Seeds, t.Forms.Streams = false, true }), want: "forms of the slow tier"},
		{name: "form without coefficients that is made", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Forms.Compact, t.Forms.Fused = 0, plan.FusedAll }), want: "forms of the slow tier"},
		{name: "form that is negative", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Forms.Compact = -1 }), want: "forms of the slow tier"},
		{name: "nothing has a source", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Forms = plan.Forms{} }), want: "cannot be computed|slabs from slab|does not hold|not in DRAM", luck: true},
		{name: "all have a source", once: true, at: whole(func(_ *plan.Plan, t *plan.Tier) { t.Forms = plan.Forms{Compact: 1, Seeds: true} }), want: "does not hold|not in DRAM"},
	}
}

// Every way to break a tier plan is found, and named for what it is. Where an edit
// happens to leave a valid tier plan, a slower replay agrees.
func TestCheckTierFindsEveryBreakage(t *testing.T) {
	found, lucky := map[string]int{}, map[string]int{}
	said := map[string]bool{}
	tierPlans(t, 5, 18, func(t *testing.T, rng *rand.Rand, p *plan.Plan, good *plan.Tier) {
		for _, b := range breakages() {
			want := regexp.MustCompile(b.want)
			n := len(good.Actions)
			if b.once {
				n = 1
			}
			for i := 0; i < n; i += 1 + rng.IntN(20) {
				broken := *good
				broken.Actions = slices.Clone(good.Actions)
				if !b.at(rng, p, &broken, i) {
					continue
				}
				err := CheckTier(p, &broken)
				w := tierTwin(p, &broken)
				valid := w.err == "" && w.agrees(p, &broken)
				switch {
				case (err == nil) != valid:
					t.Fatalf("%s at action %d %+v: the checker says %v, the slow replay %q, totals right: %v", b.name, i, good.Actions[min(i, len(good.Actions)-1)], err, w.err, w.err == "" && valid)
				case valid && !b.luck:
					t.Fatalf("%s at action %d: the tier plan is still valid", b.name, i)
				case valid:
					lucky[b.name]++
					continue
				}
				found[b.name]++
				m := want.FindString(err.Error())
				if !errors.Is(err, ErrTier) || m == "" {
					t.Fatalf("%s at action %d: %v, want %s", b.name, i, err, b.want)
				}
				said[m] = true
			}
		}
	})
	for _, b := range breakages() {
		t.Logf("%-40s found %6d times, valid by luck %6d times", b.name, found[b.name], lucky[b.name])
		if found[b.name] == 0 {
			t.Errorf("%s: never tried", b.name)
		}
	}
	for _, m := range regexp.MustCompile(`\|`).Split(missing+"|"+twiceIn+"|"+noRoom+"|"+totals, -1) {
		if !said[m] {
			t.Errorf("nothing is refused because %q", m)
		}
	}
}

// tierTwoSteps is a program of two steps: it rotates and multiplies. The key is of a
// higher level than the result, with digits of one prime.
func tierTwoSteps() *plan.Plan {
	return &plan.Plan{Params: ir.Params{LogN: 4, Q: make([]uint64, 3), P: make([]uint64, 1)}, Layers: []plan.Layer{{Name: "conv1"}},
		Objects: []plan.Object{
			{Role: plan.RoleInput, Type: ir.Type{Kind: ir.CipherKind, Level: 1}, Layer: -1},
			{Role: plan.RoleKey, Type: ir.Type{Kind: ir.KeyKind, Level: 2}, Rot: 5, Layer: -1},
			{Role: plan.RolePlain, Type: ir.Type{Kind: ir.PlainKind, Level: 1}, Plain: 0},
			{Role: plan.RoleTemp, Type: ir.Type{Kind: ir.CipherKind, Level: 1}},
			{Role: plan.RoleOutput, Type: ir.Type{Kind: ir.CipherKind, Level: 1}},
		},
		Steps: []plan.Step{
			{Op: ir.OpHERotate, Args: []plan.ObjectID{0, 1}, Out: 3},
			{Op: ir.OpHEMulPlain, Args: []plan.ObjectID{3, 2}, Out: 4},
		},
		Inputs: []plan.Port{{Name: "x", Objects: []plan.ObjectID{0}}}, Outputs: []plan.Port{{Name: "y", Objects: []plan.ObjectID{4}}},
	}
}

// The checker names step, operation, layer, object and slabs in people's words.
func TestCheckTierSaysWhatIsWrong(t *testing.T) {
	p := tierTwoSteps()
	in := plan.Action{Kind: plan.ActFetch, Obj: 0, Count: 4}
	// Of each digit of the key the limb is not read of the prime that the ciphertext
	// has lost.
	for _, c := range []struct {
		actions []plan.Action
		want    string
	}{
		{nil, "invalid tier plan: before step 0 of 2 (he.rotate in conv1): the step needs all 4 slabs of ciphertext of x (object 0): not in DRAM"},
		{[]plan.Action{in, {Kind: plan.ActFetch, Obj: 1, Count: 5}},
			"invalid tier plan: before step 0 of 2 (he.rotate in conv1): the step needs slab 5 of key for rotation by 5 (object 1): not in DRAM"},
		{[]plan.Action{in, {Kind: plan.ActMake, Obj: 1, First: 4, Count: 4}},
			"invalid tier plan: before step 0 of 2 (he.rotate in conv1): action 1 makes slabs 4..7 of key for rotation by 5 (object 1): it cannot be computed: its form has no source for it"},
		{[]plan.Action{in, {Kind: plan.ActFetch, Obj: 1, Count: 16}, {Step: 1, Kind: plan.ActDrop, Obj: 3, Count: 4}},
			"invalid tier plan: before step 1 of 2 (he.mulplain in conv1): action 2 drops all 4 slabs of temporary (object 3 in conv1): the step needs it"},
		{[]plan.Action{in, {Kind: plan.ActFetch, Obj: 1, Count: 16}, {Kind: plan.ActFetch, Obj: 2, Count: 2}},
			"invalid tier plan: after the last step: temporary (object 3 in conv1) is never dropped after its last use"},
	} {
		err := CheckTier(p, &plan.Tier{ArenaSlabs: 100, Actions: c.actions})
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}

// A plan that did not pass Verify is refused as well.
func TestCheckTierOnBadPlans(t *testing.T) {
	whole := func(o plan.ObjectID, count int32) plan.Action {
		return plan.Action{Kind: plan.ActFetch, Obj: o, Count: count}
	}
	for _, c := range []struct {
		want  string
		spoil func(p *plan.Plan)
	}{
		{"before step 1 of 2 (he.mulplain in conv1): the plan refers to object 9 of 5", func(p *plan.Plan) { p.Steps[1].Args[1] = 9 }},
		{"before step 0 of 2 (he.rotate in conv1): the plan refers to object -1 of 5", func(p *plan.Plan) { p.Steps[0].Out = -1 }},
		{"after the last step: the plan refers to object 5 of 5", func(p *plan.Plan) { p.Outputs[0].Objects[0] = 5 }},
		{"the step needs temporary (object 3 in conv1): no step has computed it yet", func(p *plan.Plan) { p.Steps[0].Args[0] = 3 }},
		{"the step writes ciphertext of x (object 0), which is read-only", func(p *plan.Plan) { p.Steps[0].Out = 0 }},
		{"the step computes temporary (object 3 in conv1) a second time", func(p *plan.Plan) { p.Steps[1].Out = 3; p.Steps[1].Args[0] = 0 }},
	} {
		p := tierTwoSteps()
		c.spoil(p)
		err := CheckTier(p, &plan.Tier{ArenaSlabs: 100, Actions: []plan.Action{whole(0, 4), whole(1, 24), whole(2, 2)}})
		if !errors.Is(err, ErrTier) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// Whatever the bytes, the checker does not panic and agrees with the slow replay.
func FuzzCheckTier(f *testing.F) {
	const actionBytes = 17
	rng := rand.New(rand.NewPCG(8, 8))
	var plans []*plan.Plan
	for range 4 {
		plans = append(plans, tierProgram(rng, 12))
	}
	for i, forms := range tierForms {
		t := tierSimple(rng, plans[i%len(plans)], forms, 5, i%2 == 0)
		data := []byte{byte(i % len(plans)), byte(forms.Compact), byte(forms.Twice)}
		if forms.Seeds {
			data[2] |= 0x80
		}
		data = binary.LittleEndian.AppendUint64(data, uint64(t.ArenaSlabs))
		for _, a := range t.Actions {
			data = append(data, byte(a.Kind))
			for _, x := range []int32{a.Step, a.Obj, a.First, a.Count} {
				data = binary.LittleEndian.AppendUint32(data, uint32(x))
			}
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 11 || len(data) > 11+300*actionBytes {
			return
		}
		p := plans[int(data[0])%len(plans)]
		tier := &plan.Tier{Forms: plan.Forms{Compact: int(int8(data[1])), Seeds: data[2]&0x80 != 0, Twice: plan.Twice(data[2] & 0x7f)}, ArenaSlabs: int(binary.LittleEndian.Uint64(data[3:]))}
		for rest := data[11:]; len(rest) >= actionBytes; rest = rest[actionBytes:] {
			x := func(i int) int32 { return int32(binary.LittleEndian.Uint32(rest[1+4*i:])) }
			tier.Actions = append(tier.Actions, plan.Action{Kind: plan.ActionKind(rest[0]), Step: x(0), Obj: x(1), First: x(2), Count: x(3)})
		}
		_, err := TierBound(p, tier)
		w := tierTwin(p, tier)
		if (err == nil) != (w.err == "") {
			t.Fatalf("the checker says %v, the slow replay %q", err, w.err)
		}
		if err != nil {
			return
		}
		w.state(p, tier)
		if err := CheckTier(p, tier); err != nil {
			t.Fatal(err)
		}
	})
}

// tierDrop fetches or makes what a step touches and drops it after the step.
func tierDrop(p *plan.Plan, forms plan.Forms) *plan.Tier {
	t := &plan.Tier{Forms: forms, ArenaSlabs: math.MaxInt}
	last := map[plan.ObjectID]int{}
	for s, st := range p.Steps {
		for _, a := range append(slices.Clone(st.Args), st.Out) {
			last[a] = s
		}
	}
	for _, o := range p.Outputs[0].Objects {
		last[o] = len(p.Steps)
	}
	in := map[plan.ObjectID]bool{}
	for s, st := range p.Steps {
		var after []plan.Action
		act := func(kind plan.ActionKind, o plan.ObjectID, first, count int32) {
			t.Actions = append(t.Actions, plan.Action{Step: int32(s), Kind: kind, Obj: o, First: first, Count: count})
			after = append(after, plan.Action{Step: int32(s) + 1, Kind: plan.ActDrop, Obj: o, First: first, Count: count})
		}
		for k, a := range st.Args {
			n := int32(p.Slabs(a))
			switch role := p.Objects[a].Role; {
			case role == plan.RoleInput && !in[a]:
				t.Actions = append(t.Actions, plan.Action{Step: int32(s), Kind: plan.ActFetch, Obj: a, Count: n})
				in[a] = true
			case role == plan.RolePlain && forms.Makes(p, a, 0):
				act(plan.ActFetch, a, n, 1)
				act(plan.ActMake, a, 0, n)
			case role == plan.RolePlain || role == plan.RoleKey:
				for _, x := range forms.Touched(p, nil, s, k) {
					kind := plan.ActFetch
					if forms.Makes(p, a, int(x.First)) {
						kind = plan.ActMake
					}
					act(kind, a, x.First, x.Count)
				}
			}
		}
		t.Actions = append(t.Actions, after...)
		for k, a := range append(slices.Clone(st.Args), st.Out) {
			if role := p.Objects[a].Role; role == plan.RoleTemp && last[a] == s && !slices.Contains(append(slices.Clone(st.Args), st.Out)[:k], a) {
				t.Actions = append(t.Actions, plan.Action{Step: int32(s) + 1, Kind: plan.ActDrop, Obj: a, Count: int32(p.Slabs(a))})
			}
		}
	}
	return t
}

// The checker copes with a plan of the size of a deep network: in a moment, says the
// log, which no test holds a busy machine to.
func TestCheckTierDeep(t *testing.T) {
	if testing.Short() {
		t.Skip("a large plan")
	}
	p := plantest.Deep(plantest.DeepConfig{LogN: 16, Levels: 24, Special: 6, Layers: 20, Diagonals: 320, Babies: 16, Entries: 4, Products: 9})
	for _, forms := range []plan.Forms{{}, {Compact: 2, Seeds: true, Twice: plan.TwiceReused}} {
		tier := tierDrop(p, forms)
		tier.ArenaSlabs = 40 << 30 / p.Params.SlabBytes()
		r, err := replayTier(p, tier)
		if err != nil {
			t.Fatal(err)
		}
		tier.ArenaSlabs = r.peak
		for _, gib := range []int{0, 2, 4, 12} {
			tier.ArenaSlabs = max(tier.ArenaSlabs, gib<<30/p.Params.SlabBytes())
			b, err := TierBound(p, tier)
			if err != nil {
				t.Fatal(err)
			}
			slab := int64(p.Params.SlabBytes())
			tier.PeakSlabs, tier.BytesRead, tier.BytesBound = r.peak, r.read*slab, b.Belady
			began := time.Now()
			err = CheckTier(p, tier)
			took := time.Since(began)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v, arena of %.1f GiB: %d steps, %d actions, %v; %.1f GB read; at least %.1f cold, %.1f Belady, %.1f with the steps pinned, %.1f with the ciphertexts held, %.1f with theirs; %d touches of %d slabs",
				forms, float64(tier.ArenaSlabs)*float64(slab)/(1<<30), len(p.Steps), len(tier.Actions), took, float64(tier.BytesRead)/1e9, float64(b.Cold)/1e9, float64(b.Belady)/1e9, float64(b.Pinned)/1e9, float64(b.Held)/1e9, float64(b.All)/1e9, b.Touches, b.Distinct)
		}
	}
}
