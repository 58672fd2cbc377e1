package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

func TestRandomProgramsAllInDRAM(t *testing.T) {
	joined := int64(0)
	for seed := range uint64(20) {
		p := plantest.Random(seed, plantest.Config{Steps: 80})
		want := reference(t, p)
		for threads := 1; threads <= 4; threads++ {
			e := &fakeEngine{params: &p.Params, alone: threads == 4}
			got, rep, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: threads, Keys: fakeKeys{}})
			if err != nil {
				t.Fatalf("seed %d, %d threads: %v", seed, threads, err)
			}
			if !sameOutputs(got, want) {
				t.Errorf("seed %d: %d threads give another result", seed, threads)
			}
			if rep.Counts.Rotations == 0 || rep.Seconds <= 0 || rep.ArenaPeak == 0 {
				t.Errorf("seed %d: report %+v", seed, rep)
			}
			joined += e.joined.Load()
		}
	}
	if joined < 100 {
		t.Errorf("%d steps were done together with others", joined)
	}
}

// An executor that is used again must not remember the run before.
func TestExecutorRunsTwice(t *testing.T) {
	p := plantest.Random(7, plantest.Config{})
	e := &fakeEngine{params: &p.Params}
	x, err := NewExecutor(t.Context(), p, e, Options{Threads: 2, Keys: fakeKeys{}})
	if err != nil {
		t.Fatal(err)
	}
	want := reference(t, p)
	before := x.arena.Usage().InUse
	for i := range 2 {
		got, _, err := x.Run(t.Context(), fakeInputs)
		if err != nil || !sameOutputs(got, want) {
			t.Fatalf("run %d: %v", i, err)
		}
		if n := x.arena.Usage().InUse; n != before {
			t.Fatalf("run %d leaves %d slabs in use, %d before", i, n, before)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

// Temporaries must leave memory after their last use, else a long program
// needs as much memory as it has steps.
func TestTemporariesAreFreed(t *testing.T) {
	p := plantest.Random(3, plantest.Config{Steps: 400, Live: 4, OneShot: 0})
	all := 0
	for i := range p.Objects {
		if p.Objects[i].Role == plan.RoleTemp {
			all += p.Params.Slabs(p.Objects[i].Type.Kind, p.Objects[i].Type.Level)
		}
	}
	x, err := NewExecutor(t.Context(), p, &fakeEngine{params: &p.Params}, Options{Threads: 1, Keys: fakeKeys{}})
	if err != nil {
		t.Fatal(err)
	}
	fixed := x.arena.Usage().InUse
	if _, _, err := x.Run(t.Context(), fakeInputs); err != nil {
		t.Fatal(err)
	}
	if peak := x.arena.Usage().Peak - fixed; peak > all/4 {
		t.Errorf("temporaries peak at %d of %d slabs", peak, all)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStepErrorNamesLayer(t *testing.T) {
	p := plantest.Random(1, plantest.Config{})
	boom := errors.New("boom")
	n := 0
	var mu sync.Mutex
	e := &fakeEngine{params: &p.Params, before: func(*plan.Step) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 30 {
			return boom
		}
		return nil
	}}
	_, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 3, Keys: fakeKeys{}})
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "layer") {
		t.Errorf("got %v", err)
	}
}

func TestCancelStopsPromptly(t *testing.T) {
	p := plantest.Random(2, plantest.Config{Steps: 500})
	e := &fakeEngine{params: &p.Params, delay: time.Millisecond, alone: true}
	for _, threads := range []int{1, 4} {
		ctx, cancel := context.WithCancel(t.Context())
		steps := 0
		var mu sync.Mutex
		stop := ListenerFunc(func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == StepEnd {
				if steps++; steps == 20 {
					cancel()
				}
			}
		})
		_, rep, err := Run(ctx, p, e, fakeInputs, Options{Threads: threads, Keys: fakeKeys{}, Events: stop})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%d threads: %v", threads, err)
		}
		if steps > 20+2*threads {
			t.Errorf("%d threads: %d steps ran after the cancellation", threads, steps-20)
		}
		if rep.Counts.Rotations > steps {
			t.Errorf("%d rotations counted in %d steps", rep.Counts.Rotations, steps)
		}
	}
}

func TestSetupFailures(t *testing.T) {
	p := plantest.Random(5, plantest.Config{})
	e := &fakeEngine{params: &p.Params}
	for _, tc := range []struct {
		name string
		keys KeySource
		edit func(p *plan.Plan)
		want string
	}{
		{"no keys", nil, nil, "no keys were given"},
		{"broken key", fakeKeys{broken: 3}, nil, "key for rotation by 3"},
		{"no weights", fakeKeys{}, func(p *plan.Plan) { p.Plains = nil }, "without its weights"},
		{"use before definition", fakeKeys{}, func(p *plan.Plan) { p.Steps[0].Args = []plan.ObjectID{p.Steps[1].Out, 0} }, "before it is computed"},
		{"object out of range", fakeKeys{}, func(p *plan.Plan) { p.Steps[2].Args = []plan.ObjectID{9999} }, "object 9999"},
		{"writes a key", fakeKeys{}, func(p *plan.Plan) { p.Steps[2].Out = p.Inputs[0].Objects[0] }, "read-only"},
		{"rotation in place", fakeKeys{}, func(p *plan.Plan) {
			p.Steps[9] = plan.Step{Op: ir.OpHERotate, Args: []plan.ObjectID{p.Steps[0].Out, 3}, Out: p.Steps[0].Out}
		}, "in place"},
		{"output never computed", fakeKeys{}, func(p *plan.Plan) { p.Outputs[0].Objects[0] = -1 }, "never computed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := plantest.Random(5, plantest.Config{})
			if tc.edit != nil {
				tc.edit(q)
			}
			_, _, err := Run(t.Context(), q, e, fakeInputs, Options{Threads: 2, Keys: tc.keys})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestInputSlabs(t *testing.T) {
	p := plantest.Random(4, plantest.Config{})
	in := map[plan.ObjectID][][]byte{}
	for _, o := range p.Inputs[0].Objects {
		in[o] = newSlabs(p.Params.Slabs(ir.CipherKind, p.Objects[o].Type.Level), p.Params.SlabBytes())
		if err := fakeInputs(o, in[o]); err != nil {
			t.Fatal(err)
		}
	}
	e := &fakeEngine{params: &p.Params}
	got, _, err := Run(t.Context(), p, e, InputSlabs(in), Options{Keys: fakeKeys{}})
	if err != nil || !sameOutputs(got, reference(t, p)) {
		t.Fatalf("result differs or %v", err)
	}
	last := p.Inputs[0].Objects[1]
	in[last] = in[last][1:]
	if _, _, err = Run(t.Context(), p, e, InputSlabs(in), Options{Keys: fakeKeys{}}); err == nil {
		t.Error("an input that is too short was accepted")
	}
}

// Every begin must have its end, layers must cover their steps, and listeners
// must make sense of it all.
func TestEventsPair(t *testing.T) {
	p := plantest.Random(11, plantest.Config{Steps: 120})
	var trace, log bytes.Buffer
	tr := NewTrace(&trace, p)
	var mu sync.Mutex
	open := map[string]int{}
	seen := map[EventKind]int{}
	check := ListenerFunc(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		seen[e.Kind]++
		key := fmt.Sprint(strings.TrimSuffix(strings.TrimSuffix(e.Kind.String(), " begin"), " end"), e.Step, e.Layer, e.Obj, e.Label)
		switch {
		case strings.HasSuffix(e.Kind.String(), " begin"):
			open[key]++
		case strings.HasSuffix(e.Kind.String(), " end") && e.Kind != RunEnd && e.Kind != StallEnd:
			open[key]--
		}
	})
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: LevelTrace}))
	o := Options{Threads: 2, Keys: fakeKeys{}, Events: Listeners{tr, check, Log(logger)}}
	if _, _, err := Run(t.Context(), p, &fakeEngine{params: &p.Params}, fakeInputs, o); err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	for k, n := range open {
		if n != 0 && !strings.HasPrefix(k, "run") {
			t.Errorf("%s: %d begins without an end", k, n)
		}
	}
	if seen[StepEnd] != len(p.Steps) || seen[LayerEnd] != len(p.Layers) || seen[RunEnd] != 1 {
		t.Errorf("saw %v", seen)
	}
	var doc struct{ TraceEvents []traceEvent }
	if err := json.Unmarshal(trace.Bytes(), &doc); err != nil {
		t.Fatalf("trace is no JSON: %v", err)
	}
	spans := 0
	for _, e := range doc.TraceEvents {
		if e.Ph == "X" && e.Cat == "step" {
			spans++
			if with, ok := e.Args["with_steps"].([]any); ok {
				spans += len(with)
			}
		}
	}
	if spans != len(p.Steps) {
		t.Errorf("trace has %d steps of %d", spans, len(p.Steps))
	}
	if !strings.Contains(log.String(), "layer end") {
		t.Error("log names no layer")
	}
}
