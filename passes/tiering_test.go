package passes

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// tierOpts is a machine whose steps take as long as reading eight slabs, and that
// makes nothing.
func tierOpts(p *plan.Plan, dram int64) TierOptions {
	slab := float64(p.Params.SlabBytes())
	return TierOptions{DRAM: dram, Reserve: 1 << 20, Profile: "test", Machine: Machine{
		StepSeconds: func(_ int, f *plan.Forms) float64 {
			if f.Streams || f.Fused > 0 {
				return 1 // so that nothing is made in steps where there is a choice
			}
			return 8e-3
		},
		Tier: backend.TierProfile{ReadBps: slab * 1e3, WritBps: slab * 500, Latency: 1e-4},
	}}
}

// Every budget from the least possible to one that holds everything yields a
// valid tier plan, the same each time, that takes no longer with more memory and
// does not read less than the bound.
func TestTieringBudgetSweep(t *testing.T) {
	for seed := range uint64(6) {
		p := plantest.Random(seed, plantest.Config{Steps: 150, Keys: 12, Special: 2, Terms: 1 + int(seed%4)})
		if seed%2 == 1 { // keys of which steps touch parts
			p = tierProgram(rand.New(rand.NewPCG(seed, 1)), 100)
		}
		slab := int64(p.Params.SlabBytes())
		for i, f := range tierForms {
			p.Tier = &plan.Tier{Forms: f}
			opts := func(dram int64) TierOptions {
				o := tierOpts(p, dram)
				o.MakeSeconds = func(plan.ObjectID) float64 { return 0.3e-3 }
				o.StepSeconds = func(_ int, g *plan.Forms) float64 {
					if *g != f {
						return 1 // so that these are kept
					}
					return 8e-3
				}
				o.Tier.Addressable = seed%3 == 2
				return o
			}
			least := TierLeast(p, 1<<20)
			all, err := Tiering(p, opts(0))
			if err != nil {
				t.Fatal(err)
			}
			if all.BytesRead != all.BytesBound || all.BytesWritten != 0 {
				t.Errorf("seed %d, forms %d: without a bound %d bytes are read and %d written, the lower bound is %d", seed, i, all.BytesRead, all.BytesWritten, all.BytesBound)
			}
			for _, extra := range []int64{0, 1, 2, 5, 10, 20, 50, 100, 500, 5000} {
				tier, err := Tiering(p, opts(least+extra*slab))
				if err != nil {
					t.Fatalf("seed %d, forms %d, least + %d: %v", seed, i, extra, err)
				}
				if err := CheckTier(p, tier); err != nil {
					t.Fatalf("seed %d, forms %d, least + %d: %v", seed, i, extra, err)
				}
				if tier.BytesRead-tier.BytesWritten < tier.BytesBound || tier.Seconds < all.Seconds/1.02 {
					t.Errorf("seed %d, forms %d, least + %d: reads %d of at least %d in %.4f s, without a bound %.4f s", seed, i, extra, tier.BytesRead, tier.BytesBound, tier.Seconds, all.Seconds)
				}
				if tier.Forms != f || tier.PeakSlabs > tier.ArenaSlabs {
					t.Errorf("seed %d, forms %d, least + %d: forms %v, %d slabs of %d", seed, i, extra, tier.Forms, tier.PeakSlabs, tier.ArenaSlabs)
				}
				if extra != 10 && extra != 100 {
					continue
				}
				again, err := Tiering(p, opts(least+extra*slab))
				if err != nil || !reflect.DeepEqual(tier, again) {
					t.Fatalf("seed %d, forms %d, least + %d: planned twice, two results", seed, i, extra)
				}
			}
		}
	}
}

// One byte below the least budget is refused, and the message names the budget
// that works.
func TestTieringLeastBudgetIsExact(t *testing.T) {
	for seed := range uint64(20) {
		p := plantest.Random(seed, plantest.Config{})
		if f := tierForms[seed%6]; f != (plan.Forms{}) {
			p.Tier = &plan.Tier{Forms: f}
		}
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

// A plan that has no tier plan yet runs within its least budget in the forms that
// need least, whatever costs least elsewhere, and then TierLeast speaks of the
// forms that were chosen.
func TestTieringChoosesFormsThatFit(t *testing.T) {
	for seed := range uint64(10) {
		p := plantest.Random(seed, plantest.Config{Steps: 100, Special: 2})
		least := TierLeast(p, 1<<20)
		for _, extra := range []int64{0, 1, 50, 1000} {
			o := tierOpts(p, least+extra*int64(p.Params.SlabBytes()))
			o.MakeSeconds = func(plan.ObjectID) float64 { return 1e-6 }
			tier, err := Tiering(p, o)
			if err != nil {
				t.Fatalf("seed %d, least + %d: %v", seed, extra, err)
			}
			if err := CheckTier(p, tier); err != nil {
				t.Fatalf("seed %d, least + %d: %v", seed, extra, err)
			}
			if extra == 1000 && (tier.Forms.Compact == 0 || !tier.Forms.Seeds) {
				t.Errorf("seed %d: forms %+v where making costs next to nothing", seed, tier.Forms)
			}
			q := *p
			q.Tier = tier
			if l := TierLeast(&q, 1<<20); l > o.DRAM || l < least && !tier.Forms.Streams {
				t.Errorf("seed %d, least + %d: the forms chosen need %d of %d bytes", seed, extra, l, o.DRAM)
			}
		}
	}
}

// Steps make the uniform halves of keys where that takes no more time than reading them
// from DRAM, and not where it takes as long as with portable kernels.
func TestTieringStreams(t *testing.T) {
	for seed := range uint64(4) {
		for _, c := range []struct {
			stream, uniform float64
			want            bool
		}{{0, 0.43, true}, {0.084, 0.43, true}, {2.5, 2.5, false}} {
			p := plantest.Random(seed, plantest.Config{LogN: 12, Levels: 8, Special: 2, Steps: 200, Keys: 8})
			prof := backend.DefaultProfile()
			prof.Stream, prof.Uniform = c.stream, c.uniform
			if err := Retier(p, 0, prof, 1); err != nil {
				t.Fatal(err)
			}
			if p.Tier.Forms.Streams != c.want || !p.Tier.Forms.Seeds {
				t.Errorf("seed %d, %v ns for a residue: forms %+v", seed, c.stream, p.Tier.Forms)
			}
			if made := slices.ContainsFunc(p.Tier.Actions, func(a plan.Action) bool {
				return a.Kind == plan.ActMake && p.Objects[a.Obj].Role == plan.RoleKey
			}); made == c.want {
				t.Errorf("seed %d, %v ns for a residue: halves of keys are made before steps: %v", seed, c.stream, made)
			}
		}
	}
}

// A budget in which no step fits with its key whole is planned with keys of which steps
// make half, whatever that costs; below that the error says what is least.
func TestTieringStreamsToFit(t *testing.T) {
	between := 0 // budgets that only streaming serves, among those of Retier
	for seed := range uint64(8) {
		p := plantest.Random(seed, plantest.Config{LogN: 12, Levels: 8, Special: 2, Steps: 200, Keys: 8})
		slab := int64(p.Params.SlabBytes())
		prof := backend.DefaultProfile()
		prof.Stream, prof.Uniform = 2.5, 2.5
		reserve := TierReserve(&p.Params, 1)
		whole, streamed := TierLeast(p, reserve), tierLeast(p, plan.Forms{Seeds: true, Streams: true}, reserve)
		if streamed >= whole {
			t.Fatalf("seed %d: %d bytes with keys streamed, %d with keys whole", seed, streamed, whole)
		}
		for _, dram := range []int64{streamed, whole - 1, whole} {
			tier, err := Tiering(p, TierOptions{DRAM: dram, Reserve: reserve, Machine: MachineOf(p, prof, 1)})
			if err != nil {
				t.Fatalf("seed %d, %d bytes: %v", seed, dram, err)
			}
			if err := CheckTier(p, tier); err != nil || dram < whole && !tier.Forms.Streams || int64(tier.ArenaSlabs)*slab+reserve > dram {
				t.Errorf("seed %d, %d of %d bytes: forms %+v, arena of %d slabs, %v", seed, dram, whole, tier.Forms, tier.ArenaSlabs, err)
			}
		}
		var be *BudgetError
		if _, err := Tiering(p, TierOptions{DRAM: streamed - 1, Reserve: reserve, Machine: MachineOf(p, prof, 1)}); !errors.As(err, &be) || be.Least != streamed {
			t.Errorf("seed %d, a byte less than %d: %v", seed, streamed, err)
		}
		// Retier has to leave room for installing as well.
		least := max(streamed, InstallLeast(p, reserve))
		if err := Retier(p, least-1, prof, 1); !errors.As(err, &be) || be.Least != least {
			t.Errorf("seed %d, a byte less than %d with installing: %v", seed, least, err)
		}
		if err := Retier(p, least, prof, 1); err != nil || p.Bytes.DRAMMin > least {
			t.Errorf("seed %d: %v, the plan needs %d bytes, planned for %d", seed, err, p.Bytes.DRAMMin, least)
		}
		if least < whole {
			between++
			if !p.Tier.Forms.Streams {
				t.Errorf("seed %d, %d of %d bytes: forms %+v", seed, least, whole, p.Tier.Forms)
			}
		}
	}
	if between == 0 {
		t.Error("no plan has a budget in between")
	}
}

// Slabs are of one size, so that Belady's rule is optimal for what is only read:
// on small traces nothing reads less, as a search through all ways to run shows.
// Objects of several slabs leave in part.
func TestTieringReadsTheLeast(t *testing.T) {
	partly := false
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0x6d696e))
		p := plantest.Random(1, plantest.Config{Levels: 3, Steps: 1, Keys: 1, Plains: 1, Outputs: 1})
		in, out := p.Inputs[0].Objects[0], p.Outputs[0].Objects[0]
		p.Steps, p.Plains = nil, nil
		p.Objects[in].Type.Level, p.Objects[out].Type = 0, ir.Type{Kind: ir.CipherKind, Encrypted: true}
		var weights []plan.ObjectID
		var first []int // slab of each
		slabs := 0
		for slabs < 6+rng.IntN(4) {
			level := rng.IntN(3)
			p.Objects = append(p.Objects, plan.Object{Role: plan.RolePlain, Plain: int32(len(p.Plains)), Type: ir.Type{Kind: ir.PlainKind, Level: level}, Layer: -1})
			p.Plains = append(p.Plains, ir.SlotData{Period: 1})
			weights, first = append(weights, plan.ObjectID(len(p.Objects)-1)), append(first, slabs)
			slabs += level + 1
		}
		var uses []uint // slabs of each step
		op := ir.OpHEMulPlain
		for i := range 14 {
			k := rng.IntN(len(weights))
			args := []plan.ObjectID{in, weights[k]}
			if i > 0 {
				op, args = ir.OpHEMacPlain, []plan.ObjectID{out, in, weights[k]}
			}
			p.Steps = append(p.Steps, plan.Step{Op: op, Args: args, Out: out, Layer: -1})
			uses = append(uses, (1<<p.Slabs(weights[k])-1)<<first[k])
		}
		tr := newTierTrace(p, &plan.Forms{})
		for extra := range 6 {
			room := int(tr.least) + extra
			o := tierOpts(p, 0)
			s := newTierSearch(tr, &o, plan.Forms{}, int64(room))
			s.try(tierVariant{worth: 1})
			tier := s.best().tier
			if err := CheckTier(p, tier); err != nil {
				// The bound is that of Tiering.
				b, err2 := TierBound(p, tier)
				tier.BytesBound = b.Belady
				if err = CheckTier(p, tier); err != nil || err2 != nil {
					t.Fatal(err, err2)
				}
			}
			want := leastReads(uses, slabs, room-p.Slabs(in)-p.Slabs(out))
			if got := int(tier.BytesRead) / p.Params.SlabBytes(); got != want {
				t.Fatalf("seed %d, %d slabs of %d: %d are read, %d would do", seed, room, slabs, got, want)
			}
			for _, a := range tier.Actions {
				partly = partly || a.Kind == plan.ActDrop && int(a.Count) < p.Slabs(a.Obj)
			}
		}
	}
	if !partly {
		t.Error("nothing ever leaves in part")
	}
}

// leastReads searches all ways to run steps that touch sets of slabs with room
// for so many, for the one that reads the fewest.
func leastReads(uses []uint, slabs, room int) int {
	const never = 1 << 30
	cost := make([]int, 1<<slabs) // with these slabs in DRAM
	for i := range cost {
		cost[i] = never
	}
	cost[0] = 0
	for _, use := range uses {
		after := make([]int, len(cost))
		for i := range after {
			after[i] = never
		}
		for have, c := range cost {
			if c == never {
				continue
			}
			c += bits.OnesCount(use &^ uint(have))
			all := uint(have) | use
			for keep := all; ; keep = (keep - 1) & all { // every subset
				if keep&use == use && bits.OnesCount(keep) <= room {
					after[keep] = min(after[keep], c)
				}
				if keep == 0 {
					break
				}
			}
		}
		cost = after
	}
	return slices.Min(cost)
}

// Where the least traffic takes the most time, there is a plan between: what is
// cheap to make is made again, what is dear is read where both can be.
func TestTieringTradesReadingForMaking(t *testing.T) {
	p := plantest.Deep(plantest.DeepConfig{LogN: 8, Layers: 3, Diagonals: 40, Babies: 8})
	p.Tier = &plan.Tier{Forms: plan.Forms{Compact: 2, Seeds: true, Twice: plan.TwiceAll}}
	budget := TierLeast(p, 1<<20) + 60*int64(p.Params.SlabBytes())
	plans := func(makes float64) *plan.Tier {
		o := tierOpts(p, budget)
		o.MakeSeconds = func(plan.ObjectID) float64 { return makes }
		tier, err := Tiering(p, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckTier(p, tier); err != nil {
			t.Fatal(err)
		}
		return tier
	}
	cheap, dear := plans(1e-6), plans(10e-3)
	if cheap.BytesRead*3 > dear.BytesRead*2 {
		t.Errorf("%d bytes are read where making costs nothing, %d where it costs ten times as much as reading", cheap.BytesRead, dear.BytesRead)
	}
	made := func(t *plan.Tier) (n int32) {
		for _, a := range t.Actions {
			if a.Kind == plan.ActMake {
				n += a.Count
			}
		}
		return n
	}
	if a, b := made(cheap), made(dear); a == 0 || b*2 > a {
		t.Errorf("%d slabs are made where that costs nothing, %d where it costs ten times as much as reading", a, b)
	}
}

// What input costs the steps decides between reading and making where the channel has
// time for either; what is read to save making is noted.
func TestTieringPricesInput(t *testing.T) {
	p := plantest.Deep(plantest.DeepConfig{LogN: 8, Layers: 3, Diagonals: 40, Babies: 8})
	p.Tier = &plan.Tier{Forms: plan.Forms{Compact: 2, Seeds: true, Twice: plan.TwiceAll}}
	slab := float64(p.Params.SlabBytes())
	plans := func(input float64) *plan.Tier {
		o := tierOpts(p, TierLeast(p, 1<<20)+60*int64(slab))
		o.MakeSeconds = func(plan.ObjectID) float64 { return 0.2e-3 }
		o.Tier.ReadBps = slab * 1e5
		o.Input = input / slab
		tier, err := Tiering(p, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckTier(p, tier); err != nil {
			t.Fatal(err)
		}
		return tier
	}
	cheap, dear := plans(0.01e-3), plans(2e-3)
	if dear.BytesRead*3 > cheap.BytesRead*2 || cheap.MakeSeconds > dear.MakeSeconds {
		t.Errorf("where input costs ten times as much as making, %d bytes are read and %v s spent making, where it costs a twentieth %d and %v s", dear.BytesRead, dear.MakeSeconds, cheap.BytesRead, cheap.MakeSeconds)
	}
	if cheap.BytesBought == 0 || !(cheap.BoughtSeconds > 0) || cheap.BytesBought > cheap.BytesRead || dear.BytesBought > cheap.BytesBought {
		t.Errorf("bought: %d of %d bytes for %v s where input is cheap, %d of %d where it is dear", cheap.BytesBought, cheap.BytesRead, cheap.BoughtSeconds, dear.BytesBought, dear.BytesRead)
	}
}

// What one step uses is used where it lies, if the slow tier can be addressed and
// is quick; nothing is mapped otherwise.
func TestTieringMaps(t *testing.T) {
	p := tierStream(100)
	o := tierOpts(p, 0)
	o.DRAM = TierLeast(p, o.Reserve)
	for _, addressable := range []bool{false, true} {
		o.Tier.Addressable = addressable
		tier, err := Tiering(p, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckTier(p, tier); err != nil {
			t.Fatal(err)
		}
		mapped := slices.ContainsFunc(tier.Actions, func(a plan.Action) bool { return a.Kind == plan.ActMap })
		if mapped != addressable {
			t.Errorf("addressable %v: mapped %v", addressable, mapped)
		}
	}
}

// Streaming diagonals must overlap with computing: with room for a few of them
// a run that computes for longer than it reads hardly stalls.
func TestTieringDoubleBuffers(t *testing.T) {
	p := tierStream(400)
	o := tierOpts(p, 0)
	slab := int64(p.Params.SlabBytes())
	size := float64(p.Params.Slabs(ir.PlainQPKind, 0))
	o.StepSeconds = func(int, *plan.Forms) float64 { return 1.2 * size * 1e-3 } // reading takes 1/1.2 of that
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

// A plan of 100,000 steps is tiered: in about a second, says the log.
// BenchmarkTiering measures it.
func TestTieringLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("a large plan")
	}
	p := plantest.Random(1, plantest.Config{Steps: 100_000, Keys: 200, Plains: 2000, Live: 40})
	p.Tier = &plan.Tier{Forms: plan.Forms{Compact: 2, Seeds: true}}
	o := tierOpts(p, 0)
	o.MakeSeconds = func(plan.ObjectID) float64 { return 0.3e-3 }
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
	events := newTierTrace(p, &p.Tier.Forms).slabs
	t.Logf("%d steps, %d objects, %d slab events, %d actions in %v", len(p.Steps), len(p.Objects), events, len(tier.Actions), took)
}

// A plan of the size of a deep network at N = 2^16 is tiered for any budget: 20 bootstraps, 6,400 diagonals, tens of gigabytes of keys and weights.
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
		stored := int64(0)
		for i := range p.Objects {
			stored += int64(tier.Forms.Stored(p, plan.ObjectID(i))) * int64(p.Params.SlabBytes())
		}
		if tier.Forms.Compact == 0 || stored > whole/2 {
			t.Errorf("the slow tier holds %d bytes of %d", stored, whole)
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

// BenchmarkTiering counts the slab events that are planned per second: touches of
// slabs by steps, for one variant and for the whole search.
func BenchmarkTiering(b *testing.B) {
	p := plantest.Deep(plantest.DeepConfig{LogN: 16, Levels: 24, Special: 6, Layers: 20, Diagonals: 320, Babies: 16, Entries: 4, Products: 9})
	p.Tier = &plan.Tier{Forms: plan.Forms{Compact: 2, Seeds: true}}
	o := TierOptions{DRAM: 4 << 30, Reserve: TierReserve(&p.Params, 1), Machine: MachineOf(p, backend.DefaultProfile(), 1)}
	for _, all := range []bool{false, true} {
		b.Run(fmt.Sprintf("search=%v", all), func(b *testing.B) {
			b.ReportAllocs()
			events := int64(0)
			for b.Loop() {
				t := newTierTrace(p, &p.Tier.Forms)
				room, err := t.arena(&o)
				if err != nil {
					b.Fatal(err)
				}
				s := newTierSearch(t, &o, p.Tier.Forms, room)
				if all {
					s.all()
				} else {
					s.try(s.first())
				}
				events += t.slabs
			}
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "slab-events/s")
		})
	}
}

// What is compact is what takes less time to transform than to read.
func TestCompactByCost(t *testing.T) {
	for _, c := range []struct {
		read, expand float64 // seconds per slab
		want         int
	}{{1, 0, 2}, {1, 2, 0}, {1, 1, 0}, {1, 0.01, 2}, {1, 0.49, 2}, {1, 0.51, 3}, {1, 0.9, 11}} {
		p := &plan.Plan{Params: ir.Params{LogN: 9, Ring: ir.RingStandard}, Objects: []plan.Object{{Role: plan.RolePlain}}}
		o := TierOptions{Machine: Machine{MakeSeconds: func(plan.ObjectID) float64 { return c.expand }}}
		o.Tier.ReadBps = 4096 / c.read
		got := o.compact(p)
		if got != c.want {
			t.Errorf("reading a slab %g s, transforming %g s: from %d slabs on, want %d", c.read, c.expand, got, c.want)
		}
		if n := float64(got); got > 0 && (c.read+n*c.expand > n*c.read || c.read+(n-1)*c.expand < (n-1)*c.read) {
			t.Errorf("reading a slab %g s, transforming %g s: %d slabs is not where the costs meet", c.read, c.expand, got)
		}
	}
}
