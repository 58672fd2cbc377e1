package runtime

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/runtime/store"
	badmem "github.com/home-fhe/home/runtime/store/faulty"
)

// installOn installs a plan on a simulated disk.
func installOn(t *testing.T, p *plan.Plan, d *badmem.Disk) error {
	t.Helper()
	_, err := Install(t.Context(), p, &fakeEngine{params: &p.Params}, fakeKeys{}, "tier", InstallOptions{Technology: d})
	return err
}

// runOn runs a plan on a simulated disk.
func runOn(t *testing.T, p *plan.Plan, d *badmem.Disk, threads int) (Outputs, error) {
	t.Helper()
	e := &fakeEngine{params: &p.Params}
	s, err := OpenStore(p, e, fakeKeys{}.ID(), "tier", d)
	if err != nil {
		return nil, err
	}
	out, _, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: threads, Slow: s})
	return out, errors.Join(err, s.Close())
}

// Whatever transfer fails, once or from then on, the run ends with that error; the
// next run has the right result.
func TestRunOnFailingDisk(t *testing.T) {
	p := plantest.Random(9, plantest.Config{Steps: 60, Keys: 8})
	want := reference(t, p)
	d := &badmem.Disk{}
	if err := installOn(t, p, d); err != nil {
		t.Fatal(err)
	}
	tiered(t, p, 2)
	from := d.Ops()
	if out, err := runOn(t, p, d, 1); err != nil || !sameOutputs(out, want) {
		t.Fatalf("on a good disk: another result, or %v", err)
	}
	ops := d.Ops() - from
	rng := rand.New(rand.NewPCG(4, 4))
	failed := 0
	for round := range 60 {
		at, lasts := d.Ops()+rng.IntN(ops), round%2 == 0
		kind := []error{syscall.EIO, &badmem.Partial{Bytes: 100, Err: syscall.EIO}, syscall.ENOSPC}[round%3]
		d.Before = func(op badmem.Op) error {
			if op.N == at || lasts && op.N > at {
				return kind
			}
			return nil
		}
		out, err := runOn(t, p, d, 1+round%3)
		switch {
		case err == nil && !sameOutputs(out, want):
			t.Fatalf("round %d: another result", round)
		case err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC):
			t.Fatalf("round %d: %v", round, err)
		case err != nil:
			failed++
		}
		d.Before = nil
	}
	if failed < 40 {
		t.Errorf("only %d of 60 runs failed", failed)
	}
	if out, err := runOn(t, p, d, 2); err != nil || !sameOutputs(out, want) {
		t.Errorf("afterwards: another result, or %v", err)
	}
	d.Before = func(badmem.Op) error { time.Sleep(500 * time.Microsecond); return nil }
	if out, err := runOn(t, p, d, 2); err != nil || !sameOutputs(out, want) {
		t.Errorf("on a slow disk: another result, or %v", err)
	}
}

// An install whose power fails at any moment is completed by the next, and runs.
func TestInstallSurvivesPowerFailure(t *testing.T) {
	p := plantest.Random(2, plantest.Config{Steps: 40, Keys: 5, Plains: 8})
	want := reference(t, p)
	good := &badmem.Disk{}
	if err := installOn(t, p, good); err != nil {
		t.Fatal(err)
	}
	n, err := badmem.PowerCuts(&badmem.Disk{}, 6, rand.New(rand.NewPCG(2, 2)), func(d *badmem.Disk) error { return installOn(t, p, d) },
		func(left *badmem.Disk, done bool) error {
			p.Tier = nil
			if done {
				from := left.Ops()
				left.Before = func(op badmem.Op) error {
					if op.N >= from && op.Kind == badmem.Write {
						return errors.New("a complete install is written again")
					}
					return nil
				}
			}
			if err := installOn(t, p, left); err != nil {
				return err
			}
			for _, name := range good.Files() {
				if a, b := len(good.Content(name)), len(left.Content(name)); a != b {
					return fmt.Errorf("%s has %d bytes, want %d", name, b, a)
				}
			}
			left.Before = nil
			tiered(t, p, 4)
			if out, err := runOn(t, p, left, 1); err != nil || !sameOutputs(out, want) {
				return fmt.Errorf("another result, or %w", err)
			}
			return nil
		})
	if err != nil {
		t.Error(err)
	}
	if t.Logf("%d disks", n); n < 50 {
		t.Error("too few to prove anything")
	}
}

// Full, read-only and busy disks are said to be that, and what is installed stays
// good.
func TestDiskRefuses(t *testing.T) {
	p := plantest.Random(9, plantest.Config{Steps: 60, Keys: 8})
	want := reference(t, p)
	e := &fakeEngine{params: &p.Params}
	if err := installOn(t, p, &badmem.Disk{ReadOnly: true}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a read-only disk: %v", err)
	}
	d := &badmem.Disk{Capacity: 16 << 10}
	for {
		err := installOn(t, p, d)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "more bytes are needed; free some and install again") {
			t.Fatalf("a full disk: %v", err)
		}
		d.Capacity += 8 << 10
	}
	tiered(t, p, 2)
	if p.Tier.BytesWritten == 0 {
		t.Fatal("nothing is spilled")
	}
	used := int64(0)
	for _, name := range d.Files() {
		used += int64(len(d.Content(name)))
	}
	d.Capacity = used
	if _, err := runOn(t, p, d, 1); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "ciphertexts that leave DRAM") {
		t.Errorf("no room to spill: %v", err)
	}
	d.Capacity = 0
	s, err := OpenStore(p, e, fakeKeys{}.ID(), "tier", d)
	if err != nil {
		t.Fatal(err)
	}
	q := plantest.Random(9, plantest.Config{Steps: 60, Keys: 12})
	if err := installOn(t, q, d); !errors.Is(err, store.ErrLocked) {
		t.Errorf("installing more beside a run: %v", err)
	}
	out, _, err := Run(t.Context(), p, e, fakeInputs, Options{Slow: s})
	if err := errors.Join(err, s.Close()); err != nil || !sameOutputs(out, want) {
		t.Errorf("beside an install: another result, or %v", err)
	}
	if err := installOn(t, q, d); err != nil {
		t.Errorf("after the run: %v", err)
	}
	if out, err := runOn(t, p, d, 2); err != nil || !sameOutputs(out, want) {
		t.Errorf("after another plan was installed: another result, or %v", err)
	}
}

// Plans run on a device of persistent memory, with copies and in place, and on what
// a killed process left there.
func TestResidencyOnDevice(t *testing.T) {
	const device = "/dev/dax0.0"
	residencies(t, 2, func(t *testing.T, name string, p *plan.Plan, maps bool, _ int) {
		mem := badmem.NewMemory(make([]byte, 8<<20))
		var opened []store.Device
		tech := store.DevDAX{Attach: func(path string, write bool) (store.Device, error) {
			d, err := mem.Attach(path, write)
			opened = append(opened, d)
			return d, err
		}}
		e := &compactEngine{fakeEngine: &fakeEngine{params: &p.Params}}
		for round := range 2 {
			rep, err := Install(t.Context(), p, e, fakeKeys{}, device, InstallOptions{Technology: tech})
			if err != nil || (rep.BytesWritten > 0) != (round == 0) {
				t.Fatalf("%s, round %d: %+v, %v", name, round, rep, err)
			}
			s, err := OpenStore(p, e, fakeKeys{}.ID(), device, tech)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, run, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: s})
			if err != nil || !sameOutputs(got, reference(t, p)) {
				t.Fatalf("%s: another result, or %v", name, err)
			}
			if slow := run.Tiers[1]; slow.BytesRead+slow.BytesMapped != p.Tier.BytesRead || maps == (slow.BytesMapped == 0) {
				t.Errorf("%s: %+v where %d bytes are planned", name, slow, p.Tier.BytesRead)
			}
			for _, d := range opened { // in place of closing: the process is gone
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
