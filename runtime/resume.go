package runtime

import (
	"slices"

	"github.com/home-fhe/home/ir/plan"
)

// lives says from when to when temporaries and outputs hold something that is
// still wanted: from the step that makes them to the last that reads them.
type lives struct {
	born, last []int32 // per object; born is len(steps)+1 for what no step makes
}

func newLives(p *plan.Plan) *lives {
	n := int32(len(p.Steps))
	l := &lives{born: make([]int32, len(p.Objects)), last: make([]int32, len(p.Objects))}
	for i := range l.born {
		l.born[i], l.last[i] = n+1, -1
	}
	for s := range p.Steps {
		st := &p.Steps[s]
		for _, a := range st.Args {
			l.last[a] = int32(s)
		}
		l.born[st.Out] = min(l.born[st.Out], int32(s))
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			l.last[o] = n
		}
	}
	return l
}

// alive reports whether an object holds, between step-1 and step, what a later
// step or the reader of the outputs wants.
func (l *lives) alive(obj plan.ObjectID, step int32) bool {
	return l.born[obj] < step && l.last[obj] >= step
}

// at lists the objects that are alive before a step, by id.
func (l *lives) at(step int32) []plan.ObjectID {
	var out []plan.ObjectID
	for i := range l.born {
		if l.alive(plan.ObjectID(i), step) {
			out = append(out, plan.ObjectID(i))
		}
	}
	return out
}

// Ways in which a slab came to be where a step finds it.
const (
	notThere = iota
	fetched
	made
	mapped
)

// resumeActions returns the actions of a run that begins at a step: first those
// that bring what the actions before that step would have left resident, in the way
// in which it came, and then the actions from that step on. Temporaries and outputs
// that are alive are fetched, or stay where they are if they were spilled: whoever
// executes the actions reads them from the snapshot until they are spilled anew. Of
// those that are not, nothing more is said.
//
// What is brought fits into the arena that the actions were made for: sources of
// plaintexts that were dropped by then are there one at a time, before the
// temporaries, of which there is a slab at least, or was one that is not brought.
func resumeActions(p *plan.Plan, actions []plan.Action, l *lives, step int32) []plan.Action {
	how := make([][]uint8, len(p.Objects)) // per object and slab, the source last
	set := func(obj plan.ObjectID, first, count int32, way uint8) {
		if obj < 0 || int(obj) >= len(how) {
			return // the executor refuses it
		}
		n := int32(p.Slabs(obj)) + 1
		if how[obj] == nil {
			how[obj] = make([]uint8, n)
		}
		for i := max(first, 0); i < min(first+count, n); i++ {
			how[obj][i] = way
		}
	}
	rest := 0
	for s := range step {
		for ; rest < len(actions) && actions[rest].Step <= s; rest++ {
			a := &actions[rest]
			way := uint8(notThere)
			switch a.Kind {
			case plan.ActFetch:
				way = fetched
			case plan.ActMake:
				way = made
			case plan.ActMap:
				way = mapped
			}
			set(a.Obj, a.First, a.Count, way)
		}
		if st := &p.Steps[s]; len(st.Args) == 0 || st.Args[0] != st.Out {
			set(st.Out, 0, int32(p.Slabs(st.Out)), fetched)
		}
	}

	var early, late []plan.ObjectID // with a source for the moment; all others
	var temps []plan.Action
	for i := range how {
		obj := plan.ObjectID(i)
		if how[i] == nil {
			continue
		}
		n := len(how[i]) - 1
		switch role := p.Objects[i].Role; {
		case role == plan.RoleTemp || role == plan.RoleOutput || role == plan.RoleInput:
			if slices.Contains(how[i], fetched) && (role == plan.RoleInput || l.alive(obj, step)) {
				temps = append(temps, plan.Action{Step: step, Kind: plan.ActFetch, Obj: obj, Count: int32(n)})
			}
		case role == plan.RolePlain && how[i][n] == notThere && slices.Contains(how[i], made):
			early = append(early, obj)
		default:
			late = append(late, obj)
		}
	}
	next := make([]int32, len(p.Objects)) // step of the next use
	for i := range next {
		next[i] = int32(len(p.Steps)) + 1
	}
	for s := int32(len(p.Steps)) - 1; s >= step; s-- {
		for _, a := range p.Steps[s].Args {
			next[a] = s
		}
	}
	soonest := func(a, b plan.ObjectID) int { return int(next[a]) - int(next[b]) }
	slices.SortStableFunc(early, soonest)
	slices.SortStableFunc(late, soonest)

	var out []plan.Action
	add := func(kind plan.ActionKind, obj plan.ObjectID, first, count int) {
		out = append(out, plan.Action{Step: step, Kind: kind, Obj: obj, First: int32(first), Count: int32(count)})
	}
	ranges := func(obj plan.ObjectID, way uint8, kind plan.ActionKind) {
		h := how[obj]
		for i := 0; i < len(h); {
			k, end := i, len(h)-1
			if i == end { // the source has an action of its own
				end++
			}
			for k < end && h[k] == way {
				k++
			}
			if k > i {
				add(kind, obj, i, k-i)
			}
			i = max(k, i+1)
		}
	}
	bring := func(obj plan.ObjectID) {
		ranges(obj, fetched, plan.ActFetch)
		ranges(obj, mapped, plan.ActMap)
		ranges(obj, made, plan.ActMake)
	}
	for _, obj := range early {
		source := len(how[obj]) - 1
		add(plan.ActFetch, obj, source, 1)
		bring(obj)
		add(plan.ActDrop, obj, source, 1)
	}
	out = append(out, temps...)
	for _, obj := range late {
		bring(obj)
	}
	for _, a := range actions[rest:] {
		if a.Obj >= 0 && int(a.Obj) < len(how) && l.born[a.Obj] < step && !l.alive(a.Obj, step) {
			continue
		}
		out = append(out, a)
	}
	return out
}

// checkpointBins is how many places of a run are considered for a snapshot.
const checkpointBins = 512

// checkpointSteps returns the steps before which a snapshot may be taken, with the
// slabs that are alive there and the share of the work done by then. The program
// is cut into pieces of about the same work, as counted by the slabs that steps
// touch, and of each the step with the least alive is taken, the first of equals.
func checkpointSteps(p *plan.Plan, l *lives) (steps []int32, slabs []int, work []float64) {
	n := len(p.Steps)
	alive := make([]int, n+2)
	for i := range l.born {
		if l.born[i] < int32(n) && l.last[i] > l.born[i] {
			alive[l.born[i]+1] += p.Slabs(plan.ObjectID(i))
			alive[l.last[i]+1] -= p.Slabs(plan.ObjectID(i))
		}
	}
	for s := 1; s <= n; s++ {
		alive[s] += alive[s-1]
	}
	done := make([]float64, n+1)
	var spans []plan.Span
	var all plan.Forms // what steps make themselves is work too
	for s := range n {
		touched := p.Slabs(p.Steps[s].Out)
		for k := range p.Steps[s].Args {
			spans = all.Touched(p, spans[:0], s, k)
			for _, x := range spans {
				touched += int(x.Count)
			}
		}
		done[s+1] = done[s] + float64(touched)
	}
	bin := -1
	for s := 1; s < n; s++ {
		w := done[s] / done[n]
		if b := int(w * checkpointBins); b != bin {
			bin = b
			steps, slabs, work = append(steps, int32(s)), append(slabs, alive[s]), append(work, w)
		} else if k := len(steps) - 1; alive[s] < slabs[k] {
			steps[k], slabs[k], work[k] = int32(s), alive[s], w
		}
	}
	return steps, slabs, work
}
