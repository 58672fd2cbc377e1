package passes

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/home-fhe/home/ir/plan"
)

// tierPrices are what it costs to bring back one slab of each segment, in any
// unit: what costs more for the time it would be away stays longer.
type tierPrices struct {
	at    []float64    // time of each step, ascending
	class []int8       // of each segment: segments of one class cost the same
	cost  [][3]float64 // of each class, for touches when the channel is idle, used and short
	load  []tierLoad   // of the channel at each step
	temps []bool       // classes of ciphertexts
	spill bool         // ciphertexts may go although something else can
}

// of returns the price of a segment for a touch at a step.
func (pr *tierPrices) of(g, step int32) float64 { return pr.cost[pr.class[g]][pr.load[step]] }

// tierLoad says how much the channel to the slow tier has to do around a step.
type tierLoad uint8

const (
	channelIdle tierLoad = iota
	channelUsed
	channelShort // it has to begin long before
)

// tierMiss says that slabs of a segment come to DRAM for a step: those beyond the
// first kept, which stayed since the touch before.
type tierMiss struct {
	seg       int32
	kept      int32
	held      int32 // how many slabs stay from this touch to the next
	prev, cur int32 // touch before, -1 for none, and this one
	before    int32 // the miss of the segment before, -1 for none
	source    int32 // the miss of the source that this one caused, -1 for none
	wrote     bool  // a step wrote the segment since the miss before
}

// tierWalk is a walk over the trace that notes all misses in order, and the first and
// last touch of each segment, -1 where there is none. Who walks says what leaves.
type tierWalk struct {
	t           *tierTrace
	misses      []tierMiss
	first, last []int32
	latest      []int32 // last miss of each segment
	resident    []int32 // slabs of each segment
	wrote       []bool  // a step wrote the segment since its last miss
	used        int64   // slabs of all segments
	evictions   int     // slabs that left although they are touched again
}

func newTierWalk(t *tierTrace) *tierWalk {
	n := len(t.segs)
	return &tierWalk{t: t, first: slices.Repeat([]int32{-1}, n), last: slices.Repeat([]int32{-1}, n), latest: slices.Repeat([]int32{-1}, n), resident: make([]int32, n), wrote: make([]bool, n)}
}

// need returns how many slabs have to come for a step.
func (w *tierWalk) need(s int32) int64 {
	need := int64(0)
	for _, g := range w.t.seg[w.t.ptr[s]:w.t.ptr[s+1]] {
		if x := &w.t.segs[g]; w.resident[g] < x.size {
			need += int64(x.size - w.resident[g])
			if x.source >= 0 && w.resident[x.source] == 0 {
				need++
			}
		}
	}
	return need
}

// leave removes slabs of a segment that is touched again.
func (w *tierWalk) leave(g, slabs int32) {
	w.resident[g] -= slabs
	w.used -= int64(slabs)
	w.evictions += int(slabs)
}

// touch plays entry i of the trace, which belongs to step s: what is missing comes, and
// what is not touched again leaves.
func (w *tierWalk) touch(i, s int32) {
	g := w.t.seg[i]
	x := &w.t.segs[g]
	w.meet(g, s)
	if w.resident[g] < x.size {
		source := int32(-1)
		if x.source >= 0 {
			w.meet(x.source, s)
			if w.resident[x.source] == 0 {
				source = w.miss(x.source, s, -1)
			}
			w.last[x.source] = s
		}
		w.miss(g, s, source)
	}
	w.last[g] = s
	w.wrote[g] = w.wrote[g] || w.t.write[i]
	if int(w.t.next[i]) > w.t.n {
		w.end(g)
		if x.source >= 0 {
			w.end(x.source)
		}
	}
}

// meet notes that a segment is touched at a step, and what stayed until then of what
// came for the touch before.
func (w *tierWalk) meet(g, s int32) {
	if l := w.latest[g]; l >= 0 && w.misses[l].cur == w.last[g] && w.last[g] < s {
		w.misses[l].held = w.resident[g]
	}
	if w.first[g] < 0 {
		w.first[g] = s
	}
}

// miss records that a segment is touched and not all there, and returns the record.
func (w *tierWalk) miss(g, s, source int32) int32 {
	i := int32(len(w.misses))
	w.misses = append(w.misses, tierMiss{seg: g, kept: w.resident[g], prev: w.last[g], cur: s, before: w.latest[g], source: source, wrote: w.wrote[g]})
	w.wrote[g], w.latest[g] = false, i
	w.used += int64(w.t.segs[g].size - w.resident[g])
	w.resident[g] = w.t.segs[g].size
	return i
}

// end removes a segment that is not touched again.
func (w *tierWalk) end(g int32) {
	w.used -= int64(w.resident[g])
	w.resident[g] = 0
}

// tierCand is a segment that has slabs which may leave DRAM.
type tierCand struct{ next, seg int32 }

func (c tierCand) before(d tierCand) bool {
	return c.next > d.next || c.next == d.next && c.seg < d.seg
}

// tierHeap has the candidate that is touched last on top.
type tierHeap []tierCand

func (h *tierHeap) push(c tierCand) {
	a := append(*h, c)
	i := len(a) - 1
	for i > 0 && a[i].before(a[(i-1)/2]) {
		a[i], a[(i-1)/2] = a[(i-1)/2], a[i]
		i = (i - 1) / 2
	}
	*h = a
}

func (h *tierHeap) pop() {
	a := *h
	n := len(a) - 1
	a[0] = a[n]
	a = a[:n]
	for i := 0; ; {
		k := 2*i + 1
		if k >= n {
			break
		}
		if k+1 < n && a[k+1].before(a[k]) {
			k++
		}
		if !a[k].before(a[i]) {
			break
		}
		a[i], a[k] = a[k], a[i]
		i = k
	}
	*h = a
}

// belady walks the trace and evicts, when slabs are needed, what is touched
// furthest in the future (Belady, IBM Systems Journal 1966), where prices differ
// the one that costs least for the time that it is away. Slabs are of one size, and
// as many leave as are needed, so that for one price this is optimal. Read-only
// slabs leave when more than soft slabs are taken, ciphertexts only when it is
// more than hard, unless their price allows it.
func (t *tierTrace) belady(soft, hard int64, pr *tierPrices) *tierWalk {
	w := newTierWalk(t)
	next := make([]int32, len(t.segs)) // next touch of a segment that has slabs in DRAM
	heaps := make([][3]tierHeap, len(pr.cost))
	// top returns the best candidate of a heap, unless step s needs it.
	top := func(h *tierHeap, s int32) (tierCand, bool) {
		for len(*h) > 0 {
			c := (*h)[0]
			if w.resident[c.seg] > 0 && next[c.seg] == c.next {
				return c, c.next > s
			}
			h.pop() // it left, or was touched since
		}
		return tierCand{}, false
	}
	// evict removes up to count slabs of what is cheapest to do without.
	evict := func(s int32, count int64, fixed, temp bool) bool {
		best, away, from := tierCand{}, -1.0, (*tierHeap)(nil)
		for c := range heaps {
			if pr.temps[c] && !temp || !pr.temps[c] && !fixed {
				continue
			}
			for l := range heaps[c] {
				if x, ok := top(&heaps[c][l], s); ok {
					if d := (pr.at[x.next] - pr.at[s]) / pr.cost[c][l]; d > away {
						best, away, from = x, d, &heaps[c][l]
					}
				}
			}
		}
		if away < 0 {
			return false
		}
		size := int32(min(int64(w.resident[best.seg]), count))
		if t.segs[best.seg].whole() {
			size = w.resident[best.seg]
		}
		w.leave(best.seg, size)
		if w.resident[best.seg] == 0 {
			from.pop()
		}
		return true
	}
	// wait makes a touched segment a candidate for its next touch.
	wait := func(g, at int32) {
		next[g] = at
		if int(at) <= t.n {
			heaps[pr.class[g]][pr.load[at]].push(tierCand{at, g})
		}
	}
	for s := int32(0); int(s) <= t.n; s++ {
		need := w.need(s)
		for w.used+need > soft && evict(s, w.used+need-soft, true, pr.spill) {
		}
		for w.used+need > hard && evict(s, w.used+need-hard, false, true) {
		}
		if w.used+need > hard {
			panic(fmt.Sprintf("BUG: step %d needs %d slabs, %d are taken of %d", s, need, w.used, hard))
		}
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			g := t.seg[i]
			w.touch(i, s)
			wait(g, t.next[i])
			if x := t.segs[g].source; x >= 0 && w.resident[x] > 0 {
				wait(x, t.next[i])
			}
		}
	}
	return w
}

// tierState says what becomes of a chunk.
type tierState uint8

const (
	chunkFetch  tierState = iota
	chunkMake             // made just before the step
	chunkMap              // used where it lies in the slow tier
	chunkKept             // it stays from the touch before, after all
	chunkNone             // nobody needs it
	chunkResult           // the step makes it
)

// tierChunk is a part of a miss, the slabs lo..hi-1 in the order of the segment,
// with the time and the way of their coming.
type tierChunk struct {
	seg, miss int32
	lo, hi    int32
	prev, cur int32
	issue     int32 // step before which it is ordered, <= cur
	before    int32 // sources: chunk before, -1 for none
	source    int32 // chunk of the source that comes for this one, -1 for none
	users     int32 // sources: how many chunks are made of it
	state     tierState
	held      bool // some of it stays beyond this touch
	keepable  bool // it was in DRAM at the touch before
	spill     bool // written to the slow tier when it left
}

// tierChunkMost is the most slabs of a chunk: what is ordered at one time.
const tierChunkMost = 64

// tierFlow is a walk on its way to become a tier plan.
type tierFlow struct {
	t      *tierTrace
	w      *tierWalk
	pr     *tierPrices
	room   int64
	chunks []tierChunk
	used   *tierTree // slabs taken at each step
}

// flow cuts the misses of a walk into chunks. mapped says that what stays for one
// step only is used where it lies.
func (t *tierTrace) flow(w *tierWalk, pr *tierPrices, room int64, mapped bool) *tierFlow {
	f := &tierFlow{t: t, w: w, pr: pr, room: room}
	of := make([]int32, len(w.misses)) // first chunk of each miss
	for i := range w.misses {
		m := &w.misses[i]
		g := &t.segs[m.seg]
		of[i] = int32(len(f.chunks))
		c := tierChunk{seg: m.seg, miss: int32(i), prev: m.prev, cur: m.cur, issue: m.cur, before: -1, source: -1, keepable: m.prev >= 0}
		if m.source >= 0 {
			c.source = of[m.source]
		}
		if m.before >= 0 {
			c.before = of[m.before]
		}
		switch {
		case g.way == tierStep && m.prev < 0:
			c.state = chunkResult
		case g.way == tierMake || g.way == tierEither:
			c.state = chunkMake
		}
		// Slabs that the miss before mapped did not stay in DRAM then.
		arrived := int32(math.MaxInt32)
		if mapped && g.way == tierFetch && m.before >= 0 && w.misses[m.before].cur == m.prev {
			arrived = w.misses[m.before].kept
		}
		at := int32(0)
		for _, x := range g.spans {
			for lo := max(at, m.kept); lo < at+x.Count; {
				hi := at + x.Count
				if !g.whole() {
					hi = min(hi, lo/tierChunkMost*tierChunkMost+tierChunkMost)
					for _, cut := range []int32{m.held, arrived} {
						if lo < cut && cut < hi {
							hi = cut
						}
					}
				}
				k := c
				k.lo, k.hi, k.held = lo, hi, lo < m.held
				if mapped && g.way == tierFetch {
					k.keepable = k.keepable && lo < arrived
					if !k.held {
						k.state = chunkMap
					}
				}
				if k.source >= 0 {
					f.chunks[k.source].users++
				}
				f.chunks = append(f.chunks, k)
				lo = hi
			}
			at += x.Count
		}
	}
	f.settle()
	return f
}

func (c *tierChunk) size() int32 { return c.hi - c.lo }

// settle counts the slabs that are taken at each step, from the states of all
// chunks.
func (f *tierFlow) settle() {
	t := f.t
	diff := make([]int32, t.n+2)
	add := func(from, to, v int32) {
		if from <= to {
			diff[from] += v
			diff[to+1] -= v
		}
	}
	for g := range t.segs {
		if f.w.first[g] >= 0 {
			add(f.w.first[g], f.w.last[g], t.segs[g].size)
		}
	}
	for i := range f.chunks {
		c := &f.chunks[i]
		if c.state != chunkKept && c.prev >= 0 {
			add(c.prev+1, c.cur-1, -c.size())
		}
		switch c.state {
		case chunkMap, chunkNone:
			add(c.cur, c.cur, -c.size())
		case chunkFetch:
			add(c.issue, c.cur-1, c.size())
		}
	}
	for i := range t.n + 1 {
		diff[i+1] += diff[i]
	}
	f.used = newTierTree(diff[:t.n+1])
}

// prefetch moves every fetch, in order of deadlines, to the earliest step from
// which its slabs are free without a break until they are needed. A fetch that
// could follow the touch before at once is no fetch: the slabs stay.
func (f *tierFlow) prefetch() {
	front := int32(0) // fetches are issued in the order of their deadlines
	for i := range f.chunks {
		c := &f.chunks[i]
		if c.state != chunkFetch {
			continue
		}
		q := c.cur
		lo := min(front, c.cur)
		if c.prev >= 0 {
			lo = c.prev + 1
		}
		if q > lo {
			q = int32(f.used.after(int(lo), int(q)-1, int32(f.room)-c.size()))
		}
		if q == lo && c.keepable && f.keep(i, false) {
			continue
		}
		q = min(max(q, front), c.cur)
		f.used.add(int(q), int(c.cur)-1, c.size())
		c.issue, front = q, q
	}
}

// keep lets a chunk stay in DRAM since the touch before, where that is possible.
// There must be room for it if it is not checked.
func (f *tierFlow) keep(i int, check bool) bool {
	c := &f.chunks[i]
	var b *tierChunk // of a source, which may turn out to be of no use at the touch before
	if c.before >= 0 && f.t.sourced(c.seg) && f.chunks[c.before].cur == c.prev {
		if b = &f.chunks[c.before]; b.state == chunkNone {
			return false
		}
	}
	if c.state == chunkFetch {
		f.used.add(int(c.issue), int(c.cur)-1, -c.size())
	}
	if check && f.used.after(int(c.prev)+1, int(c.cur)-1, int32(f.room)-c.size()) > int(c.prev)+1 {
		if c.state == chunkFetch {
			f.used.add(int(c.issue), int(c.cur)-1, c.size())
		}
		return false
	}
	f.used.add(int(c.prev)+1, int(c.cur)-1, c.size())
	c.state = chunkKept
	if b != nil {
		b.held = true
	}
	f.release(c)
	return true
}

// sourced reports whether a segment is the source of another.
func (t *tierTrace) sourced(g int32) bool { return g > 0 && t.segs[g-1].source == g }

// release gives up the source of a chunk that is not made any more.
func (f *tierFlow) release(c *tierChunk) {
	if c.source < 0 {
		return
	}
	b := &f.chunks[c.source]
	c.source = -1
	if b.users--; b.users > 0 || b.held {
		return
	}
	switch b.state {
	case chunkFetch:
		f.used.add(int(b.issue), int(b.cur), -1)
	case chunkMap:
	default:
		return
	}
	b.state = chunkNone
}

// linger lets stay what there is room for, the dearest for its time first.
func (f *tierFlow) linger() {
	type cand struct {
		i int
		v float64
	}
	var all []cand
	for i := range f.chunks {
		if c := &f.chunks[i]; c.keepable && (c.state == chunkFetch || c.state == chunkMake) {
			all = append(all, cand{i, f.pr.of(c.seg, c.cur) / (f.pr.at[c.cur] - f.pr.at[c.prev])})
		}
	}
	slices.SortStableFunc(all, func(a, b cand) int { return cmp.Compare(b.v, a.v) })
	for _, x := range all {
		if c := &f.chunks[x.i]; c.state == chunkFetch || c.state == chunkMake {
			f.keep(x.i, true)
		}
	}
}

// Fetches are issued this much earlier than the prediction asks for: a fixed
// time, and a share of the time between issue and deadline, over which errors
// of the prediction add up.
const (
	tierLeadSeconds = 0.25
	tierLeadShare   = 0.5
)

// channel walks backwards from the deadlines: each fetch begins so early that it
// arrives in time although those after it have to arrive in time as well. start
// holds the predicted time of each step. each is called for every chunk that is
// fetched or could be, with its deadline and the latest time at which its transfer
// can begin; it says whether it is fetched.
func (f *tierFlow) channel(start []float64, m *Machine, each func(c *tierChunk, due, begin float64) bool) {
	slab := float64(f.t.p.Params.SlabBytes())
	begin := start[f.t.n] // of the fetch after this one
	for i := len(f.chunks) - 1; i >= 0; i-- {
		c := &f.chunks[i]
		g := &f.t.segs[c.seg]
		if c.state != chunkFetch && (c.state != chunkMake || g.way != tierEither) {
			continue
		}
		due := start[c.cur] - m.Tier.Latency
		b := min(begin, due)
		if g.way != tierCaller {
			b -= float64(c.size()) * slab / m.Tier.ReadBps
		}
		if each(c, due, b) {
			begin = b
		}
	}
}

// postpone moves fetches that prefetch issues much earlier than needed to later
// steps, with a margin. This leaves slabs free for longer.
func (f *tierFlow) postpone(start []float64, m *Machine) {
	n := f.t.n
	limit := int32(n)
	f.channel(start, m, func(c *tierChunk, due, begin float64) bool {
		if c.state != chunkFetch {
			return false
		}
		at := begin - tierLeadSeconds - tierLeadShare*(due-begin)
		// The last step that starts no later than at, and no later than the
		// fetch after this one is issued.
		step := int32(sort.Search(n+1, func(k int) bool { return start[k] > at })) - 1
		limit = min(limit, max(step, 0), c.cur)
		if limit > c.issue {
			f.used.add(int(c.issue), int(limit)-1, -c.size())
			c.issue = limit
		}
		return true
	})
}

// exchange fetches instead of making where the channel is idle: as long as it has
// to begin no more than lead seconds before the deadline.
func (f *tierFlow) exchange(start []float64, m *Machine, lead float64) {
	f.channel(start, m, func(c *tierChunk, due, begin float64) bool {
		if c.state == chunkMake {
			if due-begin > lead {
				return false
			}
			c.state = chunkFetch
			f.release(c)
		}
		return true
	})
	for i := range f.chunks { // order them again
		if c := &f.chunks[i]; c.state == chunkFetch {
			c.issue = c.cur
		}
	}
	f.settle()
	f.prefetch()
}

// Backlogs of the channel, in seconds, from which on it is not idle, and short.
const (
	tierIdle  = 0.1
	tierShort = 0.5
)

// loadOf says what the channel has to do around each step, by its backlog there.
func loadOf(backlog []float64) []tierLoad {
	load := make([]tierLoad, len(backlog))
	for s, b := range backlog {
		switch {
		case b > tierShort:
			load[s] = channelShort
		case b > tierIdle:
			load[s] = channelUsed
		}
	}
	return load
}

// backlog returns how many seconds before each step the transfers for it and for later
// steps have to begin, if no step waits. start holds when each step starts then.
func (f *tierFlow) backlog(start []float64, m *Machine) []float64 {
	backlog := make([]float64, f.t.n+1)
	s, begin := f.t.n, start[f.t.n]
	fill := func(to int) { // steps after this one
		for ; s > to; s-- {
			backlog[s] = max(0, start[s]-begin)
		}
	}
	f.channel(start, m, func(c *tierChunk, _, at float64) bool {
		if c.state != chunkFetch {
			return false
		}
		fill(int(c.cur))
		begin = at
		return true
	})
	fill(-1)
	return backlog
}

// actions lists what happens before each step: first everything that leaves,
// then what comes, in order of deadlines.
func (f *tierFlow) actions() []plan.Action {
	t, n := f.t, f.t.n
	// A ciphertext that changed since it was written last is written when it leaves.
	changed := make([]bool, len(t.segs))
	for i := range f.chunks {
		c := &f.chunks[i]
		changed[c.seg] = changed[c.seg] || f.w.misses[c.miss].wrote
		if c.spill = c.state == chunkFetch && changed[c.seg]; c.spill {
			changed[c.seg] = false
		}
	}
	type event struct {
		a   plan.Action
		due int32 // -1 for what leaves
	}
	events := make([]event, 0, 2*len(f.chunks)+len(t.segs))
	slabs := func(g *tierSegment, lo, hi int32, a plan.Action, due int32) {
		at := int32(0)
		for _, x := range g.spans {
			if from, to := max(lo, at), min(hi, at+x.Count); from < to {
				a.First, a.Count = x.First+from-at, to-from
				events = append(events, event{a, due})
			}
			at += x.Count
		}
	}
	for i := range f.chunks {
		c := &f.chunks[i]
		g := &t.segs[c.seg]
		gone := c.before >= 0 && f.chunks[c.before].state == chunkNone && f.chunks[c.before].cur == c.prev
		if c.prev >= 0 && c.state != chunkKept && !gone {
			a := plan.Action{Step: c.prev + 1, Kind: plan.ActDrop, Obj: g.obj}
			if c.spill {
				a.Kind = plan.ActSpill
			}
			slabs(g, c.lo, c.hi, a, -1)
		}
		a := plan.Action{Step: c.issue, Obj: g.obj}
		switch c.state {
		case chunkFetch:
			a.Kind = plan.ActFetch
		case chunkMake:
			a.Kind = plan.ActMake
		case chunkMap:
			a.Kind = plan.ActMap
		default:
			continue
		}
		slabs(g, c.lo, c.hi, a, c.cur)
	}
	last := make([]int32, len(t.segs)) // last chunk of a source
	for i := range last {
		last[i] = -1
	}
	for i := range f.chunks {
		last[f.chunks[i].seg] = int32(i)
	}
	for i := range t.segs {
		end := f.w.last[i]
		if end < 0 || int(end) >= n || last[i] >= 0 && f.chunks[last[i]].state == chunkNone && f.chunks[last[i]].cur == end {
			continue
		}
		g := &t.segs[i]
		slabs(g, 0, g.size, plan.Action{Step: end + 1, Kind: plan.ActDrop, Obj: g.obj}, -1)
	}
	// By step, and then in order; few happen at one step.
	at := make([]int32, n+3)
	for i := range events {
		at[events[i].a.Step+1]++
	}
	for i := 1; i < len(at); i++ {
		at[i] += at[i-1]
	}
	sorted := make([]event, len(events))
	for _, e := range events {
		sorted[at[e.a.Step]] = e
		at[e.a.Step]++
	}
	events = sorted
	for from := 0; from < len(events); {
		to := from + 1
		for to < len(events) && events[to].a.Step == events[from].a.Step {
			to++
		}
		slices.SortFunc(events[from:to], func(x, y event) int {
			if x.due != y.due {
				return int(x.due - y.due)
			}
			if x.a.Obj != y.a.Obj {
				return int(x.a.Obj - y.a.Obj)
			}
			return cmp.Or(tierOrder[x.a.Kind]-tierOrder[y.a.Kind], int(x.a.First-y.a.First))
		})
		from = to
	}
	out := make([]plan.Action, 0, len(events))
	for i, e := range events {
		if k := len(out) - 1; k >= 0 && events[i-1].due == e.due {
			if a := &out[k]; a.Step == e.a.Step && a.Kind == e.a.Kind && a.Obj == e.a.Obj && a.First+a.Count == e.a.First {
				if int(e.a.First) != t.p.Slabs(a.Obj) { // the source is an action of its own
					a.Count += e.a.Count
					continue
				}
			}
		}
		out = append(out, e.a)
	}
	return out
}

// tierOrder is the order of kinds of actions for one object at one time: its
// source comes before what is made of it.
var tierOrder = [...]int{plan.ActDrop: 0, plan.ActSpill: 0, plan.ActFetch: 1, plan.ActMap: 1, plan.ActMake: 2}

// peak returns the most slabs that are taken.
func (f *tierFlow) peak() int { return int(f.used.max[1]) }
