package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/store"
)

// object is the state of one object while anything of it is resident or on its way.
type object struct {
	rows   [][]byte // resident slabs, the source last, nil where absent; none where no slab is there
	mapped []bool   // rows that lie in the slow tier; none where no row does
	here   int32    // resident slabs, the source apart
	bound  *binding // over the rows; nil since they changed
	writer ref      // last step that writes it
	coming []ref    // what brings slabs
	users  []use    // what reads it
}

// binding is an operand over slabs. It serves others when no node uses it and no object
// has it.
type binding struct {
	op    backend.Operand
	nodes int  // that use it
	held  bool // by an object
}

// use is a node that reads an object: a step as its argument arg, or else a make
// from its source or a spill.
type use struct {
	ref
	arg int
}

type nodeKind uint8

const (
	stepNode  nodeKind = iota
	makeNode           // computes slabs on a worker
	fetchNode          // reads slabs
	mapNode            // checks slabs that are used where they lie
	spillNode          // writes slabs
	dropNode           // frees slabs
	saveNode           // writes a snapshot
)

// node is a unit of work on the scoreboard: a step, or something that an action
// asks for. It becomes ready when the nodes it depends on are done. What is done serves
// again as another, so that a run takes as much memory as is in flight at once and
// leaves the collector nothing to do; who may outlive a node keeps a ref.
type node struct {
	kind     nodeKind
	life     uint32 // how often it was done
	step     int32  // the step, or the step before which the action happens
	obj      plan.ObjectID
	span     plan.Span // slabs of the object that an action concerns
	rows     [][]byte  // these
	deps     int
	met      int  // of these, what is done together with the step; see together
	joined   bool // a step that a worker does together with others
	pending  int  // pieces that are not done
	begun    int  // rows that transfers have begun with
	next     []*node
	saved    *store.Snapshot // what a fetch reads, if not the slow tier
	objects  []store.Saved   // of a snapshot
	args     []backend.Operand
	out      backend.Operand
	bindings []*binding       // of these
	source   []byte           // what a make computes from
	check    func() error     // of a map
	again    int32            // after a drop: when the slabs are wanted next, see spare
	transfer func(worker int) // does a part of a transfer; made once
}

// ref is a node as long as it is not done.
type ref struct {
	n    *node
	life uint32
}

// live returns the node, nil once it is done.
func (f ref) live() *node {
	if f.n == nil || f.n.life != f.life {
		return nil
	}
	return f.n
}

// over reports whether the node is done.
func (f ref) over() bool { return f.live() == nil }

// ref returns a reference to a node that is not done.
func (n *node) ref() ref { return ref{n, n.life} }

// piece is what a worker does at a time: a step, or some slabs of a make.
type piece struct {
	n    *node
	span plan.Span
}

// backwards orders pieces against their place in the plan, in which actions come before
// their step.
func backwards(a, b piece) int {
	return -cmp.Or(cmp.Compare(a.n.step, b.n.step), cmp.Compare(b.n.kind, a.n.kind))
}

// run is one execution of a plan. One goroutine issues actions and steps in
// order; workers execute steps and makes; a queue executes transfers. Waiting
// cannot deadlock: only the issuer waits for memory, and what is in flight already
// has all the memory it needs.
//
// Slabs are known by the objects they belong to. What a step or a make works on is
// fixed when it is issued: its operands hold the slabs that are resident then. A
// slab that is dropped leaves its object at once and is freed when what is in
// flight and uses it is done.
type run struct {
	x     *Executor
	in    Inputs
	queue *store.Queue

	saving  *saving       // nil where nothing is saved
	actions []plan.Action // of the tier plan, from first on
	first   int32         // step that the run begins with

	mu       sync.Mutex
	progress *sync.Cond // something finished, or the run failed
	work     *sync.Cond // a piece is ready, or the run is over
	ready    []piece    // the one to do next is the last
	objects  []*object
	leaving  map[*node]struct{}    // drops that wait
	spills   map[plan.ObjectID]ref // spill that holds the present content of an object
	overdue  []plan.Action         // what was put off, in order
	late     map[plan.ObjectID]int // how many of these concern an object
	issued   int                   // steps issued and not done
	flying   int                   // nodes issued and not done, drops apart
	running  int                   // pieces being executed
	jobs     int                   // parts of transfers queued or running
	reading  int                   // nodes that wait for the slow tier
	hungry   bool                  // the issuer waits for slabs
	err      error
	over     bool

	begun, ended []int32 // steps per layer
	executed     []bool
	doneSteps    int
	bytesRead    int64
	bytesWritten int64
	bytesMapped  int64
	stalledSince time.Time
	stall        time.Duration
	made         int           // slabs
	making       time.Duration // of all workers together

	// Of the issuer, for a moment.
	spans, fill []plan.Span
	one         [][]byte // room for slabs on their way from the arena

	// What waits to serve again.
	nodes    []*node
	states   []*object
	bindings []*binding
}

func newRun(x *Executor, in Inputs, v *saving) *run {
	r := &run{
		x: x, in: in, saving: v, objects: make([]*object, len(x.p.Objects)), leaving: map[*node]struct{}{},
		spills: map[plan.ObjectID]ref{}, late: map[plan.ObjectID]int{}, begun: make([]int32, len(x.perLay)), ended: make([]int32, len(x.perLay)), executed: make([]bool, len(x.p.Steps)),
	}
	r.progress, r.work = sync.NewCond(&r.mu), sync.NewCond(&r.mu)
	for i, f := range x.fixed {
		if f != nil {
			r.objects[i] = &f.state
		}
	}
	if x.kept != nil {
		x.kept.rewind()
	}
	r.actions, r.first = v.actions(x.actions)
	for s := range r.first {
		if st := &x.p.Steps[s]; x.layered(st) {
			r.begun[st.Layer]++
			r.ended[st.Layer]++
		}
	}
	r.doneSteps = int(r.first)
	return r
}

// do runs the plan and releases everything, whatever happens.
func (r *run) do(ctx context.Context) (Outputs, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.queue = store.NewQueue(r.x.o.QueueDepth)
	var workers sync.WaitGroup
	for w := range r.x.o.Threads {
		workers.Add(1)
		go func() {
			defer workers.Done()
			r.worker(w)
		}()
	}
	stop := context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.fail(ctx.Err())
	})
	r.mu.Lock()
	r.issueAll()
	for r.err == nil && r.flying > 0 {
		r.progress.Wait()
	}
	out := r.collect()
	r.over = true
	r.work.Broadcast()
	for r.running > 0 || r.jobs > 0 { // after a failure: memory is in use until these end
		r.progress.Wait()
	}
	r.endStall()
	r.releaseAll()
	err := r.err
	r.mu.Unlock()
	stop()
	workers.Wait()
	r.queue.Close()
	if err != nil {
		return nil, err
	}
	return out, nil
}

// fail records the first error and wakes everybody. r.mu is held.
func (r *run) fail(err error) {
	if r.err == nil && err != nil {
		r.err = err
		r.ready = nil
		r.progress.Broadcast()
		r.work.Broadcast()
	}
}

// issueAll issues actions and steps in order. r.mu is held, except while
// waiting.
func (r *run) issueAll() {
	steps, acts, next := r.x.p.Steps, r.actions, 0
	window := windowPerThread * r.x.o.Threads
	for s := r.first; int(s) <= len(steps) && r.err == nil; s++ {
		r.checkpoint(s)
		waited := false
		for next < len(acts) && acts[next].Step <= s && r.err == nil {
			if acts[next].Step < s {
				r.fail(fmt.Errorf("the tier plan is out of order at step %d", s))
				return
			}
			brings := acts[next].Kind != plan.ActDrop && acts[next].Kind != plan.ActSpill
			if r.x.o.Synchronous && brings && !waited {
				r.drain()
				waited = true
			}
			if err := r.act(acts[next]); err != nil {
				r.fail(err)
				return
			}
			next++
		}
		if waited {
			r.drain()
		}
		if int(s) == len(steps) {
			break
		}
		for r.issued >= window && r.err == nil {
			if err := r.catchUp(); err != nil {
				r.fail(err)
				return
			}
			r.progress.Wait()
		}
		if r.err != nil {
			return
		}
		if err := r.issue(s); err != nil {
			r.fail(err)
			return
		}
	}
	for r.err == nil && len(r.overdue) > 0 {
		if err := r.need(r.overdue[0].Obj, r.overdue[0].Step); err != nil {
			r.fail(err)
		}
	}
	if r.err == nil && next < len(acts) {
		r.fail(fmt.Errorf("the tier plan acts at step %d of %d", acts[next].Step, len(steps)))
	}
}

// drain waits until nothing is in flight.
func (r *run) drain() {
	for r.err == nil && r.flying > 0 {
		r.progress.Wait()
	}
}

// act obeys one action of the tier plan.
func (r *run) act(a plan.Action) error {
	if a.Obj < 0 || int(a.Obj) >= len(r.objects) {
		return fmt.Errorf("the tier plan refers to object %d of %d", a.Obj, len(r.objects))
	}
	if r.x.fixed[a.Obj] != nil {
		return nil // needs no memory here
	}
	if n := int64(r.x.slabs[a.Obj]); a.First < 0 || a.Count <= 0 || int64(a.First)+int64(a.Count) > n+1 {
		return r.refuse(a, fmt.Sprintf("it has %d", n))
	}
	switch a.Kind {
	case plan.ActFetch, plan.ActMake, plan.ActMap:
		if err := r.offered(a); err != nil {
			return err
		}
		return r.bring(a)
	case plan.ActDrop, plan.ActSpill:
		if err := r.need(a.Obj, a.Step); err != nil {
			return err
		}
		return r.leave(a)
	}
	return r.refuse(a, fmt.Sprintf("there is no action of kind %d", a.Kind))
}

// refuse explains what is wrong with an action.
func (r *run) refuse(a plan.Action, why string) error {
	verb := "acts on"
	if int(a.Kind) < len(actionVerbs) {
		verb = actionVerbs[a.Kind]
	}
	return fmt.Errorf("the tier plan %s slabs %d to %d of %s at step %d: %s", verb, a.First, int64(a.First)+int64(a.Count)-1, describe(r.x.p, a.Obj), a.Step, why)
}

var actionVerbs = [...]string{plan.ActFetch: "fetches", plan.ActDrop: "drops", plan.ActSpill: "spills", plan.ActMake: "makes", plan.ActMap: "maps"}

// offered verifies that slabs can be had in the way that an action wants.
func (r *run) offered(a plan.Action) error {
	p, n := r.x.p, r.x.slabs[a.Obj]
	role := p.Objects[a.Obj].Role
	whole := a.First == 0 && a.Count == n
	switch {
	case a.Kind == plan.ActFetch && role == plan.RoleInput:
		if !whole {
			return r.refuse(a, "an input comes as a whole")
		}
		return nil
	case a.Kind == plan.ActFetch && (role == plan.RoleTemp || role == plan.RoleOutput):
		if _, spilled := r.spills[a.Obj]; !whole || !spilled && !r.saving.holds(a.Obj) {
			return r.refuse(a, "the slow tier does not hold it")
		}
		return nil
	case r.x.o.Slow == nil || role != plan.RoleKey && role != plan.RolePlain:
		return r.refuse(a, "it is not in the slow tier")
	}
	for s := a.First; s < a.First+a.Count; s++ {
		if a.Kind == plan.ActMake {
			if !p.Tier.Forms.Makes(p, a.Obj, int(s)) {
				return r.refuse(a, "they do not follow from a source")
			}
		} else if _, ok := p.Tier.Forms.StoredAt(p, a.Obj, int(s)); !ok {
			return r.refuse(a, "the slow tier does not hold them")
		}
	}
	if a.Kind == plan.ActMap && r.x.mapper == nil {
		return r.refuse(a, "the slow tier is not byte-addressable")
	}
	return nil
}

// bring makes slabs resident. The order of the plan is kept: an action that finds
// no free slabs waits for them, and the steps after it with it. Only when threads
// would go idle meanwhile is it put off and the issue goes on; it is made up for in
// order as slabs come back, at the latest when a step needs the object. The plan
// has room for everything it makes resident, so what is put off always fits once
// the steps in flight are done.
func (r *run) bring(a plan.Action) error {
	for {
		if err := r.catchUp(); err != nil {
			return err
		}
		if len(r.overdue) == 0 {
			if done, err := r.tryBring(a); done || err != nil {
				return err
			}
		}
		if r.flying > 0 && r.reading == 0 && r.running+len(r.ready) < r.x.o.Threads {
			r.overdue = append(r.overdue, a)
			r.late[a.Obj]++
			return nil
		}
		if err := r.await(a.Obj, a.Step); err != nil {
			return err
		}
	}
}

// catchUp does what was put off, as far as there are slabs.
func (r *run) catchUp() error {
	for len(r.overdue) > 0 {
		a := r.overdue[0]
		done, err := r.tryBring(a)
		if !done || err != nil {
			return err
		}
		if r.late[a.Obj]--; r.late[a.Obj] == 0 {
			delete(r.late, a.Obj)
		}
		r.overdue = slices.Delete(r.overdue, 0, 1)
	}
	return nil
}

// need makes sure that nothing of an object is put off.
func (r *run) need(obj plan.ObjectID, step int32) error {
	for r.late[obj] > 0 {
		if err := r.catchUp(); err != nil {
			return err
		}
		if r.late[obj] == 0 {
			break
		}
		if err := r.await(obj, step); err != nil {
			return err
		}
	}
	return nil
}

// await waits for something to finish, on behalf of an object that wants slabs.
// Memory that the plan has let go comes back when what is in flight and uses it is
// done; if nothing is in flight and the slabs are still not there, the plan asks
// for more than the arena has.
func (r *run) await(obj plan.ObjectID, step int32) error {
	if r.flying == 0 {
		return fmt.Errorf("the tier plan does not fit its arena at step %d: no room for %s", step, describe(r.x.p, obj))
	}
	r.hungry = true
	r.progress.Wait()
	r.hungry = false
	return r.err
}

// take returns slabs for an object, or nil where they are not free at the moment.
// They are in r.one, until the next call.
func (r *run) take(obj plan.ObjectID, count int) ([][]byte, error) {
	if cap(r.one) < count {
		r.one = make([][]byte, count)
	}
	r.one = r.one[:count]
	if ok, err := r.x.arena.Take(r.one, purpose(r.x.p.Objects[obj].Role), owner); !ok {
		return nil, err
	}
	return r.one, nil
}

// tryBring begins to make slabs resident if there is room for them.
func (r *run) tryBring(a plan.Action) (bool, error) {
	o, n := r.state(a.Obj), r.x.slabs[a.Obj]
	end := a.First + a.Count
	for s := a.First; s < end && len(o.rows) > 0; s++ {
		if o.rows[s] != nil {
			return false, r.refuse(a, "some of them are resident")
		}
	}
	var source []byte
	if a.Kind == plan.ActMake {
		if source = r.x.seeds[a.Obj]; source == nil {
			if len(o.rows) == 0 || o.rows[n] == nil {
				return false, r.refuse(a, "their source is not resident")
			}
			source = o.rows[n]
		}
	}
	if a.Kind == plan.ActMap {
		return true, r.mapIn(a)
	}
	// What was kept since the plan dropped it is there already.
	kept := func(s int32) bool { return r.x.kept != nil && r.x.kept.has(a.Obj, s) }
	var fresh [][]byte
	for fresh == nil {
		missing := 0
		for s := a.First; s < end; s++ {
			if !kept(s) {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		var err error
		if fresh, err = r.take(a.Obj, missing); err != nil {
			return false, err
		}
		if fresh == nil && (r.x.kept == nil || !r.x.kept.evict()) {
			return false, nil
		}
	}
	o.hold(n)
	r.fill = r.fill[:0]
	for s := a.First; s < end; s++ {
		if kept(s) {
			o.rows[s] = r.x.kept.take(a.Obj, s)
			continue
		}
		o.rows[s], fresh = fresh[0], fresh[1:]
		if k := len(r.fill); k > 0 && r.fill[k-1].First+r.fill[k-1].Count == s {
			r.fill[k-1].Count++
		} else {
			r.fill = append(r.fill, plan.Span{First: s, Count: 1})
		}
	}
	r.count(o, n, a, 1)
	for _, span := range r.fill {
		m := r.node(fetchNode, a.Step, a.Obj, span)
		if a.Kind == plan.ActFetch {
			m.rows = append(m.rows, o.rows[span.First:span.First+span.Count]...)
			r.after(m, r.spills[a.Obj]) // none for what was not computed here
			if r.saving.holds(a.Obj) {
				m.saved = r.saving.from
			}
		} else {
			m.kind, m.source = makeNode, source
			var err error
			if m.out, err = r.operand(a.Obj, m); err != nil {
				return false, err
			}
			if r.x.seeds[a.Obj] == nil {
				r.countMapped(o, plan.Span{First: n, Count: 1})
				r.afterComing(m, o, plan.Span{First: n, Count: 1})
				o.users = append(active(o.users, use.over), use{ref: m.ref()})
			}
		}
		o.coming = append(active(o.coming, ref.over), m.ref())
		r.launch(m)
	}
	return true, nil
}

// mapIn uses slabs where they lie.
func (r *run) mapIn(a plan.Action) error {
	o, n := r.state(a.Obj), r.x.slabs[a.Obj]
	rows, check, err := r.x.mapper.Map(a.Obj, int(a.First), int(a.Count))
	if err != nil {
		return fmt.Errorf("%s: %w", describe(r.x.p, a.Obj), err)
	}
	o.hold(n)
	if len(o.mapped) == 0 {
		o.mapped = room(o.mapped, n+1)
	}
	for i, row := range rows {
		o.rows[int(a.First)+i], o.mapped[int(a.First)+i] = row, true
	}
	r.count(o, n, a, 1)
	if check != nil {
		m := r.node(mapNode, a.Step, a.Obj, plan.Span{First: a.First, Count: a.Count})
		m.check = check
		o.coming = append(active(o.coming, ref.over), m.ref())
		r.launch(m)
	}
	return nil
}

// leave ends the residency of slabs, and writes them to the slow tier before if
// the action says so.
func (r *run) leave(a plan.Action) error {
	o, n, role := r.state(a.Obj), r.x.slabs[a.Obj], r.x.p.Objects[a.Obj].Role
	span := plan.Span{First: a.First, Count: a.Count}
	for s := a.First; s < a.First+a.Count; s++ {
		if len(o.rows) == 0 || o.rows[s] == nil {
			return r.refuse(a, "they are not all resident")
		}
	}
	rows := o.rows[a.First : a.First+a.Count]
	if a.Kind == plan.ActSpill {
		switch {
		case r.x.o.Slow == nil || role != plan.RoleTemp && role != plan.RoleOutput:
			return r.refuse(a, "there is no room for it in the slow tier")
		case a.First != 0 || a.Count != n:
			return r.refuse(a, "a ciphertext is written as a whole")
		}
		m := r.node(spillNode, a.Step, a.Obj, span)
		m.rows = append(m.rows, rows...)
		r.after(m, o.writer)
		r.afterComing(m, o, span)
		r.saving.spilled(r, m)
		o.users = append(active(o.users, use.over), use{ref: m.ref()})
		r.spills[a.Obj] = m.ref()
		r.launch(m)
	}
	d := r.node(dropNode, a.Step, a.Obj, span)
	d.rows = append(d.rows, rows...)
	clear(rows)
	for i := range d.rows {
		if s := int(a.First) + i; len(o.mapped) > 0 && o.mapped[s] {
			o.mapped[s], d.rows[i] = false, nil // not ours to free
		}
	}
	r.count(o, n, a, -1)
	if o.here == 0 && o.rows[n] == nil && role != plan.RoleKey { // keys come and go all the time
		o.rows, o.mapped = o.rows[:0], o.mapped[:0]
	}
	if r.x.kept != nil {
		d.again = r.x.kept.after(a)
	}
	r.after(d, o.writer)
	r.afterComing(d, o, span)
	for _, u := range o.users {
		if m := u.live(); m != nil && r.uses(m, u.arg, span) {
			r.after(d, u.ref)
		}
	}
	if d.deps == 0 {
		r.free(d)
	} else {
		r.leaving[d] = struct{}{}
	}
	return nil
}

// uses reports whether a node reads some of the slabs in span of the object that it
// is noted with; a step reads it as its argument arg.
func (r *run) uses(n *node, arg int, span plan.Span) bool {
	switch n.kind {
	case makeNode:
		k := r.x.slabs[n.obj]
		return span.First <= k && k < span.First+span.Count
	case stepNode:
		obj := r.x.p.Steps[n.step].Args[arg]
		if !r.x.parts[obj] {
			return span.First < r.x.slabs[obj]
		}
		r.spans = r.x.forms.Touched(r.x.p, r.spans[:0], int(n.step), arg)
		return slices.ContainsFunc(r.spans, func(t plan.Span) bool { return meet(t, span) })
	}
	return true
}

// meet reports whether two spans have a slab in common.
func meet(a, b plan.Span) bool { return a.First < b.First+b.Count && b.First < a.First+a.Count }

// free gives dropped slabs back to the arena, or keeps them for the next run.
func (r *run) free(d *node) {
	delete(r.leaving, d)
	o, rows := r.objects[d.obj], d.rows
	if r.x.kept != nil && r.err == nil {
		rows = r.x.kept.put(d.obj, d.span, rows, d.again, func(s int32) bool { return o != nil && len(o.rows) > 0 && o.rows[s] != nil })
	}
	r.x.give(d.obj, rows)
	// Reads in flight stay noted: this drop may be done before them, where it is of
	// slabs that were resident earlier, and what they read is not to be written before
	// they end.
	if o != nil && len(o.rows) == 0 {
		o.writer, o.users = ref{}, o.users[:0]
		if o.coming = slices.DeleteFunc(o.coming, ref.over); len(o.coming) == 0 {
			r.objects[d.obj] = nil
			r.states = append(r.states, o)
		}
	}
	r.retire(d)
}

// releaseAll frees what is left at the end, or keeps it for the next run.
func (r *run) releaseAll() {
	for i := range r.objects {
		o := r.objects[i]
		if r.x.fixed[i] != nil || o == nil {
			continue
		}
		for s, m := range o.mapped {
			if m {
				o.rows[s] = nil
			}
		}
		rows := o.rows
		if r.x.kept != nil && r.err == nil {
			span := plan.Span{Count: int32(len(rows))}
			rows = r.x.kept.put(plan.ObjectID(i), span, rows, r.x.kept.first(plan.ObjectID(i), span), func(int32) bool { return false })
		}
		r.x.give(plan.ObjectID(i), rows)
	}
	for d := range r.leaving {
		r.x.give(d.obj, d.rows)
	}
	r.objects, r.leaving = nil, nil
}

// state returns the state of an object. It is that as long as the run stays locked.
func (r *run) state(obj plan.ObjectID) *object {
	if r.objects[obj] == nil {
		r.objects[obj] = again(&r.states)
	}
	return r.objects[obj]
}

// again returns what waits in a list to serve again, or something new.
func again[T any](list *[]*T) *T {
	k := len(*list) - 1
	if k < 0 {
		return new(T)
	}
	x := (*list)[k]
	*list = (*list)[:k]
	return x
}

// node returns a node of which nothing is known yet.
func (r *run) node(kind nodeKind, step int32, obj plan.ObjectID, span plan.Span) *node {
	n := again(&r.nodes)
	n.kind, n.step, n.obj, n.span = kind, step, obj, span
	return n
}

// retire ends a node that is done.
func (r *run) retire(n *node) {
	for _, b := range n.bindings {
		b.nodes--
		r.release(b)
	}
	*n = node{life: n.life + 1, rows: n.rows[:0], next: n.next[:0], args: n.args[:0], bindings: n.bindings[:0], transfer: n.transfer}
	r.nodes = append(r.nodes, n)
}

// release puts a binding by that nobody has any more.
func (r *run) release(b *binding) {
	if b.nodes == 0 && !b.held {
		r.bindings = append(r.bindings, b)
	}
}

// active makes room in a list that is full by forgetting what is over.
func active[T any](list []T, over func(T) bool) []T {
	if len(list) < cap(list) {
		return list
	}
	return slices.DeleteFunc(list, over)
}

// after makes n wait for m, if that is not done.
func (r *run) after(n *node, m ref) {
	if m := m.live(); m != nil {
		m.next = append(m.next, n)
		n.deps++
	}
}

// afterComing makes n wait for what brings slabs in some of the spans.
func (r *run) afterComing(n *node, o *object, spans ...plan.Span) {
	for _, f := range o.coming {
		m := f.live()
		if m == nil {
			continue
		}
		for _, s := range spans {
			if meet(m.span, s) {
				r.after(n, f)
				break
			}
		}
	}
}

// countMapped counts the slabs of spans that are read where they lie.
func (r *run) countMapped(o *object, spans ...plan.Span) {
	if len(o.mapped) == 0 {
		return
	}
	for _, s := range spans {
		for _, m := range o.mapped[s.First : s.First+s.Count] {
			if m {
				r.bytesMapped += int64(r.x.e.SlabBytes())
			}
		}
	}
}

// launch makes a node ready if nothing holds it back.
func (r *run) launch(n *node) {
	r.flying++
	if r.waits(n) {
		r.reading++
	}
	if n.deps == 0 {
		r.start(n)
	}
}

// waits reports whether a node waits for the slow tier: not for the caller's
// inputs.
func (r *run) waits(n *node) bool {
	return n.kind == mapNode || n.kind == fetchNode && r.x.p.Objects[n.obj].Role != plan.RoleInput
}

// issue puts one step on the scoreboard.
func (r *run) issue(s int32) error {
	st := &r.x.p.Steps[s]
	update := len(st.Args) > 0 && st.Args[0] == st.Out
	if err := r.catchUp(); err != nil {
		return err
	}
	for i, a := range st.Args {
		if err := r.need(a, s); err != nil {
			return err
		}
		if !r.resident(s, i) {
			return fmt.Errorf("the tier plan leaves slabs of %s out of memory at step %d (%s)", describe(r.x.p, a), s, st.Op)
		}
	}
	if !update {
		// This may wait and let others run, so it comes before anything is
		// noted about the step.
		if err := r.reside(st.Out, s); err != nil {
			return err
		}
	}
	n, out := r.node(stepNode, s, st.Out, plan.Span{}), r.objects[st.Out]
	var err error
	if n.out, err = r.operand(st.Out, n); err != nil {
		return err
	}
	for i, a := range st.Args {
		op, err := r.operand(a, n)
		if err != nil {
			return err
		}
		if n.args = append(n.args, op); r.x.fixed[a] != nil {
			continue
		}
		o := r.objects[a]
		r.after(n, o.writer)
		if !r.x.parts[a] {
			r.spans = append(r.spans[:0], plan.Span{Count: r.x.slabs[a]})
		} else if len(o.mapped) > 0 || slices.ContainsFunc(o.coming, func(f ref) bool { return !f.over() }) {
			r.spans = r.x.forms.Touched(r.x.p, r.spans[:0], int(s), i)
		} else {
			r.spans = r.spans[:0] // nothing to wait for or to count
		}
		r.afterComing(n, o, r.spans...)
		r.countMapped(o, r.spans...)
		if a != st.Out {
			o.users = append(active(o.users, use.over), use{n.ref(), i})
		}
	}
	if update {
		for _, u := range out.users {
			r.after(n, u.ref)
		}
	}
	out.writer, out.users = n.ref(), out.users[:0]
	delete(r.spills, st.Out) // what was written back is out of date
	r.saving.changed(st.Out)
	r.issued++
	r.launch(n)
	return nil
}

// resident reports whether the slabs that a step touches of an argument are there.
func (r *run) resident(s int32, arg int) bool {
	obj := r.x.p.Steps[s].Args[arg]
	o := r.objects[obj]
	switch {
	case r.x.fixed[obj] != nil:
		return true
	case o == nil || len(o.rows) == 0:
		return false
	case o.here == r.x.slabs[obj]:
		return true
	case !r.x.parts[obj]:
		return false
	}
	r.spans = r.x.forms.Touched(r.x.p, r.spans[:0], int(s), arg)
	for _, t := range r.spans {
		for _, row := range o.rows[t.First : t.First+t.Count] {
			if row == nil {
				return false
			}
		}
	}
	return true
}

// reside makes room for the result of a step, and waits for it if it has to.
func (r *run) reside(obj plan.ObjectID, step int32) error {
	n := r.x.slabs[obj]
	if o := r.objects[obj]; o != nil && len(o.rows) > 0 {
		return fmt.Errorf("the tier plan has %s in memory before step %d, which computes it", describe(r.x.p, obj), step)
	}
	for {
		rows, err := r.take(obj, int(n))
		if err != nil {
			return err
		}
		if rows != nil {
			o := r.state(obj) // it may be another after a wait
			o.hold(n)
			copy(o.rows, rows)
			r.count(o, n, plan.Action{Count: n}, 1)
			return nil
		}
		if r.x.kept != nil && r.x.kept.evict() {
			continue
		}
		if err := r.await(obj, step); err != nil {
			return err
		}
	}
}

// start hands a node whose dependencies are done to those who execute it.
func (r *run) start(n *node) {
	switch n.kind {
	case stepNode:
		r.push(piece{n: n})
		return
	case makeNode:
		per := int32(makeSlabs)
		if k := int32(r.x.o.Threads); k > 1 {
			per = min(per, max((n.span.Count+k-1)/k, makeLeast))
		}
		for at := n.span.First; at < n.span.First+n.span.Count; at += per {
			n.pending++
			r.push(piece{n, plan.Span{First: at, Count: min(per, n.span.First+n.span.Count-at)}})
		}
		return
	case dropNode:
		r.free(n)
		return
	case saveNode:
		r.save(n)
		return
	default:
		per := r.per(n)
		n.pending = max(1, (len(n.rows)+per-1)/per) // maps have none and are checked at once
		if n.transfer == nil {
			n.transfer = func(w int) { r.transfer(n, w) }
		}
		for range n.pending {
			r.jobs++
			r.queue.Submit(n.transfer)
		}
	}
	if r.running == 0 && len(r.ready) == 0 {
		r.beginStall()
	}
}

// push puts a piece where its place in the plan wants it.
func (r *run) push(p piece) {
	at, _ := slices.BinarySearchFunc(r.ready, p, backwards)
	r.ready = slices.Insert(r.ready, at, p)
	r.work.Signal()
}

// per returns how many slabs a part of a transfer moves.
func (r *run) per(n *node) int {
	if n.kind == fetchNode && !r.waits(n) {
		return len(n.rows) // the caller fills an input as a whole
	}
	return max(1, transferBytes/r.x.e.SlabBytes())
}

// Workers make up to makeSlabs slabs at a time, so that a step that becomes ready
// meanwhile need not wait long, and no fewer than makeLeast where several share a
// make.
const (
	makeSlabs = 16
	makeLeast = 4
)

// transfer moves the next slabs of a node, or checks them all. It runs on the queue.
func (r *run) transfer(n *node, worker int) {
	r.mu.Lock()
	failed := r.err != nil
	part := n.rows[n.begun:min(n.begun+r.per(n), len(n.rows))]
	first := int(n.span.First) + n.begun
	n.begun += len(part)
	r.mu.Unlock()
	if failed {
		r.pieceDone(n, 0, nil)
		return
	}
	e := Event{Kind: FetchBegin, Step: n.step, Obj: n.obj, Worker: worker, Bytes: int64(len(part)) * int64(r.x.e.SlabBytes())}
	if n.kind == spillNode {
		e.Kind = SpillBegin
	}
	r.x.emit(e)
	var err error
	switch {
	case n.kind == spillNode:
		err = r.x.o.Slow.Write(n.obj, first, part)
	case n.kind == mapNode:
		err = backend.Guard(n.check)
	case n.saved != nil:
		err = n.saved.Read(n.obj, first, part)
	case r.waits(n):
		err = r.x.o.Slow.Read(n.obj, first, part)
	case r.in == nil:
		err = errors.New("the run was given no inputs")
	default:
		err = r.in(n.obj, part)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", describe(r.x.p, n.obj), err)
	}
	e.Kind++ // the matching end
	e.Err = err
	r.x.emit(e)
	r.pieceDone(n, e.Bytes, err)
}

// pieceDone counts one finished part of a transfer.
func (r *run) pieceDone(n *node, bytes int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs--
	switch {
	case n.kind == spillNode:
		r.bytesWritten += bytes
	case n.saved == nil && r.waits(n):
		r.bytesRead += bytes
	}
	r.fail(err)
	if n.pending--; n.pending == 0 {
		if r.waits(n) {
			r.reading--
		}
		r.finish(n)
	}
	r.progress.Broadcast()
}

// makeSome computes slabs on a worker, which has room for their numbers.
func (r *run) makeSome(p piece, worker int, slabs []int32) {
	n := p.n
	r.endStall()
	r.running++
	out, source := n.out, n.source
	r.mu.Unlock()
	e := Event{Kind: ExpandBegin, Step: n.step, Obj: n.obj, Worker: worker, Bytes: int64(p.span.Count) * int64(r.x.e.SlabBytes())}
	r.x.emit(e)
	slabs = slabs[:p.span.Count]
	for i := range slabs {
		slabs[i] = p.span.First + int32(i)
	}
	began := time.Now()
	err := backend.Guard(func() error { return r.x.e.(backend.Compact).Make(out, source, slabs) })
	took := time.Since(began)
	if err != nil {
		err = fmt.Errorf("%s: %w", describe(r.x.p, n.obj), err)
	}
	e.Kind, e.Err = ExpandEnd, err
	r.x.emit(e)
	r.mu.Lock()
	r.running--
	r.made += len(slabs)
	r.making += took
	r.fail(err)
	if n.pending--; n.pending == 0 {
		r.finish(n)
	}
	if r.running == 0 && len(r.ready) == 0 {
		r.beginStall()
	}
	r.progress.Broadcast()
}

// finish ends a node and starts what waited for it.
func (r *run) finish(n *node) {
	r.flying--
	if r.err == nil {
		for _, m := range n.next {
			if m.deps--; m.deps == 0 && !m.joined {
				r.start(m)
			}
		}
	}
	r.retire(n)
	r.progress.Broadcast()
}

// worker executes ready steps and makes, the earliest first.
func (r *run) worker(w int) {
	if r.x.mapper != nil {
		debug.SetPanicOnFault(true) // a medium that fails under a load: an error, as of any read
	}
	slabs := make([]int32, makeSlabs)
	var j joined
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for len(r.ready) == 0 && !r.over {
			r.work.Wait()
		}
		if r.over {
			return
		}
		p := r.ready[len(r.ready)-1]
		r.ready = r.ready[:len(r.ready)-1]
		if p.n.kind == makeNode {
			r.makeSome(p, w, slabs)
			continue
		}
		r.together(&j, p.n)
		r.execute(&j, w)
	}
}

// joined are steps that a worker does together, in the order of the plan.
type joined struct {
	nodes []*node
	calls []backend.Call
	done  []stepDone
}

// stepDone is what is told about a step that is done.
type stepDone struct {
	e            Event
	begins, ends bool // its layer
}

// execute does steps together. r.mu is held, except while they run.
func (r *run) execute(j *joined, worker int) {
	r.endStall()
	r.running++
	j.calls, j.done = j.calls[:0], j.done[:0]
	lead := j.nodes[0].step
	for _, n := range j.nodes {
		st := &r.x.p.Steps[n.step]
		d := stepDone{e: Event{Kind: StepBegin, Step: n.step, Lead: lead, Op: st.Op, Layer: st.Layer, Worker: worker}}
		if r.x.layered(st) {
			d.begins = r.begun[st.Layer] == 0
			r.begun[st.Layer]++
		}
		j.calls, j.done = append(j.calls, backend.Call{Step: st, Args: n.args, Out: n.out}), append(j.done, d)
	}
	r.mu.Unlock()
	for i := range j.done {
		d := &j.done[i]
		if d.begins {
			r.x.emit(Event{Kind: LayerBegin, Layer: d.e.Layer, Label: r.x.p.Layers[d.e.Layer].Name})
		}
		r.x.emit(d.e)
	}
	err := backend.Guard(func() error {
		if len(j.calls) > 1 {
			return r.x.e.(backend.Joint).ExecJoined(j.calls)
		}
		return r.x.e.Exec(j.calls[0].Step, j.calls[0].Args, j.calls[0].Out)
	})
	if err != nil {
		err = r.stepError(lead, err)
	}
	r.mu.Lock()
	r.running--
	r.issued -= len(j.nodes)
	for i := range j.done {
		d := &j.done[i]
		d.e.Kind, d.e.Err, d.e.Total = StepEnd, err, len(r.x.p.Steps)
		if err == nil {
			r.executed[d.e.Step] = true
			r.doneSteps++
			if r.x.layered(j.calls[i].Step) {
				r.ended[d.e.Layer]++
				d.ends = r.ended[d.e.Layer] == r.x.perLay[d.e.Layer]
			}
		}
	}
	for i := range j.done {
		j.done[i].e.Done = r.doneSteps
	}
	r.fail(err)
	for _, n := range j.nodes {
		r.finish(n)
	}
	if r.running == 0 && len(r.ready) == 0 {
		r.beginStall()
	}
	if r.x.o.Events == nil {
		return
	}
	r.mu.Unlock()
	for i := range j.done {
		d := &j.done[len(j.done)-1-i] // the first ends last, see Event.Lead
		r.x.emit(d.e)
		if d.ends {
			r.x.emit(Event{Kind: LayerEnd, Layer: d.e.Layer, Label: r.x.p.Layers[d.e.Layer].Name})
		}
	}
	r.mu.Lock()
}

// together sets j to a step that is ready and those that are done with it: steps of the
// kind that an engine joins which are ready, too, or wait for others of them alone. While
// the issuer waits for slabs it is the step alone, which gives what it lets go back the
// sooner.
func (r *run) together(j *joined, n *node) {
	j.nodes = append(j.nodes[:0], n)
	e, ok := r.x.e.(backend.Joint)
	if !ok || r.hungry || len(r.overdue) > 0 || !e.Joins(r.x.p.Steps[n.step].Op) {
		return
	}
	n.joined = true
	for i := len(r.ready) - 1; i >= 0 && len(j.nodes) < backend.MostJoined; i-- {
		if m := r.ready[i].n; m.kind == stepNode && e.Joins(r.x.p.Steps[m.step].Op) {
			m.joined = true
			j.nodes = append(j.nodes, m)
			r.ready = slices.Delete(r.ready, i, i+1)
		}
	}
	for i := 0; i < len(j.nodes); i++ {
		for _, m := range j.nodes[i].next {
			if m.kind != stepNode || !e.Joins(r.x.p.Steps[m.step].Op) {
				continue
			}
			if m.met++; m.met == m.deps && len(j.nodes) < backend.MostJoined {
				m.joined = true
				j.nodes = append(j.nodes, m)
			}
		}
	}
	for _, n := range j.nodes {
		for _, m := range n.next {
			m.met = 0
		}
	}
	slices.SortFunc(j.nodes, func(a, b *node) int { return cmp.Compare(a.step, b.step) })
}

// hold makes room to note the slabs of an object of n.
func (o *object) hold(n int32) {
	if len(o.rows) == 0 {
		o.rows = room(o.rows, n+1)
	}
}

// room makes a list of n zeros.
func room[T any](list []T, n int32) []T {
	list = slices.Grow(list[:0], int(n))[:n]
	clear(list)
	return list
}

// count counts slabs that come or go.
func (r *run) count(o *object, n int32, a plan.Action, sign int32) {
	o.here += sign * (min(a.First+a.Count, n) - min(a.First, n))
	if o.bound != nil {
		o.bound.held = false
		r.release(o.bound)
		o.bound = nil
	}
}

// operand returns the operand over the slabs of an object that are resident now, for a
// node.
func (r *run) operand(obj plan.ObjectID, n *node) (backend.Operand, error) {
	o := r.objects[obj]
	if o.bound == nil {
		b, t, rows := again(&r.bindings), r.x.p.Objects[obj].Type, o.rows[:r.x.slabs[obj]]
		var err error
		if e, ok := r.x.e.(backend.Rebinder); ok && b.op != nil {
			err = e.Rebind(b.op, t, rows)
		} else {
			b.op, err = r.x.e.Bind(t, rows)
		}
		if err == nil && r.x.forms.InSteps(r.x.p, obj) {
			source := r.x.seeds[obj]
			if r.x.p.Objects[obj].Role == plan.RolePlain {
				source = o.rows[r.x.slabs[obj]]
			}
			err = r.x.e.(backend.Compact).Stream(b.op, source)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", describe(r.x.p, obj), err)
		}
		b.held, o.bound = true, b
	}
	o.bound.nodes++
	n.bindings = append(n.bindings, o.bound)
	return o.bound.op, nil
}

// stepError names the step, its layer and its op.
func (r *run) stepError(s int32, err error) error {
	st := &r.x.p.Steps[s]
	if st.Layer >= 0 && int(st.Layer) < len(r.x.p.Layers) {
		return fmt.Errorf("%s: step %d (%s): %w", r.x.p.Layers[st.Layer].Name, s, st.Op, err)
	}
	return fmt.Errorf("step %d (%s): %w", s, st.Op, err)
}

// beginStall starts the clock of a stall: no step is running or ready, and a
// read from the slow tier is under way.
func (r *run) beginStall() {
	if r.reading > 0 && r.stalledSince.IsZero() {
		r.stalledSince = time.Now()
		r.x.emit(Event{Kind: StallBegin})
	}
}

// endStall stops the clock of a stall, if one is running.
func (r *run) endStall() {
	if !r.stalledSince.IsZero() {
		d := time.Since(r.stalledSince)
		r.stall += d
		r.stalledSince = time.Time{}
		r.x.emit(Event{Kind: StallEnd, Seconds: d.Seconds()})
	}
}

// collect copies the outputs out of the arena.
func (r *run) collect() Outputs {
	if r.err != nil {
		return nil
	}
	out := Outputs{}
	for _, port := range r.x.p.Outputs {
		for _, o := range port.Objects {
			x, n := r.objects[o], r.x.slabs[o]
			if x == nil || len(x.rows) == 0 || x.here != n {
				r.fail(fmt.Errorf("the tier plan leaves %s out of memory at the end", describe(r.x.p, o)))
				return nil
			}
			if out[o] == nil {
				c := make([][]byte, n)
				for i, s := range x.rows[:n] {
					c[i] = slices.Clone(s)
				}
				out[o] = c
			}
		}
	}
	return out
}
