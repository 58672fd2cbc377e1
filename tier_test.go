package home_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

// TestBootstrapTiers runs a plan that bootstraps from the slow tier, with weights
// and matrices as coefficients: with keys of which the steps make half and with keys
// of which nothing is made in steps, at the least budget and with none, on one thread
// and on several, the result is that of a run that holds everything in memory, bit for
// bit. The executor counts the bootstraps.
func TestBootstrapTiers(t *testing.T) {
	p := plantest.Deep(plantest.DeepConfig{LogN: 9, Layers: 3})
	q := newParty(t, p, 2, lattigo.AllowInsecure())
	_, inputs := q.encrypt(t, ir.ArrayOf([]float64{0.5}, 1), 1)
	want, rep, err := q.exec.Run(context.Background(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	if rep.Counts != p.Counts || rep.Counts.Bootstraps != 3 {
		t.Errorf("%+v are executed, %+v planned", rep.Counts, p.Counts)
	}
	prof := backend.DefaultProfile()
	prof.Tiers[len(prof.Tiers)-1].ReadBps = 1e8 // slow enough to transform everything
	for _, c := range []struct {
		name    string
		stream  float64 // ns for a residue
		streams bool
	}{{"streams", 0, true}, {"makes", 1e3, false}} {
		prof.Stream = c.stream
		p.Tier = nil
		t.Run(c.name, func(t *testing.T) { testBootstrapTiers(t, p, q, prof, c.streams, inputs, want) })
	}
}

func testBootstrapTiers(t *testing.T, p *plan.Plan, q *party, prof *backend.Profile, streams bool, inputs runtime.Inputs, want runtime.Outputs) {
	dir := t.TempDir()
	least := int64(1)
	for _, threads := range []int{1, 2} {
		for _, bound := range []bool{false, true} {
			budget := int64(0)
			if bound {
				budget = max(least, p.Bytes.DRAMMin)
			}
			if err := passes.Retier(p, budget, prof, threads); err != nil {
				t.Fatal(err)
			}
			if f := p.Tier.Forms; f.Compact == 0 || !f.Seeds || f.Streams != streams {
				t.Fatalf("forms %+v", f)
			}
			if _, err := runtime.Install(context.Background(), p, q.e, keySource{q.keys}, dir, runtime.InstallOptions{Threads: threads}); err != nil {
				t.Fatal(err)
			}
			s, err := runtime.OpenStore(p, q.e, keySource{q.keys}.ID(), dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, rep, err := runtime.Run(context.Background(), p, q.e, inputs, runtime.Options{Threads: threads, Slow: s})
			if err != nil {
				t.Fatal(err)
			}
			for id := range want {
				for i := range want[id] {
					if !slices.Equal(got[id][i], want[id][i]) {
						t.Fatalf("budget %d, %d threads: limb %d of object %d differs", budget, threads, i, id)
					}
				}
			}
			slow := rep.Tiers[1]
			if rep.Counts.Bootstraps != 3 || (slow.Expanded == 0) != (p.Tier.Forms.Fused == plan.FusedAll) || slow.BytesRead != p.Tier.BytesRead || (p.Tier.BytesRead > p.Tier.BytesBound) != bound {
				t.Errorf("budget %d: %d bootstraps, %d slabs made, %d bytes read of %d planned, %d at least", budget, rep.Counts.Bootstraps, slow.Expanded, slow.BytesRead, p.Tier.BytesRead, p.Tier.BytesBound)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			least = p.Bytes.DRAMMin
		}
	}
}

// TestEncryptedResidency runs a plan that bootstraps under random tier plans: slabs of
// keys, weights and matrices come and go one by one, read, made or used where they
// lie, in every form of the slow tier. The result is that of a run that holds
// everything in memory, bit for bit.
func TestEncryptedResidency(t *testing.T) {
	p := plantest.Deep(plantest.DeepConfig{LogN: 9, Layers: 2})
	q := newParty(t, p, 2, lattigo.AllowInsecure())
	_, inputs := q.encrypt(t, ir.ArrayOf([]float64{0.5}, 1), 1)
	want, _, err := q.exec.Run(context.Background(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for seed, forms := range []plan.Forms{{}, {Compact: 2, Seeds: true}, {Compact: 1, Seeds: true, Twice: plan.TwiceReused}, {Compact: 3, Seeds: true, Twice: plan.TwiceAll}, {Compact: 2, Seeds: true, Streams: true}, {Compact: 1, Seeds: true, Twice: plan.TwiceAll, Streams: true}, {Compact: 1, Seeds: true, Streams: true, Fused: plan.FusedAll}, {Compact: 2, Fused: plan.FusedOnce}} {
		for _, soft := range []int{0, 2000} {
			maps := seed%2 == 1
			tech := store.Technology(store.File{})
			if maps {
				tech = &store.Heap{}
			}
			made := 0
			p.Tier, made = plantest.Tier(p, uint64(seed), forms, maps, soft)
			if _, err := runtime.Install(context.Background(), p, q.e, keySource{q.keys}, dir, runtime.InstallOptions{Threads: 2, Technology: tech}); err != nil {
				t.Fatal(err)
			}
			s, err := runtime.OpenStore(p, q.e, keySource{q.keys}.ID(), dir, tech)
			if err != nil {
				t.Fatal(err)
			}
			got, rep, err := runtime.Run(context.Background(), p, q.e, inputs, runtime.Options{Threads: 1 + seed%2, Slow: s})
			if err := errors.Join(err, s.Close()); err != nil {
				t.Fatalf("forms %+v: %v", forms, err)
			}
			for id := range want {
				for i := range want[id] {
					if !slices.Equal(got[id][i], want[id][i]) {
						t.Fatalf("forms %+v, %d slabs: limb %d of object %d differs", forms, p.Tier.ArenaSlabs, i, id)
					}
				}
			}
			if slow := rep.Tiers[1]; slow.BytesRead+slow.BytesMapped != p.Tier.BytesRead || slow.Expanded != made || maps == (slow.BytesMapped == 0) {
				t.Errorf("forms %+v: %+v, planned %d bytes and %d slabs to make", forms, slow, p.Tier.BytesRead, made)
			}
		}
	}
}

// TestDeepFiles takes a plan that bootstraps through its file.
func TestDeepFiles(t *testing.T) {
	p := plantest.Deep(plantest.DeepConfig{LogN: 8, Entries: 100, Diagonals: 60, Values: 5000})
	path := t.TempDir() + "/deep.hplan"
	if err := p.Save(path); err != nil {
		t.Fatal(err)
	}
	q, err := plan.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	a, err1 := p.Fingerprint()
	b, err2 := q.Fingerprint()
	if err1 != nil || err2 != nil || a != b || q.Count(nil) != p.Counts {
		t.Errorf("fingerprints %s and %s (%v, %v), counts %+v", a, b, err1, err2, q.Count(nil))
	}
}
