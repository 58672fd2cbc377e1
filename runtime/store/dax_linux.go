package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// DAX is the technology of byte-addressable persistent memory behind a DAX file
// system: the file is mapped with MAP_SYNC. Such a mapping promises that a page can
// be written only when the file system's own record of it is durable, so that
// writing back the processor's cache lines is all that durability takes: no system
// call. It has never met real modules: untested on hardware.
type DAX struct{}

const daxFlags = unix.MAP_SHARED_VALIDATE | unix.MAP_SYNC

func describeDAX() string {
	if canFlush {
		return "DAX mapping, cache lines flushed (untested on hardware)"
	}
	return "DAX mapping, msync (untested on hardware)"
}

// Name is "dax".
func (DAX) Name() string { return "dax" }

// Open opens and maps a file of the tier.
func (DAX) Open(path string, write bool) (Medium, error) {
	f, err := openLocked(path, write)
	if err != nil {
		return nil, err
	}
	return newMapped(f, write, daxFlags, canFlush, describeDAX())
}

// Temp makes a mapped file in dir that has no name any more.
func (DAX) Temp(dir string) (Medium, error) {
	f, err := os.CreateTemp(dir, ".spill-*.htier")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return newMapped(f, true, daxFlags, canFlush, describeDAX())
}

// supportsDAX reports whether a file in dir can be mapped with MAP_SYNC, which
// only a DAX file system on persistent memory grants.
func supportsDAX(dir string) bool {
	f, err := os.CreateTemp(dir, ".dax-*")
	if err != nil {
		return false
	}
	defer os.Remove(f.Name())
	m, err := newMapped(f, true, daxFlags, canFlush, describeDAX())
	if err != nil {
		return false
	}
	defer m.Close()
	return m.Reserve(PageBytes) == nil
}
