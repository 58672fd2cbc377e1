package runtime

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/passes"
)

// A directory that cannot be written is an error that names it.
func TestReadOnlyDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_RDONLY, "size=64k"); err != nil {
		t.Skipf("cannot mount a read-only file system: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	p := plantest.Random(1, plantest.Config{})
	_, err := Install(t.Context(), p, &fakeEngine{params: &p.Params}, fakeKeys{}, dir, InstallOptions{})
	if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}

// The whole process, as the kernel counts it, stays within the budget although
// the plan is several times as large; and the slow tier leaves no page cache
// behind.
func TestProcessStaysWithinBudget(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const budget, kept = 56 << 20, 32 << 20
	p := plantest.Random(5, plantest.Config{LogN: 13, Levels: 6, Steps: 600, Keys: 40, OneShot: 100, Live: 4})
	e := &fakeEngine{params: &p.Params}
	if dir := os.Getenv("HOME_TEST_BUDGET"); dir != "" {
		LimitHeap(kept)
		tier, err := passes.Tiering(p, passes.TierOptions{DRAM: budget, Reserve: kept, Machine: passes.Machine{Tier: backend.TierProfile{ReadBps: 1e9, WritBps: 1e9}}})
		if err != nil {
			t.Fatal(err)
		}
		p.Tier = tier
		s, err := OpenStore(p, e, "fake-key-set", dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, rep, err := Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: s})
		if err := errors.Join(err, s.Close()); err != nil {
			t.Fatal(err)
		}
		fmt.Println("peak", rep.PeakRSSBytes, rep.Tiers[1].BytesRead)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Skip("cannot run this test in a second process: ", err)
	}
	dir := t.TempDir()
	rep, err := Install(t.Context(), p, e, fakeKeys{}, dir, InstallOptions{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	if rep.BytesWritten < 2*budget {
		t.Fatalf("the plan has %d bytes: too few to prove anything", rep.BytesWritten)
	}
	cmd := exec.Command(self, "-test.run=^TestProcessStaysWithinBudget$")
	cmd.Env = append(os.Environ(), "HOME_TEST_BUDGET="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var peak, read int64
	if _, err := fmt.Sscanf(string(out), "peak %d %d", &peak, &read); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("peak %d of %d bytes, %d read", peak, budget, read)
	if peak > budget || peak < 16<<20 {
		t.Errorf("the process took %d bytes of %d", peak, budget)
	}
}
