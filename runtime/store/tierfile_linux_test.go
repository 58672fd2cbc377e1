package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mapped is the DAX technology over an ordinary mapping, so that its code can
// run where there is no persistent memory.
type mapped struct{ lines bool }

func (mapped) Name() string { return "dax" }
func (m mapped) Open(path string, write bool) (Medium, error) {
	f, err := openLocked(path, write)
	if err != nil {
		return nil, err
	}
	return newMapped(f, write, unix.MAP_SHARED, m.lines, "mapping")
}
func (m mapped) Temp(dir string) (Medium, error) {
	f, err := os.CreateTemp(dir, "")
	if err != nil {
		return nil, err
	}
	return newMapped(f, true, unix.MAP_SHARED, m.lines, "mapping")
}

func TestMappedTierFile(t *testing.T) {
	for _, lines := range []bool{false, canFlush} {
		path := filepath.Join(t.TempDir(), "a.htier")
		h := Header{KeyFile, 512, "set"}
		all := specs(9)
		for i := range 2 {
			f, err := Create(mapped{lines}, path, h)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := install(f, all[:5+4*i], 512); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		// What the mapping wrote, the file technology reads.
		for _, tech := range []Technology{mapped{lines}, File{}, Mmap{}} {
			f, err := Open(tech, path, h)
			if err != nil {
				t.Fatal(err)
			}
			if n := verify(t, f, all, 512); n != len(all) {
				t.Errorf("%T: %d objects of %d", tech, n, len(all))
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A file that is cut behind the back of a mapping is an error and no crash.
func TestMappingFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.htier")
	h := Header{KeyFile, 4096, "set"}
	all := specs(9)
	f, err := Create(File{}, path, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(f, all, 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = Open(Mmap{}, path, h); err != nil {
		t.Fatal(err)
	}
	last := all[len(all)-1]
	slabs, check, err := f.Map(last.Addr, 0, last.Slabs)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, PageBytes); err != nil {
		t.Fatal(err)
	}
	if err := check(); !errors.Is(err, ErrDamaged) {
		t.Errorf("verifying a slab that is gone: %v", err)
	}
	if err := f.Read(last.Addr, 0, content(last.Addr, last.Slabs, 4096)); !errors.Is(err, ErrDamaged) || len(slabs) != last.Slabs {
		t.Errorf("reading a slab that is gone: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// A directory that is no persistent memory is never taken for it.
func TestDetectOrdinaryDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	tech, err := Detect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if tech.Name() == "dax" {
		t.Skip("the temporary directory is on persistent memory")
	}
	m, err := tech.Open(filepath.Join(dir, "x"), true)
	if err != nil {
		t.Fatal(err)
	}
	if d := m.Describe(); !strings.Contains(d, "ordinary file") || strings.Contains(strings.ToLower(d), "pmem") {
		t.Errorf("an ordinary file calls itself %q", d)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("the probe left something behind: %v %v", names, err)
	}
}

// A full disk gives an error that says so, keeps what was installed, and leaves
// nothing half valid.
func TestTierFileOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(dir, "a.htier")
	h := Header{KeyFile, 4096, "set"}
	all := specs(12)
	f, err := Create(File{}, path, h)
	if err != nil {
		t.Fatal(err)
	}
	_, err = install(f, all, 4096)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "more bytes are needed") {
		t.Errorf("got %v", err)
	}
	if n := verify(t, f, all, 4096); n == 0 || n == len(all) {
		t.Errorf("%d objects of %d fit", n, len(all))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != f.end {
		t.Errorf("%d bytes are left for a valid part of %d (%v)", fi.Size(), f.end, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	if f, err = Create(File{}, path, h); err != nil {
		t.Fatal(err)
	}
	if _, err := install(f, all, 4096); err != nil {
		t.Fatal(err)
	}
	if n := verify(t, f, all, 4096); n != len(all) {
		t.Errorf("%d objects of %d after room was made", n, len(all))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSpillOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	if _, err := NewSpill(File{}, dir, 4096, []int{200, 56}); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
}
