package runtime

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/store"
)

// object is the state of one object during a run.
type object struct {
	rows   [][]byte        // resident slabs, the source last, nil where absent; empty where none is there
	mapped []bool          // rows that lie in the slow tier; nil where none does
	here   int32           // resident slabs, the source apart
	op     backend.Operand // over the rows; nil since they changed
	writer *node           // last step that writes it
	coming []*node         // what brings slabs; some are done
	users  []use           // what reads it; some are done
}

// use is a node that reads an object: a step as its argument arg, or else a make
// from its source or a spill.
type use struct {
	n   *node
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
// asks for. It becomes ready when the nodes it depends on are done.
type node struct {
	kind    nodeKind
	step    int32 // the step, or the step before which the action happens
	obj     plan.ObjectID
	span    plan.Span // slabs of the object that an action concerns
	rows    [][]byte  // these
	deps    int
	pending int // pieces that are not done
	done    bool
	next    []*node
	saved   *store.Snapshot // what a fetch reads, if not the slow tier
	objects []store.Saved   // of a snapshot
	args    []backend.Operand
	out     backend.Operand
	source  []byte       // what a make computes from
	check   func() error // of a map
	again   int32        // after a drop: when the slabs are wanted next, see spare
}

// piece is what a worker does at a time: a step, or some slabs of a make.
type piece struct {
	n    *node
	span plan.Span
}

// readyHeap orders pieces by their place in the plan, in which actions come before
// their step.
type readyHeap []piece

func (h readyHeap) Len() int { return len(h) }
func (h readyHeap) Less(i, j int) bool {
	a, b := h[i].n, h[j].n
	return a.step < b.step || a.step == b.step && a.kind == makeNode && b.kind == stepNode
}
func (h readyHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *readyHeap) Push(x any)   { *h = append(*h, x.(piece)) }
func (h *readyHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	old[len(old)-1] = piece{}
	*h = old[:len(old)-1]
	return p
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
	ready    readyHeap
	objects  []object
	leaving  map[*node]struct{}      // drops that wait
	spills   map[plan.ObjectID]*node // spill that holds the present content of an object
	overdue  []plan.Action           // what was put off, in order
	late     map[plan.ObjectID]int   // how many of these concern an object
	issued   int                     // steps issued and not done
	flying   int                     // nodes issued and not done, drops apart
	running  int                     // pieces being executed
	jobs     int                     // parts of transfers queued or running
	reading  int                     // nodes that wait for the slow tier
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
	spans        []plan.Span   // of the issuer, for a moment
	one          [][]byte      // room for slabs on their way to or from the arena
}

func newRun(x *Executor, in Inputs, v *saving) *run {
	r := &run{
		x: x, in: in, saving: v, objects: make([]object, len(x.p.Objects)), leaving: map[*node]struct{}{},
		spills: map[plan.ObjectID]*node{}, late: map[plan.ObjectID]int{}, begun: make([]int32, len(x.perLay)), ended: make([]int32, len(x.perLay)), executed: make([]bool, len(x.p.Steps)),
	}
	r.progress, r.work = sync.NewCond(&r.mu), sync.NewCond(&r.mu)
	for i, f := range x.fixed {
		if f != nil {
			r.objects[i] = object{rows: f.block.Slabs, here: x.slabs[i], op: f.op}
		}
	}
	if x.kept != nil {
		x.kept.rewind()
	}
	r.actions, r.first = v.actions(x.actions)
	for s := range r.first {
		if l := x.p.Steps[s].Layer; l >= 0 && int(l) < len(r.begun) {
			r.begun[l]++
			r.ended[l]++
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
		if !whole || r.spills[a.Obj] == nil && !r.saving.holds(a.Obj) {
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
		r.overdue = r.overdue[1:]
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
	r.progress.Wait()
	return r.err
}

// take returns slabs for an object, or nil where they are not free at the moment.
// They are in r.one, until the next call.
func (r *run) take(obj plan.ObjectID, count int) ([][]byte, error) {
	if cap(r.one) < count {
		r.one = make([][]byte, count)
	}
	r.one = r.one[:count]
	err := r.x.arena.Take(r.one, purpose(r.x.p.Objects[obj].Role), owner)
	switch {
	case errors.Is(err, store.ErrFull):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return r.one, nil
}

// tryBring begins to make slabs resident if there is room for them.
func (r *run) tryBring(a plan.Action) (bool, error) {
	o, n := &r.objects[a.Obj], r.x.slabs[a.Obj]
	end := a.First + a.Count
	if o.rows != nil {
		for s := a.First; s < end; s++ {
			if o.rows[s] != nil {
				return false, r.refuse(a, "some of them are resident")
			}
		}
	}
	var source []byte
	if a.Kind == plan.ActMake {
		if source = r.x.seeds[a.Obj]; source == nil {
			if o.rows == nil || o.rows[n] == nil {
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
	var runs []plan.Span // of what has to be filled
	for s := a.First; s < end; s++ {
		if kept(s) {
			o.rows[s] = r.x.kept.take(a.Obj, s)
			continue
		}
		o.rows[s], fresh = fresh[0], fresh[1:]
		if k := len(runs); k > 0 && runs[k-1].First+runs[k-1].Count == s {
			runs[k-1].Count++
		} else {
			runs = append(runs, plan.Span{First: s, Count: 1})
		}
	}
	o.count(n, a, 1)
	for _, span := range runs {
		m := &node{kind: fetchNode, step: a.Step, obj: a.Obj, span: span}
		if a.Kind == plan.ActFetch {
			m.rows = slices.Clone(o.rows[span.First : span.First+span.Count])
			r.after(m, r.spills[a.Obj]) // nil for what was not computed here
			if r.saving.holds(a.Obj) {
				m.saved = r.saving.from
			}
		} else {
			m.kind, m.source = makeNode, source
			var err error
			if m.out, err = r.operand(a.Obj); err != nil {
				return false, err
			}
			if r.x.seeds[a.Obj] == nil {
				r.countMapped(o, plan.Span{First: n, Count: 1})
				r.afterComing(m, o, plan.Span{First: n, Count: 1})
				o.users = append(active(o.users, use.over), use{n: m})
			}
		}
		o.coming = append(active(o.coming, (*node).over), m)
		r.launch(m)
	}
	return true, nil
}

// mapIn uses slabs where they lie.
func (r *run) mapIn(a plan.Action) error {
	o, n := &r.objects[a.Obj], r.x.slabs[a.Obj]
	rows, check, err := r.x.mapper.Map(a.Obj, int(a.First), int(a.Count))
	if err != nil {
		return fmt.Errorf("%s: %w", describe(r.x.p, a.Obj), err)
	}
	o.hold(n)
	if o.mapped == nil {
		o.mapped = make([]bool, n+1)
	}
	for i, row := range rows {
		o.rows[int(a.First)+i], o.mapped[int(a.First)+i] = row, true
	}
	o.count(n, a, 1)
	if check != nil {
		m := &node{kind: mapNode, step: a.Step, obj: a.Obj, span: plan.Span{First: a.First, Count: a.Count}, check: check}
		o.coming = append(active(o.coming, (*node).over), m)
		r.launch(m)
	}
	return nil
}

// leave ends the residency of slabs, and writes them to the slow tier before if
// the action says so.
func (r *run) leave(a plan.Action) error {
	o, n, role := &r.objects[a.Obj], r.x.slabs[a.Obj], r.x.p.Objects[a.Obj].Role
	span := plan.Span{First: a.First, Count: a.Count}
	for s := a.First; s < a.First+a.Count; s++ {
		if o.rows == nil || o.rows[s] == nil {
			return r.refuse(a, "they are not all resident")
		}
	}
	rows := slices.Clone(o.rows[a.First : a.First+a.Count])
	if a.Kind == plan.ActSpill {
		switch {
		case r.x.o.Slow == nil || role != plan.RoleTemp && role != plan.RoleOutput:
			return r.refuse(a, "there is no room for it in the slow tier")
		case a.First != 0 || a.Count != n:
			return r.refuse(a, "a ciphertext is written as a whole")
		}
		m := &node{kind: spillNode, step: a.Step, obj: a.Obj, span: span, rows: slices.Clone(rows)}
		r.after(m, o.writer)
		r.afterComing(m, o, span)
		r.saving.spilled(r, m)
		o.users = append(active(o.users, use.over), use{n: m})
		r.spills[a.Obj] = m
		r.launch(m)
	}
	d := &node{kind: dropNode, step: a.Step, obj: a.Obj, span: span, rows: rows}
	for s := a.First; s < a.First+a.Count; s++ {
		o.rows[s] = nil
		if o.mapped != nil && o.mapped[s] {
			o.mapped[s], rows[s-a.First] = false, nil // not ours to free
		}
	}
	o.count(n, a, -1)
	if o.here == 0 && o.rows[n] == nil && role != plan.RoleKey { // keys come and go all the time
		o.rows, o.mapped = nil, nil
	}
	if r.x.kept != nil {
		d.again = r.x.kept.after(a)
	}
	r.after(d, o.writer)
	r.afterComing(d, o, span)
	for _, u := range o.users {
		if !u.n.done && r.uses(u, span) {
			r.after(d, u.n)
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
// is noted with.
func (r *run) uses(u use, span plan.Span) bool {
	switch u.n.kind {
	case makeNode:
		n := r.x.slabs[u.n.obj]
		return span.First <= n && n < span.First+span.Count
	case stepNode:
		obj := r.x.p.Steps[u.n.step].Args[u.arg]
		if r.x.p.Objects[obj].Type.Kind != ir.KeyKind {
			return span.First < r.x.slabs[obj]
		}
		r.spans = r.x.p.Touched(r.spans[:0], int(u.n.step), u.arg)
		return slices.ContainsFunc(r.spans, func(t plan.Span) bool { return meet(t, span) })
	}
	return true
}

// meet reports whether two spans have a slab in common.
func meet(a, b plan.Span) bool { return a.First < b.First+b.Count && b.First < a.First+a.Count }

// free gives dropped slabs back to the arena, or keeps them for the next run.
func (r *run) free(d *node) {
	d.done = true
	delete(r.leaving, d)
	rows := d.rows
	if r.x.kept != nil && r.err == nil {
		resident := r.objects[d.obj].rows
		rows = r.x.kept.put(d.obj, d.span, rows, d.again, func(s int32) bool { return resident != nil && resident[s] != nil })
	}
	r.x.give(d.obj, rows)
	d.rows = nil
	// Reads in flight stay noted: this drop may be done before them, where it is of
	// slabs that were resident earlier, and what they read is not to be written before
	// they end.
	if o := &r.objects[d.obj]; o.rows == nil {
		o.writer, o.users = nil, nil
		if o.coming = slices.DeleteFunc(o.coming, (*node).over); len(o.coming) == 0 {
			o.coming = nil
		}
	}
}

// releaseAll frees what is left at the end, or keeps it for the next run.
func (r *run) releaseAll() {
	for i := range r.objects {
		o := &r.objects[i]
		if r.x.fixed[i] != nil || o.rows == nil {
			continue
		}
		for s := range o.rows {
			if o.mapped != nil && o.mapped[s] {
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

// over reports whether a node is done.
func (n *node) over() bool { return n.done }

// over reports whether a use is.
func (u use) over() bool { return u.n.done }

// active makes room in a list that is full by forgetting what is over.
func active[T any](list []T, over func(T) bool) []T {
	if len(list) < cap(list) {
		return list
	}
	return slices.DeleteFunc(list, over)
}

// after makes n wait for m, if m is there and not done.
func (r *run) after(n, m *node) {
	if m != nil && !m.done {
		m.next = append(m.next, n)
		n.deps++
	}
}

// afterComing makes n wait for what brings slabs in some of the spans.
func (r *run) afterComing(n *node, o *object, spans ...plan.Span) {
	for _, m := range o.coming {
		if m.done {
			continue
		}
		for _, s := range spans {
			if meet(m.span, s) {
				r.after(n, m)
				break
			}
		}
	}
}

// countMapped counts the slabs of spans that are read where they lie.
func (r *run) countMapped(o *object, spans ...plan.Span) {
	if o.mapped == nil {
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
	out := &r.objects[st.Out]
	if !update {
		// This may wait and let others run, so it comes before anything is
		// noted about the step.
		if err := r.reside(st.Out, s); err != nil {
			return err
		}
	}
	n := &node{kind: stepNode, step: s, obj: st.Out, args: make([]backend.Operand, len(st.Args))}
	var err error
	if n.out, err = r.operand(st.Out); err != nil {
		return err
	}
	for i, a := range st.Args {
		if n.args[i], err = r.operand(a); err != nil {
			return err
		}
		if r.x.fixed[a] != nil {
			continue
		}
		o := &r.objects[a]
		r.after(n, o.writer)
		if r.x.p.Objects[a].Type.Kind != ir.KeyKind {
			r.spans = append(r.spans[:0], plan.Span{Count: r.x.slabs[a]})
		} else if o.mapped != nil || slices.ContainsFunc(o.coming, func(m *node) bool { return !m.done }) {
			r.spans = r.x.p.Touched(r.spans[:0], int(s), i)
		} else {
			r.spans = r.spans[:0] // nothing to wait for or to count
		}
		r.afterComing(n, o, r.spans...)
		r.countMapped(o, r.spans...)
		if a != st.Out {
			o.users = append(active(o.users, use.over), use{n, i})
		}
	}
	if update {
		for _, u := range out.users {
			r.after(n, u.n)
		}
	}
	out.writer, out.users = n, nil
	delete(r.spills, st.Out) // what was written back is out of date
	r.saving.changed(st.Out)
	r.issued++
	r.launch(n)
	return nil
}

// resident reports whether the slabs that a step touches of an argument are there.
func (r *run) resident(s int32, arg int) bool {
	obj := r.x.p.Steps[s].Args[arg]
	o := &r.objects[obj]
	switch {
	case r.x.fixed[obj] != nil || o.here == r.x.slabs[obj]:
		return r.x.fixed[obj] != nil || o.rows != nil
	case r.x.p.Objects[obj].Type.Kind != ir.KeyKind || o.rows == nil:
		return false
	}
	r.spans = r.x.p.Touched(r.spans[:0], int(s), arg)
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
	o, n := &r.objects[obj], r.x.slabs[obj]
	if o.rows != nil {
		return fmt.Errorf("the tier plan has %s in memory before step %d, which computes it", describe(r.x.p, obj), step)
	}
	for {
		rows, err := r.take(obj, int(n))
		if err != nil {
			return err
		}
		if rows != nil {
			o.hold(n)
			copy(o.rows, rows)
			o.here, o.op = n, nil
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
		heap.Push(&r.ready, piece{n: n})
		r.work.Signal()
		return
	case makeNode:
		per := int32(makeSlabs)
		if k := int32(r.x.o.Threads); k > 1 {
			per = min(per, max((n.span.Count+k-1)/k, makeLeast))
		}
		for at := n.span.First; at < n.span.First+n.span.Count; at += per {
			n.pending++
			heap.Push(&r.ready, piece{n, plan.Span{First: at, Count: min(per, n.span.First+n.span.Count-at)}})
			r.work.Signal()
		}
		return
	case dropNode:
		r.free(n)
		return
	case saveNode:
		r.save(n)
		return
	case mapNode:
		n.pending = 1
		r.jobs++
		r.queue.Submit(func(w int) { r.transfer(n, w, 0, nil) })
	default:
		per := max(1, transferBytes/r.x.e.SlabBytes())
		if n.kind == fetchNode && !r.waits(n) {
			per = len(n.rows) // the caller fills an input as a whole
		}
		n.pending = (len(n.rows) + per - 1) / per
		for first := 0; first < len(n.rows); first += per {
			part := n.rows[first:min(first+per, len(n.rows))]
			r.jobs++
			r.queue.Submit(func(w int) { r.transfer(n, w, int(n.span.First)+first, part) })
		}
	}
	if r.running == 0 && len(r.ready) == 0 {
		r.beginStall()
	}
}

// Workers make up to makeSlabs slabs at a time, so that a step that becomes ready
// meanwhile need not wait long, and no fewer than makeLeast where several share a
// make.
const (
	makeSlabs = 16
	makeLeast = 4
)

// transfer moves some slabs of an object, or checks them. It runs on the queue.
func (r *run) transfer(n *node, worker, first int, part [][]byte) {
	r.mu.Lock()
	failed := r.err != nil
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

// makeSome computes slabs on a worker.
func (r *run) makeSome(p piece, worker int) {
	n := p.n
	r.endStall()
	r.running++
	out, source := n.out, n.source
	r.mu.Unlock()
	e := Event{Kind: ExpandBegin, Step: n.step, Obj: n.obj, Worker: worker, Bytes: int64(p.span.Count) * int64(r.x.e.SlabBytes())}
	r.x.emit(e)
	slabs := make([]int32, p.span.Count)
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

// finish marks a node as done and starts what waited for it.
func (r *run) finish(n *node) {
	n.done = true
	r.flying--
	if r.err == nil {
		for _, m := range n.next {
			if m.deps--; m.deps == 0 {
				r.start(m)
			}
		}
	}
	n.next, n.args, n.out, n.rows, n.source, n.check = nil, nil, nil, nil, nil, nil
	r.progress.Broadcast()
}

// worker executes ready steps and makes, the earliest first.
func (r *run) worker(w int) {
	if r.x.mapper != nil {
		debug.SetPanicOnFault(true) // a medium that fails under a load: an error, as of any read
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for len(r.ready) == 0 && !r.over {
			r.work.Wait()
		}
		if r.over {
			return
		}
		p := heap.Pop(&r.ready).(piece)
		if p.n.kind == makeNode {
			r.makeSome(p, w)
			continue
		}
		n := p.n
		st := &r.x.p.Steps[n.step]
		r.endStall()
		r.running++
		firstOfLayer, lastOfLayer := false, false
		layered := st.Layer >= 0 && int(st.Layer) < len(r.begun)
		if layered {
			firstOfLayer = r.begun[st.Layer] == 0
			r.begun[st.Layer]++
		}
		args, out := n.args, n.out
		r.mu.Unlock()
		if firstOfLayer {
			r.x.emit(Event{Kind: LayerBegin, Layer: st.Layer, Label: r.x.p.Layers[st.Layer].Name})
		}
		r.x.emit(Event{Kind: StepBegin, Step: n.step, Op: st.Op, Layer: st.Layer, Worker: w})
		err := backend.Guard(func() error { return r.x.e.Exec(st, args, out) })
		if err != nil {
			err = r.stepError(n.step, err)
		}
		r.mu.Lock()
		r.running--
		r.issued--
		if err == nil {
			r.executed[n.step] = true
			r.doneSteps++
			if layered {
				r.ended[st.Layer]++
				lastOfLayer = r.ended[st.Layer] == r.x.perLay[st.Layer]
			}
		}
		done := r.doneSteps
		r.fail(err)
		r.finish(n)
		if r.running == 0 && len(r.ready) == 0 {
			r.beginStall()
		}
		if r.x.o.Events != nil {
			r.mu.Unlock()
			r.x.emit(Event{Kind: StepEnd, Step: n.step, Op: st.Op, Layer: st.Layer, Worker: w, Done: done, Total: len(r.x.p.Steps), Err: err})
			if lastOfLayer {
				r.x.emit(Event{Kind: LayerEnd, Layer: st.Layer, Label: r.x.p.Layers[st.Layer].Name})
			}
			r.mu.Lock()
		}
	}
}

// hold makes room to note the slabs of an object of n.
func (o *object) hold(n int32) {
	if o.rows == nil {
		o.rows = make([][]byte, n+1)
	}
}

// count counts slabs that come or go.
func (o *object) count(n int32, a plan.Action, sign int32) {
	o.here += sign * (min(a.First+a.Count, n) - min(a.First, n))
	o.op = nil
}

// operand returns the operand over the slabs that are resident now.
func (r *run) operand(obj plan.ObjectID) (backend.Operand, error) {
	o := &r.objects[obj]
	if o.op == nil {
		var err error
		if o.op, err = r.x.e.Bind(r.x.p.Objects[obj].Type, o.rows[:r.x.slabs[obj]]); err != nil {
			return nil, fmt.Errorf("%s: %w", describe(r.x.p, obj), err)
		}
	}
	return o.op, nil
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
			x, n := &r.objects[o], r.x.slabs[o]
			if x.rows == nil || x.here != n {
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
