package passes

import (
	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan"
)

// Machine is what Predict assumes of the machine that runs a plan.
type Machine struct {
	Cores       int                                   // 0 means 1
	StepSeconds func(step int, f *plan.Forms) float64 // on one core, operands in DRAM or, by the forms, made
	MakeSeconds func(obj plan.ObjectID) float64       // ActMake of one slab, on one core
	Tier        backend.TierProfile                   // the slow tier
	Input       float64                               // seconds that the steps lose for each byte that is read while they run
	MemoryBps   float64                               // of the time of a step, bytes per second that a core moves to and from DRAM; 0: none of it
}

// Prediction is what one run is predicted to take and to move.
type Prediction struct {
	Seconds      float64
	StallSeconds float64 // no core computes, because data are on their way
	StepSeconds  float64 // CPU time of the steps
	MakeSeconds  float64 // CPU time of ActMake
	InputSeconds float64 // of Seconds, what steps lost to input beside them
	BytesRead    int64   // from the slow tier into DRAM; inputs come from the caller
	BytesWritten int64
	BytesMapped  int64     // read by steps where they lie in the slow tier, each time
	Start        []float64 // when each step starts; the last entry is the end
}

// Predict plays a plan under a tier plan that CheckTier accepts: the slow tier
// is one channel that serves transfers in the order in which they are issued;
// what is made is made when it is first used.
func Predict(p *plan.Plan, t *plan.Tier, m *Machine) *Prediction {
	cores := float64(max(1, m.Cores))
	slab := float64(p.Params.SlabBytes())
	// Slabs of all objects, and their sources, are numbered through.
	base := make([]int, len(p.Objects)+1)
	for i := range p.Objects {
		base[i+1] = base[i] + p.Slabs(plan.ObjectID(i)) + 1
	}
	arrival := make([]float64, base[len(p.Objects)]) // of what is fetched; of a made slab, of its source
	late := make([]float64, len(arrival))            // seconds of making that are still to be done
	mapped := make([]bool, len(arrival))
	r := &Prediction{Start: make([]float64, len(p.Steps)+1)}
	now, free := 0.0, 0.0
	input := inputCost{perByte: m.Input, bps: m.Tier.ReadBps}
	seconds := func(obj plan.ObjectID) float64 {
		if m.MakeSeconds == nil {
			return 0
		}
		return m.MakeSeconds(obj) / cores
	}
	act := func(a *plan.Action) {
		from := base[a.Obj] + int(a.First)
		to := from + int(a.Count)
		switch a.Kind {
		case plan.ActFetch:
			if p.Objects[a.Obj].Role == plan.RoleInput {
				for i := from; i < to; i++ {
					arrival[i], late[i], mapped[i] = now, 0, false
				}
				return
			}
			fixed := tierFixed(p.Objects[a.Obj].Role)
			count := 0
			for i := from; i < to; i++ {
				late[i], mapped[i] = 0, false
				if slab := i - base[a.Obj]; fixed && t.Forms.Of(p, a.Obj) == plan.Compact && a.First == 0 && int(a.Count) == p.Slabs(a.Obj) && t.Forms.Makes(p, a.Obj, slab) {
					late[i] = seconds(a.Obj) // the whole object of its compact form
					continue
				}
				count++
			}
			if fixed && count == 0 {
				count = 1
			}
			input.transfer(max(free, now), float64(count)*slab)
			free = max(free, now) + float64(count)*slab/m.Tier.ReadBps
			for i := from; i < to; i++ {
				arrival[i] = free + m.Tier.Latency
			}
			r.BytesRead += int64(count) * int64(slab)
		case plan.ActMake:
			ready := now
			if p.Objects[a.Obj].Role == plan.RolePlain {
				source := base[a.Obj+1] - 1
				if ready = arrival[source]; mapped[source] {
					r.BytesMapped += int64(slab)
				}
			}
			for i := from; i < to; i++ {
				arrival[i], late[i], mapped[i] = ready, seconds(a.Obj), false
			}
		case plan.ActMap:
			for i := from; i < to; i++ {
				arrival[i], late[i], mapped[i] = now, 0, true
			}
		case plan.ActSpill:
			free = max(free, now) + float64(a.Count)*slab/m.Tier.WritBps
			r.BytesWritten += int64(a.Count) * int64(slab)
		}
	}
	next := 0
	var spans []plan.Span
	for s := 0; s <= len(p.Steps); s++ {
		for ; next < len(t.Actions) && int(t.Actions[next].Step) == s; next++ {
			act(&t.Actions[next])
		}
		ready, work, direct := now, 0.0, 0.0
		use := func(obj plan.ObjectID, spans []plan.Span) {
			for _, x := range spans {
				for i := base[obj] + int(x.First); i < base[obj]+int(x.First+x.Count); i++ {
					ready = max(ready, arrival[i])
					work, late[i] = work+late[i], 0
					if mapped[i] {
						direct += slab
					}
				}
			}
		}
		if s == len(p.Steps) {
			for _, port := range p.Outputs {
				for _, o := range port.Objects {
					use(o, []plan.Span{{First: 0, Count: int32(p.Slabs(o))}})
				}
			}
		} else {
			for k, o := range p.Steps[s].Args {
				spans = t.Forms.Touched(p, spans[:0], s, k)
				use(o, spans)
			}
		}
		r.StallSeconds += ready - now
		r.MakeSeconds += work * cores
		input.idle(now, ready)
		lost := input.busy(ready + work)
		r.InputSeconds += lost
		now = ready + work + lost
		r.Start[s] = now
		if s == len(p.Steps) {
			break
		}
		d := 0.0
		if m.StepSeconds != nil {
			d = m.StepSeconds(s, &t.Forms)
			r.StepSeconds += d
		}
		// What lies in the slow tier takes its time there instead of that in DRAM.
		extra := direct / m.Tier.ReadBps
		if m.MemoryBps > 0 {
			extra = max(0, extra-direct/m.MemoryBps)
		}
		d = d/cores + extra
		r.BytesMapped += int64(direct)
		lost = input.busy(now + d)
		r.InputSeconds += lost
		now += d + lost
		out := p.Steps[s].Out
		for i := base[out]; i < base[out+1]; i++ {
			arrival[i], mapped[i] = now, false
		}
	}
	r.Seconds = now
	if r.StallSeconds < 1e-12*now {
		r.StallSeconds = 0
	}
	return r
}

// inputCost says what steps lose to transfers that run beside them: so much for every
// byte that arrives while a core computes, nothing for one that arrives while all
// wait.
type inputCost struct {
	perByte, bps float64
	queue        []span // transfers that were issued, in order; those before next are charged
	next         int
	charged      float64 // up to this time
}

// span is a range of time.
type span struct{ from, to float64 }

// transfer records a transfer that begins at a time.
func (c *inputCost) transfer(at, bytes float64) {
	if c.perByte > 0 {
		c.queue = append(c.queue, span{at, at + bytes/c.bps})
	}
}

// moved returns how long transfers run between the last call and a time.
func (c *inputCost) moved(to float64) float64 {
	sum := 0.0
	for ; c.next < len(c.queue); c.next++ {
		x := &c.queue[c.next]
		if x.from >= to {
			break
		}
		sum += max(0, min(x.to, to)-max(x.from, c.charged))
		if x.to > to {
			break
		}
	}
	c.charged = max(c.charged, to)
	return sum
}

// idle passes over a time in which no core computes.
func (c *inputCost) idle(from, to float64) {
	if to > from {
		c.moved(to)
	}
}

// busy returns the seconds that are lost to transfers from the time before to the
// given one, in which cores compute.
func (c *inputCost) busy(to float64) float64 { return c.moved(to) * c.bps * c.perByte }
