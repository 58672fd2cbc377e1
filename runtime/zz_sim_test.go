package runtime

import (
	"sync"
	"testing"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
)

type nop struct {
	*fakeEngine
	p  *plan.Plan
	pr *backend.Profile
}

func (e nop) Exec(s *plan.Step, args []backend.Operand, out backend.Operand) error {
	d := passes.StepSeconds(e.p, e.pr, e.idx(s))
	time.Sleep(time.Duration(d * 1e9))
	return nil
}
func (e nop) idx(s *plan.Step) int {
	for i := range e.p.Steps {
		if &e.p.Steps[i] == s {
			return i
		}
	}
	panic("x")
}
func (e nop) Encode(*ir.SlotData, backend.Operand) error { return nil }

type throttle struct {
	mu   sync.Mutex
	bw   float64
	slab int
	free time.Time
}

func (t *throttle) io(n int) error {
	t.mu.Lock()
	now := time.Now()
	if t.free.Before(now) {
		t.free = now
	}
	t.free = t.free.Add(time.Duration(float64(n*t.slab) / t.bw * 1e9))
	until := t.free
	t.mu.Unlock()
	time.Sleep(time.Until(until))
	return nil
}
func (t *throttle) Read(_ plan.ObjectID, _ int, d [][]byte) error  { return t.io(len(d)) }
func (t *throttle) Write(_ plan.ObjectID, _ int, d [][]byte) error { return t.io(len(d)) }
func (t *throttle) Technology() string                            { return "x" }

func TestZZSim(t *testing.T) {
	p, err := plan.Load("/tmp/mnist_trained_lenet5_relu_avg.hplan")
	if err != nil {
		t.Fatal(err)
	}
	pr := backend.DefaultProfile()
	e := nop{&fakeEngine{params: &p.Params}, p, pr}
	in := func(plan.ObjectID, [][]byte) error { return nil }
	for _, bw := range []float64{1.2e9, 20e9} {
		for _, d := range []int64{1200 << 20, 600 << 20} {
			for _, th := range []int{1, 2, 4} {
				tier, err := passes.Tiering(p, passes.TierOptions{DRAM: d, ReadBps: bw, WriteBps: bw, Latency: 1e-4, StepSeconds: func(i int) float64 { return passes.StepSeconds(p, pr, i) }})
				if err != nil {
					t.Fatal(err)
				}
				p.Tier = tier
				_, rep, err := Run(t.Context(), p, e, in, Options{Threads: th, Slow: &throttle{bw: bw, slab: p.Params.SlabBytes()}})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("bw %4.1f dram %4d MiB threads %d: predicted %.3f (stall %.3f) actual %.3f (stall %.3f) peak %d MB; read %.2f GB lower %.2f written %.2f", bw/1e9, d>>20, th, tier.Seconds, tier.StallSeconds, rep.Seconds, rep.Tiers[1].StallSeconds, rep.ArenaPeak>>20, float64(tier.BytesRead)/1e9, float64(tier.BytesLower)/1e9, float64(tier.BytesWritten)/1e9)
			}
		}
	}
}
