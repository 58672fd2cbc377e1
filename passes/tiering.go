package passes

import (
	"container/heap"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// BudgetError says that a plan cannot run within a budget, and which one would
// do.
type BudgetError = plan.BudgetError

// TierOptions are the budget and the costs that Tiering plans with.
type TierOptions struct {
	// DRAM bounds the whole process in bytes; 0 means no bound.
	DRAM int64
	// Reserve is the part of DRAM that the runtime needs for itself; 0 means
	// TierReserve for one thread.
	Reserve int64
	// Profile is the digest of the cost profile, recorded in the result.
	Profile string
	// StepSeconds predicts the time of step i on one core.
	StepSeconds func(i int) float64
	// ReadBps and WriteBps are the bandwidths of the slow tier in bytes per
	// second, Latency the seconds from asking to the first byte.
	ReadBps, WriteBps, Latency float64
	// ExpandSeconds predicts the time on one core to make one slab of a plaintext,
	// whose slots repeat after a number of points, from its coefficients; nil where
	// that cannot be done.
	ExpandSeconds func(points int) float64
	// UniformSeconds is the time to make one slab of a key from its seed; 0 where
	// that cannot be done.
	UniformSeconds float64
	// Threads share the work; 0 means 1.
	Threads int
}

// compact returns the least number of slabs from which it takes less time to
// read one slab of coefficients and transform it than to read the plaintext; 0
// for none. The slow tier is then smaller by as many times, and quicker to fill.
func (o *TierOptions) compact(p *ir.Params) int {
	if o.ExpandSeconds == nil {
		return 0
	}
	read, expand := float64(p.SlabBytes())/o.ReadBps, o.ExpandSeconds(p.Slots())
	if expand >= read {
		return 0
	}
	n := read/(read-expand) + 1 // read + n*expand < n*read
	if n > 1<<20 {
		return 0
	}
	return int(n)
}

// tierReserveMost is the most DRAM that is kept from objects.
const tierReserveMost = 512 << 20

// TierReserve returns the bytes of a budget that are left to the runtime
// itself: 64 MiB for code, stacks, plan and ciphertexts in transit; the tables
// of the transforms, 10 limbs for every prime; the scratch of one step per
// thread, 6 limbs for every prime and a few more; and a quarter of these two
// for the collector to work in. Measured on the LeNet plan at N = 2^15 with 26
// primes and one thread, where it gives 180 MiB: tables of 50 MB, scratch of 41
// MB, 111 MB of live Go heap in all.
func TierReserve(p *ir.Params, threads int) int64 {
	primes := len(p.Q) + len(p.P)
	limbs := int64(10*primes + max(threads, 1)*(6*primes+8))
	return min(tierReserveMost, 64<<20+limbs*int64(p.SlabBytes())*5/4)
}

// tierTrace is the access trace of a plan: which objects each step touches,
// and when each object is touched.
type tierTrace struct {
	p     *plan.Plan
	n     int // steps; n is also the moment after the last one, when outputs are read
	size  []int32
	read  []int32 // slabs that a fetch reads: fewer for what is compact
	ptr   []int32 // touched objects of step s: obj[ptr[s]:ptr[s+1]], distinct
	obj   []plan.ObjectID
	next  []int32 // next touch of the same object after this entry, n+1 for none
	write []bool  // per step entry: the step writes the object
	least int32   // slabs of the neediest step
}

// tierFixed reports whether the object comes from outside and is only read.
func tierFixed(r plan.Role) bool {
	return r == plan.RoleKey || r == plan.RolePlain || r == plan.RoleInput
}

func newTierTrace(p *plan.Plan, form plan.Tier) *tierTrace {
	n := len(p.Steps)
	t := &tierTrace{p: p, n: n, size: make([]int32, len(p.Objects)), read: make([]int32, len(p.Objects)), ptr: make([]int32, 0, n+2)}
	for i := range p.Objects {
		o := &p.Objects[i]
		t.size[i] = int32(p.Params.Slabs(o.Type.Kind, o.Type.Level))
		t.read[i] = t.size[i]
		if n := form.Forms.Stored(p, plan.ObjectID(i)); n > 0 {
			t.read[i] = int32(n)
		}
	}
	seen := make([]int32, len(p.Objects)) // step + 1 at which it was listed last
	put := func(o plan.ObjectID, s int, write bool) {
		if seen[o] == int32(s)+1 {
			return
		}
		seen[o] = int32(s) + 1
		t.obj = append(t.obj, o)
		t.write = append(t.write, write)
	}
	for s := range n {
		t.ptr = append(t.ptr, int32(len(t.obj)))
		st := &p.Steps[s]
		put(st.Out, s, true)
		for _, a := range st.Args {
			put(a, s, false)
		}
	}
	t.ptr = append(t.ptr, int32(len(t.obj)))
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			put(o, n, false)
		}
	}
	t.ptr = append(t.ptr, int32(len(t.obj)))
	after := make([]int32, len(p.Objects))
	for i := range after {
		after[i] = int32(n) + 1
	}
	t.next = make([]int32, len(t.obj))
	for s := n; s >= 0; s-- {
		need := int32(0)
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			o := t.obj[i]
			t.next[i], after[o] = after[o], int32(s)
			need += t.size[o]
		}
		t.least = max(t.least, need)
	}
	return t
}

// TierLeast returns the smallest budget in bytes with which the plan can run,
// given the reserve: what the neediest step touches at once, or all outputs.
func TierLeast(p *plan.Plan, reserve int64) int64 {
	return reserve + int64(newTierTrace(p, plan.Tier{}).least)*int64(p.Params.SlabBytes())
}

// tierStay is one stay of an object in DRAM, from the step before which it
// must be there to the last step that uses it.
type tierStay struct {
	obj      plan.ObjectID
	from, to int32
	issue    int32 // step before which the fetch is issued, <= from
	fetch    bool
	spill    bool  // write it back when the stay ends
	final    bool  // ends with the object's last use
	before   int32 // index of the stay before, -1 for none
	merged   bool  // continues the stay before: no end there, no fetch here
}

// Tiering decides for one budget which objects are in DRAM when, and returns
// the plan for it together with the predicted time and traffic.
//
// Residency is decided object by object with Belady's rule (evict what is
// needed furthest in the future; Belady, IBM Systems Journal 1966) over the
// exact trace. Keys, weights and inputs are dropped, for they are still in the
// slow tier; ciphertexts are written back only where nothing else can go.
// Every stay ends right after its last use, and fetches are then issued, in
// order of their deadlines, as early as free slabs allow, but not much earlier
// than the bandwidth of the slow tier asks for. How much room to keep free for
// this double buffering is chosen by the predicted time. The form in which the
// slow tier holds keys, weights and matrices is the smallest that does not cost
// much time; a plan that has a tier plan keeps its form, so that what is installed
// serves every budget.
//
// The error is a *BudgetError where the budget is below the least possible.
func Tiering(p *plan.Plan, o TierOptions) (*plan.Tier, error) {
	if !(o.ReadBps > 0) || !(o.WriteBps > 0) || !(o.Latency >= 0) {
		return nil, fmt.Errorf("tiering: the profile gives the slow tier %v B/s reading, %v B/s writing and %v s latency", o.ReadBps, o.WriteBps, o.Latency)
	}
	if o.Reserve == 0 {
		o.Reserve = TierReserve(&p.Params, 1)
	}
	var all []*plan.Tier
	quickest := math.Inf(1)
	for _, form := range o.forms(p) {
		tier, err := tierForm(p, o, form)
		if err != nil {
			return nil, err
		}
		all = append(all, tier)
		quickest = min(quickest, tier.Seconds)
	}
	var best *plan.Tier
	for _, tier := range all {
		if tier.Seconds <= quickest*tierWorth && (best == nil || tier.BytesBound < best.BytesBound) {
			best = tier
		}
	}
	return best, nil
}

// tierWorth is how many times longer a run may be predicted to take for a smaller
// slow tier. What it holds is chosen once, for all budgets: it takes time to make
// and is large.
const tierWorth = 1.25

// forms lists the ways in which the slow tier can hold the plan's objects: the one
// that the plan has chosen, or all.
func (o *TierOptions) forms(p *plan.Plan) []plan.Tier {
	if t := p.Tier; t != nil {
		return []plan.Tier{{Forms: t.Forms}}
	}
	forms := []plan.Tier{{Forms: plan.Forms{Compact: o.compact(&p.Params)}}}
	if o.UniformSeconds > 0 {
		for _, f := range slices.Clone(forms) {
			f.Forms.Seeds = true
			forms = append(forms, f)
		}
	}
	return forms
}

// tierForm makes the best tier plan for one form.
func tierForm(p *plan.Plan, o TierOptions, form plan.Tier) (best *plan.Tier, err error) {
	slab := int64(p.Params.SlabBytes())
	t := newTierTrace(p, form)
	total := int64(0)
	for _, s := range t.size {
		total += int64(s)
	}
	room := max(total, 1)
	if o.DRAM > 0 {
		room = min(room, (o.DRAM-o.Reserve)/slab)
		if room < int64(t.least) {
			return nil, &BudgetError{Budget: o.DRAM, Least: o.Reserve + int64(t.least)*slab}
		}
	}
	if room > 1<<31-1 {
		return nil, fmt.Errorf("tiering: %d slabs are more than a plan can address", room)
	}
	for _, share := range []int64{0, 16, 8, 4, 2} { // part of the room kept free for prefetching
		soft := room
		if share > 0 {
			soft -= (room - int64(t.least)) / share
		}
		stays, evictions := t.belady(int32(soft), int32(room))
		t.prefetch(stays, int32(room))
		tier := &plan.Tier{Budget: o.DRAM, Reserve: o.Reserve, ArenaSlabs: int(room), Profile: o.Profile,
			Forms: form.Forms, Actions: t.actions(stays)}
		t.postpone(stays, t.predict(tier, o), o)
		tier.Actions = t.actions(stays)
		t.predict(tier, o)
		if best == nil || tier.Seconds < best.Seconds*(1-1e-9) || tier.Seconds <= best.Seconds*(1+1e-9) && tierTraffic(tier) < tierTraffic(best) {
			best = tier
		}
		if evictions == 0 {
			break // all fits: less room cannot help
		}
	}
	return best, nil
}

func tierTraffic(t *plan.Tier) int64 { return t.BytesRead + t.BytesWritten }

// tierCand is an object that may leave DRAM; a larger next use goes first.
type tierCand struct {
	next int32
	obj  plan.ObjectID
}

type tierHeap []tierCand

func (h tierHeap) Len() int { return len(h) }
func (h tierHeap) Less(i, j int) bool {
	return h[i].next > h[j].next || h[i].next == h[j].next && h[i].obj < h[j].obj
}
func (h tierHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *tierHeap) Push(x any)   { *h = append(*h, x.(tierCand)) }
func (h *tierHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	*h = old[:len(old)-1]
	return c
}

// belady walks the trace and returns the stays in order of their first step,
// and how many of them ended before the object's last use. Read-only objects
// leave when more than soft slabs are taken, ciphertexts only when it is more
// than hard.
func (t *tierTrace) belady(soft, hard int32) (stays []tierStay, evictions int) {
	const none = int32(-1)
	stay := make([]int32, len(t.size)) // current stay of an object
	last := make([]int32, len(t.size)) // last stay
	next := make([]int32, len(t.size)) // next use of a resident object
	clean := make([]bool, len(t.size)) // the slow tier holds the present content
	for i := range stay {
		stay[i], last[i] = none, none
		clean[i] = tierFixed(t.p.Objects[i].Role)
	}
	var fixed, made tierHeap
	used := int32(0)
	leave := func(o plan.ObjectID) {
		s := &stays[stay[o]]
		if !clean[o] {
			s.spill, clean[o] = true, true
		}
		stay[o] = none
		used -= t.size[o]
		evictions++
	}
	// evict removes the candidate needed last, unless this step needs it.
	evict := func(h *tierHeap, step int32) bool {
		for h.Len() > 0 {
			c := heap.Pop(h).(tierCand)
			if stay[c.obj] == none || next[c.obj] != c.next {
				continue // stale: it left, or was used since
			}
			if c.next <= step {
				heap.Push(h, c)
				return false
			}
			leave(c.obj)
			return true
		}
		return false
	}
	for s := int32(0); int(s) <= t.n; s++ {
		need := int32(0)
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			if o := t.obj[i]; stay[o] == none {
				need += t.size[o]
			}
		}
		for used+need > soft && evict(&fixed, s) {
		}
		for used+need > hard && evict(&made, s) {
		}
		if used+need > hard {
			panic(fmt.Sprintf("BUG: step %d needs %d slabs, %d are taken of %d", s, need, used, hard))
		}
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			o := t.obj[i]
			if stay[o] == none {
				first := !clean[o] && last[o] == none // computed here for the first time
				stays = append(stays, tierStay{obj: o, from: s, issue: s, fetch: !first, before: last[o]})
				stay[o] = int32(len(stays) - 1)
				last[o] = stay[o]
				used += t.size[o]
			}
			stays[stay[o]].to = s
			if int(s) < t.n && t.write[i] {
				clean[o] = false
			}
			next[o] = t.next[i]
			switch {
			case int(next[o]) > t.n:
				stays[stay[o]].final = true
				stay[o] = none
				used -= t.size[o]
			case tierFixed(t.p.Objects[o].Role):
				heap.Push(&fixed, tierCand{next[o], o})
			default:
				heap.Push(&made, tierCand{next[o], o})
			}
		}
	}
	return stays, evictions
}

// prefetch moves every fetch, in order of deadlines, to the earliest step from
// which its slabs are free without a break until they are needed. A fetch that
// could follow the end of the object's last stay at once is no fetch: the
// object stays.
func (t *tierTrace) prefetch(stays []tierStay, room int32) {
	used := newTierTree(t.n + 1)
	for i := range stays {
		used.add(int(stays[i].from), int(stays[i].to), t.size[stays[i].obj])
	}
	front := int32(0) // fetches are issued in the order of their deadlines
	for i := range stays {
		s := &stays[i]
		if !s.fetch {
			continue
		}
		size := t.size[s.obj]
		lo := front
		if s.before >= 0 {
			lo = stays[s.before].to + 1
		}
		q := s.from
		if q > lo {
			q = int32(used.after(int(lo), int(q)-1, room-size))
		}
		if s.before >= 0 && q == lo {
			used.add(int(q), int(s.from)-1, size)
			// What would have been written back at the end of the stay before
			// has to be at the end of this one.
			prev := &stays[s.before]
			s.merged, s.spill, prev.spill = true, !s.final && (s.spill || prev.spill), false
			continue
		}
		q = min(max(q, front), s.from)
		if q < s.from {
			used.add(int(q), int(s.from)-1, size)
		}
		s.issue, front = q, q
	}
}

// actions lists what happens before each step: first everything that leaves,
// then the fetches in order of their deadlines.
func (t *tierTrace) actions(stays []tierStay) []plan.Action {
	extended := make([]bool, len(stays)) // a later stay continues this one
	for i := range stays {
		if stays[i].merged {
			extended[stays[i].before] = true
		}
	}
	// Counting sort by step, leaving before arriving.
	count := make([]int32, 2*(t.n+3))
	each := func(f func(slot int32, a plan.Action)) {
		for i := range stays {
			s := &stays[i]
			if !extended[i] && int(s.to) < t.n {
				kind := plan.ActDrop
				if s.spill {
					kind = plan.ActSpill
				}
				f(2*(s.to+1), plan.Action{Step: s.to + 1, Kind: kind, Obj: s.obj, Count: t.size[s.obj]})
			}
			if s.fetch && !s.merged {
				f(2*s.issue+1, plan.Action{Step: s.issue, Kind: plan.ActFetch, Obj: s.obj, Count: t.size[s.obj]})
			}
		}
	}
	total := int32(0)
	each(func(slot int32, _ plan.Action) { count[slot]++; total++ })
	at := int32(0)
	for i := range count {
		count[i], at = at, at+count[i]
	}
	out := make([]plan.Action, total)
	each(func(slot int32, a plan.Action) { out[count[slot]] = a; count[slot]++ })
	return out
}

// Fetches are issued this much earlier than the prediction asks for: a fixed
// time, and a share of the time between issue and deadline, over which errors
// of the prediction add up.
const (
	tierLeadSeconds = 0.25
	tierLeadShare   = 0.5
)

// postpone moves fetches that prefetch issues much earlier than needed to later
// steps: backwards from the deadlines, each is issued so that it arrives in
// time although those after it have to arrive in time as well, with a margin.
// This leaves slabs free for longer, so that a run touches no more memory than
// it has use for. start holds the predicted time of each step.
func (t *tierTrace) postpone(stays []tierStay, start []float64, o TierOptions) {
	slab := float64(t.p.Params.SlabBytes())
	begin := start[t.n] // of the fetch after this one
	limit := int32(t.n)
	for i := len(stays) - 1; i >= 0; i-- {
		s := &stays[i]
		if !s.fetch || s.merged {
			continue
		}
		due := start[s.from] - o.Latency
		begin = min(begin, due) - float64(t.read[s.obj])*slab/o.ReadBps - t.expand(s.obj, o)
		at := begin - tierLeadSeconds - tierLeadShare*(due-begin)
		// The last step that starts no later than at, and no later than the
		// fetch after this one is issued.
		step := int32(sort.Search(t.n+1, func(k int) bool { return start[k] > at })) - 1
		limit = min(limit, max(step, 0), s.from)
		s.issue = max(s.issue, limit)
	}
}

// expand returns the seconds of computing that a fetch ends with.
func (t *tierTrace) expand(obj plan.ObjectID, o TierOptions) float64 {
	x := &t.p.Objects[obj]
	switch {
	case t.read[obj] == t.size[obj]:
		return 0
	case x.Role == plan.RoleKey:
		return float64(t.size[obj]/2) * o.UniformSeconds
	}
	points := t.p.Params.Slots()
	if k := int(x.Plain); k < len(t.p.Plains) { // else they were dropped after the install
		points = t.p.Plains[k].Period
	}
	return float64(t.size[obj]) * o.ExpandSeconds(points)
}

// predict fills in the time, the stalls and the traffic of one run on its threads,
// with one channel to the slow tier that serves transfers in the order they
// are issued. Transforms of what was fetched count when it is used. It returns when each step starts; the last entry is the end.
func (t *tierTrace) predict(tier *plan.Tier, o TierOptions) (start []float64) {
	slab := float64(t.p.Params.SlabBytes())
	tier.BytesRead, tier.BytesWritten, tier.BytesBound = 0, 0, 0
	start = make([]float64, t.n+1)
	arrival := make([]float64, len(t.size))
	late := make([]float64, len(t.size)) // transforms still to be done
	now, free, compute := 0.0, 0.0, 0.0
	next := 0
	touched := make([]bool, len(t.size))
	for s := 0; s <= t.n; s++ {
		for next < len(tier.Actions) && int(tier.Actions[next].Step) == s {
			a := tier.Actions[next]
			next++
			bytes := float64(t.size[a.Obj]) * slab
			if a.Kind == plan.ActFetch {
				bytes = float64(t.read[a.Obj]) * slab
			}
			switch a.Kind {
			case plan.ActFetch:
				if t.p.Objects[a.Obj].Role == plan.RoleInput {
					continue // comes from the caller
				}
				free = max(free, now) + bytes/o.ReadBps
				arrival[a.Obj] = free + o.Latency
				late[a.Obj] = t.expand(a.Obj, o) / float64(max(1, o.Threads))
				tier.BytesRead += int64(bytes)
			case plan.ActSpill:
				free = max(free, now) + bytes/o.WriteBps
				tier.BytesWritten += int64(bytes)
			}
		}
		ready, work := now, 0.0
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			obj := t.obj[i]
			ready = max(ready, arrival[obj])
			if role := t.p.Objects[obj].Role; !touched[obj] && (role == plan.RoleKey || role == plan.RolePlain) {
				touched[obj] = true
				tier.BytesBound += int64(t.read[obj]) * int64(slab)
			}
			work, late[obj] = work+late[obj], 0
		}
		now, compute = ready+work, compute+work
		start[s] = now
		if s < t.n && o.StepSeconds != nil {
			d := o.StepSeconds(s) / float64(max(1, o.Threads))
			now, compute = now+d, compute+d
		}
	}
	tier.Seconds, tier.StallSeconds = now, now-compute
	if tier.StallSeconds < 1e-12*now {
		tier.StallSeconds = 0
	}
	return start
}

// tierTree holds a number per step and answers range additions and searches in
// logarithmic time. Each node holds the maximum of its range, without what was
// added to the ranges above it.
type tierTree struct {
	width int
	max   []int32
	lazy  []int32 // added to the whole range of the node, contained in max
}

func newTierTree(n int) *tierTree {
	w := 1
	for w < n {
		w *= 2
	}
	return &tierTree{width: w, max: make([]int32, 2*w), lazy: make([]int32, 2*w)}
}

// add adds v to the steps lo..hi.
func (t *tierTree) add(lo, hi int, v int32) { t.addAt(1, 0, t.width-1, lo, hi, v) }

func (t *tierTree) addAt(node, l, r, lo, hi int, v int32) {
	if lo <= l && r <= hi {
		t.max[node] += v
		t.lazy[node] += v
		return
	}
	m := (l + r) / 2
	if lo <= m {
		t.addAt(2*node, l, m, lo, hi, v)
	}
	if hi > m {
		t.addAt(2*node+1, m+1, r, lo, hi, v)
	}
	t.max[node] = max(t.max[2*node], t.max[2*node+1]) + t.lazy[node]
}

// after returns the first step q in lo..hi+1 such that no step in q..hi holds
// more than limit.
func (t *tierTree) after(lo, hi int, limit int32) int {
	if p := t.lastOver(1, 0, t.width-1, lo, hi, limit); p >= 0 {
		return p + 1
	}
	return lo
}

// lastOver returns the last step in lo..hi that holds more than limit, or -1.
func (t *tierTree) lastOver(node, l, r, lo, hi int, limit int32) int {
	if t.max[node] <= limit || r < lo || hi < l {
		return -1
	}
	if l == r {
		return l
	}
	limit -= t.lazy[node]
	m := (l + r) / 2
	if p := t.lastOver(2*node+1, m+1, r, lo, hi, limit); p >= 0 {
		return p
	}
	return t.lastOver(2*node, l, m, lo, hi, limit)
}
