package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/store"
)

// Durable lets runs of a plan go on after their process has died. It saves, between
// two steps, the ciphertexts that later steps read; keys, weights and inputs are
// there anyhow. Saving waits for no step and copies nothing: a snapshot is one more
// reader of the ciphertexts that it holds, and only a step that overwrites one of
// them, or wants its memory, waits until it is written.
//
// A snapshot depends on the program, its keys and its inputs, and on nothing of how
// the run is done: budget, tier plan, threads and kernels may change before it goes
// on. It holds ciphertexts, nothing that is secret.
type Durable struct {
	p    *plan.Plan
	o    DurableOptions
	s    *store.Snapshots
	l    *lives
	at   []int32   // steps before which a snapshot may be taken, ascending
	cost []int64   // bytes that are alive there
	work []float64 // share of the work done by then
	all  bool      // in tests: every one is taken

	mu      sync.Mutex
	report  CheckpointReport
	pace    pace
	runs    int    // that are finished
	results []byte // theirs, where they are not saved yet
}

// DurableOptions say which computation is saved, and how often.
type DurableOptions struct {
	Dir string
	// Plan, Keys and Input identify what results depend on: the fingerprint of the
	// plan, the key set, and a digest of the input ciphertexts of all runs.
	Plan, Keys, Input string
	// Share is the most of the time of a run that saving it may take. 0 means
	// CheckpointShare.
	Share float64
	// Resume says that runs go on from what the folder holds.
	Resume bool
	// Warn is told of snapshots that could not be written or were found damaged;
	// neither ends a run. Resumed is told where a run goes on. They may be called
	// from any goroutine, and be nil.
	Warn    func(error)
	Resumed func(run, step, steps int)
}

// CheckpointShare is how much of the time of a run saving it takes at most, where
// nobody says otherwise.
const CheckpointShare = 0.01

// checkpointParts is how many snapshots a run writes at most, about: what is lost is
// then at most as large a part of it.
const checkpointParts = 64

// CheckpointReport says what was saved, and where runs went on.
type CheckpointReport struct {
	Written int     `json:"written"`
	Failed  int     `json:"failed"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"` // from the first byte until it is durable, in sum; steps run meanwhile
	// RunsDone is how many runs were done before, ResumedFrom the step from which the
	// run after them went on; none if it began at its start.
	RunsDone    int  `json:"runs_done"`
	ResumedFrom *int `json:"resumed_from,omitempty"`
}

// OpenDurable opens a folder for the snapshots of runs of p on an engine with slabs
// of slabBytes. It fails with store.ErrLocked where another process uses it, and with
// store.ErrForeign where it holds snapshots of another computation. The caller
// closes it.
func OpenDurable(p *plan.Plan, slabBytes int, o DurableOptions) (*Durable, error) {
	return newDurable(p, o, func(marks []store.Mark) (*store.Snapshots, error) {
		return store.OpenSnapshots(o.Dir, slabBytes, marks)
	})
}

func newDurable(p *plan.Plan, o DurableOptions, open func([]store.Mark) (*store.Snapshots, error)) (*Durable, error) {
	if err := checkSteps(p); err != nil {
		return nil, err
	}
	if o.Share <= 0 {
		o.Share = CheckpointShare
	}
	order, err := stepsDigest(p)
	if err != nil {
		return nil, err
	}
	d := &Durable{p: p, o: o, l: newLives(p), pace: newPace(o.Share)}
	var slabs []int
	d.at, slabs, d.work = checkpointSteps(p, d.l)
	for _, n := range slabs {
		d.cost = append(d.cost, int64(n)*int64(p.Params.SlabBytes()))
	}
	d.s, err = open([]store.Mark{{Name: "plan", Value: o.Plan}, {Name: "order of steps", Value: order}, {Name: "key set", Value: o.Keys}, {Name: "input", Value: o.Input}})
	if err != nil {
		return nil, err
	}
	if err := d.s.Check(); err != nil {
		return nil, errors.Join(err, d.s.Close())
	}
	return d, nil
}

// stepsDigest identifies the steps in their order and the objects that they work
// on. It is finer than the fingerprint of the plan: whoever plans residency may
// exchange steps that do not depend on each other.
func stepsDigest(p *plan.Plan) (string, error) {
	h := sha256.New()
	for _, part := range []any{p.Steps, p.Objects} {
		b, err := plan.Marshal(part)
		if err != nil {
			return "", err
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// Report returns what was saved until now.
func (d *Durable) Report() CheckpointReport {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.report
}

// Clear removes all snapshots: the results are safe elsewhere.
func (d *Durable) Clear() error { return d.s.Clear() }

// Close lets others open the folder. Snapshots stay.
func (d *Durable) Close() error { return d.s.Close() }

func (d *Durable) warn(err error) {
	if d.o.Warn != nil && err != nil {
		d.o.Warn(err)
	}
}

// Run is x.Run for one of several runs of the computation, numbered from 0, on
// inputs of its own. It saves the run on its way, and with DurableOptions.Resume it
// goes on from the last snapshot of it. What cannot be saved is a warning, and the
// last good snapshot stays. One run may be in progress at a time, of an executor of
// the same plan.
func (d *Durable) Run(ctx context.Context, x *Executor, run int, in Inputs) (Outputs, Report, error) {
	v := &saving{d: d, run: run}
	if d.o.Resume {
		snap, err := d.last(func(p store.Place) bool { return p.Run == run && p.Step < len(d.p.Steps) })
		if err != nil {
			return nil, Report{}, err
		}
		if snap != nil {
			defer snap.Close()
			if err := d.fits(x, snap); err != nil {
				return nil, Report{}, err
			}
			if d.o.Resumed != nil {
				d.o.Resumed(run, snap.Step, len(d.p.Steps))
			}
			d.mu.Lock()
			d.report.ResumedFrom = &snap.Step
			d.mu.Unlock()
			v.from = snap
		}
	}
	d.mu.Lock()
	d.pace.begin(time.Now())
	d.mu.Unlock()
	return x.execute(ctx, in, v)
}

// last opens the last whole snapshot of a kind, and warns of those that are not.
func (d *Durable) last(kind func(store.Place) bool) (*store.Snapshot, error) {
	snap, damaged, err := d.s.Last(kind)
	for _, e := range damaged {
		d.warn(fmt.Errorf("passed over: %w", e))
	}
	return snap, err
}

// Finished says that a number of runs are done and what their results are, in any
// form. They are saved if it is time for that, or on the way of the next run: they
// stay as they are until then.
func (d *Durable) Finished(runs int, results []byte) {
	d.mu.Lock()
	d.runs, d.results = runs, results
	due := d.all || d.pace.due(int64(len(results)), time.Now())
	d.mu.Unlock()
	if due {
		at, objects := d.finished()
		_ = d.put(at, objects, func() {}) // failing is a warning
	}
}

// finished returns what is to be saved of finished runs, nothing where it is saved.
func (d *Durable) finished() (store.Place, []store.Saved) {
	d.mu.Lock()
	defer d.mu.Unlock()
	results, slab := d.results, d.p.Params.SlabBytes()
	if results == nil {
		return store.Place{}, nil
	}
	d.results = nil
	read := func(first int, dst [][]byte) error {
		for i, b := range dst {
			clear(b[copy(b, results[(first+i)*slab:]):])
		}
		return nil
	}
	o := store.Saved{Count: (len(results) + slab - 1) / slab, Read: read}
	return store.Place{Run: d.runs - 1, Step: len(d.p.Steps)}, []store.Saved{o}
}

// Results returns how many runs need not be done again, and what Finished was given
// for them: size bytes for each.
func (d *Durable) Results(size int) (runs int, results []byte, err error) {
	if !d.o.Resume {
		return 0, nil, nil
	}
	snap, err := d.last(func(p store.Place) bool { return p.Step == len(d.p.Steps) })
	if snap == nil || err != nil {
		return 0, nil, err
	}
	defer snap.Close()
	runs = snap.Run + 1
	slab := d.p.Params.SlabBytes()
	if n := snap.Slabs(0); len(snap.IDs) != 1 || size < 0 || runs > math.MaxInt/max(size, 1) || n != (runs*size+slab-1)/slab {
		return 0, nil, fmt.Errorf("%s: %w: results of %d runs in %d slabs", d.s.Dir(), store.ErrForeign, runs, n)
	}
	results = make([]byte, snap.Slabs(0)*slab)
	dst := make([][]byte, snap.Slabs(0))
	for i := range dst {
		dst[i] = results[i*slab : (i+1)*slab]
	}
	if err := snap.Read(0, 0, dst); err != nil {
		return 0, nil, err
	}
	d.mu.Lock()
	d.report.RunsDone = runs
	d.mu.Unlock()
	return runs, results[:runs*size], nil
}

// fits verifies that a snapshot has what the run needs.
func (d *Durable) fits(x *Executor, snap *store.Snapshot) error {
	if snap.Step < 1 || snap.Step > len(d.p.Steps) {
		return fmt.Errorf("%s: %w: step %d of %d", d.s.Dir(), store.ErrDamaged, snap.Step, len(d.p.Steps))
	}
	want := d.l.at(int32(snap.Step))
	for _, obj := range want {
		if n := int(x.slabs[obj]); !snap.Has(obj) || snap.Slabs(obj) != n {
			return fmt.Errorf("%s: %w: %d slabs of %s, want %d", d.s.Dir(), store.ErrForeign, snap.Slabs(obj), describe(d.p, obj), n)
		}
	}
	if len(snap.IDs) != len(want) {
		return fmt.Errorf("%s: %w: %d objects at step %d, want %d", d.s.Dir(), store.ErrForeign, len(snap.IDs), snap.Step, len(want))
	}
	return nil
}

// keptSnapshots is how many snapshots stay: the last, and one against a device that
// loses what it had promised to keep.
const keptSnapshots = 2

// put writes a snapshot and then removes those that it stands for.
func (d *Durable) put(at store.Place, objects []store.Saved, copied func()) error {
	began := time.Now()
	bytes, err := d.s.Put(at, objects, copied)
	took := time.Since(began)
	d.mu.Lock()
	d.pace.saved(bytes, took, time.Now(), err == nil)
	d.report.Seconds += took.Seconds()
	if err == nil {
		d.report.Written++
		d.report.Bytes += bytes
	} else {
		d.report.Failed++
	}
	d.mu.Unlock()
	if err != nil {
		d.warn(fmt.Errorf("no checkpoint at step %d, the run goes on: %w", at.Step, err))
		return err
	}
	kept := 0
	err = d.s.Prune(func(p store.Place) bool { // the last come first
		switch done := p.Step == len(d.p.Steps); {
		case at.Step < len(d.p.Steps):
			if p.Run != at.Run || done {
				return true
			}
		case p.Run > at.Run:
			return true
		case !done:
			return false
		}
		kept++
		return kept <= keptSnapshots
	})
	if err != nil {
		d.warn(fmt.Errorf("an old checkpoint stays: %w", err))
	}
	return nil
}

// pace decides when a snapshot may be taken. It learns from those that were, so
// that they take no more than their share of the time whatever the device.
type pace struct {
	share float64
	last  time.Time // end of the last snapshot, or beginning of the first run
	done  float64   // share of the work of the run that was done by then
	ratio float64   // of what snapshots took to what was expected
}

// What a snapshot is expected to take until one was measured: an ordinary disk.
const (
	paceSeconds = 0.02
	paceBps     = 500e6
)

func newPace(share float64) pace { return pace{share: share, ratio: 1} }

// begin is called when a run begins.
func (a *pace) begin(now time.Time) {
	a.done = 0
	if a.last.IsZero() {
		a.last = now
	}
}

func (a *pace) expect(bytes int64) float64 { return a.ratio * (paceSeconds + float64(bytes)/paceBps) }

// due reports whether a snapshot of some bytes may be taken.
func (a *pace) due(bytes int64, now time.Time) bool {
	return now.Sub(a.last).Seconds()*a.share >= a.expect(bytes)
}

// saved counts a snapshot in. Of one that failed nothing is learned but when.
func (a *pace) saved(bytes int64, took time.Duration, now time.Time, ok bool) {
	if ok {
		a.ratio *= (1 + took.Seconds()/a.expect(bytes)) / 2
	}
	a.last = now
}

// saving is what one run has to do with snapshots: where it goes on from, and those
// that it takes. Its fields are guarded by the run.
type saving struct {
	d        *Durable
	run      int
	from     *store.Snapshot        // nil for a run from the start
	restored map[plan.ObjectID]bool // objects whose content is in from and nowhere else in the slow tier
	node     ref                    // the snapshot in flight, unless it is copied
	busy     bool                   // a snapshot is being written
	place    store.Place            // of it
}

// wants reports whether a snapshot is to be taken before a step.
func (v *saving) wants(step int32) bool {
	d := v.d
	if d.all {
		_, ok := slices.BinarySearch(d.at, step)
		return ok && (v.from == nil || int(step) > v.from.Step)
	}
	i := sort.Search(len(d.at), func(i int) bool { return d.at[i] >= step })
	if v.busy || i == len(d.at) || d.at[i] != step || v.from != nil && int(step) <= v.from.Step {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.results); n > 0 {
		return d.pace.due(int64(n), time.Now())
	}
	const part = 1. / checkpointParts
	if w := d.work[i]; w < d.pace.done+part || w > 1-part || !d.pace.due(d.cost[i], time.Now()) {
		return false
	}
	// Soon there may be a place that costs half as much.
	soon := d.work[i] + (d.work[i]-d.pace.done)/4
	for k := i + 1; k < len(d.at) && d.work[k] <= soon; k++ {
		if 2*d.cost[k] < d.cost[i] {
			return false
		}
	}
	d.pace.done = d.work[i]
	return true
}

// actions returns the actions of the run and the step at which it begins.
func (v *saving) actions(all []plan.Action) ([]plan.Action, int32) {
	if v == nil || v.from == nil {
		return all, 0
	}
	v.restored = map[plan.ObjectID]bool{}
	for _, obj := range v.from.IDs {
		v.restored[obj] = true
	}
	return resumeActions(v.d.p, all, v.d.l, int32(v.from.Step)), int32(v.from.Step)
}

// holds reports whether the content of an object is in the snapshot that the run
// goes on from.
func (v *saving) holds(obj plan.ObjectID) bool { return v != nil && v.restored[obj] }

// changed notes that a step changes an object, so that what was saved of it before
// is out of date.
func (v *saving) changed(obj plan.ObjectID) {
	if v != nil {
		delete(v.restored, obj)
	}
}

// spilled makes a spill wait for a snapshot that may read what it overwrites. From
// then on the object is read from there.
func (v *saving) spilled(r *run, n *node) {
	if v != nil {
		r.after(n, v.node)
		delete(v.restored, n.obj)
	}
}

// checkpoint puts a snapshot of what is alive before a step on the scoreboard, if
// it is time for one, or of the results of the runs before. It happens before the
// actions of the step.
func (r *run) checkpoint(step int32) {
	v := r.saving
	if v == nil || !v.wants(step) {
		return
	}
	for v.busy && r.err == nil { // in tests only
		r.progress.Wait()
	}
	if r.err != nil { // what is being written still reads v
		return
	}
	n := r.node(saveNode, step, plan.NoObject, plan.Span{})
	v.busy = true
	if v.place, n.objects = v.d.finished(); n.objects != nil { // the runs before go first
		r.launch(n)
		return
	}
	v.place = store.Place{Run: v.run, Step: int(step)}
	for _, obj := range v.d.l.at(step) {
		s, o, whole := store.Saved{ID: obj}, r.objects[obj], plan.Span{Count: r.x.slabs[obj]}
		spill, spilled := r.spills[obj]
		switch {
		case o != nil && len(o.rows) > 0:
			r.after(n, o.writer)
			r.afterComing(n, o, whole)
			o.users = append(active(o.users, use.over), use{ref: n.ref()})
			s.Memory = slices.Clone(o.rows[:whole.Count])
		case v.restored[obj]:
			s.Count = int(whole.Count)
			s.Read = func(first int, dst [][]byte) error { return v.from.Read(obj, first, dst) }
		case r.x.o.Slow != nil && spilled:
			r.after(n, spill)
			s.Count = int(whole.Count)
			s.Read = func(first int, dst [][]byte) error { return r.x.o.Slow.Read(obj, first, dst) }
		default:
			r.fail(fmt.Errorf("the tier plan leaves %s neither in memory nor in the slow tier at step %d", describe(r.x.p, obj), step))
			return
		}
		n.objects = append(n.objects, s)
	}
	v.node = n.ref()
	r.launch(n)
}

// save writes a snapshot. Its node is done when the ciphertexts have been read;
// that they become durable concerns no step.
func (r *run) save(n *node) {
	r.jobs++
	go func() {
		v := r.saving
		e := Event{Kind: CheckpointBegin, Step: n.step}
		for i := range n.objects {
			e.Bytes += int64(n.objects[i].Slabs()) * int64(r.x.e.SlabBytes())
		}
		r.x.emit(e)
		e.Err = v.d.put(v.place, n.objects, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.finish(n)
		})
		e.Kind = CheckpointEnd
		r.x.emit(e)
		r.mu.Lock()
		defer r.mu.Unlock()
		v.busy = false
		r.jobs--
		r.progress.Broadcast()
	}()
}
