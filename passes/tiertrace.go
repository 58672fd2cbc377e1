package passes

import (
	"slices"

	"github.com/home-fhe/home/ir/plan"
)

// tierWay says how the slabs of a segment come to be in DRAM.
type tierWay uint8

const (
	tierFetch  tierWay = iota // the slow tier holds them
	tierMake                  // they are computed from their source
	tierEither                // both
	tierCaller                // ciphertexts that the caller holds
	tierStep                  // results of steps
)

// tierSegment is a set of slabs of one object that the same steps touch and that
// come to DRAM in the same way. Its slabs have an order; which of them are
// resident is a number: the first so many. Ciphertexts are whole segments that
// come and go whole.
type tierSegment struct {
	obj    plan.ObjectID
	way    tierWay
	size   int32
	spans  []plan.Span // its slabs, ascending
	source int32       // segment of the slab that its slabs are made from, -1 for none
}

// whole reports whether the segment comes and goes as one.
func (g *tierSegment) whole() bool { return g.way >= tierCaller }

// tierTrace is the access trace of a plan: which segments each step touches, and
// when each is touched next. Segments of sources do not occur in the lists: whether
// a step needs a source depends on what is resident.
type tierTrace struct {
	p      *plan.Plan
	n      int // steps; n is also the moment after the last one, when outputs are read
	segs   []tierSegment
	ptr    []int32 // touched segments of step s: seg[ptr[s]:ptr[s+1]], distinct
	seg    []int32
	next   []int32 // next touch of the same segment after this entry, n+1 for none
	write  []bool  // per entry: the step writes the segment
	least  int64   // slabs of the neediest step, with the sources of what it touches
	total  int64   // slabs of all segments
	slabs  int64   // slab touches
	makes  bool    // some segments can be made
	either bool    // some segments can be had in two ways
}

// tierFixed reports whether the object comes from outside and is only read.
func tierFixed(r plan.Role) bool {
	return r == plan.RoleKey || r == plan.RolePlain || r == plan.RoleInput
}

// tierKey collects how the steps of a plan touch one evaluation key.
type tierKey struct {
	sets [][]plan.Span // distinct sets of slabs that steps touch
	segs [][]int32     // the segments of each
}

func newTierTrace(p *plan.Plan, f *plan.Forms) *tierTrace {
	n := len(p.Steps)
	t := &tierTrace{p: p, n: n, ptr: make([]int32, 0, n+2)}
	keys := map[plan.ObjectID]*tierKey{}
	var sets []int32 // per key operand, in order: which set of slabs
	used := make([]bool, len(p.Objects))
	var spans []plan.Span
	for s := range p.Steps {
		used[p.Steps[s].Out] = true
		for k, a := range p.Steps[s].Args {
			used[a] = true
			if p.Objects[a].Role != plan.RoleKey {
				continue
			}
			spans = f.Touched(p, spans[:0], s, k)
			key := keys[a]
			if key == nil {
				key = new(tierKey)
				keys[a] = key
			}
			at := slices.IndexFunc(key.sets, func(x []plan.Span) bool { return slices.Equal(x, spans) })
			if at < 0 {
				at = len(key.sets)
				key.sets = append(key.sets, slices.Clone(spans))
			}
			sets = append(sets, int32(at))
		}
	}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			used[o] = true
		}
	}
	first := make([]int32, len(p.Objects)) // the segment of what has one
	for i := range p.Objects {
		obj := plan.ObjectID(i)
		first[i] = int32(len(t.segs))
		if !used[i] {
			continue
		}
		if key := keys[obj]; key != nil {
			t.splitKey(key, obj, f)
			continue
		}
		size := int32(p.Slabs(obj))
		g := tierSegment{obj: obj, size: size, spans: []plan.Span{{First: 0, Count: size}}, source: -1}
		switch p.Objects[i].Role {
		case plan.RoleInput:
			g.way = tierCaller
		case plan.RoleTemp, plan.RoleOutput:
			g.way = tierStep
		default:
			if f.InSteps(p, obj) {
				g.size, g.spans = 1, []plan.Span{{First: size, Count: 1}}
			}
			g.way = tierWayOf(p, f, obj, int(g.spans[0].First))
		}
		if g.way == tierMake || g.way == tierEither {
			g.source = first[i] + 1
		}
		t.segs = append(t.segs, g)
		if g.source >= 0 {
			t.segs = append(t.segs, tierSegment{obj: obj, way: tierFetch, size: 1, spans: []plan.Span{{First: size, Count: 1}}, source: -1})
		}
	}
	seen := make([]int32, len(t.segs)) // step + 1 at which it was listed last
	put := func(g int32, s int, write bool) {
		if seen[g] == int32(s)+1 {
			return
		}
		seen[g] = int32(s) + 1
		t.seg = append(t.seg, g)
		t.write = append(t.write, write)
	}
	at := 0
	for s := range n {
		t.ptr = append(t.ptr, int32(len(t.seg)))
		st := &p.Steps[s]
		put(first[st.Out], s, true)
		for _, a := range st.Args {
			if key := keys[a]; key != nil {
				for _, g := range key.segs[sets[at]] {
					put(g, s, false)
				}
				at++
				continue
			}
			put(first[a], s, false)
		}
	}
	t.ptr = append(t.ptr, int32(len(t.seg)))
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			put(first[o], n, false)
		}
	}
	t.ptr = append(t.ptr, int32(len(t.seg)))
	after := make([]int32, len(t.segs))
	for i := range after {
		after[i] = int32(n) + 1
	}
	t.next = make([]int32, len(t.seg))
	for s := n; s >= 0; s-- {
		need := int64(0)
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			g := t.seg[i]
			t.next[i], after[g] = after[g], int32(s)
			need += int64(t.segs[g].size)
			t.slabs += int64(t.segs[g].size)
			if t.segs[g].source >= 0 {
				need++
			}
		}
		t.least = max(t.least, need)
	}
	for i := range t.segs {
		t.total += int64(t.segs[i].size)
		t.either = t.either || t.segs[i].way == tierEither
		t.makes = t.makes || t.either || t.segs[i].way == tierMake
	}
	return t
}

// tierWayOf returns how a slab of a key or plaintext comes to DRAM.
func tierWayOf(p *plan.Plan, f *plan.Forms, obj plan.ObjectID, slab int) tierWay {
	_, stored := f.StoredAt(p, obj, slab)
	switch made := f.Makes(p, obj, slab); {
	case made && stored:
		return tierEither
	case made:
		return tierMake
	}
	return tierFetch
}

// splitKey divides the slabs of a key that are touched at all into segments.
func (t *tierTrace) splitKey(key *tierKey, obj plan.ObjectID, f *plan.Forms) {
	n := t.p.Slabs(obj)
	class := make([]int32, n) // slabs of one class are in the same sets; 0: in none
	classes := int32(1)
	for _, set := range key.sets {
		in := map[int32]int32{} // class of those in the set, per class before
		for _, x := range set {
			for i := x.First; i < x.First+x.Count; i++ {
				c, ok := in[class[i]]
				if !ok {
					c = classes
					classes++
					in[class[i]] = c
				}
				class[i] = c
			}
		}
	}
	type kind struct {
		class int32
		way   tierWay
	}
	seg := map[kind]int32{}
	of := make([]int32, n)
	for i := range n {
		if class[i] == 0 {
			continue
		}
		k := kind{class[i], tierWayOf(t.p, f, obj, i)}
		g, ok := seg[k]
		if !ok {
			g = int32(len(t.segs))
			seg[k] = g
			t.segs = append(t.segs, tierSegment{obj: obj, way: k.way, source: -1})
		}
		of[i] = g
		x := &t.segs[g]
		x.size++
		if l := len(x.spans); l > 0 && x.spans[l-1].First+x.spans[l-1].Count == int32(i) {
			x.spans[l-1].Count++
		} else {
			x.spans = append(x.spans, plan.Span{First: int32(i), Count: 1})
		}
	}
	key.segs = make([][]int32, len(key.sets))
	for k, set := range key.sets {
		for _, x := range set {
			for i := x.First; i < x.First+x.Count; i++ {
				if g := of[i]; !slices.Contains(key.segs[k], g) {
					key.segs[k] = append(key.segs[k], g)
				}
			}
		}
	}
}
