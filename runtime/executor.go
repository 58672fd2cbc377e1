package runtime

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"sync"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/store"
)

// KeySource expands evaluation keys of one key set into memory. Key may be
// called from several goroutines at once.
type KeySource interface {
	// ID identifies the key set and the secret key it belongs to.
	ID() string
	// Key writes the key that rotates by rot slots to the left, or that ir.KeyRelin
	// and the like name, cut to the level, into dst: as many slabs as the engine
	// wants for a key of that level. Slabs of the halves that are not random must be
	// there; of the uniform halves those are left out that are nil. seed, where it is
	// not nil, receives the seed that these follow from; see backend.Compact.
	Key(rot, level int, dst [][]byte, seed []byte) error
}

// Inputs fills the slabs of one input ciphertext. It may be called from several
// goroutines, and more than once for the same object: under a small budget an
// input is dropped and read again.
type Inputs func(obj plan.ObjectID, dst [][]byte) error

// InputSlabs returns Inputs that copy from memory.
func InputSlabs(in map[plan.ObjectID][][]byte) Inputs {
	return func(obj plan.ObjectID, dst [][]byte) error {
		src, ok := in[obj]
		if !ok {
			return fmt.Errorf("input object %d is missing", obj)
		}
		if len(src) != len(dst) {
			return fmt.Errorf("input object %d has %d slabs, want %d", obj, len(src), len(dst))
		}
		for i := range dst {
			if copy(dst[i], src[i]) != len(dst[i]) || len(src[i]) != len(dst[i]) {
				return fmt.Errorf("input object %d: slab %d has %d bytes, want %d", obj, i, len(src[i]), len(dst[i]))
			}
		}
		return nil
	}
}

// Outputs holds the output ciphertexts of a run, on the Go heap.
type Outputs map[plan.ObjectID][][]byte

// Slow is a slow tier as the executor sees it: keys and weights that were
// installed, and room for ciphertexts that must leave DRAM for a while. Both
// methods may be called from several goroutines for different slabs.
type Slow interface {
	// Read fills dst with the slabs of the object from slab first on, the number
	// after the last being that of its source, and fails if they are not what was
	// written. Of a source, the first page will do: the seed of a key is no longer. The
	// forms of the tier plan say which slabs there are.
	Read(obj plan.ObjectID, first int, dst [][]byte) error
	// Write stores slabs of a ciphertext from slab first on.
	Write(obj plan.ObjectID, first int, src [][]byte) error
	// Technology says what the tier is made of, for people.
	Technology() string
}

// Mapper is a Slow that may be byte-addressable.
type Mapper interface {
	// Addressable reports whether it is.
	Addressable() bool
	// Map returns slabs of a key or weight where they lie, to be read only, without
	// reading them. check, which may be nil, verifies that they are what was
	// written; nothing may rely on them before it has returned.
	Map(obj plan.ObjectID, first, count int) (slabs [][]byte, check func() error, err error)
}

// Options of an executor.
type Options struct {
	// Threads is the number of steps that run at once; 0 means 1.
	Threads int
	// Slow is the slow tier that keys and weights are read from as Plan.Tier
	// says. Without it everything is made at set-up and stays in DRAM.
	Slow Slow
	// Reuse says that Run will be called several times: keys and weights that
	// the tier plan drops stay in slabs that nothing else needs, so that later
	// fetches of them, in the same run or the next, cost nothing. A single run
	// gains nothing from it and would only touch more memory.
	Reuse bool
	// Synchronous says that the slow tier is waited for: before slabs are fetched,
	// mapped or made all that was issued before is done, and no step is issued until
	// they are there. It is for comparison only.
	Synchronous bool
	// QueueDepth is the number of transfers in flight; 0 means 4.
	QueueDepth int
	// Keys is where keys come from without a slow tier. It may be nil for
	// engines whose keys take no memory.
	Keys KeySource
	// Events receives what happens; may be nil.
	Events Listener
	// Start is the zero of the event times; the zero time means now.
	Start time.Time
	// Admission guards the arena; may be nil.
	Admission store.Admission
}

// workers returns how many goroutines run steps, and how many transfers.
func (o Options) workers() (threads, depth int) {
	if depth = o.QueueDepth; depth <= 0 {
		depth = 4
	}
	return max(o.Threads, 1), depth
}

// Processors returns how many processors of the Go scheduler (GOMAXPROCS) a run with
// a slow tier needs, whatever the machine has: one for each thread, for each transfer
// and for the issue. A goroutine that waits for a file keeps its processor until the
// scheduler notices, up to ten milliseconds later, and with fewer a step that is
// ready waits for one. Processors that wait cost nothing.
func (o Options) Processors() int {
	threads, depth := o.workers()
	return threads + depth + 1
}

// Report says what a run did.
type Report struct {
	SetupSeconds float64      `json:"setup_seconds"`
	Seconds      float64      `json:"seconds"`
	CPUSeconds   float64      `json:"cpu_seconds"`
	Counts       plan.Counts  `json:"counts"`
	PeakRSSBytes int64        `json:"peak_rss_bytes"`
	ArenaPeak    int64        `json:"arena_peak_bytes"` // most bytes the arena held at once
	ArenaHuge    int64        `json:"arena_huge_bytes"` // of those backed before the run, in huge pages; 0 where unknown
	Tiers        []TierReport `json:"tiers"`
}

// TierReport says what moved through one tier.
type TierReport struct {
	Name         string  `json:"name"`
	Technology   string  `json:"technology"`
	BytesRead    int64   `json:"bytes_read"`
	BytesWritten int64   `json:"bytes_written"`
	BytesMapped  int64   `json:"bytes_mapped"`  // used where they lie
	StallSeconds float64 `json:"stall_seconds"` // no step ran because one waited for this tier
	// Slabs that were computed rather than read, and the time the workers took, in
	// sum, to do so.
	Expanded      int     `json:"expanded"`
	ExpandSeconds float64 `json:"expand_seconds"`
}

// transferBytes is the size of the pieces that large objects are read in, so
// that several workers share one object.
const transferBytes = 2 << 20

// windowPerThread bounds how many steps are issued and not yet done, per
// thread: enough to find independent work, few enough to keep temporaries few.
const windowPerThread = 16

// Executor runs one plan on one engine, any number of times. Run may be called
// by one goroutine at a time; make one executor per run to run at once.
type Executor struct {
	p       *plan.Plan
	e       backend.Engine
	o       Options
	start   time.Time
	arena   *store.Arena
	huge    int64 // bytes of it in huge pages, as far as they were backed beforehand
	actions []plan.Action
	slabs   []int32
	fixed   []*resident // keys and weights that stay in DRAM
	forms   plan.Forms  // of the slow tier, where there is one
	parts   []bool      // per object, steps read parts of it, or its source: see plan.Forms.Touched
	seeds   [][]byte    // per object, the seed of a key that is made from it
	mapper  Mapper      // nil where the slow tier is not byte-addressable
	perLay  []int32     // steps per layer
	kept    *spare      // with Options.Reuse, else nil
	setup   float64
}

// resident is an object that stays in DRAM.
type resident struct {
	block *store.Block
	state object // of every run: nothing about it changes
}

// NewExecutor checks the plan against the engine and does the set-up that its
// residency asks for: without a slow tier every key is expanded and every
// weight encoded into DRAM, in parallel; with one, as much memory is taken from
// the operating system as the tier plan will use. The caller closes the executor.
func NewExecutor(ctx context.Context, p *plan.Plan, e backend.Engine, o Options) (*Executor, error) {
	o.Threads, o.QueueDepth = o.workers()
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	x := &Executor{p: p, e: e, o: o, start: o.Start, slabs: make([]int32, len(p.Objects)), fixed: make([]*resident, len(p.Objects)), seeds: make([][]byte, len(p.Objects)), parts: make([]bool, len(p.Objects))}
	if err := checkSteps(p); err != nil {
		return nil, err
	}
	for i := range p.Objects {
		x.slabs[i] = int32(e.Slabs(p.Objects[i].Type))
	}
	x.perLay = make([]int32, len(p.Layers))
	for i := range p.Steps {
		if st := &p.Steps[i]; x.layered(st) {
			x.perLay[st.Layer]++
		}
	}
	limit := 0
	if o.Slow != nil {
		if p.Tier == nil {
			return nil, errors.New("the plan has no tier plan: make one for the budget first")
		}
		if e.SlabBytes() != p.Params.SlabBytes() {
			return nil, fmt.Errorf("the %s engine has slabs of %d bytes, the tier plan of %d: run without a slow tier", e.Name(), e.SlabBytes(), p.Params.SlabBytes())
		}
		for i := range p.Objects {
			t := &p.Objects[i].Type
			if want := p.Params.Slabs(t.Kind, t.Level); int(x.slabs[i]) != want {
				return nil, fmt.Errorf("object %d (%s): the %s engine wants %d slabs, the tier plan %d: run without a slow tier", i, t.Kind, e.Name(), x.slabs[i], want)
			}
		}
		limit = p.Tier.ArenaSlabs
		if limit <= 0 {
			return nil, fmt.Errorf("the tier plan has an arena of %d slabs", limit)
		}
		x.actions, x.forms = p.Tier.Actions, p.Tier.Forms
		if _, ok := e.(backend.Compact); !ok && (x.forms.Streams || x.forms.Fused > 0 || slices.ContainsFunc(x.actions, func(a plan.Action) bool { return a.Kind == plan.ActMake })) {
			return nil, fmt.Errorf("the tier plan computes slabs, which the %s engine cannot: make one for it that does not", e.Name())
		}
		if m, ok := o.Slow.(Mapper); ok && m.Addressable() {
			x.mapper = m
		}
		if o.Reuse {
			x.kept = newSpare(x)
		}
	} else {
		x.actions = x.keepAll()
	}
	for i := range p.Objects {
		x.parts[i] = p.Objects[i].Type.Kind == ir.KeyKind || x.forms.InSteps(p, plan.ObjectID(i))
	}
	var err error
	if x.arena, err = store.NewArena(e.SlabBytes(), limit, o.Admission); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := x.makeFixed(ctx); err != nil {
		return nil, errors.Join(err, x.Close())
	}
	if o.Slow != nil {
		if err := errors.Join(x.arena.Populate(p.Tier.PeakSlabs, o.Threads), x.readSeeds(ctx)); err != nil {
			return nil, errors.Join(err, x.Close())
		}
		if huge, err := x.arena.HugeBytes(); err == nil {
			x.huge = huge
		}
	}
	x.setup = time.Since(began).Seconds()
	return x, nil
}

// layered reports whether a step belongs to a layer.
func (x *Executor) layered(st *plan.Step) bool {
	return st.Layer >= 0 && int(st.Layer) < len(x.perLay)
}

// readSeeds reads the seeds of keys of which the tier plan has slabs made, or steps
// make them.
func (x *Executor) readSeeds(ctx context.Context) error {
	var keys []plan.ObjectID
	seen := make([]bool, len(x.p.Objects))
	need := func(obj plan.ObjectID) {
		if obj >= 0 && int(obj) < len(seen) && !seen[obj] && x.p.Objects[obj].Role == plan.RoleKey {
			seen[obj] = true
			keys = append(keys, obj)
		}
	}
	for _, a := range x.actions {
		if a.Kind == plan.ActMake {
			need(a.Obj)
		}
	}
	if x.forms.Streams {
		for s := range x.p.Steps {
			for _, a := range x.p.Steps[s].Args {
				if x.p.Objects[a].Type.Kind == ir.KeyKind {
					need(a)
				}
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	threads := min(x.o.QueueDepth, max(x.arena.Usage().Limit, 1))
	return parallel(ctx, threads, len(keys), func(i int) error {
		b, err := x.arena.Alloc(1, store.Scratch, owner)
		if err != nil {
			return err
		}
		defer b.Free()
		head := b.Slabs[0][:min(len(b.Slabs[0]), store.PageBytes)]
		if err := x.o.Slow.Read(keys[i], int(x.slabs[keys[i]]), [][]byte{head}); err != nil {
			return fmt.Errorf("%s: %w", describe(x.p, keys[i]), err)
		}
		x.seeds[keys[i]] = slices.Clone(head[:x.e.(backend.Compact).SeedBytes()])
		return nil
	})
}

// give frees slabs of an object; rows are nil where there is none, and are
// overwritten.
func (x *Executor) give(obj plan.ObjectID, rows [][]byte) {
	rows = slices.DeleteFunc(rows, func(b []byte) bool { return b == nil })
	x.arena.Give(rows, purpose(x.p.Objects[obj].Role), owner)
}

// Close frees everything the executor holds. No run may be in progress.
func (x *Executor) Close() error {
	for i, r := range x.fixed {
		if r != nil && r.block != nil {
			r.block.Free()
		}
		x.fixed[i] = nil
	}
	for x.kept != nil && x.kept.evict() {
	}
	return x.arena.Close()
}

func (x *Executor) emit(e Event) {
	if x.o.Events != nil {
		e.At = time.Since(x.start)
		x.o.Events.Event(e)
	}
}

// purpose says what the arena counts an object as.
func purpose(r plan.Role) store.Purpose {
	switch r {
	case plan.RoleKey:
		return store.Keys
	case plan.RolePlain:
		return store.Weights
	}
	return store.Ciphertexts
}

// keepAll returns the actions of a run in which keys and weights are resident
// from the start: inputs arrive before their first use, and what is not
// needed any more is dropped after its last.
func (x *Executor) keepAll() []plan.Action {
	p := x.p
	n := int32(len(p.Steps))
	first := make([]int32, len(p.Objects))
	last := make([]int32, len(p.Objects))
	for i := range first {
		first[i], last[i] = -1, -1
	}
	use := func(o plan.ObjectID, s int32) {
		if first[o] < 0 {
			first[o] = s
		}
		last[o] = s
	}
	for s := range p.Steps {
		for _, a := range p.Steps[s].Args {
			use(a, int32(s))
		}
		use(p.Steps[s].Out, int32(s))
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			use(o, n)
		}
	}
	at := make([][]plan.Action, n+1)
	for i := range p.Objects {
		o := plan.ObjectID(i)
		role := p.Objects[i].Role
		if first[i] < 0 || x.slabs[i] == 0 || role == plan.RoleKey || role == plan.RolePlain {
			continue
		}
		if role == plan.RoleInput {
			at[first[i]] = append(at[first[i]], plan.Action{Step: first[i], Kind: plan.ActFetch, Obj: o, Count: x.slabs[i]})
		}
		if last[i] < n {
			s := last[i] + 1
			at[s] = append(at[s], plan.Action{Step: s, Kind: plan.ActDrop, Obj: o, Count: x.slabs[i]})
		}
	}
	var out []plan.Action
	for _, a := range at {
		out = append(out, a...)
	}
	return out
}

// checkSteps verifies that a plan can be executed at all: ids in range, every
// operand defined before it is used and defined once, results in objects that
// may be written.
func checkSteps(p *plan.Plan) error {
	if len(p.Objects) > 1<<30 || len(p.Steps) > 1<<30 {
		return errors.New("the plan is too large")
	}
	defined := make([]bool, len(p.Objects))
	for i := range p.Objects {
		o := &p.Objects[i]
		defined[i] = o.Role == plan.RoleInput || o.Role == plan.RoleKey || o.Role == plan.RolePlain
		if o.Role == plan.RolePlain && (o.Plain < 0 || len(p.Plains) > 0 && int(o.Plain) >= len(p.Plains)) {
			return fmt.Errorf("object %d refers to plaintext %d of %d", i, o.Plain, len(p.Plains))
		}
	}
	inRange := func(o plan.ObjectID) bool { return o >= 0 && int(o) < len(p.Objects) }
	for s := range p.Steps {
		st := &p.Steps[s]
		for _, a := range st.Args {
			if !inRange(a) {
				return fmt.Errorf("step %d (%s) refers to object %d of %d", s, st.Op, a, len(p.Objects))
			}
			if !defined[a] {
				return fmt.Errorf("step %d (%s) uses object %d before it is computed", s, st.Op, a)
			}
		}
		if !inRange(st.Out) {
			return fmt.Errorf("step %d (%s) refers to object %d of %d", s, st.Op, st.Out, len(p.Objects))
		}
		update := len(st.Args) > 0 && st.Args[0] == st.Out
		switch role := p.Objects[st.Out].Role; {
		case role != plan.RoleTemp && role != plan.RoleOutput:
			return fmt.Errorf("step %d (%s) writes object %d, which is read-only", s, st.Op, st.Out)
		case update && !plan.InPlace(st.Op):
			return fmt.Errorf("step %d: %s cannot update its argument in place", s, st.Op)
		case !update && defined[st.Out]:
			return fmt.Errorf("step %d (%s) computes object %d a second time", s, st.Op, st.Out)
		}
		for i, a := range st.Args {
			if i > 0 && a == st.Out {
				return fmt.Errorf("step %d (%s): argument %d is its own result", s, st.Op, i)
			}
		}
		defined[st.Out] = true
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			if !inRange(o) || !defined[o] {
				return fmt.Errorf("output %s refers to object %d, which is never computed", port.Name, o)
			}
		}
	}
	return nil
}

// makeFixed makes operands that stay: those that need no memory and, without a
// slow tier, all keys and weights.
func (x *Executor) makeFixed(ctx context.Context) error {
	type job struct{ obj plan.ObjectID }
	var keys, weights []job
	for i := range x.p.Objects {
		o := &x.p.Objects[i]
		if o.Role != plan.RoleKey && o.Role != plan.RolePlain || x.o.Slow != nil && x.slabs[i] > 0 {
			continue
		}
		if o.Role == plan.RoleKey {
			keys = append(keys, job{plan.ObjectID(i)})
		} else {
			weights = append(weights, job{plan.ObjectID(i)})
		}
	}
	for _, part := range []struct {
		label string
		jobs  []job
	}{{"keys", keys}, {"weights", weights}} {
		if len(part.jobs) == 0 {
			continue
		}
		x.emit(Event{Kind: SetupBegin, Label: part.label, Total: len(part.jobs)})
		var mu sync.Mutex
		done := 0
		err := parallel(ctx, x.o.Threads, len(part.jobs), func(i int) error {
			obj := part.jobs[i].obj
			if err := x.makeOne(obj); err != nil {
				return err
			}
			mu.Lock()
			done++
			n := done
			mu.Unlock()
			x.emit(Event{Kind: SetupDone, Label: part.label, Obj: obj, Done: n, Total: len(part.jobs), Bytes: int64(x.slabs[obj]) * int64(x.e.SlabBytes())})
			return nil
		})
		x.emit(Event{Kind: SetupEnd, Label: part.label, Err: err})
		if err != nil {
			return err
		}
	}
	return nil
}

// makeOne expands one key or encodes one weight into DRAM.
func (x *Executor) makeOne(obj plan.ObjectID) error {
	o := &x.p.Objects[obj]
	block, err := x.arena.Alloc(int(x.slabs[obj]), purpose(o.Role), owner)
	if err != nil {
		return err
	}
	r := &resident{block: block}
	x.fixed[obj] = r
	if o.Role == plan.RolePlain || x.slabs[obj] > 0 {
		if err := makeObject(x.p, x.e, x.o.Keys, obj, block.Slabs); err != nil {
			return err
		}
	}
	op, err := x.e.Bind(o.Type, block.Slabs)
	if err != nil {
		return fmt.Errorf("%s: %w", describe(x.p, obj), err)
	}
	r.state = object{rows: block.Slabs, here: x.slabs[obj], bound: &binding{op: op, held: true}}
	return nil
}

// owner is who the executor's memory belongs to.
const owner store.Owner = "run"

// parallel calls f for 0..n-1 from a number of goroutines and returns the
// error of the smallest index that failed, or that of the context.
func parallel(ctx context.Context, threads, n int, f func(i int) error) error {
	var (
		mu    sync.Mutex
		next  int
		first error
		at    = n
		wg    sync.WaitGroup
	)
	for range min(max(threads, 1), n) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= n || first != nil
				mu.Unlock()
				if stop || ctx.Err() != nil {
					return
				}
				if err := backend.Guard(func() error { return f(i) }); err != nil {
					mu.Lock()
					if i < at {
						first, at = err, i
					}
					mu.Unlock()
				}
			}
		}()
	}
	wg.Wait()
	if first != nil {
		return first
	}
	return ctx.Err()
}

// describe names an object for people.
func describe(p *plan.Plan, id plan.ObjectID) string {
	if id < 0 || int(id) >= len(p.Objects) {
		return fmt.Sprintf("object %d", id)
	}
	o := &p.Objects[id]
	name := ""
	if o.Layer >= 0 && int(o.Layer) < len(p.Layers) {
		name = p.Layers[o.Layer].Name + ": "
	}
	switch o.Role {
	case plan.RoleInput:
		return fmt.Sprintf("input ciphertext %d", id)
	case plan.RoleKey:
		return fmt.Sprintf("%s at level %d", ir.KeyName(o.Rot), o.Type.Level)
	case plan.RolePlain:
		return fmt.Sprintf("%sweight %d at level %d", name, o.Plain, o.Type.Level)
	case plan.RoleOutput:
		return fmt.Sprintf("%soutput ciphertext %d", name, id)
	}
	return fmt.Sprintf("%s%s %d at level %d", name, o.Type.Kind, id, o.Type.Level)
}

// Run executes the plan once on a fresh executor; see Executor.Run.
func Run(ctx context.Context, p *plan.Plan, e backend.Engine, in Inputs, o Options) (Outputs, Report, error) {
	x, err := NewExecutor(ctx, p, e, o)
	if err != nil {
		return nil, Report{}, err
	}
	out, rep, err := x.Run(ctx, in)
	return out, rep, errors.Join(err, x.Close())
}

// Run executes the plan once. Steps are issued in the order of the plan and
// complete in any order that respects their operands, so the result is the
// same bit for bit whatever the number of threads and the budget. When the
// context is cancelled, steps in progress finish, everything is released and
// the error is that of the context.
func (x *Executor) Run(ctx context.Context, in Inputs) (Outputs, Report, error) {
	return x.execute(ctx, in, nil)
}

// execute is Run for a run that may be saved on its way, or go on from what was.
func (x *Executor) execute(ctx context.Context, in Inputs, v *saving) (Outputs, Report, error) {
	rep := Report{SetupSeconds: x.setup}
	cpu0, began := CPUSeconds(), time.Now()
	x.emit(Event{Kind: RunBegin, Label: x.e.Name(), Total: len(x.p.Steps)})
	r := newRun(x, in, v)
	out, err := r.do(ctx)
	x.emit(Event{Kind: RunEnd, Err: err})
	rep.Seconds, rep.CPUSeconds = time.Since(began).Seconds(), CPUSeconds()-cpu0
	rep.Counts = x.p.Count(func(i int) bool { return r.executed[i] })
	rep.PeakRSSBytes = PeakRSS()
	rep.ArenaHuge = x.huge
	rep.ArenaPeak = int64(x.arena.Usage().Peak) * int64(x.e.SlabBytes())
	rep.Tiers = []TierReport{{Name: "dram", Technology: "heap"}}
	if x.o.Slow != nil {
		rep.Tiers = append(rep.Tiers, TierReport{
			Name: "slow", Technology: x.o.Slow.Technology(),
			BytesRead: r.bytesRead, BytesWritten: r.bytesWritten, BytesMapped: r.bytesMapped, StallSeconds: r.stall.Seconds(),
			Expanded: r.made, ExpandSeconds: r.making.Seconds(),
		})
	}
	if err != nil {
		return nil, rep, err
	}
	return out, rep, nil
}

// Threads returns how many threads to use where the user named none: one per
// processor the process may run on.
func Threads() int { return goruntime.GOMAXPROCS(0) }
