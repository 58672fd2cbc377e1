package passes

import (
	"container/heap"
	"fmt"
	"math"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Execution is what PredictRun assumes of the runtime beside the Machine.
type Execution struct {
	Window     int                                   // steps issued and not yet done, per core; 0 means that of the runtime
	Accelerate float64                               // how many times faster steps and makes are; 0 means 1
	Split      float64                               // how many times faster a step is that two cores share; 0 or 1: they do not
	StepBytes  func(step int, f *plan.Forms) float64 // bytes that a step moves between DRAM and core
	CoreBps    float64                               // of these, by one core
	TotalBps   float64                               // by all cores together; 0 means no bound
}

func (x *Execution) accelerate() float64 {
	if x.Accelerate == 0 {
		return 1
	}
	return x.Accelerate
}

// runtimeWindow is the number of steps per core that the runtime issues ahead.
const runtimeWindow = 16

// PredictRun plays a plan under a tier plan that CheckTier accepts as the runtime
// executes it, event by event. Steps and makes become ready when what they depend
// on is done, and idle cores take them in plan order; at most a window of steps is
// issued ahead, and what brings slabs waits until there is room for them. The slow
// tier is one channel that serves transfers in the order in which they are issued.
// Cores share the bandwidths of DRAM and, where slabs are mapped, of the slow tier;
// a core that has nothing to do shares a step of another, where the step can be
// divided. Bytes that arrive while cores compute hold these up.
func PredictRun(p *plan.Plan, t *plan.Tier, m *Machine, x *Execution) *Prediction {
	r := newPredictedRun(p, t, m, x)
	r.issue()
	r.dispatch()
	for r.flying > 0 || int(r.step) <= len(p.Steps) {
		at := r.action + int(r.step)
		if r.force = !r.advance(); r.force && r.flying > 0 {
			panic("BUG: a predicted run waits for itself")
		}
		r.issue()
		r.dispatch()
		if r.force && r.flying == 0 && r.action+int(r.step) == at {
			panic("BUG: a predicted run cannot go on")
		}
		r.force = false
	}
	r.out.Seconds = r.now
	r.out.Start[len(p.Steps)] = r.now
	if r.out.StallSeconds < 1e-12*r.now {
		r.out.StallSeconds = 0
	}
	return r.out
}

// Nodes of a predicted run: the steps, and after them the actions.
type predictedRun struct {
	p   *plan.Plan
	t   *plan.Tier
	m   *Machine
	x   *Execution
	out *Prediction

	slab   float64
	base   []int32 // first slab of an object, all numbered through with one source each
	source []int32 // per slab: node that brings it, -1 for none; of temporaries, for the whole object
	mapped []bool  // per slab
	writer []int32 // per object
	reader [][]int32
	pins   []int32 // per object: nodes under way that use it
	leaves []int32 // per object: slabs that are freed when the pins are gone
	deps   []int32
	direct []int32 // slabs that a node reads in the slow tier
	done   []bool
	head   []int32 // of the list of nodes that wait for a node
	edges  []predictedEdge
	spare  int32 // list of free edges

	now      float64
	step     int32 // next to be issued
	action   int
	room     int32
	window   int32
	issued   int32
	flying   int32
	force    bool
	channel  float64 // when it is free
	busy     float64 // how long cores computed
	seen     float64 // of that, up to the last arrival
	lost     float64 // seconds of input for which cores have still to stand still
	arrivals predictedArrivals
	ready    predictedReady
	running  []predictedTask
	spans    []plan.Span
}

type predictedEdge struct{ to, next int32 }

// predictedTask is something that a core does. left is the share not yet done, rate
// the share done per second.
type predictedTask struct {
	node            int32
	order           int32 // step
	compute, memory float64
	tier            float64 // bytes read in place
	divisible       bool
	left, rate      float64
}

type predictedArrival struct {
	at       float64
	transfer float64 // seconds of reading from the slow tier
	node     int32
}

type predictedArrivals []predictedArrival

func (h predictedArrivals) Len() int { return len(h) }
func (h predictedArrivals) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].node < h[j].node
}
func (h predictedArrivals) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *predictedArrivals) Push(x any)   { *h = append(*h, x.(predictedArrival)) }
func (h *predictedArrivals) Pop() any     { return popLast((*[]predictedArrival)(h)) }

type predictedReady []predictedTask

func (h predictedReady) Len() int { return len(h) }
func (h predictedReady) Less(i, j int) bool {
	return h[i].order < h[j].order || h[i].order == h[j].order && h[i].node > h[j].node // makes before their step
}
func (h predictedReady) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *predictedReady) Push(x any)   { *h = append(*h, x.(predictedTask)) }
func (h *predictedReady) Pop() any     { return popLast((*[]predictedTask)(h)) }

func popLast[T any](s *[]T) T {
	last := len(*s) - 1
	x := (*s)[last]
	*s = (*s)[:last]
	return x
}

func newPredictedRun(p *plan.Plan, t *plan.Tier, m *Machine, x *Execution) *predictedRun {
	nodes := len(p.Steps) + len(t.Actions)
	r := &predictedRun{p: p, t: t, m: m, x: x, slab: float64(p.Params.SlabBytes()), spare: -1, room: int32(t.ArenaSlabs),
		out: &Prediction{Start: make([]float64, len(p.Steps)+1)}, base: make([]int32, len(p.Objects)+1),
		writer: make([]int32, len(p.Objects)), reader: make([][]int32, len(p.Objects)), pins: make([]int32, len(p.Objects)), leaves: make([]int32, len(p.Objects)),
		deps: make([]int32, nodes), direct: make([]int32, nodes), done: make([]bool, nodes), head: make([]int32, nodes)}
	for i := range p.Objects {
		r.base[i+1] = r.base[i] + int32(p.Slabs(plan.ObjectID(i))) + 1
		r.writer[i] = -1
	}
	r.source, r.mapped = make([]int32, r.base[len(p.Objects)]), make([]bool, r.base[len(p.Objects)])
	for i := range r.source {
		r.source[i] = -1
	}
	for i := range r.head {
		r.head[i] = -1
	}
	r.window = int32(x.Window)
	if r.window == 0 {
		r.window = runtimeWindow
	}
	r.window *= int32(r.cores())
	return r
}

func (r *predictedRun) cores() int { return max(1, r.m.Cores) }

// after makes a node wait for another, if that is not done.
func (r *predictedRun) after(n, on int32) {
	if on < 0 || on == n || r.done[on] {
		return
	}
	e := r.spare
	if e >= 0 {
		r.spare = r.edges[e].next
		r.edges[e] = predictedEdge{n, r.head[on]}
	} else {
		e = int32(len(r.edges))
		r.edges = append(r.edges, predictedEdge{n, r.head[on]})
	}
	r.head[on] = e
	r.deps[n]++
}

// fixed reports whether an object is read slab by slab from the slow tier.
func (r *predictedRun) fixed(o plan.ObjectID) bool {
	role := r.p.Objects[o].Role
	return role == plan.RoleKey || role == plan.RolePlain
}

// issue issues actions and steps in order, as far as the window and the room allow.
func (r *predictedRun) issue() {
	for int(r.step) <= len(r.p.Steps) {
		for r.action < len(r.t.Actions) && r.t.Actions[r.action].Step <= r.step {
			if !r.act(r.action) {
				return
			}
			r.action++
		}
		if int(r.step) == len(r.p.Steps) {
			r.step++
			return
		}
		if r.issued >= r.window && !r.force {
			return
		}
		if !r.issueStep(r.step) {
			return
		}
		r.step++
	}
}

// take takes slabs of the arena.
func (r *predictedRun) take(n int32) bool {
	if n > r.room && !(r.force && r.flying == 0) {
		return false
	}
	r.room -= n
	return true
}

func (r *predictedRun) leave(o plan.ObjectID, n int32) {
	if r.pins[o] == 0 {
		r.room += n
	} else {
		r.leaves[o] += n
	}
}

func (r *predictedRun) unpin(o plan.ObjectID) {
	if r.pins[o]--; r.pins[o] == 0 {
		r.room += r.leaves[o]
		r.leaves[o] = 0
	}
}

// act begins action i, or returns false where there is no room for it yet.
func (r *predictedRun) act(i int) bool {
	a, n := &r.t.Actions[i], int32(len(r.p.Steps)+i)
	from, to := r.base[a.Obj]+a.First, r.base[a.Obj]+a.First+a.Count
	switch a.Kind {
	case plan.ActDrop:
		count := int32(0)
		for k := from; k < to; k++ {
			if !r.mapped[k] {
				count++
			}
			r.mapped[k] = false
		}
		r.leave(a.Obj, count)
		r.done[n] = true
		return true
	case plan.ActMap:
		for k := from; k < to; k++ {
			r.source[k], r.mapped[k] = -1, true
		}
		r.done[n] = true
		return true
	case plan.ActSpill:
		r.after(n, r.writer[a.Obj])
		r.source[r.base[a.Obj]] = n
		r.pins[a.Obj]++
		r.leave(a.Obj, a.Count)
		r.launch(n)
		return true
	}
	if !r.take(a.Count) {
		return false
	}
	role := r.p.Objects[a.Obj].Role
	switch {
	case a.Kind == plan.ActMake:
		if role == plan.RolePlain {
			source := r.base[a.Obj+1] - 1
			r.after(n, r.source[source])
			if r.mapped[source] {
				r.direct[n]++
			}
		}
	case !r.fixed(a.Obj): // after it was spilled
		r.after(n, r.source[r.base[a.Obj]])
		r.writer[a.Obj] = n
	}
	for k := from; k < to; k++ {
		r.source[k], r.mapped[k] = n, false
	}
	r.pins[a.Obj]++
	r.launch(n)
	return true
}

// issueStep issues a step, or returns false where there is no room for its result.
func (r *predictedRun) issueStep(s int32) bool {
	st := &r.p.Steps[s]
	update := len(st.Args) > 0 && st.Args[0] == st.Out
	if !update && !r.take(int32(r.p.Slabs(st.Out))) {
		return false
	}
	for k, o := range st.Args {
		r.pins[o]++
		if !r.fixed(o) {
			r.after(s, r.source[r.base[o]])
			r.after(s, r.writer[o])
			if !(update && k == 0) {
				r.reader[o] = append(r.reader[o], s)
			}
			continue
		}
		last := int32(-1)
		r.spans = r.t.Forms.Touched(r.p, r.spans[:0], int(s), k)
		for _, x := range r.spans {
			for i := r.base[o] + x.First; i < r.base[o]+x.First+x.Count; i++ {
				if r.mapped[i] {
					r.direct[s]++
				}
				if r.source[i] != last {
					last = r.source[i]
					r.after(s, last)
				}
			}
		}
	}
	r.pins[st.Out]++
	if update {
		for _, x := range r.reader[st.Out] {
			r.after(s, x)
		}
	}
	r.reader[st.Out], r.writer[st.Out], r.source[r.base[st.Out]] = r.reader[st.Out][:0], s, -1
	r.issued++
	r.launch(s)
	return true
}

func (r *predictedRun) launch(n int32) {
	r.flying++
	if r.deps[n] == 0 {
		r.begin(n)
	}
}

// begin starts a node that waits for nothing any more.
func (r *predictedRun) begin(n int32) {
	accelerate := r.x.accelerate()
	if int(n) < len(r.p.Steps) {
		st := &r.p.Steps[n]
		task := predictedTask{node: n, order: n, left: 1}
		seconds := 0.0
		if r.m.StepSeconds != nil {
			seconds = r.m.StepSeconds(int(n), &r.t.Forms) / accelerate
		}
		r.out.StepSeconds += seconds
		if r.x.StepBytes != nil && r.x.CoreBps > 0 {
			task.memory = r.x.StepBytes(int(n), &r.t.Forms)
			task.compute = max(0, seconds-task.memory/(r.x.CoreBps*accelerate))
		} else {
			task.compute = seconds
		}
		task.tier = float64(r.direct[n]) * r.slab
		r.out.BytesMapped += int64(task.tier)
		task.memory = max(0, task.memory-task.tier)
		task.divisible = divisible(st.Op)
		heap.Push(&r.ready, task)
		return
	}
	a := &r.t.Actions[int(n)-len(r.p.Steps)]
	bytes := float64(a.Count) * r.slab
	switch {
	case a.Kind == plan.ActMake:
		task := predictedTask{node: n, order: a.Step, left: 1}
		if r.m.MakeSeconds != nil {
			task.compute = float64(a.Count) * r.m.MakeSeconds(a.Obj) / accelerate
		}
		r.out.MakeSeconds += task.compute
		task.tier = float64(r.direct[n]) * r.slab
		r.out.BytesMapped += int64(task.tier)
		task.divisible = a.Count > 1
		heap.Push(&r.ready, task)
		return
	case a.Kind == plan.ActFetch && r.p.Objects[a.Obj].Role == plan.RoleInput:
		heap.Push(&r.arrivals, predictedArrival{at: r.now, node: n})
		return
	case a.Kind == plan.ActFetch:
		r.out.BytesRead += int64(bytes)
		bytes /= r.m.Tier.ReadBps
	default:
		r.out.BytesWritten += int64(bytes)
		bytes /= r.m.Tier.WritBps
	}
	x := predictedArrival{node: n}
	if a.Kind == plan.ActFetch {
		x.transfer = bytes
	}
	r.channel = max(r.channel, r.now) + max(bytes, r.m.Tier.Latency/float64(max(1, r.m.Tier.Depth)))
	x.at = r.channel + r.m.Tier.Latency
	heap.Push(&r.arrivals, x)
}

// ExecutionOf returns how the runtime executes a plan on a machine that a profile
// describes.
func ExecutionOf(p *plan.Plan, prof *backend.Profile) Execution {
	x := Execution{Split: prof.Split, StepBytes: func(i int, f *plan.Forms) float64 { return StepBytes(p, i, f) }}
	if x.CoreBps = memoryBps(prof); x.CoreBps > 0 {
		x.TotalBps = max(x.CoreBps, prof.Tiers[0].ReadBps)
	}
	return x
}

// divisible reports whether two cores can share a step: those that go limb by limb
// with transforms.
func divisible(op ir.Op) bool {
	switch op {
	case ir.OpHEMul, ir.OpHEMulRescale, ir.OpHEMacRescale, ir.OpHERotate, ir.OpHERealPart, ir.OpHEDecompose, ir.OpHEGiant,
		ir.OpHEModDown, ir.OpHEModDownRescale, ir.OpHERescale, ir.OpHERaise:
		return true
	}
	return false
}

// dispatch gives ready tasks to idle cores and sets how fast every task goes.
func (r *predictedRun) dispatch() {
	for len(r.running) < r.cores() && len(r.ready) > 0 {
		task := heap.Pop(&r.ready).(predictedTask)
		if int(task.node) < len(r.p.Steps) {
			r.out.Start[task.node] = r.now
		}
		r.running = append(r.running, task)
	}
	idle := r.cores() - len(r.running)
	busy, direct := float64(len(r.running)), 0.0
	helped := 0
	for i := range r.running {
		if r.running[i].tier > 0 {
			direct++
		}
		if r.x.Split > 1 && idle > helped && r.running[i].divisible {
			helped++
		}
	}
	busy += float64(helped)
	bps := r.x.CoreBps * r.x.accelerate()
	if r.x.TotalBps > 0 {
		bps = min(bps, r.x.TotalBps/max(1, busy))
	}
	for i := range r.running {
		x := &r.running[i]
		seconds := x.compute
		if x.memory > 0 {
			seconds += x.memory / bps
		}
		if r.x.Split > 1 && idle > 0 && x.divisible {
			idle--
			seconds /= r.x.Split
		}
		if x.tier > 0 {
			seconds += x.tier / (r.m.Tier.ReadBps / direct)
		}
		x.rate = math.Inf(1)
		if seconds > 0 {
			x.rate = 1 / seconds
		}
	}
}

// advance goes to the next moment at which something ends, and ends it. It returns
// false where nothing is under way.
func (r *predictedRun) advance() bool {
	next := math.Inf(1)
	if len(r.arrivals) > 0 {
		next = r.arrivals[0].at
	}
	for i := range r.running {
		next = min(next, r.now+r.lost+r.running[i].left/r.running[i].rate)
	}
	if math.IsInf(next, 1) {
		return false
	}
	passed := next - r.now
	if len(r.running) == 0 {
		r.out.StallSeconds += passed
	} else {
		r.busy += passed
		lost := min(r.lost, passed)
		r.out.InputSeconds += lost
		r.lost -= lost
		passed -= lost
	}
	r.now = next
	kept := r.running[:0]
	var ended [8]int32
	over := ended[:0]
	for _, x := range r.running {
		if x.left -= passed * x.rate; x.left <= 1e-9 || math.IsInf(x.rate, 1) {
			over = append(over, x.node)
			continue
		}
		kept = append(kept, x)
	}
	r.running = kept
	for _, n := range over {
		r.finish(n)
	}
	for len(r.arrivals) > 0 && r.arrivals[0].at <= r.now {
		x := heap.Pop(&r.arrivals).(predictedArrival)
		if x.transfer > 0 {
			r.lost += r.m.Input * r.m.Tier.ReadBps * min(r.busy-r.seen, x.transfer)
			r.seen = r.busy
		}
		r.finish(x.node)
	}
	return true
}

// finish ends a node and begins those that waited for it only.
func (r *predictedRun) finish(n int32) {
	r.done[n] = true
	r.flying--
	if int(n) < len(r.p.Steps) {
		st := &r.p.Steps[n]
		r.issued--
		for _, o := range st.Args {
			r.unpin(o)
		}
		r.unpin(st.Out)
	} else {
		r.unpin(r.t.Actions[int(n)-len(r.p.Steps)].Obj)
	}
	for e := r.head[n]; e >= 0; {
		to, next := r.edges[e].to, r.edges[e].next
		r.edges[e].next, r.spare = r.spare, e
		if r.deps[to]--; r.deps[to] == 0 {
			r.begin(to)
		}
		e = next
	}
	r.head[n] = -1
}

// PredictAt predicts a run of a plan under a tier plan, on some cores of a machine
// that is speed times as fast as its profile says.
func PredictAt(p *plan.Plan, t *plan.Tier, prof *backend.Profile, cores int, speed float64) *Prediction {
	m, x := MachineOf(p, prof, cores), ExecutionOf(p, prof)
	x.Accelerate = speed
	x.TotalBps *= speed
	m.Input /= speed
	return PredictRun(p, t, &m, &x)
}

// Supposed is a machine to predict a run for.
type Supposed struct {
	DRAM       int64 // bytes of the whole process; 0: no bound
	Profile    *backend.Profile
	Cores      int     // 0 means 1
	Accelerate float64 // how many times faster a core computes than that of the profile; 0 means 1
	// Forms of the slow tier; nil: those of the plan, or with Refit what suits this
	// machine.
	Forms *plan.Forms
	Refit bool
}

// Suppose plans the tiers of a plan for a machine and predicts the run. The plan
// stays as it is. The error is a *BudgetError where the budget is too small.
func Suppose(p *plan.Plan, s Supposed) (*plan.Tier, *Prediction, error) {
	other := *p
	switch {
	case s.Forms != nil:
		other.Tier = &plan.Tier{Forms: *s.Forms}
	case s.Refit:
		other.Tier = nil
	}
	cores, accelerate := max(1, s.Cores), max(1, s.Accelerate)
	reserve := TierReserve(&p.Params, cores)
	if least := leastBudget(&other, reserve); s.DRAM > 0 && s.DRAM < least {
		return nil, nil, &BudgetError{Budget: s.DRAM, Least: least}
	}
	m := MachineOf(&other, s.Profile, cores)
	fast, step, making := m, m.StepSeconds, m.MakeSeconds
	fast.StepSeconds = func(i int, f *plan.Forms) float64 { return step(i, f) / accelerate }
	fast.MakeSeconds = func(o plan.ObjectID) float64 { return making(o) / accelerate }
	fast.Input /= accelerate // its memory is faster, too
	m.Input = fast.Input
	t, err := Tiering(&other, TierOptions{DRAM: s.DRAM, Reserve: reserve, Profile: s.Profile.Digest(), Machine: fast})
	if err != nil {
		return nil, nil, err
	}
	if err := CheckTier(&other, t); err != nil {
		return nil, nil, fmt.Errorf("BUG: the tier plan fails its check: %w", err)
	}
	x := ExecutionOf(&other, s.Profile)
	x.Accelerate = accelerate
	if measured := s.Profile.Cores(); cores > measured && x.CoreBps > 0 {
		// More cores than were measured have the memory of a server.
		for _, tech := range backend.Technologies() {
			if tech.Name == "dram" {
				x.TotalBps = max(x.TotalBps, min(float64(cores)*x.CoreBps, tech.ReadBps))
			}
		}
	}
	x.TotalBps *= accelerate
	other.Tier = t
	return t, PredictRun(&other, t, &m, &x), nil
}
