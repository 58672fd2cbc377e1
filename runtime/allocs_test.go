package runtime

import (
	"fmt"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// quiet is a slow tier that neither moves nor allocates anything.
type quiet struct{ slabs [][]byte }

func (quiet) Read(plan.ObjectID, int, [][]byte) error  { return nil }
func (quiet) Write(plan.ObjectID, int, [][]byte) error { return nil }
func (quiet) Technology() string                       { return "test" }
func (q quiet) Addressable() bool                      { return len(q.slabs) > 0 }
func (q quiet) Map(_ plan.ObjectID, _, count int) ([][]byte, func() error, error) {
	return q.slabs[:count], func() error { return nil }, nil
}

// streaming is an engine whose steps read nothing of the uniform halves of keys.
type streaming struct{ *compactEngine }

func (streaming) Stream(backend.Operand, []byte) error { return nil }

// TestRunAllocatesLittle compares runs of a plan and of a longer one: what a run allocates
// hardly grows with its steps and actions, whatever the actions are. An allocation for
// each step, or for each action of one kind, is found.
func TestRunAllocatesLittle(t *testing.T) {
	const most = 0.1 // per step or action: lists that have not yet been as long
	for _, c := range []struct {
		name  string
		tier  bool
		forms plan.Forms
		maps  bool
	}{
		{name: "resident"},
		{name: "fetches and spills", tier: true},
		{name: "makes", tier: true, forms: plan.Forms{Compact: 3, Seeds: true}},
		{name: "streams", tier: true, forms: plan.Forms{Compact: 3, Seeds: true, Streams: true}},
		{name: "maps", tier: true, maps: true},
	} {
		for threads := 1; threads <= 2; threads++ {
			t.Run(fmt.Sprintf("%s/threads%d", c.name, threads), func(t *testing.T) {
				count := func(steps int) (allocs float64, work int) {
					p := plantest.Random(3, plantest.Config{LogN: 4, Levels: 6, Special: 2, Steps: steps, Terms: 2, OneShot: 20})
					work = len(p.Steps)
					o := Options{Threads: threads, Keys: fakeKeys{}}
					if c.tier {
						p.Tier, _ = plantest.Tier(p, 1, c.forms, c.maps, 0)
						work += len(p.Tier.Actions)
						slow := quiet{}
						if c.maps {
							slow.slabs = newSlabs(1000, p.Params.SlabBytes())
						}
						o.Slow = slow
					}
					x, err := NewExecutor(t.Context(), p, streaming{&compactEngine{fakeEngine: &fakeEngine{params: &p.Params}}}, o)
					if err != nil {
						t.Fatal(err)
					}
					allocs = testing.AllocsPerRun(3, func() {
						if _, _, err := x.Run(t.Context(), fakeInputs); err != nil {
							t.Fatal(err)
						}
					})
					if err := x.Close(); err != nil {
						t.Fatal(err)
					}
					return allocs, work
				}
				few, short := count(1000)
				many, long := count(4000)
				if per := (many - few) / float64(long-short); per > most {
					t.Errorf("%.3f allocations for each of %d steps and actions, %.3f at most", per, long-short, most)
				}
			})
		}
	}
}
