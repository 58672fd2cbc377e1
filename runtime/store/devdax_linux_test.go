package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The device technology over a mapped file in place of a device: its locks hold
// between openers, and what one writes another reads.
func TestDeviceOverFile(t *testing.T) {
	if !canFlush {
		t.Skip("no instructions to flush cache lines with")
	}
	device := filepath.Join(t.TempDir(), "dax0.0")
	if err := os.WriteFile(device, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tech := DevDAX{Attach: func(path string, write bool) (Device, error) {
		f, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		return mapDevice(f, 4<<20, unix.PROT_READ|unix.PROT_WRITE)
	}}
	path := filepath.Join(device, "a.htier")
	h := Header{KeyFile, 4096, "set"}
	all := specs(11)
	for i := range 2 {
		f, err := Create(tech, path, h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(tech, path, h); !errors.Is(err, ErrLocked) {
			t.Errorf("a reader beside a writer: %v", err)
		}
		if _, err := install(f, all[:5+6*i], 4096); err != nil {
			t.Fatal(err)
		}
		s, err := NewSpill(tech, device, 4096, []int{5, 3})
		if err != nil {
			t.Fatal(err)
		}
		was, got := content(Addr{A: 5}, 5, 4096), content(Addr{A: 6}, 5, 4096)
		if err := errors.Join(s.Write(1, 5, 0, was), s.Read(1, 0, got)); err != nil || string(got[4]) != string(was[4]) {
			t.Errorf("spilled: %v", err)
		}
		if err := errors.Join(s.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	var open []*TierFile
	for range 2 {
		f, err := Open(tech, path, h)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, f)
		if n := verify(t, f, all, 4096); n != len(all) {
			t.Errorf("%d objects of %d", n, len(all))
		}
		for _, s := range all {
			slabs, check, err := f.Map(s.Addr, 0, s.Slabs)
			if err == nil && check != nil {
				err = check()
			}
			if err != nil || len(slabs) != s.Slabs {
				t.Fatalf("in place: %v", err)
			}
		}
	}
	if _, err := Create(tech, path, h); !errors.Is(err, ErrLocked) {
		t.Errorf("a writer beside readers: %v", err)
	}
	for _, f := range open {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A device that is no persistent memory is refused before it is touched.
func TestForeignDevice(t *testing.T) {
	tech, err := Detect("/dev/null")
	if err != nil || tech.Name() != "devdax" {
		t.Fatalf("%v, %v", tech, err)
	}
	if _, err := tech.Open("/dev/null/a", true); err == nil || !strings.Contains(err.Error(), "driver") {
		t.Errorf("got %v", err)
	}
	if _, err := Named("file", "/dev/null"); err == nil {
		t.Error("a device was taken for a folder")
	}
}
