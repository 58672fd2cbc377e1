package passes

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"

	"github.com/home-fhe/home/ir/plan"
)

// Policy is a way to decide what is in DRAM when.
type Policy string

// Policies. All but the first are baselines: what others do, or what an operating
// system does, under the same budget and with the same forms.
const (
	// PolicyPlanned is that of Tiering.
	PolicyPlanned Policy = "planned"
	// PolicyLayers loads what a layer reads when it begins and drops it when it
	// ends, as Orion does (Ebel, Garimella and Reagen, ASPLOS 2025). Of keys that is
	// what the steps of the layer touch. A layer that needs more than the arena is
	// taken in the largest groups of consecutive steps that fit, and what the next
	// group of the same layer reads as well stays, as does what the first step of the
	// next layer reads.
	PolicyLayers Policy = "layers"
	// PolicyLRU is a cache with demand fetching that lets go of what was used least
	// recently, slab by slab: of a key it then holds only limbs that steps touch,
	// and of the object that is let go only as much as it has to.
	PolicyLRU Policy = "lru"
	// PolicyDemand is Belady's rule without prefetching: what is needed furthest in
	// the future leaves, and everything is fetched by the step that needs it.
	PolicyDemand Policy = "demand"
	// PolicyMapped reads keys and plaintexts where they lie in a byte-addressable
	// slow tier, or through the page cache. Only ciphertexts are in the arena.
	PolicyMapped Policy = "mapped"
)

// Baselines lists the policies that Baseline plans for.
func Baselines() []Policy { return []Policy{PolicyLayers, PolicyLRU, PolicyDemand, PolicyMapped} }

// Baseline returns the tier plan of a policy that plans are compared with, for a
// budget of dram bytes, of which reserve are left to the runtime; 0 means no bound.
// The slow tier holds objects in the given forms: a slab that it holds is read,
// others are made. Plaintexts that are held as coefficients are read and made
// whole, and their coefficients are dropped at once.
//
// Nothing is fetched before the step that needs it, or before the layer: the
// executor must not look ahead either. Times are not predicted. The error is a
// *BudgetError where the budget is below what the policy can run with.
func Baseline(p *plan.Plan, policy Policy, forms plan.Forms, dram, reserve int64) (*plan.Tier, error) {
	if !slices.Contains(Baselines(), policy) {
		return nil, fmt.Errorf("tiering: no baseline %q", policy)
	}
	if reserve == 0 {
		reserve = TierReserve(&p.Params, 1)
	}
	b := newBaseline(p, policy, forms)
	slab := int64(p.Params.SlabBytes())
	room := max(b.total, 1)
	if dram > 0 {
		if room = min(room, (dram-reserve)/slab); room < b.least {
			return nil, &BudgetError{Budget: dram, Least: reserve + b.least*slab}
		}
	}
	if room > 1<<31-1 {
		return nil, fmt.Errorf("tiering: %d slabs are more than a plan can address", room)
	}
	b.room = room
	b.run()
	t := &plan.Tier{
		Budget: dram, Reserve: reserve, ArenaSlabs: int(room), PeakSlabs: int(b.peak), Actions: b.actions, Forms: forms,
		BytesRead: b.read * slab, BytesWritten: b.written * slab,
	}
	bound, err := TierBound(p, t)
	if err != nil {
		return nil, fmt.Errorf("BUG: policy %s: %w", policy, err)
	}
	t.BytesBound = bound.Belady
	return t, nil
}

// basePiece is a set of slabs of one object that are always touched together. Those
// that are resident are its first ones.
type basePiece struct {
	obj      plan.ObjectID
	slabs    []int32 // ascending; nil for all of the object
	size, in int32
	last     int32 // step of the last touch
	role     plan.Role
	clean    bool // the slow tier, or the caller, has the present content
	exists   bool
	// For PolicyLRU: neighbours in order of use, -1 for none.
	newer, older int32
	listed       bool
}

func (u *basePiece) fixed() bool { return u.role == plan.RoleKey || u.role == plan.RolePlain }

func (u *basePiece) slab(i int32) int32 {
	if u.slabs == nil {
		return i
	}
	return u.slabs[i]
}

// baseTouch is the touch of a piece by a step.
type baseTouch struct {
	piece, next int32 // step of the next touch, n+1 for none
}

// baseline replays a plan under a policy.
type baseline struct {
	p      *plan.Plan
	policy Policy
	forms  plan.Forms
	n      int32 // steps; n is also the moment at which outputs are read
	pieces []basePiece
	ptr    []int32 // touches of step s: touch[ptr[s]:ptr[s+1]], each piece once
	touch  []baseTouch
	at     []int32 // next touch of each piece
	pinned []int32 // step + 1 that touches the piece
	group  []int32 // first step + 1 of the group of steps that reads the piece
	loaded []int32 // pieces of the present group
	live   []int64 // slabs of ciphertexts that are alive at a step
	total  int64   // slabs of all objects
	least  int64   // slabs of the neediest step

	room, used, peak  int64
	read, written     int64
	fixed, made       baseHeap // Belady's candidates, by piece
	newest, oldest    int32
	actions           []plan.Action
	leaving, arriving []baseSlabs
}

// baseSlabs are slabs of an object that leave or arrive.
type baseSlabs struct {
	obj  plan.ObjectID
	slab int32
	kind plan.ActionKind
}

func newBaseline(p *plan.Plan, policy Policy, forms plan.Forms) *baseline {
	b := &baseline{p: p, policy: policy, forms: forms, n: int32(len(p.Steps)), newest: -1, oldest: -1}
	// What the steps touch of an object, each set of slabs once, and then the
	// classes of slabs that the same steps touch.
	seen := make([][]baseSet, len(p.Objects))
	var spans []plan.Span
	find := func(step, k int) int {
		obj := p.Steps[step].Args[k]
		spans = forms.Touched(p, spans[:0], step, k)
		for i := range seen[obj] {
			if slices.Equal(seen[obj][i].spans, spans) {
				return i
			}
		}
		seen[obj] = append(seen[obj], baseSet{spans: slices.Clone(spans)})
		return len(seen[obj]) - 1
	}
	whole := func(obj plan.ObjectID) int {
		spans = append(spans[:0], plan.Span{Count: int32(p.Slabs(obj))})
		for i := range seen[obj] {
			if slices.Equal(seen[obj][i].spans, spans) {
				return i
			}
		}
		seen[obj] = append(seen[obj], baseSet{spans: slices.Clone(spans)})
		return len(seen[obj]) - 1
	}
	for s := range p.Steps {
		for k := range p.Steps[s].Args {
			find(s, k)
		}
		whole(p.Steps[s].Out)
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			whole(o)
		}
	}
	for obj := range seen {
		b.split(plan.ObjectID(obj), seen[obj])
		b.total += int64(p.Slabs(plan.ObjectID(obj)))
	}
	// The trace.
	b.pinned = make([]int32, len(b.pieces))
	put := func(s int32, set *baseSet) {
		for _, u := range set.pieces {
			if b.pinned[u] != s+1 {
				b.pinned[u] = s + 1
				b.touch = append(b.touch, baseTouch{piece: u})
			}
		}
	}
	for s := range p.Steps {
		b.ptr = append(b.ptr, int32(len(b.touch)))
		for k, o := range p.Steps[s].Args {
			put(int32(s), &seen[o][find(s, k)])
		}
		out := p.Steps[s].Out
		put(int32(s), &seen[out][whole(out)])
	}
	b.ptr = append(b.ptr, int32(len(b.touch)))
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			put(b.n, &seen[o][whole(o)])
		}
	}
	b.ptr = append(b.ptr, int32(len(b.touch)))
	b.at = make([]int32, len(b.pieces))
	for i := range b.at {
		b.at[i], b.pinned[i], b.pieces[i].last = b.n+1, 0, -1
	}
	for s := b.n; s >= 0; s-- {
		need, source := int64(0), false
		out := plan.ObjectID(-1)
		if s < b.n {
			out = p.Steps[s].Out
		}
		fresh := int64(0)
		for i := b.ptr[s]; i < b.ptr[s+1]; i++ {
			t := &b.touch[i]
			u := &b.pieces[t.piece]
			t.next, b.at[t.piece] = b.at[t.piece], s
			u.last = max(u.last, s)
			if policy == PolicyMapped && u.fixed() {
				continue
			}
			need += int64(u.size)
			source = source || b.source(u)
			if u.obj == out && !slices.Contains(p.Steps[s].Args, out) {
				fresh = int64(u.size)
			}
		}
		if source { // the coefficients are gone when the result comes
			need = max(need, need-fresh+1)
		}
		b.least = max(b.least, need)
	}
	return b
}

// baseSet is a set of slabs of one object that a step touches.
type baseSet struct {
	spans  []plan.Span
	pieces []int32
}

// split makes the pieces of an object.
func (b *baseline) split(obj plan.ObjectID, sets []baseSet) {
	n := b.p.Slabs(obj)
	if b.forms.InSteps(b.p, obj) && b.p.Objects[obj].Role == plan.RolePlain {
		n++ // the source
	}
	if n == 0 || len(sets) == 0 {
		return
	}
	o := &b.p.Objects[obj]
	piece := basePiece{obj: obj, size: int32(n), role: o.Role, newer: -1, older: -1}
	piece.clean = piece.fixed() || o.Role == plan.RoleInput
	piece.exists = piece.clean
	if len(sets) == 1 && len(sets[0].spans) == 1 && sets[0].spans[0] == (plan.Span{Count: int32(n)}) {
		sets[0].pieces = []int32{int32(len(b.pieces))}
		b.pieces = append(b.pieces, piece)
		return
	}
	class := make([]int, n)
	classes := 1
	touched := make([]bool, n)
	for i := range sets {
		clear(touched)
		for _, s := range sets[i].spans {
			for k := s.First; k < s.First+s.Count; k++ {
				touched[k] = true
			}
		}
		split := map[int]int{} // class of those of a class that are touched
		for k := range class {
			if touched[k] {
				c, ok := split[class[k]]
				if !ok {
					c = classes
					split[class[k]] = c
					classes++
				}
				class[k] = c
			}
		}
	}
	at := map[int]int32{}
	for k, c := range class {
		if c == 0 {
			continue // touched by none
		}
		u, ok := at[c]
		if !ok {
			u = int32(len(b.pieces))
			at[c] = u
			piece.size = 0
			b.pieces = append(b.pieces, piece)
		}
		b.pieces[u].slabs = append(b.pieces[u].slabs, int32(k))
		b.pieces[u].size++
	}
	for i := range sets {
		for _, s := range sets[i].spans {
			for k := s.First; k < s.First+s.Count; k++ {
				if u := at[class[k]]; !slices.Contains(sets[i].pieces, u) {
					sets[i].pieces = append(sets[i].pieces, u)
				}
			}
		}
	}
}

// source reports whether slabs of a piece are made from coefficients, which take a
// slab meanwhile.
func (b *baseline) source(u *basePiece) bool {
	return u.role == plan.RolePlain && b.policy != PolicyMapped && b.forms.Of(b.p, u.obj) == plan.Compact && !b.forms.InSteps(b.p, u.obj)
}

// run decides all residency.
func (b *baseline) run() {
	b.group = make([]int32, len(b.pieces))
	b.live = make([]int64, b.n+2) // first what is added and taken away
	for i := range b.pieces {
		if u := &b.pieces[i]; !u.fixed() && u.last >= 0 {
			b.live[b.at[i]] += int64(u.size)
			b.live[u.last+1] -= int64(u.size)
		}
	}
	for s := range b.n {
		b.live[s+1] += b.live[s]
	}
	end := int32(0) // of the group of steps
	for s := int32(0); s <= b.n; s++ {
		if s > 0 {
			for _, t := range b.touch[b.ptr[s-1]:b.ptr[s]] {
				if u := &b.pieces[t.piece]; t.next > b.n && !u.fixed() {
					b.leave(t.piece, u.in, plan.ActDrop)
				}
			}
		}
		now := b.touch[b.ptr[s]:b.ptr[s+1]]
		for _, t := range now {
			b.pinned[t.piece] = s + 1
		}
		if b.policy == PolicyLayers && s == end {
			layer := s == 0 || s == b.n || b.p.Steps[s].Layer != b.p.Steps[s-1].Layer
			end = b.load(s, layer)
		}
		b.bring(s, now)
		b.flush(s)
		// The result is there when the step is done.
		if s < b.n {
			out := b.p.Steps[s].Out
			for _, t := range now {
				if u := &b.pieces[t.piece]; u.obj == out {
					if !u.exists {
						b.used += int64(u.size)
						u.in, u.exists = u.size, true
						b.peak = max(b.peak, b.used)
					}
					u.clean = false
				}
			}
		}
		for _, t := range now {
			b.at[t.piece] = t.next
			b.use(t)
		}
	}
}

// use notes that a piece was touched.
func (b *baseline) use(t baseTouch) {
	u := &b.pieces[t.piece]
	switch {
	case b.policy == PolicyMapped && u.fixed():
		b.read += int64(u.size) // each time
	case b.policy == PolicyLRU:
		b.unlink(t.piece)
		if u.in > 0 {
			u.older, u.newer, u.listed = b.newest, -1, true
			if b.newest >= 0 {
				b.pieces[b.newest].newer = t.piece
			} else {
				b.oldest = t.piece
			}
			b.newest = t.piece
		}
	case !u.fixed():
		heap.Push(&b.made, t)
	case b.policy == PolicyDemand:
		heap.Push(&b.fixed, t)
	}
}

func (b *baseline) unlink(i int32) {
	u := &b.pieces[i]
	if !u.listed {
		return
	}
	if u.newer >= 0 {
		b.pieces[u.newer].older = u.older
	} else {
		b.newest = u.older
	}
	if u.older >= 0 {
		b.pieces[u.older].newer = u.newer
	} else {
		b.oldest = u.newer
	}
	u.listed, u.newer, u.older = false, -1, -1
}

// bring makes what a step touches resident, and room for its result.
func (b *baseline) bring(s int32, now []baseTouch) {
	before, fresh, source := int64(0), int64(0), int64(0)
	for _, t := range now {
		u := &b.pieces[t.piece]
		switch {
		case u.in == u.size || b.policy == PolicyMapped && u.fixed():
		case !u.exists:
			fresh += int64(u.size)
		default:
			before += int64(u.size - u.in)
			if b.source(u) {
				source = 1
			}
		}
	}
	b.makeRoom(s, before+max(fresh, source))
	for _, t := range now {
		b.arrive(t.piece)
	}
}

// makeRoom lets go of pieces until so many slabs are free.
func (b *baseline) makeRoom(s int32, need int64) {
	for b.used+need > b.room {
		over := b.used + need - b.room
		i, ok := b.victim(s)
		if !ok {
			panic(fmt.Sprintf("BUG: step %d needs %d slabs more, %d are taken of %d", s, need, b.used, b.room))
		}
		u := &b.pieces[i]
		switch {
		case u.fixed():
			b.leave(i, int32(min(over, int64(u.in))), plan.ActDrop)
		case u.clean:
			b.leave(i, u.in, plan.ActDrop)
		default:
			u.clean = true
			b.leave(i, u.in, plan.ActSpill)
		}
	}
}

// victim returns the piece that the policy lets go next.
func (b *baseline) victim(s int32) (int32, bool) {
	if b.policy == PolicyLRU {
		for i := b.oldest; i >= 0; i = b.pieces[i].newer {
			if b.pinned[i] != s+1 {
				return i, true
			}
		}
		return 0, false
	}
	for _, h := range []*baseHeap{&b.fixed, &b.made} {
		for h.Len() > 0 {
			c := (*h)[0]
			i := c.piece
			if b.pieces[i].in == 0 || b.at[i] != c.next {
				heap.Pop(h) // it left, or was used since
				continue
			}
			if b.pinned[i] == s+1 {
				break // and so is all that is behind it: needed now
			}
			return i, true
		}
	}
	return 0, false
}

// leave takes the last count resident slabs of a piece out of DRAM.
func (b *baseline) leave(i, count int32, kind plan.ActionKind) {
	u := &b.pieces[i]
	if count == 0 {
		return
	}
	for k := u.in - count; k < u.in; k++ {
		b.leaving = append(b.leaving, baseSlabs{u.obj, u.slab(k), kind})
	}
	u.in -= count
	b.used -= int64(count)
	if kind == plan.ActSpill {
		b.written += int64(count)
	}
	if u.in == 0 {
		b.unlink(i)
	}
}

// arrive makes a piece resident.
func (b *baseline) arrive(i int32) {
	u := &b.pieces[i]
	if u.in == u.size || !u.exists {
		return
	}
	if b.policy == PolicyMapped && u.fixed() {
		for k := u.in; k < u.size; k++ {
			b.arriving = append(b.arriving, baseSlabs{u.obj, u.slab(k), plan.ActMap})
		}
		u.in = u.size
		return
	}
	for k := u.in; k < u.size; k++ {
		kind := plan.ActFetch
		if u.fixed() {
			if _, ok := b.forms.StoredAt(b.p, u.obj, int(u.slab(k))); !ok {
				kind = plan.ActMake
			}
		}
		if kind == plan.ActFetch && u.role != plan.RoleInput {
			b.read++
		}
		b.arriving = append(b.arriving, baseSlabs{u.obj, u.slab(k), kind})
	}
	b.used += int64(u.size - u.in)
	u.in = u.size
}

// flush writes down what leaves and arrives before a step.
func (b *baseline) flush(s int32) {
	order := func(x, y baseSlabs) int { return cmp.Or(cmp.Compare(x.obj, y.obj), cmp.Compare(x.slab, y.slab)) }
	runs := func(list []baseSlabs, f func(a plan.Action)) {
		slices.SortFunc(list, order)
		for i := 0; i < len(list); {
			k := i + 1
			for k < len(list) && list[k].obj == list[i].obj && list[k].kind == list[i].kind && list[k].slab == list[k-1].slab+1 {
				k++
			}
			f(plan.Action{Step: s, Kind: list[i].kind, Obj: list[i].obj, First: list[i].slab, Count: int32(k - i)})
			i = k
		}
	}
	put := func(a plan.Action) { b.actions = append(b.actions, a) }
	runs(b.leaving, put)
	// Coefficients take a slab only until all is made of them, so these come first:
	// what else arrives may need that slab.
	source := plan.ObjectID(-1)
	begin := len(b.actions)
	var rest []plan.Action
	done := func() {
		if source >= 0 {
			put(plan.Action{Step: s, Kind: plan.ActDrop, Obj: source, First: int32(b.p.Slabs(source)), Count: 1})
			source = -1
		}
	}
	runs(b.arriving, func(a plan.Action) {
		if a.Kind != plan.ActMake || b.p.Objects[a.Obj].Role != plan.RolePlain {
			rest = append(rest, a)
			return
		}
		if source != a.Obj {
			done()
			source = a.Obj
			b.read++
			put(plan.Action{Step: s, Kind: plan.ActFetch, Obj: a.Obj, First: int32(b.p.Slabs(a.Obj)), Count: 1})
		}
		put(a)
	})
	done()
	// The most slabs at once are those with the last coefficients, or all.
	with := b.used
	if len(b.actions) > begin {
		made := b.used
		for _, a := range rest {
			if a.Kind != plan.ActMap {
				made -= int64(a.Count)
			}
		}
		with = max(with, made+1)
	}
	b.peak = max(b.peak, with)
	b.actions = append(b.actions, rest...)
	b.leaving, b.arriving = b.leaving[:0], b.arriving[:0]
}

// load brings what the layer reads that begins at a step, or as many of its next
// steps as fit, drops what the steps before left, and returns where the group of
// steps ends. Within a layer what the group shares with the one before stays.
func (b *baseline) load(s int32, layer bool) int32 {
	var group []int32
	end := s
	fixed, source, live := int64(0), int64(0), int64(0)
	for ; end < b.n && b.p.Steps[end].Layer == b.p.Steps[s].Layer; end++ {
		more, src := int64(0), source
		live = max(live, b.live[end])
		first := len(group)
		for _, t := range b.touch[b.ptr[end]:b.ptr[end+1]] {
			if u := &b.pieces[t.piece]; u.fixed() && b.group[t.piece] != s+1 {
				more += int64(u.size)
				if b.source(u) {
					src = 1
				}
				group = append(group, t.piece)
				b.group[t.piece] = s + 1
			}
		}
		if end > s && fixed+more+src+live > b.room {
			for _, i := range group[first:] {
				b.group[i] = 0
			}
			group = group[:first]
			break
		}
		fixed, source = fixed+more, src
	}
	for _, i := range b.loaded {
		if b.pinned[i] != s+1 && (layer || b.group[i] != s+1) {
			b.leave(i, b.pieces[i].in, plan.ActDrop)
		}
	}
	b.loaded = group
	if layer {
		b.flush(s)
	}
	need := int64(0)
	for _, i := range group {
		need += int64(b.pieces[i].size - b.pieces[i].in)
	}
	if end == s+1 { // may be the neediest step
		return end // bring loads it
	}
	b.makeRoom(s, need+source)
	for _, i := range group {
		b.arrive(i)
	}
	return max(end, s+1)
}

// baseHeap orders pieces by their next touch, the last one first.
type baseHeap []baseTouch

func (h baseHeap) Len() int { return len(h) }
func (h baseHeap) Less(i, j int) bool {
	return h[i].next > h[j].next || h[i].next == h[j].next && h[i].piece < h[j].piece
}
func (h baseHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *baseHeap) Push(x any)   { *h = append(*h, x.(baseTouch)) }
func (h *baseHeap) Pop() any     { return popLast((*[]baseTouch)(h)) }
