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
