package passes

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// ErrTier marks a tier plan that does not fit its plan.
var ErrTier = errors.New("invalid tier plan")

// CheckTier replays a plan, which has passed Verify, under a tier plan and proves,
// independently of how the tier plan was made, that
//
//   - every slab that a step touches is in DRAM or mapped when the step is issued,
//     and every result that is updated in place is there whole;
//   - slabs arrive in ways that their form offers, and only while they are away;
//     slabs of plaintexts are made while their source is there;
//   - no step loses what it needs, nothing is lost that is needed later, no copy is
//     used that an update has made stale, read-only objects are never written;
//   - every temporary is gone and every output is there at the end;
//   - actions stand in the order of their steps and name slabs that exist;
//     ciphertexts come and go whole;
//   - the slabs in DRAM never exceed the arena, nor arena and reserve the budget;
//   - peak, bytes read and written and the lower bound are what the tier plan says.
//
// It proves order, which does not depend on time: that what an action begins
// before a step is complete when that step is issued is the executor's promise.
// Predicted seconds are claims that it cannot verify.
func CheckTier(p *plan.Plan, t *plan.Tier) error {
	r, err := replayTier(p, t)
	if err != nil {
		return err
	}
	slab := int64(p.Params.SlabBytes())
	for _, c := range []struct {
		what      string
		got, want int64
	}{
		{"peak_slabs", int64(t.PeakSlabs), int64(r.peak)},
		{"bytes_read", t.BytesRead, r.read * slab},
		{"bytes_written", t.BytesWritten, r.written * slab},
		{"bytes_bound", t.BytesBound, r.bound().Belady},
	} {
		if c.got != c.want {
			return fmt.Errorf("%w: %s says %d, the replay finds %d", ErrTier, c.what, c.got, c.want)
		}
	}
	if t.BytesBought < 0 || t.BytesBought > t.BytesRead {
		return fmt.Errorf("%w: bytes_bought is %d, of %d that are read", ErrTier, t.BytesBought, t.BytesRead)
	}
	for _, c := range []struct {
		what string
		got  float64
	}{{"seconds", t.Seconds}, {"stall_seconds", t.StallSeconds}, {"make_seconds", t.MakeSeconds}, {"input_seconds", t.InputSeconds}, {"bought_seconds", t.BoughtSeconds}, {"cost_bound", t.CostBound}} {
		if !(c.got >= 0) || math.IsInf(c.got, 0) {
			return fmt.Errorf("%w: %s is %v", ErrTier, c.what, c.got)
		}
	}
	return nil
}

// place says where a slab of a key or a plaintext is.
type place uint8

const (
	slabAway place = iota
	slabFetched
	slabMade
	slabMapped
)

// tierReplay is the state of a replay.
type tierReplay struct {
	p    *plan.Plan
	t    *plan.Tier
	size []int32 // slabs per object, source apart
	// Keys and plaintexts, slab by slab, sources last.
	base  []int // where the slabs of an object begin in place; -1 for ciphertexts
	place []place
	// Ciphertexts are there whole or not at all.
	resident []bool
	exists   []bool  // it has been computed, or comes from outside
	copied   []bool  // there is a copy of its present content elsewhere
	last     []int32 // step that needs it last, len(Steps) for outputs, -1 for none

	step          int // at hand
	taken, peak   int // slabs
	read, written int64
	spans         []plan.Span // scratch
	tierTouches
}

// replayTier replays a tier plan up to the end.
func replayTier(p *plan.Plan, t *plan.Tier) (*tierReplay, error) {
	if err := checkTierRoom(p, t); err != nil {
		return nil, err
	}
	r := &tierReplay{p: p, t: t}
	if err := r.start(); err != nil {
		return nil, err
	}
	next := 0
	for r.step = 0; r.step <= len(p.Steps); r.step++ {
		for ; next < len(t.Actions) && int(t.Actions[next].Step) <= r.step; next++ {
			a := &t.Actions[next]
			if int(a.Step) < r.step {
				return nil, r.bad("action %d is for step %d: actions are out of order", next, a.Step)
			}
			if err := r.act(next, a); err != nil {
				return nil, err
			}
		}
		if r.step < len(p.Steps) {
			if err := r.execute(&p.Steps[r.step]); err != nil {
				return nil, err
			}
		}
	}
	r.step = len(p.Steps)
	if next < len(t.Actions) {
		return nil, r.bad("action %d is for step %d: the plan has %d steps", next, t.Actions[next].Step, len(p.Steps))
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			if !r.exists[o] || !r.resident[o] {
				return nil, r.bad("%s is not in DRAM at the end", r.object(o))
			}
		}
	}
	r.outputs()
	for o := range p.Objects {
		if p.Objects[o].Role == plan.RoleTemp && r.resident[o] {
			return nil, r.bad("%s is never dropped after its last use", r.object(plan.ObjectID(o)))
		}
	}
	for o := range p.Objects {
		r.leaves(plan.ObjectID(o), 0, int(r.size[o]))
	}
	return r, nil
}

// outputs records that the outputs are read at the end.
func (r *tierReplay) outputs() {
	cipher := 0
	seen := map[plan.ObjectID]bool{}
	for _, port := range r.p.Outputs {
		for _, o := range port.Objects {
			if !seen[o] {
				seen[o] = true
				cipher += int(r.size[o])
				r.useCipher(o)
			}
		}
	}
	r.closePoint(cipher)
}

// checkTierRoom checks the sizes that a tier plan states.
func checkTierRoom(p *plan.Plan, t *plan.Tier) error {
	if t.ArenaSlabs <= 0 || t.Reserve < 0 || t.Budget < 0 {
		return fmt.Errorf("%w: budget %d, reserve %d, arena of %d slabs", ErrTier, t.Budget, t.Reserve, t.ArenaSlabs)
	}
	// Division, for a product may overflow.
	if slab := int64(p.Params.SlabBytes()); t.Budget > 0 && (t.Reserve > t.Budget || int64(t.ArenaSlabs) > (t.Budget-t.Reserve)/slab) {
		return fmt.Errorf("%w: reserve of %d bytes and arena of %d slabs of %d bytes exceed the budget of %d", ErrTier, t.Reserve, t.ArenaSlabs, slab, t.Budget)
	}
	if err := t.Forms.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrTier, err)
	}
	return nil
}

// start checks that steps and outputs name objects of the plan, and finds what is
// needed until when.
func (r *tierReplay) start() error {
	p, n := r.p, len(r.p.Objects)
	r.size, r.base = make([]int32, n), make([]int, n)
	r.resident, r.exists, r.copied = make([]bool, n), make([]bool, n), make([]bool, n)
	r.last = make([]int32, n)
	slabs := 0
	for i := range p.Objects {
		r.size[i], r.base[i], r.last[i] = int32(p.Slabs(plan.ObjectID(i))), -1, -1
		switch p.Objects[i].Role {
		case plan.RoleKey, plan.RolePlain:
			r.base[i] = slabs
			slabs += int(r.size[i]) + 1
			r.exists[i] = true
		case plan.RoleInput:
			r.exists[i], r.copied[i] = true, true
		}
	}
	r.place = make([]place, slabs)
	need := func(o plan.ObjectID, step int) error {
		if r.step = step; o < 0 || int(o) >= n {
			return r.bad("the plan refers to object %d of %d", o, n)
		}
		r.last[o] = int32(step)
		return nil
	}
	for s := range p.Steps {
		for _, a := range p.Steps[s].Args {
			if err := need(a, s); err != nil {
				return err
			}
		}
		if o := p.Steps[s].Out; o < 0 || int(o) >= n {
			return need(o, s)
		}
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			if err := need(o, len(p.Steps)); err != nil {
				return err
			}
		}
	}
	makes := 0 // each may be a point
	for i := range r.t.Actions {
		if r.t.Actions[i].Kind == plan.ActMake {
			makes++
		}
	}
	r.tierTouches.init(len(p.Steps)+makes+1, slabs, n)
	return nil
}

// bad returns an error at the step at hand.
func (r *tierReplay) bad(format string, args ...any) error {
	at := "after the last step"
	if r.step < len(r.p.Steps) {
		s := &r.p.Steps[r.step]
		at = fmt.Sprintf("before step %d of %d (%s%s)", r.step, len(r.p.Steps), s.Op, r.layer(s.Layer))
	}
	return fmt.Errorf("%w: %s: %s", ErrTier, at, fmt.Sprintf(format, args...))
}

func (r *tierReplay) layer(l int32) string {
	if l < 0 || int(l) >= len(r.p.Layers) {
		return ""
	}
	return " in " + r.p.Layers[l].Name
}

// object names an object for people.
func (r *tierReplay) object(o plan.ObjectID) string {
	x := &r.p.Objects[o]
	name := "temporary"
	switch x.Role {
	case plan.RoleKey:
		name = ir.KeyName(x.Rot)
	case plan.RolePlain:
		name = fmt.Sprintf("plaintext %d", x.Plain)
	case plan.RoleInput, plan.RoleOutput:
		name = "ciphertext"
		for _, port := range slices.Concat(r.p.Inputs, r.p.Outputs) {
			if slices.Contains(port.Objects, o) {
				name = strings.TrimSpace("ciphertext of " + port.Name)
			}
		}
	}
	return fmt.Sprintf("%s (object %d%s)", name, o, r.layer(x.Layer))
}

// slabs names slabs first to end-1 of an object for people.
func (r *tierReplay) slabs(o plan.ObjectID, first, end int) string {
	n := int(r.size[o])
	switch what := r.object(o); {
	case first == n && end == n+1:
		return "the source of " + what
	case first+1 == end:
		return fmt.Sprintf("slab %d of %s", first, what)
	case first == 0 && end == n:
		return fmt.Sprintf("all %d slabs of %s", n, what)
	default:
		return fmt.Sprintf("slabs %d..%d of %s", first, end-1, what)
	}
}

// run returns the slabs from the first on that fails within first to end-1.
func run(first, end int, fails func(slab int) bool) (from, to int, found bool) {
	for from = first; from < end; from++ {
		if fails(from) {
			for to = from + 1; to < end && fails(to); to++ {
			}
			return from, to, true
		}
	}
	return 0, 0, false
}

// arrive counts slabs that enter the arena.
func (r *tierReplay) arrive(o plan.ObjectID, slabs int) error {
	r.taken += slabs
	if r.peak = max(r.peak, r.taken); r.taken > r.t.ArenaSlabs {
		return r.bad("%d slabs of %s raise the arena to %d slabs of %d", slabs, r.object(o), r.taken, r.t.ArenaSlabs)
	}
	return nil
}

var actionVerb = [...]string{plan.ActFetch: "fetches", plan.ActDrop: "drops", plan.ActSpill: "spills", plan.ActMake: "makes", plan.ActMap: "maps"}

// act replays action i.
func (r *tierReplay) act(i int, a *plan.Action) error {
	if a.Obj < 0 || int(a.Obj) >= len(r.p.Objects) {
		return r.bad("action %d is for object %d of %d", i, a.Obj, len(r.p.Objects))
	}
	if int(a.Kind) >= len(actionVerb) {
		return r.bad("action %d is of kind %d, which is unknown", i, a.Kind)
	}
	bad := func(first, end int, format string, args ...any) error {
		return r.bad("action %d %s %s: %s", i, actionVerb[a.Kind], r.slabs(a.Obj, first, end), fmt.Sprintf(format, args...))
	}
	first, end, n := int(a.First), int(a.First)+int(a.Count), int(r.size[a.Obj])
	top := n
	if _, source := r.t.Forms.StoredAt(r.p, a.Obj, n); source {
		if top++; r.p.Objects[a.Obj].Role == plan.RoleKey && end == top {
			return bad(n, top, "the runtime holds the seeds of keys itself")
		}
	}
	if a.Count < 1 || first < 0 || first > top-int(a.Count) {
		return r.bad("action %d %s %d slabs from slab %d on of %s, which has %d", i, actionVerb[a.Kind], a.Count, first, r.object(a.Obj), top)
	}
	if r.base[a.Obj] < 0 {
		return r.actCipher(a, bad)
	}
	at := r.place[r.base[a.Obj]:][:n+1]
	refuse := func(fails func(slab int) bool, format string, args ...any) error {
		if from, to, found := run(first, end, fails); found {
			return bad(from, to, format, args...)
		}
		return nil
	}
	there := func(slab int) bool { return at[slab] != slabAway }
	var err error
	switch a.Kind {
	case plan.ActFetch, plan.ActMap:
		if err = refuse(there, "there already"); err != nil {
			return err
		}
		if err = refuse(func(slab int) bool { _, ok := r.t.Forms.StoredAt(r.p, a.Obj, slab); return !ok }, "the slow tier does not hold it"); err != nil {
			return err
		}
		if a.Kind == plan.ActMap {
			return r.set(a, slabMapped)
		}
		r.read += int64(a.Count)
		return r.set(a, slabFetched)
	case plan.ActMake:
		if err = refuse(there, "there already"); err != nil {
			return err
		}
		if err = refuse(func(slab int) bool { return !r.t.Forms.Makes(r.p, a.Obj, slab) }, "it cannot be computed: its form has no source for it"); err != nil {
			return err
		}
		if r.p.Objects[a.Obj].Role == plan.RolePlain {
			if at[n] == slabAway {
				return bad(first, end, "its source is not there")
			}
			r.reads(a.Obj, n, n+1)
			defer r.closePoint(0)
		}
		return r.set(a, slabMade)
	case plan.ActDrop:
		if err = refuse(func(slab int) bool { return at[slab] == slabAway }, "not there"); err != nil {
			return err
		}
		if from, to, found := r.needed(a.Obj, first, end); found {
			return bad(from, to, "the step needs it")
		}
		r.leaves(a.Obj, first, end)
		return r.set(a, slabAway)
	}
	return bad(first, end, "what is read-only is never written")
}

// set moves slabs of a key or a plaintext.
func (r *tierReplay) set(a *plan.Action, to place) error {
	at := r.place[r.base[a.Obj]+int(a.First):][:a.Count]
	switch to {
	case slabAway:
		for _, was := range at {
			if was != slabMapped {
				r.taken--
			}
		}
	case slabFetched, slabMade:
		if err := r.arrive(a.Obj, len(at)); err != nil {
			return err
		}
	}
	for i := range at {
		at[i] = to
	}
	if to == slabMade {
		r.madeNow(r.base[a.Obj]+int(a.First), len(at))
	}
	return nil
}

// needed finds slabs among first to end-1 of a key or a plaintext that the step at
// hand touches.
func (r *tierReplay) needed(o plan.ObjectID, first, end int) (from, to int, found bool) {
	if r.step == len(r.p.Steps) {
		return 0, 0, false
	}
	for k, a := range r.p.Steps[r.step].Args {
		if a != o {
			continue
		}
		r.spans = r.t.Forms.Touched(r.p, r.spans[:0], r.step, k)
		for _, s := range r.spans {
			if from, to := max(first, int(s.First)), min(end, int(s.First)+int(s.Count)); from < to {
				return from, to, true
			}
		}
	}
	return 0, 0, false
}

// actCipher replays an action on a ciphertext.
func (r *tierReplay) actCipher(a *plan.Action, bad func(first, end int, format string, args ...any) error) error {
	o, n := a.Obj, int(r.size[a.Obj])
	role := r.p.Objects[o].Role
	if a.First != 0 || int(a.Count) != n {
		return bad(int(a.First), int(a.First)+int(a.Count), "a ciphertext comes and goes whole, with its %d slabs", n)
	}
	switch a.Kind {
	case plan.ActFetch:
		switch {
		case r.resident[o]:
			return bad(0, n, "there already")
		case !r.exists[o]:
			return bad(0, n, "no step has computed it yet")
		case !r.copied[o]:
			return bad(0, n, "no copy is kept of its present content")
		}
		if role != plan.RoleInput {
			r.read += int64(n)
		}
		r.resident[o] = true
		return r.arrive(o, n)
	case plan.ActDrop, plan.ActSpill:
		switch {
		case !r.resident[o]:
			return bad(0, n, "not there")
		case a.Kind == plan.ActSpill && role == plan.RoleInput:
			return bad(0, n, "what is read-only is never written")
		case r.step < len(r.p.Steps) && slices.Contains(r.p.Steps[r.step].Args, o):
			return bad(0, n, "the step needs it")
		}
		if a.Kind == plan.ActSpill {
			r.written += int64(n)
			r.copied[o] = true
		}
		switch {
		case r.copied[o] || int(r.last[o]) < r.step:
		case int(r.last[o]) == len(r.p.Steps):
			return bad(0, n, "no copy is kept, and it is needed until the end")
		default:
			return bad(0, n, "no copy is kept, and it is needed until step %d", r.last[o])
		}
		r.leaves(o, 0, n)
		r.resident[o] = false
		r.taken -= n
		return nil
	}
	return bad(0, n, "only keys and plaintexts can be had in that way")
}

// execute replays the step at hand.
func (r *tierReplay) execute(s *plan.Step) error {
	cipher := 0
	for k, a := range s.Args {
		if slices.Contains(s.Args[:k], a) {
			continue
		}
		n := int(r.size[a])
		if r.base[a] < 0 {
			switch {
			case !r.exists[a]:
				return r.bad("the step needs %s: no step has computed it yet", r.object(a))
			case !r.resident[a]:
				return r.bad("the step needs %s: not in DRAM", r.slabs(a, 0, n))
			}
			cipher += n
			r.useCipher(a)
			continue
		}
		at := r.place[r.base[a]:][:n+1]
		r.spans = r.t.Forms.Touched(r.p, r.spans[:0], r.step, k)
		for _, span := range r.spans {
			first, end := int(span.First), int(span.First)+int(span.Count)
			if from, to, found := run(first, end, func(slab int) bool { return at[slab] == slabAway }); found {
				return r.bad("the step needs %s: not in DRAM", r.slabs(a, from, to))
			}
			r.reads(a, first, end)
		}
	}
	out := s.Out
	switch role := r.p.Objects[out].Role; {
	case role != plan.RoleTemp && role != plan.RoleOutput:
		return r.bad("the step writes %s, which is read-only", r.object(out))
	case len(s.Args) > 0 && s.Args[0] == out:
		// It is updated in place, and there whole: it is among the arguments.
	case r.exists[out]:
		return r.bad("the step computes %s a second time", r.object(out))
	default:
		r.resident[out] = true
		if err := r.arrive(out, int(r.size[out])); err != nil {
			return err
		}
		cipher += int(r.size[out])
		r.useCipher(out)
	}
	r.exists[out], r.copied[out] = true, false
	r.closePoint(cipher)
	return nil
}

// useCipher records that a ciphertext is used. That an input comes back costs the
// slow tier nothing.
func (r *tierReplay) useCipher(o plan.ObjectID) {
	if r.p.Objects[o].Role == plan.RoleInput {
		r.touchCipher(o, 0)
	} else {
		r.touchCipher(o, r.size[o])
	}
}

// reads records that slabs first to end-1 of a key or a plaintext are read. Those
// that are mapped come out of the slow tier each time.
func (r *tierReplay) reads(o plan.ObjectID, first, end int) {
	base := r.base[o]
	for at := first; at < end; {
		how := r.place[base+at]
		to := at + 1
		for to < end && r.place[base+to] == how {
			to++
		}
		switch how {
		case slabMapped:
			r.read += int64(to - at)
			r.maps = true
			r.touch(base+at, to-at)
		case slabFetched:
			r.touch(base+at, to-at)
		case slabMade:
			r.touchMade(base+at, to-at)
		}
		at = to
	}
}

// leaves records that slabs of an object leave DRAM, or that the run is over.
func (r *tierReplay) leaves(o plan.ObjectID, first, end int) {
	if r.base[o] < 0 {
		r.endCipher(o, r.size[o])
		return
	}
	for slab := r.base[o] + first; slab < r.base[o]+end; slab++ {
		if r.place[slab] == slabMade {
			r.endMade(slab)
		}
	}
}
