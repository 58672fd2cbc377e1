package passes

import (
	"math/bits"
	"testing"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// The trace agrees with one that is counted slab by slab, without any index.
func TestTraceOf(t *testing.T) {
	for seed := range uint64(5) {
		p := plantest.Random(seed, plantest.Config{Steps: 120, Keys: 8, Special: 2})
		type slab struct {
			obj plan.ObjectID
			n   int32
		}
		var order []slab
		touches, first, reuse := int64(0), int64(0), []int64{}
		footprint := [traceKinds]int64{}
		for s := range p.Steps {
			st := &p.Steps[s]
			visit := func(o plan.ObjectID, x plan.Span) {
				// All slabs of a span are used at once.
				distance := map[int32]int{}
				for n := x.First; n < x.First+x.Count; n++ {
					seen, found := map[slab]bool{}, false
					for i := len(order) - 1; i >= 0 && !found; i-- {
						if order[i] == (slab{o, n}) {
							found = true
							continue
						}
						seen[order[i]] = true
					}
					// Those of the same span that follow were used in the same moment as it, before.
					distance[n] = -1
					if found {
						distance[n] = len(seen)
					}
				}
				for n := x.First; n < x.First+x.Count; n++ {
					touches++
					kind := traceKind(p, o)
					if distance[n] < 0 {
						footprint[kind] += int64(p.Params.SlabBytes())
						if kind != TraceCiphertexts {
							first++
						}
					} else if kind != TraceCiphertexts {
						d := bits.Len(uint(max(1, distance[n]))) - 1
						for len(reuse) <= d {
							reuse = append(reuse, 0)
						}
						reuse[d]++
					}
					order = append(order, slab{o, n})
				}
			}
			for k, o := range st.Args {
				for _, x := range new(plan.Forms).Touched(p, nil, s, k) {
					visit(o, x)
				}
			}
			if len(st.Args) == 0 || st.Args[0] != st.Out {
				visit(st.Out, plan.Span{First: 0, Count: int32(p.Slabs(st.Out))})
			}
		}
		got := TraceOf(p, func(int) float64 { return 1e-3 })
		if got.Touches != touches || got.Footprint != footprint || got.Never != first {
			t.Errorf("seed %d: %d touches, %v, %d first uses; want %d, %v, %d", seed, got.Touches, got.Footprint, got.Never, touches, footprint, first)
		}
		total, want := int64(0), int64(0)
		for _, n := range got.Reuse {
			total += n
		}
		for _, n := range reuse {
			want += n
		}
		if total != want {
			t.Errorf("seed %d: %d uses again, want %d", seed, total, want)
		}
		// Slabs of one span have no order among themselves, so that distances differ by
		// less than a span; the sums of long distances agree.
		for k := 9; k < max(len(reuse), len(got.Reuse)); k++ {
			a, b := int64(0), int64(0)
			for i := k; i < len(reuse); i++ {
				a += reuse[i]
			}
			for i := k; i < len(got.Reuse); i++ {
				b += got.Reuse[i]
			}
			if a-b > want/20+1 || b-a > want/20+1 {
				t.Errorf("seed %d: %d uses after 2^%d slabs or more, want %d", seed, b, k, a)
			}
		}
		peak := int64(0)
		for k := range got.Seconds {
			now := int64(0)
			for kind := range got.Live {
				now += got.Live[kind][k]
			}
			peak = max(peak, now)
		}
		all := footprint[0] + footprint[1] + footprint[2] + footprint[3]
		if peak <= 0 || peak > all {
			t.Errorf("seed %d: %d bytes live at most, %d in all", seed, peak, all)
		}
	}
}
