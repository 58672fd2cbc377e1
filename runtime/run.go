package runtime

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/store"
)

// residence is one stay of an object in DRAM. An object that is dropped and
// fetched again has a new one, while steps in flight may still use the old.
type residence struct {
	obj     plan.ObjectID
	block   *store.Block
	op      backend.Operand
	pins    int     // unfinished nodes that use the memory
	dropped bool    // the plan has let go; freed when the last pin goes
	next    int32   // after a drop: step of the next fetch, counted on into the next run
	writer  *node   // last node that writes it
	readers []*node // nodes that read it since, ciphertexts only
}

type nodeKind uint8

const (
	stepNode nodeKind = iota
	fetchNode
	spillNode
)

// node is a unit of work on the scoreboard: a step or a transfer. It becomes
// ready when the nodes it depends on are done. A fetch of an object in compact
// form reads some of its slabs, and then waits among the steps for a worker to
// make the others.
type node struct {
	kind    nodeKind
	step    int32 // the step, or the step before which the transfer was ordered
	res     *residence
	deps    int
	pending int // pieces of a transfer that are not done
	done    bool
	next    []*node
	pins    []*residence
	args    []backend.Operand
	out     backend.Operand
}

// readyHeap orders ready steps, and fetches to be expanded, by their place in the
// plan.
type readyHeap []*node

func (h readyHeap) Len() int           { return len(h) }
func (h readyHeap) Less(i, j int) bool { return h[i].step < h[j].step }
func (h readyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *readyHeap) Push(x any)        { *h = append(*h, x.(*node)) }
func (h *readyHeap) Pop() any {
	old := *h
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return n
}

// run is one execution of a plan. One goroutine issues actions and steps in
// order; workers execute steps; a queue executes transfers. Waiting cannot
// deadlock: only the issuer waits for memory, and what is in flight already
// has all the memory it needs.
type run struct {
	x     *Executor
	in    Inputs
	queue *store.Queue

	mu       sync.Mutex
	progress *sync.Cond // something finished, or the run failed
	work     *sync.Cond // a step is ready, or the run is over
	ready    readyHeap
	cur      []*residence // per object, nil where it is not resident
	live     map[*residence]struct{}
	spills   map[plan.ObjectID]*node // spill that holds the present content of an object
	overdue  []overdue               // fetches that were put off, in order
	late     map[plan.ObjectID]bool  // the objects of these
	issued   int                     // steps issued and not done
	flying   int                     // nodes of any kind issued and not done
	running  int                     // steps and expansions being executed
	jobs     int                     // transfer pieces queued or running
	reading  int                     // fetches from the slow tier not done
	err      error
	over     bool

	begun, ended []int32 // steps per layer
	executed     []bool
	doneSteps    int
	bytesRead    int64
	bytesWritten int64
	stalledSince time.Time
	stall        time.Duration
	expanded     int
	expanding    time.Duration // of all workers together
}

func newRun(x *Executor, in Inputs) *run {
	r := &run{
		x: x, in: in, cur: make([]*residence, len(x.p.Objects)), live: map[*residence]struct{}{},
		spills: map[plan.ObjectID]*node{}, late: map[plan.ObjectID]bool{}, begun: make([]int32, len(x.perLay)), ended: make([]int32, len(x.perLay)), executed: make([]bool, len(x.p.Steps)),
	}
	r.progress, r.work = sync.NewCond(&r.mu), sync.NewCond(&r.mu)
	copy(r.cur, x.fixed)
	if x.kept != nil {
		x.kept.rewind()
	}
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
	for res := range r.live {
		res.block.Free()
	}
	r.live = nil
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
	steps, acts, next := r.x.p.Steps, r.x.actions, 0
	window := windowPerThread * r.x.o.Threads
	for s := int32(0); int(s) <= len(steps) && r.err == nil; s++ {
		for next < len(acts) && acts[next].Step <= s && r.err == nil {
			if acts[next].Step < s {
				r.fail(fmt.Errorf("the tier plan is out of order at step %d", s))
				return
			}
			if err := r.act(acts[next]); err != nil {
				r.fail(err)
				return
			}
			next++
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
		if err := r.need(r.overdue[0].obj, r.overdue[0].step); err != nil {
			r.fail(err)
		}
	}
	if r.err == nil && next < len(acts) {
		r.fail(fmt.Errorf("the tier plan acts at step %d of %d", acts[next].Step, len(steps)))
	}
}

// tryReside makes an object resident if there are slabs for it at the moment,
// and returns nil where there are not.
func (r *run) tryReside(obj plan.ObjectID) (*residence, error) {
	for {
		b, err := r.x.arena.Alloc(int(r.x.slabs[obj]), purpose(r.x.p.Objects[obj].Role), owner)
		if errors.Is(err, store.ErrFull) {
			if r.x.kept != nil && r.x.kept.evict() {
				continue
			}
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		res := &residence{obj: obj, block: b}
		r.live[res] = struct{}{}
		if res.op, err = r.x.e.Bind(r.x.p.Objects[obj].Type, b.Slabs); err != nil {
			return nil, fmt.Errorf("%s: %w", describe(r.x.p, obj), err)
		}
		r.cur[obj] = res
		return res, nil
	}
}

// reside makes an object resident and waits for slabs if it has to. Memory that
// the plan has let go comes back when the steps in flight that use it are
// done; if nothing is in flight and the slabs are still not there, the plan
// asks for more than the arena has.
func (r *run) reside(obj plan.ObjectID, step int32) (*residence, error) {
	for {
		if res, err := r.tryReside(obj); res != nil || err != nil {
			return res, err
		}
		if err := r.await(obj, step); err != nil {
			return nil, err
		}
	}
}

// await waits for something to finish, on behalf of an object that wants slabs.
func (r *run) await(obj plan.ObjectID, step int32) error {
	if r.flying == 0 {
		return fmt.Errorf("the tier plan does not fit its arena at step %d: no room for %s", step, describe(r.x.p, obj))
	}
	r.progress.Wait()
	return r.err
}

// fetch orders a transfer into DRAM. The order of the plan is kept: a fetch
// that finds no slabs waits for them, and the steps after it with it. Only when
// threads would go idle meanwhile is the fetch put off and the issue goes on;
// it is made up for in order as slabs come back, at the latest when a step
// needs the object. The plan has room for everything it makes resident, so
// what is put off always fits once the steps in flight are done.
func (r *run) fetch(obj plan.ObjectID, step int32) error {
	for {
		if err := r.catchUp(); err != nil {
			return err
		}
		if len(r.overdue) == 0 {
			if done, err := r.tryFetch(obj, step); done || err != nil {
				return err
			}
		}
		if r.flying > 0 && r.reading == 0 && r.running+len(r.ready) < r.x.o.Threads {
			r.overdue = append(r.overdue, overdue{obj, step})
			r.late[obj] = true
			return nil
		}
		if err := r.await(obj, step); err != nil {
			return err
		}
	}
}

// overdue is a fetch that was put off.
type overdue struct {
	obj  plan.ObjectID
	step int32
}

// catchUp orders fetches that were put off, as far as there are slabs.
func (r *run) catchUp() error {
	for len(r.overdue) > 0 {
		o := r.overdue[0]
		done, err := r.tryFetch(o.obj, o.step)
		if !done || err != nil {
			return err
		}
		delete(r.late, o.obj)
		r.overdue = r.overdue[1:]
	}
	return nil
}

// need makes sure that a fetch that was put off is under way.
func (r *run) need(obj plan.ObjectID, step int32) error {
	for r.late[obj] {
		if err := r.catchUp(); err != nil {
			return err
		}
		if !r.late[obj] {
			break
		}
		if err := r.await(obj, step); err != nil {
			return err
		}
	}
	return nil
}

// tryFetch starts a transfer into DRAM if there are slabs for it.
func (r *run) tryFetch(obj plan.ObjectID, step int32) (bool, error) {
	if r.x.kept != nil {
		if res := r.x.kept.take(obj); res != nil {
			res.dropped = false
			r.cur[obj], r.live[res] = res, struct{}{}
			return true, nil
		}
	}
	res, err := r.tryReside(obj)
	if res == nil || err != nil {
		return false, err
	}
	n := &node{kind: fetchNode, step: step, res: res}
	r.after(n, r.spills[obj]) // nil for what was not computed here
	res.writer = n
	r.launch(n, res)
	return true, nil
}

// act obeys one action of the tier plan.
func (r *run) act(a plan.Action) error {
	if a.Obj < 0 || int(a.Obj) >= len(r.cur) {
		return fmt.Errorf("the tier plan refers to object %d of %d", a.Obj, len(r.cur))
	}
	if r.x.fixed[a.Obj] != nil {
		return nil // needs no memory here
	}
	if err := r.need(a.Obj, a.Step); err != nil {
		return err
	}
	res := r.cur[a.Obj]
	switch a.Kind {
	case plan.ActFetch:
		if res != nil {
			return fmt.Errorf("the tier plan fetches %s at step %d, which is resident", describe(r.x.p, a.Obj), a.Step)
		}
		if role := r.x.p.Objects[a.Obj].Role; (role == plan.RoleTemp || role == plan.RoleOutput) && r.spills[a.Obj] == nil {
			return fmt.Errorf("the tier plan fetches %s at step %d, and the slow tier does not hold it", describe(r.x.p, a.Obj), a.Step)
		}
		return r.fetch(a.Obj, a.Step)
	case plan.ActDrop:
		if res == nil {
			return fmt.Errorf("the tier plan drops %s at step %d, which is not resident", describe(r.x.p, a.Obj), a.Step)
		}
		if r.x.kept != nil {
			res.next = r.x.kept.after(a)
		}
		r.drop(res)
	case plan.ActSpill:
		if res == nil || r.x.o.Slow == nil {
			return fmt.Errorf("the tier plan spills %s at step %d, which is not resident", describe(r.x.p, a.Obj), a.Step)
		}
		n := &node{kind: spillNode, step: a.Step, res: res}
		r.after(n, res.writer)
		r.spills[a.Obj] = n
		r.launch(n, res)
		r.drop(res)
	default:
		return fmt.Errorf("the tier plan has an action of kind %d", a.Kind)
	}
	return nil
}

// after makes n wait for m, if m is there and not done.
func (r *run) after(n, m *node) {
	if m != nil && !m.done {
		m.next = append(m.next, n)
		n.deps++
	}
}

// launch pins what a node uses and makes it ready if nothing holds it back.
func (r *run) launch(n *node, uses ...*residence) {
	for _, u := range uses {
		u.pins++
	}
	n.pins = uses
	r.flying++
	if n.kind == fetchNode && r.fromSlow(n) {
		r.reading++
	}
	if n.deps == 0 {
		r.start(n)
	}
}

// fromSlow reports whether a fetch reads the slow tier rather than the caller's
// inputs.
func (r *run) fromSlow(n *node) bool { return r.x.p.Objects[n.res.obj].Role != plan.RoleInput }

// expands reports whether a fetch reads a compact form.
func (r *run) expands(n *node) bool {
	return n.kind == fetchNode && r.x.compact != nil && r.x.compact[n.res.obj] != nil
}

// drop lets go of a stay in DRAM.
func (r *run) drop(res *residence) {
	res.dropped = true
	r.cur[res.obj] = nil
	r.release(res)
}

func (r *run) release(res *residence) {
	if !res.dropped || res.pins > 0 {
		return
	}
	delete(r.live, res)
	if r.x.kept == nil || r.err != nil || r.cur[res.obj] != nil || !r.x.kept.put(res) {
		res.block.Free()
	}
}

// issue puts one step on the scoreboard.
func (r *run) issue(s int32) error {
	st := &r.x.p.Steps[s]
	update := len(st.Args) > 0 && st.Args[0] == st.Out
	if err := r.catchUp(); err != nil {
		return err
	}
	for _, a := range st.Args {
		if err := r.need(a, s); err != nil {
			return err
		}
		if r.cur[a] == nil {
			return fmt.Errorf("the tier plan leaves %s out of memory at step %d (%s)", describe(r.x.p, a), s, st.Op)
		}
	}
	out := r.cur[st.Out]
	if !update {
		// This may wait and let others run, so it comes before anything is
		// noted about the step.
		var err error
		if out, err = r.reside(st.Out, s); err != nil {
			return err
		}
	}
	n := &node{kind: stepNode, step: s, args: make([]backend.Operand, len(st.Args)), out: out.op}
	uses := make([]*residence, 0, len(st.Args)+1)
	for i, a := range st.Args {
		res := r.cur[a]
		r.after(n, res.writer)
		n.args[i] = res.op
		uses = append(uses, res)
		if role := r.x.p.Objects[a].Role; res != out && (role == plan.RoleTemp || role == plan.RoleOutput) {
			res.readers = append(res.readers, n)
		}
	}
	if update {
		for _, m := range out.readers {
			r.after(n, m)
		}
	} else {
		uses = append(uses, out)
	}
	out.writer, out.readers = n, nil
	delete(r.spills, st.Out) // what was written back is out of date
	r.issued++
	r.launch(n, uses...)
	return nil
}

// start hands a node whose dependencies are done to those who execute it.
func (r *run) start(n *node) {
	if n.kind == stepNode {
		heap.Push(&r.ready, n)
		r.work.Signal()
		return
	}
	slabs := n.res.block.Slabs
	if r.expands(n) {
		slabs = pick(slabs, r.x.compact[n.res.obj])
	}
	per := max(1, transferBytes/r.x.e.SlabBytes())
	if n.kind == fetchNode && !r.fromSlow(n) {
		per = max(1, len(slabs)) // the caller fills an input as a whole
	}
	if len(slabs) == 0 {
		n.pending = 1
		r.jobs++
		r.queue.Submit(func(int) { r.pieceDone(n, 0, nil) })
		return
	}
	n.pending = (len(slabs) + per - 1) / per
	for first := 0; first < len(slabs); first += per {
		part := slabs[first:min(first+per, len(slabs))]
		r.jobs++
		r.queue.Submit(func(w int) { r.transfer(n, w, first, part) })
	}
	if r.running == 0 && len(r.ready) == 0 {
		r.beginStall()
	}
}

// transfer moves one piece of an object. It runs on the queue.
func (r *run) transfer(n *node, worker, first int, part [][]byte) {
	r.mu.Lock()
	failed := r.err != nil
	r.mu.Unlock()
	if failed {
		r.pieceDone(n, 0, nil)
		return
	}
	obj := n.res.obj
	e := Event{Kind: FetchBegin, Step: n.step, Obj: obj, Worker: worker, Bytes: int64(len(part)) * int64(r.x.e.SlabBytes())}
	if n.kind == spillNode {
		e.Kind = SpillBegin
	}
	r.x.emit(e)
	var err error
	switch {
	case n.kind == spillNode:
		err = r.x.o.Slow.Write(obj, first, part)
	case r.fromSlow(n):
		err = r.x.o.Slow.Read(obj, first, part)
	case r.in == nil:
		err = errors.New("the run was given no inputs")
	default:
		err = r.in(obj, part)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", describe(r.x.p, obj), err)
	}
	e.Kind++ // the matching end
	e.Err = err
	r.x.emit(e)
	r.pieceDone(n, e.Bytes, err)
}

// pieceDone counts one finished piece of a transfer.
func (r *run) pieceDone(n *node, bytes int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs--
	switch {
	case n.kind == spillNode:
		r.bytesWritten += bytes
	case r.fromSlow(n):
		r.bytesRead += bytes
	}
	r.fail(err)
	if n.pending--; n.pending == 0 {
		if n.kind == fetchNode && r.fromSlow(n) {
			r.reading--
		}
		if r.expands(n) && r.err == nil {
			heap.Push(&r.ready, n)
			r.work.Signal()
		} else {
			r.finish(n)
		}
	}
	r.progress.Broadcast()
}

// expand makes an object of the compact form that was fetched.
func (r *run) expand(n *node, worker int) {
	r.endStall()
	r.running++
	r.mu.Unlock()
	e := Event{Kind: ExpandBegin, Step: n.step, Obj: n.res.obj, Worker: worker}
	r.x.emit(e)
	began := time.Now()
	err := backend.Guard(func() error { return r.x.e.(backend.Compact).Expand(n.res.op) })
	took := time.Since(began)
	if err != nil {
		err = fmt.Errorf("%s: %w", describe(r.x.p, n.res.obj), err)
	}
	e.Kind, e.Err = ExpandEnd, err
	r.x.emit(e)
	r.mu.Lock()
	r.running--
	r.expanded++
	r.expanding += took
	r.fail(err)
	r.finish(n)
	if r.running == 0 && len(r.ready) == 0 {
		r.beginStall()
	}
}

// finish marks a node as done, starts what waited for it and lets go of its
// memory.
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
	n.next = nil
	for _, u := range n.pins {
		u.pins--
		r.release(u)
	}
	n.pins, n.args, n.out = nil, nil, nil
	r.progress.Broadcast()
}

// worker executes ready steps and expansions, the earliest first.
func (r *run) worker(w int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for len(r.ready) == 0 && !r.over {
			r.work.Wait()
		}
		if r.over {
			return
		}
		n := heap.Pop(&r.ready).(*node)
		if n.kind == fetchNode {
			r.expand(n, w)
			continue
		}
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
			res := r.cur[o]
			if res == nil {
				r.fail(fmt.Errorf("the tier plan leaves %s out of memory at the end", describe(r.x.p, o)))
				return nil
			}
			if out[o] == nil {
				c := make([][]byte, len(res.block.Slabs))
				for i, s := range res.block.Slabs {
					c[i] = append([]byte(nil), s...)
				}
				out[o] = c
			}
		}
	}
	return out
}
