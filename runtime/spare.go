package runtime

import (
	"container/heap"
	"sort"

	"github.com/home-fhe/home/ir/plan"
)

// spare keeps keys and weights that the tier plan has dropped, for as long as
// nothing else needs their slabs. What will be fetched last goes first, the next
// run counted in: for a program that is run again and again, this is Belady's
// rule. Its methods are called with the run locked.
type spare struct {
	fetches [][]int32 // per object, the steps that fetch it, ascending; nil for what must not be kept
	steps   int32
	held    []*residence // per object
	order   spareHeap    // may hold entries that are no longer true
}

type spareEntry struct {
	next int32
	obj  plan.ObjectID
}

// spareHeap has the furthest next fetch on top.
type spareHeap []spareEntry

func (h spareHeap) Len() int           { return len(h) }
func (h spareHeap) Less(i, j int) bool { return h[i].next > h[j].next }
func (h spareHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *spareHeap) Push(x any)        { *h = append(*h, x.(spareEntry)) }
func (h *spareHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

func newSpare(p *plan.Plan) *spare {
	k := &spare{fetches: make([][]int32, len(p.Objects)), steps: int32(len(p.Steps)), held: make([]*residence, len(p.Objects))}
	for _, a := range p.Tier.Actions {
		if a.Kind != plan.ActFetch || a.Obj < 0 || int(a.Obj) >= len(p.Objects) {
			continue
		}
		if r := p.Objects[a.Obj].Role; r == plan.RoleKey || r == plan.RolePlain {
			k.fetches[a.Obj] = append(k.fetches[a.Obj], a.Step)
		}
	}
	return k
}

// after returns when an object that is dropped by a is fetched next; steps of
// the next run count on from the end of this one.
func (k *spare) after(a plan.Action) int32 {
	f := k.fetches[a.Obj]
	if i := sort.Search(len(f), func(i int) bool { return f[i] >= a.Step }); i < len(f) {
		return f[i]
	}
	if len(f) > 0 {
		return k.steps + 1 + f[0]
	}
	return 0
}

// put keeps what a run has dropped, and reports false for what must not be kept.
func (k *spare) put(r *residence) bool {
	if k.fetches[r.obj] == nil || k.held[r.obj] != nil {
		return false
	}
	r.writer, r.readers = nil, nil
	k.held[r.obj] = r
	heap.Push(&k.order, spareEntry{r.next, r.obj})
	return true
}

// take returns an object that was kept, or nil.
func (k *spare) take(obj plan.ObjectID) *residence {
	r := k.held[obj]
	k.held[obj] = nil
	return r
}

// evict frees what will be fetched last and reports false where nothing is kept.
func (k *spare) evict() bool {
	for len(k.order) > 0 {
		e := heap.Pop(&k.order).(spareEntry)
		if r := k.held[e.obj]; r != nil && r.next == e.next {
			k.held[e.obj] = nil
			r.block.Free()
			return true
		}
	}
	return false
}

// rewind prepares for the next run.
func (k *spare) rewind() {
	k.order = k.order[:0]
	for o, r := range k.held {
		if r != nil {
			r.next = k.fetches[o][0]
			k.order = append(k.order, spareEntry{r.next, plan.ObjectID(o)})
		}
	}
	heap.Init(&k.order)
}
