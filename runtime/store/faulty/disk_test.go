package faulty

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/home-fhe/home/runtime/store"
)

func open(t *testing.T, d *Disk, name string) store.Medium {
	t.Helper()
	m, err := d.Open(name, true)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func rep(b byte, n int) [][]byte { return [][]byte{bytes.Repeat([]byte{b}, n)} }

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// All subsets of what was not synced may arrive, whatever their order, and
// nothing else.
func TestEverySubset(t *testing.T) {
	d := &Disk{}
	m := open(t, d, "a")
	must(t, m.WriteAt(rep('x', 3*Sector), 0), m.Sync())
	must(t, m.WriteAt(rep('1', Sector), 0), m.WriteAt(rep('2', Sector), 0), m.WriteAt(rep('3', 2*Sector), Sector))
	seen := map[string]bool{}
	for left := range d.AfterPowerFailure(100, rand.New(rand.NewPCG(1, 1))) {
		b := left.Content("a")
		if len(b) != 3*Sector {
			t.Fatalf("%d bytes are left", len(b))
		}
		seen[string([]byte{b[0], b[Sector], b[2*Sector]})] = true
	}
	if len(seen) != 3*2*2 {
		t.Errorf("%d outcomes of 12: %v", len(seen), seen)
	}
	must(t, m.Sync())
	n := 0
	for left := range d.AfterPowerFailure(100, nil) {
		if n++; !bytes.Equal(left.Content("a"), d.Content("a")) {
			t.Error("what was synced is lost")
		}
	}
	if n != 1 {
		t.Errorf("%d outcomes after a sync", n)
	}
}

// A sample of many outcomes has the extremes, and what lies between.
func TestSample(t *testing.T) {
	d := &Disk{Unit: Word}
	m := open(t, d, "a")
	must(t, m.WriteAt(rep('x', 800), 0), m.Sync(), m.WriteAt(rep('y', 800), 0))
	counts := map[int]int{}
	for left := range d.AfterPowerFailure(50, rand.New(rand.NewPCG(1, 2))) {
		b := left.Content("a")
		for k := 0; k < len(b); k += Word {
			if bytes.Count(b[k:k+Word], b[k:k+1]) != Word {
				t.Fatal("a torn word")
			}
		}
		counts[bytes.Count(b, []byte("y"))/Word]++
	}
	if counts[0] == 0 || counts[100] == 0 || counts[1] == 0 || counts[99] == 0 || len(counts) < 20 {
		t.Errorf("outcomes by words that arrived: %v", counts)
	}
}

// A file that was cut and grew again may show what it was before, or zeros.
func TestSizes(t *testing.T) {
	d := &Disk{}
	m := open(t, d, "a")
	must(t, m.WriteAt(rep('x', 2*Sector), 0), m.Sync(), m.Truncate(Sector), m.Reserve(3*Sector))
	seen := map[string]int{}
	for left := range d.AfterPowerFailure(100, rand.New(rand.NewPCG(1, 2))) {
		b := left.Content("a")
		s := fmt.Sprint(len(b) / Sector)
		for k := 0; k < len(b); k += Sector {
			s += string([]byte{b[k] | '.'})
		}
		seen[s]++
	}
	for _, want := range []string{"1~", "2~~", "2~.", "3~~.", "3~.."} {
		if seen[want] == 0 {
			t.Errorf("%s is missing: %v", want, seen)
		}
	}
}

func TestRefusals(t *testing.T) {
	d := &Disk{Capacity: 4 * Sector}
	m := open(t, d, "a")
	must(t, m.Reserve(3*Sector))
	if err := m.Reserve(5 * Sector); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	if err := m.WriteAt(rep(1, 2*Sector), 3*Sector); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	if _, err := d.Open("a", false); !errors.Is(err, store.ErrLocked) {
		t.Errorf("a reader beside a writer: %v", err)
	}
	must(t, m.Close())
	if _, err := d.Open("b", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	d.ReadOnly = true
	if _, err := d.Open("b", true); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a read-only disk: %v", err)
	}
	d.ReadOnly = false
	d.Before = func(op Op) error {
		if op.Kind == Write {
			return &Partial{Bytes: 700, Err: syscall.EIO}
		}
		return nil
	}
	m = open(t, d, "a")
	if err := m.WriteAt(rep('z', 2*Sector), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("a short write: %v", err)
	}
	if n := bytes.Count(d.Content("a"), []byte("z")); n != 700 {
		t.Errorf("%d bytes of 700 were written", n)
	}
}

// The harness finds an update in place, and accepts one with two copies.
func TestPowerCuts(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	start := &Disk{}
	start.Put("a", bytes.Repeat([]byte("x"), 4*Sector))
	inPlace := func(d *Disk) error {
		m, err := d.Open("a", true)
		if err != nil {
			return err
		}
		return errors.Join(m.WriteAt(rep('y', 2*Sector), 0), m.Sync())
	}
	whole := func(left *Disk, done bool) error {
		b := left.Content("a")
		if b[0] != b[Sector] {
			return errors.New("torn")
		}
		if done && b[0] != 'y' {
			return errors.New("lost")
		}
		return nil
	}
	if _, err := PowerCuts(start, 100, rng, inPlace, whole); err == nil || errors.Is(err, ErrPower) {
		t.Errorf("an update in place: %v", err)
	}
	// A copy, then what says which one counts: a sector is written as a whole.
	twice := func(d *Disk) error {
		m, err := d.Open("a", true)
		if err != nil {
			return err
		}
		for _, e := range []func() error{
			func() error { return m.WriteAt(rep('y', 2*Sector), 2*Sector) }, m.Sync,
			func() error { return m.WriteAt(rep('y', 1), 0) }, m.Sync,
		} {
			if err := e(); err != nil {
				return err
			}
		}
		return nil
	}
	pointed := func(left *Disk, done bool) error {
		b := left.Content("a")
		if done != (b[0] == 'y') && done {
			return errors.New("lost")
		}
		if b[0] == 'y' && (b[2*Sector] != 'y' || b[3*Sector] != 'y') {
			return errors.New("torn")
		}
		return nil
	}
	n, err := PowerCuts(start, 100, rng, twice, pointed)
	if err != nil || n < 8 {
		t.Errorf("%d disks: %v", n, err)
	}
}

// Of changes of names that were not synced the first so many happen.
func TestNames(t *testing.T) {
	d := &Disk{}
	for _, n := range []string{"a", "b"} {
		m := open(t, d, n)
		must(t, m.WriteAt(rep(n[0], 1), 0), m.Sync(), m.Close())
	}
	must(t, d.Rename("b", "a"), d.Remove("a"))
	if err := d.Remove("b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	m := open(t, d, "c")
	must(t, m.Close())
	seen := map[string]bool{}
	for left := range d.AfterPowerFailure(100, nil) {
		seen[fmt.Sprintf("%v %s", left.Files(), left.Content("a"))] = true
	}
	if len(seen) != 3 || !seen["[a b c] a"] || !seen["[a c] b"] || !seen["[c] "] {
		t.Errorf("outcomes: %v", seen)
	}
	must(t, d.SyncNames())
	for left := range d.AfterPowerFailure(100, nil) {
		if fmt.Sprint(left.Files()) != "[c]" {
			t.Errorf("after a sync: %v", left.Files())
		}
	}
}
