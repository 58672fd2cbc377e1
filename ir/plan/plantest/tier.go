package plantest

import (
	"math/rand/v2"
	"slices"

	"github.com/home-fhe/home/ir/plan"
)

// dice makes a tier plan at random.
type dice struct {
	p      *plan.Plan
	t      *plan.Tier
	rng    *rand.Rand
	maps   bool
	state  [][]byte // per object and slab, the source last: absent, there or mapped
	stored []bool   // spilled since it was written
	last   []int    // last step that needs a temporary; len(Steps) for outputs
	used   int
	soft   int // slabs that are aimed at
	made   int
}

const (
	absent = iota
	there
	inPlace
)

// Tier returns a random tier plan, and how many slabs it has made: every slab that a
// step touches is brought before it, in one of the ways that the forms allow, where
// maps is set also by using it where it lies, and anything may leave in between. It
// aims at soft resident slabs and has an arena for the most that it needs. It is
// complete but for the times and the bound.
func Tier(p *plan.Plan, seed uint64, forms plan.Forms, maps bool, soft int) (tier *plan.Tier, made int) {
	n := len(p.Objects)
	d := &dice{p: p, t: &plan.Tier{Forms: forms}, rng: rand.New(rand.NewPCG(seed, 77)), maps: maps, state: make([][]byte, n), stored: make([]bool, n), last: make([]int, n), soft: soft}
	for i := range d.state {
		d.state[i] = make([]byte, p.Slabs(plan.ObjectID(i))+1)
	}
	for s := range p.Steps {
		for _, a := range append(slices.Clone(p.Steps[s].Args), p.Steps[s].Out) {
			d.last[a] = s
		}
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			d.last[o] = len(p.Steps)
		}
	}
	for s := range p.Steps {
		st := &p.Steps[s]
		need := map[plan.ObjectID][]plan.Span{}
		for k, a := range st.Args {
			need[a] = forms.Touched(p, need[a], s, k)
		}
		for o := range d.state { // what nobody needs goes
			if d.fixed(o) || p.Objects[o].Role == plan.RoleInput {
				continue
			}
			if d.last[o] < s && d.state[o][0] == there {
				d.leave(s, plan.ActDrop, plan.ObjectID(o), 0, p.Slabs(plan.ObjectID(o)))
			}
		}
		for range d.rng.IntN(3) {
			d.shed(s, need)
		}
		for range 200 {
			if d.used+d.missing(st, need) <= d.soft {
				break
			}
			d.shed(s, need)
		}
		if d.rng.IntN(3) == 0 { // early
			for range 3 {
				if o := d.rng.IntN(n); d.fixed(o) {
					size := len(d.state[o])
					at := d.rng.IntN(size)
					d.bring(s, plan.ObjectID(o), at, at+1+d.rng.IntN(size-at))
				}
			}
		}
		for k, a := range st.Args {
			for _, span := range forms.Touched(p, nil, s, k) {
				d.bring(s, a, int(span.First), int(span.First+span.Count))
			}
		}
		for k, a := range st.Args {
			for _, span := range forms.Touched(p, nil, s, k) {
				for i := span.First; i < span.First+span.Count; i++ {
					if d.state[a][i] == inPlace {
						d.t.BytesRead += int64(p.Params.SlabBytes())
					}
				}
			}
		}
		if len(st.Args) == 0 || st.Args[0] != st.Out {
			d.arrive(st.Out, 0, p.Slabs(st.Out), there)
		}
		d.stored[st.Out] = false
	}
	for o := range d.state {
		if r := p.Objects[o].Role; (r == plan.RoleTemp || r == plan.RoleOutput) && d.last[o] < len(p.Steps) && d.state[o][0] == there {
			d.leave(len(p.Steps), plan.ActDrop, plan.ObjectID(o), 0, p.Slabs(plan.ObjectID(o)))
		}
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			d.bring(len(p.Steps), o, 0, p.Slabs(o))
		}
	}
	d.t.ArenaSlabs = d.t.PeakSlabs
	return d.t, d.made
}

func (d *dice) fixed(o int) bool {
	r := d.p.Objects[o].Role
	return r == plan.RoleKey || r == plan.RolePlain
}

func (d *dice) missing(st *plan.Step, need map[plan.ObjectID][]plan.Span) int {
	n := d.p.Slabs(st.Out)
	for o, spans := range need {
		for _, s := range spans {
			for i := s.First; i < s.First+s.Count; i++ {
				if d.state[o][i] == absent {
					n++
				}
			}
		}
	}
	return n
}

// shed lets something go that the step does not need.
func (d *dice) shed(s int, need map[plan.ObjectID][]plan.Span) {
	o := plan.ObjectID(d.rng.IntN(len(d.state)))
	if !d.fixed(int(o)) {
		if need[o] == nil && d.state[o][0] == there && d.last[o] >= s {
			kind := plan.ActSpill
			if d.stored[o] && d.rng.IntN(2) == 0 || d.p.Objects[o].Role == plan.RoleInput {
				kind = plan.ActDrop
			}
			d.leave(s, kind, o, 0, d.p.Slabs(o))
			d.stored[o] = true
		}
		return
	}
	first := d.rng.IntN(len(d.state[o]))
	end := first + 1 + d.rng.IntN(len(d.state[o])-first)
	for i := first; i < end; i++ {
		j := i
		for j < end && d.state[o][j] != absent && !slices.ContainsFunc(need[o], func(t plan.Span) bool { return t.First <= int32(j) && int32(j) < t.First+t.Count }) {
			j++
		}
		if j > i {
			d.leave(s, plan.ActDrop, o, i, j)
			i = j
		}
	}
}

func (d *dice) act(s int, kind plan.ActionKind, o plan.ObjectID, from, to int) {
	d.t.Actions = append(d.t.Actions, plan.Action{Step: int32(s), Kind: kind, Obj: o, First: int32(from), Count: int32(to - from)})
}

func (d *dice) leave(s int, kind plan.ActionKind, o plan.ObjectID, from, to int) {
	d.act(s, kind, o, from, to)
	for i := from; i < to; i++ {
		if d.state[o][i] == there {
			d.used--
		}
		d.state[o][i] = absent
	}
	if kind == plan.ActSpill {
		d.t.BytesWritten += int64((to - from) * d.p.Params.SlabBytes())
	}
}

func (d *dice) arrive(o plan.ObjectID, from, to int, how byte) {
	for i := from; i < to; i++ {
		d.state[o][i] = how
	}
	if how == there {
		d.used += to - from
	}
	d.t.PeakSlabs = max(d.t.PeakSlabs, d.used)
}

// bring makes the slabs from..to-1 resident that are not, in stretches that are
// fetched, mapped or made.
func (d *dice) bring(s int, o plan.ObjectID, from, to int) {
	slab := int64(d.p.Params.SlabBytes())
	if !d.fixed(int(o)) {
		if d.state[o][0] == absent {
			d.act(s, plan.ActFetch, o, 0, d.p.Slabs(o))
			d.arrive(o, 0, d.p.Slabs(o), there)
			if d.p.Objects[o].Role != plan.RoleInput {
				d.t.BytesRead += int64(d.p.Slabs(o)) * slab
			}
		}
		return
	}
	key, n := d.p.Objects[o].Role == plan.RoleKey, d.p.Slabs(o)
	if key {
		to = min(to, n)
	}
	for i := from; i < to; {
		if d.state[o][i] != absent {
			i++
			continue
		}
		_, stored := d.t.Forms.StoredAt(d.p, o, i)
		makes := d.t.Forms.Makes(d.p, o, i)
		if !stored && !makes {
			i++ // a source that is not there
			continue
		}
		kind := plan.ActMake
		if stored && (!makes || d.rng.IntN(2) == 0) {
			if kind = plan.ActFetch; d.maps && d.rng.IntN(2) == 0 {
				kind = plan.ActMap
			}
		}
		j := i
		for j < to && d.state[o][j] == absent && d.rng.IntN(8) > 0 {
			if _, ok := d.t.Forms.StoredAt(d.p, o, j); kind == plan.ActMake && !d.t.Forms.Makes(d.p, o, j) || kind != plan.ActMake && !ok {
				break
			}
			j++
		}
		if j == i {
			continue
		}
		source := false
		if kind == plan.ActMake && !key && d.state[o][n] == absent {
			d.bring(s, o, n, n+1)
			source = d.state[o][n] == there && to <= n
		}
		if kind == plan.ActMake && !key && d.state[o][n] == inPlace {
			d.t.BytesRead += slab
		}
		d.act(s, kind, o, i, j)
		switch kind {
		case plan.ActMake:
			d.made += j - i
			d.arrive(o, i, j, there)
		case plan.ActMap:
			d.arrive(o, i, j, inPlace)
		default:
			d.t.BytesRead += int64(j-i) * slab
			d.arrive(o, i, j, there)
		}
		if source && d.rng.IntN(2) == 0 {
			d.leave(s, plan.ActDrop, o, n, n+1)
		}
		i = j
	}
}
