package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
)

// fading is a tier whose slabs lie in a file that is cut once they were verified.
type fading struct {
	*memory
	f   *os.File
	mem []byte
}

func (m *fading) Map(obj plan.ObjectID, first, count int) ([][]byte, func() error, error) {
	size := m.p.Params.SlabBytes()
	var slabs [][]byte
	for i := range count {
		slabs = append(slabs, m.mem[i*size:(i+1)*size:(i+1)*size])
	}
	return slabs, func() error { return m.f.Truncate(0) }, nil
}

// A load that the medium fails is an error that names the step, and not the end of
// the process.
func TestMediumFailsUnderALoad(t *testing.T) {
	p := plantest.Random(1, plantest.Config{LogN: 9})
	p.Tier, _ = plantest.Tier(p, 1, plan.Forms{}, true, 1<<20)
	f, err := os.Create(filepath.Join(t.TempDir(), "slabs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 64 * p.Params.SlabBytes()
	if err := f.Truncate(int64(n)); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	m := &fading{memory: newMemory(p, true), f: f, mem: mem}
	e := &compactEngine{fakeEngine: &fakeEngine{params: &p.Params}}
	_, _, err = Run(t.Context(), p, e, fakeInputs, Options{Threads: 2, Slow: m})
	if err == nil || !strings.Contains(err.Error(), "cannot be read") || !strings.Contains(err.Error(), "step") {
		t.Errorf("got %v", err)
	}
}
