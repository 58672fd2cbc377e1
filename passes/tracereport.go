package passes

import (
	"math/bits"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Kinds of objects that a trace tells apart.
const (
	TraceKeys = iota
	TraceWeights
	TraceMatrices    // plaintexts of bootstraps
	TraceCiphertexts // inputs, temporaries and outputs
	traceKinds
)

// TraceKindNames names them for people.
var TraceKindNames = [traceKinds]string{"evaluation keys", "weights", "bootstrapping matrices", "ciphertexts"}

// Trace describes how a plan touches its objects, slab by slab, whatever the
// budget. Everything is exact: it follows from the plan alone but for the seconds.
type Trace struct {
	Touches   int64             `json:"touches"`   // slabs touched, each time
	Footprint [traceKinds]int64 `json:"footprint"` // distinct bytes touched, by kind
	// Points of the run, equally far apart in CPU time.
	Seconds []float64 `json:"seconds"`
	// Bytes that are touched before a point and after it, by kind: what would have to
	// be in DRAM for nothing to be read twice.
	Live [traceKinds][]int64 `json:"live"`
	// Bytes that the steps up to the next point touch, for each CPU second of them, and
	// those of them that are touched for the first time.
	Demand []float64 `json:"demand"`
	First  []float64 `json:"first"`
	// Reuse counts uses of slabs of keys and plaintexts by the distinct slabs that are
	// touched since the use before: entry k those from 2^k up to 2^(k+1). Never counts
	// first uses.
	Reuse []int64 `json:"reuse"`
	Never int64   `json:"first_uses"`
}

// tracePoints is the number of points of a trace.
const tracePoints = 160

// TraceOf follows a plan. stepSeconds predicts the CPU time of each step. The time
// it takes grows with the slabs that are touched, and the logarithm of their number.
func TraceOf(p *plan.Plan, stepSeconds func(step int) float64) *Trace {
	t := &Trace{}
	slab := int64(p.Params.SlabBytes())
	base := make([]int, len(p.Objects)+1)
	for i := range p.Objects {
		base[i+1] = base[i] + p.Slabs(plan.ObjectID(i))
	}
	n := base[len(p.Objects)]
	last := make([]int32, n) // place in the order of uses, from 1; 0 for none
	first, final := make([]int32, n), make([]int32, n)
	owner := make([]uint8, n)
	for i := range p.Objects {
		for k := base[i]; k < base[i+1]; k++ {
			owner[k], first[k] = traceKind(p, plan.ObjectID(i)), -1
		}
	}
	total := 0.0
	for s := range p.Steps {
		total += stepSeconds(s)
	}
	// The distinct slabs between two uses of one are counted by a tree over the uses, in
	// which only the latest use of each slab stands (Bennett and Kruskal, 1975). Slabs
	// of a span that are used alike are one entry.
	var spans []plan.Span
	forms := p.Forms()
	uses := int32(0)
	for s := range p.Steps {
		uses += int32(4 * (len(p.Steps[s].Args) + 1) * max(1, p.Params.Digits(p.Params.MaxLevel())))
	}
	tree := make([]int64, int(uses)+2)
	add := func(at int32, v int64) {
		for i := int(at); i < len(tree); i += i & -i {
			tree[i] += v
		}
	}
	sum := func(at int32) (v int64) {
		for i := int(at); i > 0; i -= i & -i {
			v += tree[i]
		}
		return v
	}
	t.Seconds = make([]float64, tracePoints+1)
	t.Demand, t.First = make([]float64, tracePoints+1), make([]float64, tracePoints+1)
	for k := range t.Seconds {
		t.Seconds[k] = total * float64(k) / tracePoints
	}
	step := make([]int, tracePoints+1) // first step of each point
	at, now, clock, distinct := 0, 0.0, int32(0), int64(0)
	for s := range p.Steps {
		for at <= tracePoints && now >= t.Seconds[at]-1e-12 {
			step[at] = s
			at++
		}
		touch := func(obj plan.ObjectID, spans []plan.Span) {
			for _, x := range spans {
				if clock++; int(clock) >= len(tree) {
					panic("BUG: a trace has more uses than were counted")
				}
				kind := traceKind(p, obj)
				for k := base[obj] + int(x.First); k < base[obj]+int(x.First+x.Count); k++ {
					t.Touches++
					t.Demand[at-1] += float64(slab)
					if first[k] < 0 {
						first[k] = int32(s)
						t.Footprint[kind] += slab
						t.First[at-1] += float64(slab)
						distinct++
						if kind != TraceCiphertexts {
							t.Never++
						}
					} else {
						if kind != TraceCiphertexts {
							d := bits.Len64(uint64(max(1, distinct-sum(last[k])))) - 1
							for len(t.Reuse) <= d {
								t.Reuse = append(t.Reuse, 0)
							}
							t.Reuse[d]++
						}
						add(last[k], -1)
					}
					final[k], last[k] = int32(s), clock
				}
				add(clock, int64(x.Count))
			}
		}
		st := &p.Steps[s]
		for k, o := range st.Args {
			spans = forms.Touched(p, spans[:0], s, k)
			touch(o, spans)
		}
		if len(st.Args) == 0 || st.Args[0] != st.Out {
			touch(st.Out, []plan.Span{{First: 0, Count: int32(p.Slabs(st.Out))}})
		}
		now += stepSeconds(s)
	}
	for ; at <= tracePoints; at++ {
		step[at] = len(p.Steps)
	}
	for kind := range t.Live {
		t.Live[kind] = make([]int64, tracePoints+1)
	}
	change := make([][traceKinds]int64, len(p.Steps)+2)
	for k := range n {
		if first[k] >= 0 {
			change[first[k]][owner[k]] += slab
			change[final[k]+1][owner[k]] -= slab
		}
	}
	var live [traceKinds]int64
	for s, k := 0, 0; s <= len(p.Steps); s++ {
		for kind := range live {
			live[kind] += change[s][kind]
		}
		for ; k <= tracePoints && step[k] == s; k++ {
			for kind := range live {
				t.Live[kind][k] = live[kind]
			}
		}
	}
	if per := total / tracePoints; per > 0 {
		for k := range t.Demand {
			t.Demand[k], t.First[k] = t.Demand[k]/per, t.First[k]/per
		}
	}
	t.Demand, t.First = t.Demand[:tracePoints], t.First[:tracePoints]
	return t
}

func traceKind(p *plan.Plan, obj plan.ObjectID) uint8 {
	o := &p.Objects[obj]
	switch o.Role {
	case plan.RoleKey:
		return TraceKeys
	case plan.RolePlain:
		if o.Type.Kind != ir.KeyKind && o.Layer >= 0 && int(o.Layer) < len(p.Layers) && p.Layers[o.Layer].Kind == plan.LayerRefresh {
			return TraceMatrices
		}
		return TraceWeights
	}
	return TraceCiphertexts
}
