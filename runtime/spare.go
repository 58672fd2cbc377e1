package runtime

import (
	"container/heap"
	"slices"
	"sort"

	"github.com/home-fhe/home/ir/plan"
)

// spare keeps slabs of keys and weights that the tier plan has dropped, for as
// long as nothing else needs them. What will be wanted last goes first, the next
// run counted in: for a program that is run again and again, this is Belady's
// rule. Its methods are called with the run locked.
type spare struct {
	x      *Executor
	wanted [][]want // per object, when which slabs are brought, ascending; nil for what must not be kept
	steps  int32
	held   [][]heldSlab // per object, by slab
	order  spareHeap
}

type want struct {
	step int32
	span plan.Span
}

// heldSlab is a slab that is kept. It belongs to the drop that it came with.
type heldSlab struct {
	mem []byte
	of  *spareEntry
}

// spareEntry is slabs that were dropped together; some of them may be gone.
type spareEntry struct {
	next int32
	obj  plan.ObjectID
	span plan.Span
}

// spareHeap has what is wanted furthest in the future on top.
type spareHeap []*spareEntry

func (h spareHeap) Len() int           { return len(h) }
func (h spareHeap) Less(i, j int) bool { return h[i].next > h[j].next }
func (h spareHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *spareHeap) Push(x any)        { *h = append(*h, x.(*spareEntry)) }
func (h *spareHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

func newSpare(x *Executor) *spare {
	k := &spare{x: x, wanted: make([][]want, len(x.p.Objects)), steps: int32(len(x.p.Steps)), held: make([][]heldSlab, len(x.p.Objects))}
	for _, a := range x.actions {
		if a.Kind != plan.ActFetch && a.Kind != plan.ActMake || a.Obj < 0 || int(a.Obj) >= len(x.p.Objects) {
			continue
		}
		if r := x.p.Objects[a.Obj].Role; r == plan.RoleKey || r == plan.RolePlain {
			k.wanted[a.Obj] = append(k.wanted[a.Obj], want{a.Step, plan.Span{First: a.First, Count: a.Count}})
		}
	}
	return k
}

// after returns when slabs that are dropped by a are wanted next; steps of the next
// run count on from the end of this one.
func (k *spare) after(a plan.Action) int32 {
	w := k.wanted[a.Obj]
	span := plan.Span{First: a.First, Count: a.Count}
	for _, x := range w[sort.Search(len(w), func(i int) bool { return w[i].step >= a.Step }):] {
		if meet(x.span, span) {
			return x.step
		}
	}
	return k.steps + 1 + k.first(a.Obj, span)
}

// first returns when a run wants slabs for the first time.
func (k *spare) first(obj plan.ObjectID, span plan.Span) int32 {
	for _, x := range k.wanted[obj] {
		if meet(x.span, span) {
			return x.step
		}
	}
	return k.steps
}

// put keeps slabs that a run has dropped, and returns those that must not be kept.
// rows holds nil where there is none.
func (k *spare) put(obj plan.ObjectID, span plan.Span, rows [][]byte, next int32, resident func(slab int32) bool) [][]byte {
	if k.wanted[obj] == nil {
		return rows
	}
	if k.held[obj] == nil {
		k.held[obj] = make([]heldSlab, k.x.slabs[obj]+1)
	}
	e := &spareEntry{next, obj, span}
	kept := false
	for i, mem := range rows {
		s := span.First + int32(i)
		if mem == nil || k.held[obj][s].mem != nil || resident(s) {
			continue
		}
		k.held[obj][s] = heldSlab{mem, e}
		rows[i], kept = nil, true
	}
	if kept {
		heap.Push(&k.order, e)
	}
	return rows
}

// has reports whether a slab is kept.
func (k *spare) has(obj plan.ObjectID, slab int32) bool {
	return k.held[obj] != nil && k.held[obj][slab].mem != nil
}

// take returns a slab that was kept.
func (k *spare) take(obj plan.ObjectID, slab int32) []byte {
	mem := k.held[obj][slab].mem
	k.held[obj][slab] = heldSlab{}
	return mem
}

// evict frees a slab that will be wanted last and reports false where nothing is
// kept.
func (k *spare) evict() bool {
	for len(k.order) > 0 {
		e := k.order[0]
		for held := k.held[e.obj]; e.span.Count > 0; {
			e.span.Count--
			if h := &held[e.span.First+e.span.Count]; h.of == e {
				k.x.give(e.obj, [][]byte{h.mem})
				*h = heldSlab{}
				return true
			}
		}
		heap.Pop(&k.order)
	}
	return false
}

// rewind prepares for the next run.
func (k *spare) rewind() {
	k.order = slices.DeleteFunc(k.order, func(e *spareEntry) bool {
		e.next = k.first(e.obj, e.span)
		return !slices.ContainsFunc(k.held[e.obj][e.span.First:e.span.First+e.span.Count], func(h heldSlab) bool { return h.of == e })
	})
	heap.Init(&k.order)
}
