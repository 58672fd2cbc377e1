package passes

import (
	"errors"
	"testing"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// baselineForms are all ways to hold objects.
var baselineForms = []plan.Forms{
	{},
	{Seeds: true},
	{Compact: 2},
	{Compact: 2, Seeds: true},
	{Compact: 2, Seeds: true, Twice: plan.TwiceReused},
	{Compact: 2, Seeds: true, Twice: plan.TwiceAll},
	{Compact: 2, Seeds: true, Streams: true},
	{Compact: 2, Seeds: true, Fused: plan.FusedOnce},
	{Compact: 1, Fused: plan.FusedAll},
}

// Every baseline is a valid tier plan, with any form and any budget from the least
// on; one byte less is refused. None reads less than what a run has to read, and
// without a bound on memory each reads just that.
func TestBaselinesAreValid(t *testing.T) {
	for seed := range uint64(12) {
		var p *plan.Plan
		if seed%3 == 0 {
			p = plantest.Deep(plantest.DeepConfig{LogN: 6, Layers: 2 + int(seed)/3})
		} else {
			p = plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2})
		}
		slab := int64(p.Params.SlabBytes())
		for _, policy := range Baselines() {
			for _, forms := range baselineForms {
				if policy == PolicyMapped && forms != (plan.Forms{}) {
					continue
				}
				_, err := Baseline(p, policy, forms, 1, 1<<20)
				var small *BudgetError
				if !errors.As(err, &small) {
					t.Fatalf("seed %d, %s, %+v: a budget of one byte: %v", seed, policy, forms, err)
				}
				if _, err := Baseline(p, policy, forms, small.Least-1, 1<<20); !errors.As(err, &small) {
					t.Fatalf("seed %d, %s, %+v: less than the least: %v", seed, policy, forms, err)
				}
				for _, budget := range []int64{0, small.Least + 500*slab, small.Least + 50*slab, small.Least + 3*slab, small.Least} {
					tier, err := Baseline(p, policy, forms, budget, 1<<20)
					if err != nil {
						t.Fatalf("seed %d, %s, %+v, %d bytes: %v", seed, policy, forms, budget, err)
					}
					if err := CheckTier(p, tier); err != nil {
						t.Fatalf("seed %d, %s, %+v, %d bytes: %v", seed, policy, forms, budget, err)
					}
					bound, err := TierBound(p, tier)
					if err != nil {
						t.Fatal(err)
					}
					if tier.BytesRead < bound.Cold {
						t.Errorf("seed %d, %s, %+v, %d bytes: reads %d of at least %d", seed, policy, forms, budget, tier.BytesRead, bound.Cold)
					}
					if budget == 0 && policy != PolicyMapped && policy != PolicyLayers && tier.BytesRead != bound.Cold {
						t.Errorf("seed %d, %s, %+v: without a bound %d bytes are read, %d are needed", seed, policy, forms, tier.BytesRead, bound.Cold)
					}
				}
			}
		}
	}
}

// Three keys by turns through an arena that holds two: the one that was used least
// recently is always the one that is needed next, so that this cache reads all of
// it each time, as layers of a step each do; Belady's rule saves every second read.
func TestBaselinesCountCyclicReuse(t *testing.T) {
	const steps = 12
	p := plantest.Random(1, plantest.Config{Levels: 2, Steps: 1, Keys: 1, Plains: 1, Outputs: 1})
	x := p.Inputs[0].Objects[0]
	level := p.Objects[x].Type.Level
	var keys []plan.ObjectID
	for rot := 1; rot <= 3; rot++ {
		keys = append(keys, plan.ObjectID(len(p.Objects)))
		p.Objects = append(p.Objects, plan.Object{Role: plan.RoleKey, Rot: rot, Type: ir.Type{Kind: ir.KeyKind, Level: level}})
	}
	p.Steps, p.Layers = nil, nil
	for i := range steps {
		out := plan.ObjectID(len(p.Objects))
		o := plan.Object{Role: plan.RoleTemp, Type: p.Objects[x].Type, Layer: int32(i)}
		if i == steps-1 {
			out, o.Role = p.Outputs[0].Objects[0], plan.RoleOutput
			p.Objects[out] = o
		} else {
			p.Objects = append(p.Objects, o)
		}
		p.Layers = append(p.Layers, plan.Layer{Name: "rotation"})
		p.Steps = append(p.Steps, plan.Step{Op: ir.OpHERotate, Args: []plan.ObjectID{x, keys[i%3]}, Out: out, Layer: int32(i), Rot: i%3 + 1})
		x = out
	}
	key, cipher := int64(p.Slabs(keys[0])), int64(p.Slabs(x))
	slab := int64(p.Params.SlabBytes())
	for policy, want := range map[Policy]int64{PolicyLayers: steps, PolicyLRU: steps, PolicyDemand: 3 + 4, PolicyMapped: steps} {
		tier, err := Baseline(p, policy, plan.Forms{}, 1<<20+(2*key+2*cipher)*slab, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckTier(p, tier); err != nil {
			t.Fatal(err)
		}
		if tier.BytesRead != want*key*slab || tier.BytesWritten != 0 {
			t.Errorf("%s: %d bytes are read and %d written, want %d keys of %d bytes", policy, tier.BytesRead, tier.BytesWritten, want, key*slab)
		}
		bound, err := TierBound(p, tier)
		if policy != PolicyMapped && (err != nil || bound.Pinned != 7*key*slab) {
			t.Errorf("%s: the bound is %d, want %d (%v)", policy, bound.Pinned, 7*key*slab, err)
		}
	}
}

// The neediest plans send ciphertexts away: at the least budget some baseline
// writes, and what is written is read again.
func TestBaselinesSpill(t *testing.T) {
	p := plantest.Random(9, plantest.Config{Steps: 150, Keys: 12})
	for _, policy := range Baselines() {
		_, err := Baseline(p, policy, plan.Forms{}, 1, 1<<20)
		var small *BudgetError
		if !errors.As(err, &small) {
			t.Fatal(err)
		}
		tier, err := Baseline(p, policy, plan.Forms{}, small.Least, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if tier.BytesWritten == 0 {
			t.Errorf("%s: nothing is written back at the least budget", policy)
		}
	}
}
