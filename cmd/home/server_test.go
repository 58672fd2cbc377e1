package main

import (
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
)

// A plan that does not fit in the memory of the machine gets a budget and the
// slow tier; one that fits gets none; what the user or the plan says stands.
func TestFit(t *testing.T) {
	most := runtime.Memory()
	if most == 0 {
		t.Skip("NOT TESTED: the memory of this machine is not known")
	}
	p := plantest.Deep(plantest.DeepConfig{})
	for _, c := range []struct {
		footprint, given, planned, want int64
		told                            bool
	}{
		{footprint: 1 << 20},
		{footprint: most, want: most / 4 * 3, told: true},
		{footprint: most, given: 1 << 30, want: 1 << 30},
		{footprint: most, planned: 2 << 30, want: 2 << 30},
		{footprint: 1 << 20, given: 1 << 30, planned: 2 << 30, want: 1 << 30},
	} {
		p.Bytes.Footprint = c.footprint
		if err := passes.Retier(p, c.planned, backend.DefaultProfile(), 1); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		o := serverOptions{budget: c.given, threads: 1}
		o.fit(&env{err: &said, term: true}, p)
		if o.budget != c.want || strings.Contains(said.String(), "slow tier") != c.told {
			t.Errorf("footprint %d, --dram %d, plan for %d: budget %d, want %d; said %q", c.footprint, c.given, c.planned, o.budget, c.want, said.String())
		}
	}
}

// The report of a plan that bootstraps names its refreshes and its keys.
func TestReportBootstraps(t *testing.T) {
	p := plantest.Deep(plantest.DeepConfig{Layers: 3})
	r := reportPlan(p)
	if r.Counts.Bootstraps != 3 || r.Refreshes != 3 || bootstrapText(r) != "3 bootstraps" {
		t.Errorf("%d bootstraps in %d layers: %s", r.Counts.Bootstraps, r.Refreshes, bootstrapText(r))
	}
	kinds := map[string]int{}
	for _, k := range r.Keys {
		kinds[k.Kind]++
		if k.Rotation < 0 || k.Uses == 0 {
			t.Errorf("key %+v", k)
		}
	}
	if kinds["relinearisation"] != 1 || kinds["conjugation"] != 1 || kinds["to ephemeral"] != 1 || kinds["from ephemeral"] != 1 || kinds["rotation"] != r.Counts.GaloisKeys-1 {
		t.Errorf("keys %v of %d for rotations and conjugation", kinds, r.Counts.GaloisKeys)
	}
	var text strings.Builder
	if err := textReport(&text, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"3 bootstraps", "refresh1", "NONE, for tests only"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text does not say %q:\n%s", want, text.String())
		}
	}
}

// A run with a slow tier gets processors for what waits in the kernel, and gives them
// back; who sets their number keeps it.
func TestProcessors(t *testing.T) {
	before := goruntime.GOMAXPROCS(0)
	t.Setenv("GOMAXPROCS", "")
	want := max(before, runtime.Options{Threads: 3}.Processors())
	undo := processors(want)
	if n := goruntime.GOMAXPROCS(0); n != want || want < 3+4 {
		t.Errorf("%d processors, want %d", n, want)
	}
	if err := undo(); err != nil || goruntime.GOMAXPROCS(0) != before {
		t.Errorf("%d processors after the run, %d before: %v", goruntime.GOMAXPROCS(0), before, err)
	}
	t.Setenv("GOMAXPROCS", "1")
	undo = processors(before + 1)
	if n := goruntime.GOMAXPROCS(0); n != before {
		t.Errorf("%d processors in place of the %d that were asked for", n, before)
	}
	if err := undo(); err != nil {
		t.Error(err)
	}
}
