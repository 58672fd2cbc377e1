package passes

import (
	"math"
	"testing"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// predictMachine is the machine of tierOpts.
func predictMachine(p *plan.Plan) *Machine {
	o := tierOpts(p, 0)
	return &o.Machine
}

// What the planner states of its plans is what Predict finds.
func TestPredictAgreesWithThePlanner(t *testing.T) {
	for seed := range uint64(10) {
		p := plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2})
		for _, extra := range []int64{0, 10, 100, 5000} {
			tier, err := Tiering(p, tierOpts(p, TierLeast(p, 1<<20)+extra*int64(p.Params.SlabBytes())))
			if err != nil {
				t.Fatal(err)
			}
			got := Predict(p, tier, predictMachine(p))
			if got.BytesRead != tier.BytesRead || got.BytesWritten != tier.BytesWritten || math.Abs(got.Seconds-tier.Seconds) > 1e-9*tier.Seconds {
				t.Errorf("seed %d, least + %d: %v s, %d read, %d written; the planner says %v s, %d, %d", seed, extra, got.Seconds, got.BytesRead, got.BytesWritten, tier.Seconds, tier.BytesRead, tier.BytesWritten)
			}
			if got.Start[len(p.Steps)] != got.Seconds || math.Abs(got.StepSeconds+got.StallSeconds+got.MakeSeconds-got.Seconds) > 1e-9*got.Seconds {
				t.Errorf("seed %d, least + %d: %+v does not add up", seed, extra, got.Seconds)
			}
		}
	}
}

// The run that is played event by event moves the same bytes as the planner's
// prediction, takes about as long on one core, never less than the work or the
// transfers, and no longer on more cores.
func TestPredictRun(t *testing.T) {
	for seed := range uint64(10) {
		p := plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2})
		for _, extra := range []int64{0, 10, 100, 5000} {
			tier, err := Tiering(p, tierOpts(p, TierLeast(p, 1<<20)+extra*int64(p.Params.SlabBytes())))
			if err != nil {
				t.Fatal(err)
			}
			m := predictMachine(p)
			quick := Predict(p, tier, m)
			one := PredictRun(p, tier, m, &Execution{})
			if one.BytesRead != quick.BytesRead || one.BytesWritten != quick.BytesWritten || one.BytesMapped != quick.BytesMapped {
				t.Errorf("seed %d, least + %d: %d read, %d written, %d mapped, want %d, %d, %d", seed, extra, one.BytesRead, one.BytesWritten, one.BytesMapped, quick.BytesRead, quick.BytesWritten, quick.BytesMapped)
			}
			if r := one.Seconds / quick.Seconds; r < 0.8 || r > 1.25 {
				t.Errorf("seed %d, least + %d: %v s event by event, %v s in plan order", seed, extra, one.Seconds, quick.Seconds)
			}
			if d := one.Seconds - one.StallSeconds - one.StepSeconds - one.MakeSeconds; math.Abs(d) > 1e-6*one.Seconds {
				t.Errorf("seed %d, least + %d: on one core %v s are neither work nor stall", seed, extra, d)
			}
			for _, cores := range []int{2, 8} {
				many := *m
				many.Cores = cores
				r := PredictRun(p, tier, &many, &Execution{Split: 1.5})
				floor := max((r.StepSeconds+r.MakeSeconds)/float64(cores), float64(r.BytesRead)/m.Tier.ReadBps)
				if r.Seconds < floor*(1-1e-9) || r.Seconds > one.Seconds*(1+1e-9) {
					t.Errorf("seed %d, least + %d: %v s on %d cores, %v s on one, %v s at least", seed, extra, r.Seconds, cores, one.Seconds, floor)
				}
			}
		}
	}
}
