package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"syscall"
	"testing"

	"github.com/home-fhe/home/runtime/store"
	"github.com/home-fhe/home/runtime/store/faulty"
)

const slabSize = 512

var weights = store.Header{Kind: store.WeightFile, SlabBytes: slabSize, ID: "plan"}

// completes installs what is missing and wants it all to be right, and the file to be
// as long as one that was never interrupted.
func completes(t *testing.T, tech store.Technology, name string, all []store.Spec) error {
	t.Helper()
	w, err := store.Create(tech, name, weights)
	if err != nil {
		return fmt.Errorf("going on: %w", err)
	}
	if _, err := store.InstallAll(w, all, slabSize); err != nil {
		return fmt.Errorf("going on: %w", err)
	}
	if n := store.VerifyAll(t, w, all, slabSize); n != len(all) {
		return fmt.Errorf("%d objects of %d after going on", n, len(all))
	}
	return w.Close()
}

// holds wants a tier file whose objects are whole, and the first so many of all to be
// among them.
func holds(t *testing.T, tech store.Technology, name string, all []store.Spec, least int) error {
	t.Helper()
	r, err := store.Open(tech, name, weights)
	if err != nil {
		if least > 0 || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, store.ErrDamaged) {
			return err
		}
		return nil
	}
	defer r.Close()
	store.VerifyAll(t, r, all, slabSize)
	for _, s := range all[:least] {
		if !r.Has(s.Addr, s.Slabs) {
			return fmt.Errorf("%+v is lost", s.Addr)
		}
	}
	return nil
}

// fill installs specs into a file of a technology.
func fill(tech store.Technology, name string, specs []store.Spec) error {
	return fillSure(tech, name, specs, new(int))
}

// fillSure is fill that adds to sure how many objects it was told are durable.
func fillSure(tech store.Technology, name string, specs []store.Spec, sure *int) error {
	f, err := store.Create(tech, name, weights)
	if err != nil {
		return err
	}
	n, err := store.InstallAll(f, specs, slabSize)
	*sure += n
	return errors.Join(err, f.Close())
}

// An install whose power fails at any operation, on a disk that loses, reorders and
// tears what was not synced, loses nothing that was complete, never shows a wrong
// object, and goes on to the same file.
func TestInstallPowerCuts(t *testing.T) {
	for _, unit := range []int{faulty.Sector, faulty.Word} {
		for _, before := range []int{0, 6} {
			all := store.SomeSpecs(12)
			start := &faulty.Disk{Unit: unit}
			if before > 0 {
				if err := fill(start, "w", all[:before]); err != nil {
					t.Fatal(err)
				}
			}
			sure := 0
			n, err := faulty.PowerCuts(start, 40, rand.New(rand.NewPCG(uint64(unit), uint64(before))),
				func(d *faulty.Disk) error {
					sure = before
					return fillSure(d, "w", all, &sure)
				},
				func(left *faulty.Disk, done bool) error {
					least := sure
					if done && least != len(all) {
						return fmt.Errorf("%d objects were reported", least)
					}
					if err := holds(t, left, "w", all, least); err != nil {
						return err
					}
					return completes(t, left, "w", all)
				})
			if err != nil {
				t.Errorf("unit %d, %d objects before: %v", unit, before, err)
			}
			if t.Logf("unit %d, %d objects before: %d disks", unit, before, n); n < 100 {
				t.Error("too few to prove anything")
			}
		}
	}
}

// Small enough to try everything that a power failure may leave.
func TestInstallPowerCutsExhaustive(t *testing.T) {
	all := []store.Spec{{Addr: store.Addr{Kind: 1}, Slabs: 1}}
	start := &faulty.Disk{}
	if err := fill(start, "w", nil); err != nil {
		t.Fatal(err)
	}
	n, err := faulty.PowerCuts(start, 1<<15, nil, func(d *faulty.Disk) error { return fill(d, "w", all) },
		func(left *faulty.Disk, done bool) error {
			if err := holds(t, left, "w", all, 0); err != nil {
				return err
			}
			return completes(t, left, "w", all)
		})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d disks", n)
}

// Any single operation may fail, a write also in the middle: the error is reported,
// what was complete stays, and installing again completes the file.
func TestInstallErrorsAnywhere(t *testing.T) {
	all := store.SomeSpecs(12)
	for name, fault := range map[string]error{
		"I/O error":     syscall.EIO,
		"short write":   &faulty.Partial{Bytes: 700, Err: syscall.EIO},
		"device full":   syscall.ENOSPC,
		"turned to r/o": syscall.EROFS,
	} {
		failed := 0
		for k := 0; ; k++ {
			d := &faulty.Disk{}
			if err := fill(d, "w", all[:4]); err != nil {
				t.Fatal(err)
			}
			from, lasts := d.Ops(), k%2 == 0 // one operation fails, or all from there on
			d.Before = func(op faulty.Op) error {
				if op.N == from+k || lasts && op.N > from+k {
					return fault
				}
				return nil
			}
			err := fill(d, "w", all)
			if d.Ops() <= from+k {
				break
			}
			if failed++; err == nil {
				t.Fatalf("%s at operation %d was not noticed", name, k)
			} else if !errors.Is(err, errors.Unwrap(fault)) && !errors.Is(err, fault) {
				t.Fatalf("%s at operation %d: %v", name, k, err)
			}
			d.Before = nil
			if err := holds(t, d, "w", all, 4); err != nil {
				t.Fatalf("%s at operation %d: %v", name, k, err)
			}
			if err := completes(t, d, "w", all); err != nil {
				t.Fatalf("%s at operation %d: %v", name, k, err)
			}
		}
		if failed < 10 {
			t.Errorf("%s: only %d operations", name, failed)
		}
	}
}

// A device of persistent memory without a file system: the same, where any subset of
// the words that were not flushed is lost, its own directory included.
func TestDevicePowerCuts(t *testing.T) {
	const device = "/dev/dax0.0"
	all := store.SomeSpecs(8)
	tech := func(m *faulty.Memory) store.DevDAX { return store.DevDAX{Attach: m.Attach} }
	// -1: a device that was never used; -2: one that held the like of another plan
	// before it was emptied, so that something valid lies where the new will.
	for _, before := range []int{-2, -1, 0, 5} {
		m := faulty.NewMemory(make([]byte, 512<<10))
		switch {
		case before >= 0:
			if err := fill(tech(m), path.Join(device, "w"), all[:before]); err != nil {
				t.Fatal(err)
			}
		case before == -2:
			was := weights
			weights.ID = "an older plan"
			err := errors.Join(fill(tech(m), path.Join(device, "other"), all[:2]), fill(tech(m), path.Join(device, "w"), all), tech(m).Format(device))
			if weights = was; err != nil {
				t.Fatal(err)
			}
		}
		sure, other := 0, 0
		n, err := faulty.PowerCuts(m, 12, rand.New(rand.NewPCG(1, uint64(before+2))), func(m *faulty.Memory) error {
			sure, other = max(before, 0), 0
			if err := fillSure(tech(m), path.Join(device, "other"), all[:2], &other); err != nil {
				return err
			}
			s, err := store.NewSpill(tech(m), device, slabSize, []int{3})
			if err != nil {
				return err
			}
			if err := fillSure(tech(m), path.Join(device, "w"), all, &sure); err != nil {
				return errors.Join(err, s.Close())
			}
			return s.Close()
		}, func(left *faulty.Memory, done bool) error {
			least := sure
			if done && (least != len(all) || other != 2) {
				return fmt.Errorf("%d and %d objects were reported", least, other)
			}
			for name, n := range map[string]int{"w": least, "other": other} {
				if err := holds(t, tech(left), path.Join(device, name), all, n); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			for _, name := range []string{"w", "other"} {
				if err := completes(t, tech(left), path.Join(device, name), all); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%d objects before: %v", before, err)
		}
		if t.Logf("%d objects before: %d memories", before, n); n < 100 {
			t.Error("too few to prove anything")
		}
	}
}

// Files of a device grow, shrink and exclude each other; room comes back; what is
// used in place is what was written.
func TestDevice(t *testing.T) {
	const device = "/dev/dax0.0"
	m := faulty.NewMemory(make([]byte, 256<<10))
	tech := store.DevDAX{Attach: m.Attach}
	if _, err := tech.Open(device+"/a", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of an empty device: %v", err)
	}
	a, err := tech.Open(device+"/a", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, write := range []bool{true, false} {
		if _, err := tech.Open(device+"/a", write); !errors.Is(err, store.ErrLocked) {
			t.Errorf("a second opener beside a writer: %v", err)
		}
	}
	b, err := tech.Open(device+"/b", true)
	if err != nil {
		t.Fatal(err)
	}
	page := func(x byte) [][]byte {
		p := make([]byte, store.PageBytes)
		for i := range p {
			p[i] = x
		}
		return [][]byte{p}
	}
	for i := range int64(5) { // in turn, so that neither lies in one piece
		if err := errors.Join(a.WriteAt(page(byte(i)), i*store.PageBytes), b.WriteAt(page(byte(100+i)), i*store.PageBytes)); err != nil {
			t.Fatal(err)
		}
	}
	got := page(0)
	for i := range int64(5) {
		if err := a.ReadAt(got, i*store.PageBytes); err != nil || got[0][77] != byte(i) {
			t.Fatalf("page %d holds %d: %v", i, got[0][77], err)
		}
	}
	across := [][]byte{make([]byte, 100), make([]byte, 100)}
	if err := b.ReadAt(across, store.PageBytes-100); err != nil || across[0][99] != 100 || across[1][0] != 101 {
		t.Errorf("across two pieces: %d %d %v", across[0][99], across[1][0], err)
	}
	temp, err := tech.Temp(device)
	if err != nil {
		t.Fatal(err)
	}
	free := int64(0)
	for temp.Reserve(free+store.PageBytes) == nil {
		free += store.PageBytes
	}
	if err := a.Reserve(6 * store.PageBytes); !errors.Is(err, syscall.ENOSPC) || free < 10*store.PageBytes {
		t.Errorf("a full device after %d bytes: %v", free, err)
	}
	if err := temp.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Reserve(free), a.Truncate(store.PageBytes), a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := tech.Open(device+"/b", false)
	if err != nil {
		t.Fatal(err)
	}
	in, err := r.(store.Mapper).Map(store.PageBytes, store.PageBytes)
	if err != nil || in[5] != 101 {
		t.Errorf("in place: %v", err)
	}
	if _, err := r.(store.Mapper).Map(0, 2*store.PageBytes); !errors.Is(err, store.ErrNotAddressable) {
		t.Errorf("two pieces in place: %v", err)
	}
	if err := tech.Format(device); !errors.Is(err, store.ErrLocked) {
		t.Errorf("emptied while in use: %v", err)
	}
	if _, err := tech.Open(device+"/b", true); !errors.Is(err, store.ErrLocked) {
		t.Errorf("a writer beside a reader: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tech.Format(device); err != nil {
		t.Fatal(err)
	}
	if _, err := tech.Open(device+"/b", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of an emptied device: %v", err)
	}
}

// Temporary files of a process that was killed are given up by the next change.
func TestDeviceReclaims(t *testing.T) {
	m := faulty.NewMemory(make([]byte, 256<<10))
	var opened []store.Device
	tech := store.DevDAX{Attach: func(path string, write bool) (store.Device, error) {
		d, err := m.Attach(path, write)
		opened = append(opened, d)
		return d, err
	}}
	temp, err := tech.Temp("/dev/dax0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := temp.Reserve(100 << 10); err != nil {
		t.Fatal(err)
	}
	a, err := tech.Open("/dev/dax0.0/a", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Reserve(100 << 10); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("room of a temporary file in use: %v", err)
	}
	if err := opened[0].Close(); err != nil { // as the kernel does for a killed process
		t.Fatal(err)
	}
	if err := a.Reserve(100 << 10); err != nil {
		t.Errorf("room of a temporary file whose process is gone: %v", err)
	}
}

// What is no tier device is refused, and stays as it is.
func TestDeviceRefuses(t *testing.T) {
	letter := make([]byte, 256<<10)
	for i := range letter {
		letter[i] = "letter to a friend "[i%19]
	}
	m := faulty.NewMemory(letter)
	tech := store.DevDAX{Attach: m.Attach}
	for _, write := range []bool{true, false} {
		if _, err := tech.Open("/dev/dax0.0/a", write); !errors.Is(err, store.ErrForeign) {
			t.Errorf("somebody's letter: %v", err)
		}
	}
	for left := range m.AfterPowerFailure(1, nil) {
		d, _ := left.Attach("", false)
		if string(d.Bytes()) != string(letter) {
			t.Error("somebody's letter was changed")
		}
	}
	if err := tech.Format("/dev/dax0.0"); err != nil {
		t.Fatal(err)
	}
	if err := fill(tech, "/dev/dax0.0/w", store.SomeSpecs(3)); err != nil {
		t.Fatal(err)
	}
	// Both copies of the directory damaged.
	d, _ := m.Attach("", true)
	for at := store.PageBytes + 8; at < store.PageBytes+(128<<10); at += 64 << 10 {
		d.Bytes()[at] ^= 1
	}
	if _, err := tech.Open("/dev/dax0.0/w", true); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := (store.DevDAX{Attach: faulty.NewMemory(make([]byte, 4096)).Attach}).Open("/dev/dax0.0/w", true); err == nil {
		t.Error("a device of one page was accepted")
	}
}
