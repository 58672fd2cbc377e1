package passes

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// tierOpts is a machine whose steps take as long as reading eight slabs.
func tierOpts(p *plan.Plan, dram int64) TierOptions {
	slab := float64(p.Params.SlabBytes())
	return TierOptions{
		DRAM: dram, Reserve: 1 << 20, Profile: "test",
		StepSeconds: func(int) float64 { return 8e-3 },
		ReadBps:     slab * 1e3, WriteBps: slab * 500, Latency: 1e-4,
	}
}

// Every budget from the least possible to one that holds everything yields a
// valid tier plan, the same each time, whose traffic does not grow with the
// budget beyond what prefetching trades for time.
func TestTieringBudgetSweep(t *testing.T) {
	for seed := range uint64(25) {
		p := plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2})
		slab := int64(p.Params.SlabBytes())
		least := TierLeast(p, 1<<20)
		all, err := Tiering(p, tierOpts(p, 0))
		if err != nil {
			t.Fatal(err)
		}
		if all.BytesRead != all.BytesBound || all.BytesWritten != 0 {
			t.Errorf("seed %d: without a bound %d bytes are read and %d written, the lower bound is %d", seed, all.BytesRead, all.BytesWritten, all.BytesBound)
		}
		for _, extra := range []int64{0, 1, 2, 5, 10, 20, 50, 100, 500, 5000} {
			tier, err := Tiering(p, tierOpts(p, least+extra*slab))
			if err != nil {
				t.Fatalf("seed %d, least + %d: %v", seed, extra, err)
			}
			if err := CheckTier(p, tier); err != nil {
				t.Fatalf("seed %d, least + %d: %v", seed, extra, err)
			}
			if tier.BytesRead < tier.BytesBound || tier.Seconds < all.Seconds-1e-9 {
				t.Errorf("seed %d, least + %d: reads %d of at least %d in %.4f s, without a bound %.4f s", seed, extra, tier.BytesRead, tier.BytesBound, tier.Seconds, all.Seconds)
			}
			again, err := Tiering(p, tierOpts(p, least+extra*slab))
			if err != nil || !reflect.DeepEqual(tier, again) {
				t.Fatalf("seed %d, least + %d: planned twice, two results", seed, extra)
			}
		}
	}
}

// One byte below the least budget is refused, and the message names the budget
// that works.
func TestTieringLeastBudgetIsExact(t *testing.T) {
	for seed := range uint64(20) {
		p := plantest.Random(seed, plantest.Config{})
		least := TierLeast(p, 1<<20)
		if _, err := Tiering(p, tierOpts(p, least)); err != nil {
			t.Fatal(err)
		}
		_, err := Tiering(p, tierOpts(p, least-1))
		var be *BudgetError
		if !errors.As(err, &be) || be.Least != least {
			t.Fatalf("seed %d: %v, want a least budget of %d", seed, err, least)
		}
		if _, err := Tiering(p, tierOpts(p, 1)); !errors.As(err, &be) || be.Least != least {
			t.Fatalf("seed %d: a budget of one byte: %v", seed, err)
		}
	}
}

// Belady's rule is optimal for objects of one size, so no other policy reads
// less; least-recently-used must read at least as much.
func TestTieringReadsNoMoreThanLRU(t *testing.T) {
	for seed := range uint64(20) {
		p := plantest.Random(seed, plantest.Config{Levels: 1, Steps: 200, Keys: 30, Plains: 1, OneShot: 0, Live: 3})
		tr := newTierTrace(p, plan.Tier{})
		room := tr.least + 40
		stays, _ := tr.belady(room, room)
		read := int32(0)
		for _, s := range stays {
			if s.fetch {
				read += tr.size[s.obj]
			}
		}
		if lru := tierLRU(tr, room); read > lru {
			t.Errorf("seed %d: Belady reads %d slabs, LRU %d", seed, read, lru)
		}
	}
}

// tierLRU counts the slabs that a least-recently-used cache reads.
func tierLRU(t *tierTrace, room int32) int32 {
	var order []plan.ObjectID // least recent first
	used, read := int32(0), int32(0)
	seen := map[plan.ObjectID]bool{}
	for s := 0; s <= t.n; s++ {
		now := t.obj[t.ptr[s]:t.ptr[s+1]]
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			o := t.obj[i]
			if k := slices.Index(order, o); k >= 0 {
				order = slices.Delete(order, k, k+1)
			} else {
				used += t.size[o]
				if tierFixed(t.p.Objects[o].Role) || seen[o] {
					read += t.size[o]
				}
				seen[o] = true
			}
			order = append(order, o)
		}
		for k := 0; used > room && k < len(order); {
			if o := order[k]; !slices.Contains(now, o) {
				order = slices.Delete(order, k, k+1)
				used -= t.size[o]
				continue
			}
			k++
		}
		for i := t.ptr[s]; i < t.ptr[s+1]; i++ {
			if int(t.next[i]) > t.n {
				if k := slices.Index(order, t.obj[i]); k >= 0 {
					order = slices.Delete(order, k, k+1)
					used -= t.size[t.obj[i]]
				}
			}
		}
	}
	return read
}

// Streaming diagonals must overlap with computing: with room for a few of them
// a run that computes for longer than it reads hardly stalls.
func TestTieringDoubleBuffers(t *testing.T) {
	p := tierStream(400)
	o := tierOpts(p, 0)
	slab := int64(p.Params.SlabBytes())
	size := float64(p.Params.Slabs(ir.PlainQPKind, 0))
	o.StepSeconds = func(int) float64 { return 1.2 * size * 1e-3 } // reading takes 1/1.2 of that
	o.DRAM = TierLeast(p, o.Reserve) + 4*int64(size)*slab
	tier, err := Tiering(p, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckTier(p, tier); err != nil {
		t.Fatal(err)
	}
	if tier.StallSeconds > 0.02*tier.Seconds {
		t.Errorf("stalls %.3f s of %.3f s", tier.StallSeconds, tier.Seconds)
	}
	if tier.BytesRead != tier.BytesBound {
		t.Errorf("reads %d bytes, needs %d", tier.BytesRead, tier.BytesBound)
	}
}

// tierStream is a plan that multiplies one ciphertext by many diagonals, each
// used once.
func tierStream(n int) *plan.Plan {
	p := plantest.Random(1, plantest.Config{Levels: 1, Steps: 1, Keys: 1, Plains: 1, Outputs: 1})
	in, out := p.Inputs[0].Objects[0], p.Outputs[0].Objects[0]
	p.Steps = nil
	op := ir.OpHEMulQP
	for i := range n {
		p.Plains = append(p.Plains, ir.SlotData{Period: 1})
		p.Objects = append(p.Objects, plan.Object{Role: plan.RolePlain, Plain: int32(len(p.Plains) - 1), Type: ir.Type{Kind: ir.PlainQPKind}, Layer: -1})
		d := plan.ObjectID(len(p.Objects) - 1)
		args := []plan.ObjectID{in, d}
		if i > 0 {
			op, args = ir.OpHEMacQP, []plan.ObjectID{out, in, d}
		}
		p.Steps = append(p.Steps, plan.Step{Op: op, Args: args, Out: out, Layer: -1})
	}
	return p
}

// A plan of 100,000 steps is tiered in about a second.
func TestTieringIsFast(t *testing.T) {
	if testing.Short() {
		t.Skip("times a large plan")
	}
	p := plantest.Random(1, plantest.Config{Steps: 100_000, Keys: 200, Plains: 2000, Live: 40})
	o := tierOpts(p, 0)
	o.DRAM = TierLeast(p, o.Reserve) + 800*int64(p.Params.SlabBytes())
	began := time.Now()
	tier, err := Tiering(p, o)
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckTier(p, tier); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d steps, %d objects, %d actions in %v", len(p.Steps), len(p.Objects), len(tier.Actions), took)
	if took > 20*time.Second {
		t.Errorf("tiering took %v", took)
	}
}

// A plan of the size of a deep network at N = 2^16 is tiered in a moment, for any
// budget: 20 bootstraps, 6,400 diagonals, tens of gigabytes of keys and weights.
func TestTieringDeep(t *testing.T) {
	p := plantest.Deep(plantest.DeepConfig{LogN: 16, Levels: 24, Special: 6, Layers: 20, Diagonals: 320, Babies: 16, Entries: 4, Products: 9})
	if err := p.Verify(); err != nil {
		t.Fatal(err)
	}
	if p.Counts.Bootstraps != 20 || len(p.Steps) < 20_000 {
		t.Fatalf("%d bootstraps, %d steps", p.Counts.Bootstraps, len(p.Steps))
	}
	whole := int64(0)
	for i := range p.Objects {
		if o := &p.Objects[i]; o.Role == plan.RoleKey || o.Role == plan.RolePlain {
			whole += int64(p.Params.Slabs(o.Type.Kind, o.Type.Level)) * int64(p.Params.SlabBytes())
		}
	}
	prof := backend.DefaultProfile()
	var free float64
	var form [3]any
	for _, budget := range []int64{0, 12 << 30, 4 << 30} {
		began := time.Now()
		if err := Retier(p, budget, prof, 2); err != nil { // checks what it made
			t.Fatal(err)
		}
		took := time.Since(began)
		tier := p.Tier
		t.Logf("%d steps, %d objects, %d GiB: %v; %.0f s, of which %.1f stalled; %.0f GB read, %.1f at least, %.1f as they are; compact from %d slabs on, whole matrices %v, seeds of keys %v",
			len(p.Steps), len(p.Objects), budget>>30, took, tier.Seconds, tier.StallSeconds, float64(tier.BytesRead)/1e9, float64(tier.BytesBound)/1e9, float64(whole)/1e9, tier.Forms.Compact, tier.Forms.Twice, tier.Forms.Seeds)
		if took > 5*time.Second {
			t.Errorf("tiering for %d GiB took %v", budget>>30, took)
		}
		if tier.Forms.Compact == 0 || tier.BytesBound > whole/2 {
			t.Errorf("the slow tier holds %d bytes of %d", tier.BytesBound, whole)
		}
		now := [3]any{tier.Forms.Compact, tier.Forms.Twice, tier.Forms.Seeds}
		if budget == 0 {
			free, form = tier.Seconds, now
		} else if now != form {
			t.Errorf("the slow tier holds %v for %d GiB, %v without a bound: it would be made twice", now, budget>>30, form)
		} else if tier.Seconds > 2*free {
			t.Errorf("%.0f s within %d GiB, %.0f s without a bound", tier.Seconds, budget>>30, free)
		}
	}
}

// What is compact is what takes less time to transform than to read.
func TestCompactByCost(t *testing.T) {
	for _, c := range []struct {
		read, expand float64 // seconds per slab
		want         int
	}{{1, 0, 2}, {1, 2, 0}, {1, 1, 0}, {1, 0.01, 2}, {1, 0.49, 2}, {1, 0.51, 3}, {1, 0.9, 11}} {
		p := &ir.Params{LogN: 9, Ring: ir.RingStandard}
		o := TierOptions{ReadBps: 4096 / c.read, ExpandSeconds: func(int) float64 { return c.expand }}
		got := o.compact(p)
		if got != c.want {
			t.Errorf("reading a slab %g s, transforming %g s: from %d slabs on, want %d", c.read, c.expand, got, c.want)
		}
		if n := float64(got); got > 0 && (c.read+n*c.expand > n*c.read || c.read+(n-1)*c.expand < (n-1)*c.read) {
			t.Errorf("reading a slab %g s, transforming %g s: %d slabs is not where the costs meet", c.read, c.expand, got)
		}
	}
}
