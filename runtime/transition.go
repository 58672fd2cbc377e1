package runtime

import (
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// ranges returns the actions of a tier plan and how many slabs they need beyond its
// arena. It reads the older way of speaking as well, in which the fetch of the whole
// of an object that the slow tier does not hold whole means that, and making the
// rest.
func ranges(p *plan.Plan) (out []plan.Action, more int) {
	t := p.Tier
	for _, a := range t.Actions {
		if a.Kind != plan.ActFetch || a.Obj < 0 || int(a.Obj) >= len(p.Objects) || a.First != 0 || int(a.Count) != p.Slabs(a.Obj) || t.Forms.Of(p, a.Obj) != plan.Compact {
			out = append(out, a)
			continue
		}
		n := a.Count
		if ty := &p.Objects[a.Obj].Type; ty.Kind == ir.KeyKind {
			a.Count = int32(ty.Level + 1 + len(p.Params.P))
			for ; a.First < n; a.First += a.Count {
				if a.Kind = plan.ActFetch; p.Uniform(a.Obj, int(a.First)) {
					a.Kind = plan.ActMake
				}
				out = append(out, a)
			}
			continue
		}
		a.First, a.Count = n, 1
		b, c := a, a
		b.Kind, b.First, b.Count = plan.ActMake, 0, n
		c.Kind = plan.ActDrop
		out = append(out, a, b, c)
		more = 1
	}
	return out, more
}

// peak returns the most slabs that the actions make resident at once.
func (x *Executor) peak() int {
	if x.p.Tier.PeakSlabs > 0 {
		return x.p.Tier.PeakSlabs
	}
	most, now, next := 0, 0, 0
	for s := range x.p.Steps {
		for ; next < len(x.actions) && int(x.actions[next].Step) <= s; next++ {
			switch a := x.actions[next]; a.Kind {
			case plan.ActFetch, plan.ActMake:
				now += int(a.Count)
			case plan.ActDrop, plan.ActSpill:
				now -= int(a.Count)
			}
			most = max(most, now)
		}
		if st := &x.p.Steps[s]; len(st.Args) == 0 || st.Args[0] != st.Out {
			now += int(x.slabs[st.Out])
		}
		most = max(most, now)
	}
	return most
}
