package passes

import (
	"errors"
	"fmt"

	"github.com/home-fhe/home/ir/plan"
)

// ErrTier marks a tier plan that does not fit its plan.
var ErrTier = errors.New("invalid tier plan")

// CheckTier replays a plan under a tier plan and verifies, independently of
// how the tier plan was made, that every object a step touches is in DRAM
// then, that nothing is fetched that the slow tier does not hold, that nothing
// still needed is lost, that outputs are there at the end, and that objects
// never take more than the arena nor arena and reserve more than the budget.
func CheckTier(p *plan.Plan, t *plan.Tier) error {
	bad := func(step int, format string, args ...any) error {
		return fmt.Errorf("%w: before step %d of %d: %s", ErrTier, step, len(p.Steps), fmt.Sprintf(format, args...))
	}
	slab := int64(p.Params.SlabBytes())
	if t.ArenaSlabs <= 0 || t.Reserve < 0 || t.Budget < 0 {
		return fmt.Errorf("%w: budget %d, reserve %d, arena of %d slabs", ErrTier, t.Budget, t.Reserve, t.ArenaSlabs)
	}
	if t.Budget > 0 && t.Reserve+int64(t.ArenaSlabs)*slab > t.Budget {
		return fmt.Errorf("%w: reserve of %d and arena of %d bytes exceed the budget of %d", ErrTier, t.Reserve, int64(t.ArenaSlabs)*slab, t.Budget)
	}
	// The last moment at which each object is needed: a step, or len(Steps)
	// for outputs.
	lastNeed := make([]int, len(p.Objects))
	for i := range lastNeed {
		lastNeed[i] = -1
	}
	for s := range p.Steps {
		for _, a := range p.Steps[s].Args {
			if a < 0 || int(a) >= len(p.Objects) {
				return bad(s, "the plan refers to object %d of %d", a, len(p.Objects))
			}
			lastNeed[a] = s
		}
		if o := p.Steps[s].Out; o < 0 || int(o) >= len(p.Objects) {
			return bad(s, "the plan refers to object %d of %d", o, len(p.Objects))
		}
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			if o < 0 || int(o) >= len(p.Objects) {
				return bad(len(p.Steps), "the plan refers to object %d of %d", o, len(p.Objects))
			}
			lastNeed[o] = len(p.Steps)
		}
	}
	resident := make([]bool, len(p.Objects))
	exists := make([]bool, len(p.Objects)) // holds content: from outside, or computed
	stored := make([]bool, len(p.Objects)) // the slow tier holds the present content
	for i := range p.Objects {
		switch p.Objects[i].Role {
		case plan.RoleKey, plan.RolePlain, plan.RoleInput:
			exists[i], stored[i] = true, true
		}
	}
	taken := int64(0)
	slabs := func(o plan.ObjectID) int64 {
		return int64(p.Params.Slabs(p.Objects[o].Type.Kind, p.Objects[o].Type.Level))
	}
	enter := func(step int, o plan.ObjectID) error {
		resident[o] = true
		taken += slabs(o)
		if taken > int64(t.ArenaSlabs) {
			return bad(step, "object %d raises the arena to %d slabs of %d", o, taken, t.ArenaSlabs)
		}
		return nil
	}
	next := 0
	for s := 0; s <= len(p.Steps); s++ {
		for ; next < len(t.Actions) && int(t.Actions[next].Step) <= s; next++ {
			a := t.Actions[next]
			if int(a.Step) != s {
				return bad(s, "action %d is for step %d: out of order", next, a.Step)
			}
			if a.Obj < 0 || int(a.Obj) >= len(p.Objects) {
				return bad(s, "action %d is for object %d of %d", next, a.Obj, len(p.Objects))
			}
			switch a.Kind {
			case plan.ActFetch:
				switch {
				case resident[a.Obj]:
					return bad(s, "object %d is fetched while it is resident", a.Obj)
				case !stored[a.Obj]:
					return bad(s, "object %d is fetched, but the slow tier does not hold its present content", a.Obj)
				}
				if err := enter(s, a.Obj); err != nil {
					return err
				}
			case plan.ActDrop, plan.ActSpill:
				if !resident[a.Obj] {
					return bad(s, "object %d leaves, but is not resident", a.Obj)
				}
				if a.Kind == plan.ActSpill {
					switch p.Objects[a.Obj].Role {
					case plan.RoleTemp, plan.RoleOutput:
					default:
						return bad(s, "object %d is read-only and is written back", a.Obj)
					}
					stored[a.Obj] = true
				}
				if !stored[a.Obj] && lastNeed[a.Obj] >= s {
					return bad(s, "object %d is dropped, is needed until step %d, and no copy is kept", a.Obj, lastNeed[a.Obj])
				}
				resident[a.Obj] = false
				taken -= slabs(a.Obj)
			default:
				return bad(s, "action %d has kind %d", next, a.Kind)
			}
		}
		if s == len(p.Steps) {
			break
		}
		st := &p.Steps[s]
		for _, a := range st.Args {
			if !exists[a] {
				return bad(s, "%s uses object %d, which does not exist yet", st.Op, a)
			}
			if !resident[a] {
				return bad(s, "%s uses object %d, which is not resident", st.Op, a)
			}
		}
		if update := len(st.Args) > 0 && st.Args[0] == st.Out; !update {
			if exists[st.Out] {
				return bad(s, "%s computes object %d, which exists", st.Op, st.Out)
			}
			if err := enter(s, st.Out); err != nil {
				return err
			}
		} else if p.Objects[st.Out].Role != plan.RoleTemp && p.Objects[st.Out].Role != plan.RoleOutput {
			return bad(s, "%s updates object %d, which is read-only", st.Op, st.Out)
		}
		exists[st.Out], stored[st.Out] = true, false
	}
	if next < len(t.Actions) {
		return bad(len(p.Steps), "action %d is for step %d", next, t.Actions[next].Step)
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			if !resident[o] || !exists[o] {
				return bad(len(p.Steps), "output object %d is not resident at the end", o)
			}
		}
	}
	return nil
}
