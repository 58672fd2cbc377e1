package passes

import (
	"math"
	"testing"

	"github.com/home-fhe/home/backend"
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
			if got.Start[len(p.Steps)] != got.Seconds || math.Abs(got.StepSeconds+got.StallSeconds+got.MakeSeconds+got.InputSeconds-got.Seconds) > 1e-9*got.Seconds {
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
			if d := one.Seconds - one.StallSeconds - one.StepSeconds - one.MakeSeconds - one.InputSeconds; math.Abs(d) > 1e-6*one.Seconds {
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

// Input costs the steps beside it, and nothing while all wait.
func TestPredictInput(t *testing.T) {
	for seed := range uint64(5) {
		p := plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2})
		tier, err := Tiering(p, tierOpts(p, TierLeast(p, 1<<20)+10*int64(p.Params.SlabBytes())))
		if err != nil {
			t.Fatal(err)
		}
		free, m := predictMachine(p), predictMachine(p)
		m.Input = 0.4 / m.Tier.ReadBps
		for name, play := range map[string]func(m *Machine) *Prediction{
			"in plan order":  func(m *Machine) *Prediction { return Predict(p, tier, m) },
			"event by event": func(m *Machine) *Prediction { return PredictRun(p, tier, m, &Execution{}) },
		} {
			without, with := play(free), play(m)
			most := m.Input * float64(with.BytesRead)
			if with.BytesRead == 0 || without.InputSeconds != 0 || !(with.InputSeconds > most/4) || with.InputSeconds > most*(1+1e-9) {
				t.Errorf("seed %d, %s: %d bytes cost %v s, at most %v, and %v where they are free", seed, name, with.BytesRead, with.InputSeconds, most, without.InputSeconds)
			}
			if d := with.Seconds - without.Seconds; d < -1e-9 || d > with.InputSeconds*(1+1e-9) {
				t.Errorf("seed %d, %s: %v s longer, of which %v are input", seed, name, d, with.InputSeconds)
			}
			if d := with.Seconds - with.StallSeconds - with.StepSeconds - with.MakeSeconds - with.InputSeconds; math.Abs(d) > 1e-6*with.Seconds {
				t.Errorf("seed %d, %s: %v s are neither work nor stall nor input", seed, name, d)
			}
			wait := *m
			wait.StepSeconds = func(int, *plan.Forms) float64 { return 0 }
			if r := play(&wait); r.InputSeconds > 1e-9*r.Seconds {
				t.Errorf("seed %d, %s: steps of no time lose %v s to input", seed, name, r.InputSeconds)
			}
		}
	}
}

// A transfer is charged for the time that it shares with steps, also after it has
// ended.
func TestInputCost(t *testing.T) {
	c := inputCost{perByte: 0.5, bps: 1}
	c.transfer(1, 2) // from 1 to 3
	c.transfer(4, 4) // from 4 to 8
	for i, x := range []struct{ idle, busy, want float64 }{
		{0, 2, 0.5}, // one second of the first
		{2, 5, 1},   // the rest of it, and one second of the other
		{7, 7, 0},   // two more while all wait
		{7, 20, 0.5},
		{20, 30, 0},
	} {
		now := c.charged
		c.idle(now, x.idle)
		if got := c.busy(x.busy); got != x.want {
			t.Errorf("%d: %v s are lost until %v, want %v", i, got, x.busy, x.want)
		}
	}
}

// A core that is half as fast takes twice the time where nothing is waited for, and
// one as fast as the profile says what the tier plan says.
func TestPredictAt(t *testing.T) {
	p := plantest.Random(3, plantest.Config{Steps: 150, Keys: 12, Special: 2})
	prof := *backend.DefaultProfile()
	slow := prof.Slow()
	slow.ReadBps, slow.Latency, slow.Beside = 1e15, 0, 0
	prof.Tiers = append(prof.Tiers[:len(prof.Tiers)-1:len(prof.Tiers)-1], slow)
	if err := Retier(p, 0, &prof, 1); err != nil {
		t.Fatal(err)
	}
	at := func(speed float64) float64 { return PredictAt(p, p.Tier, &prof, 1, speed).Seconds }
	if one := at(1); one != p.Tier.Seconds || math.Abs(at(0.5)/one-2) > 1e-3 || math.Abs(at(4)/one-0.25) > 1e-3 {
		t.Errorf("%v s at full speed, where the tier plan says %v; %v at half, %v at four times", one, p.Tier.Seconds, at(0.5), at(4))
	}
}
