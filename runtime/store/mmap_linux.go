package store

import "golang.org/x/sys/unix"

// Mmap is the technology of ordinary files that are read through a mapping and the
// page cache: page faults bring the content in, and the kernel decides what stays.
// It is a baseline to compare planned copies with, never what Detect finds. Writing
// goes the way of File.
type Mmap struct{}

// Name is "mmap".
func (Mmap) Name() string { return "mmap" }

// Open opens a file of the tier, and maps it for reading.
func (Mmap) Open(path string, write bool) (Medium, error) {
	if write {
		return File{}.Open(path, write)
	}
	f, err := openLocked(path, false)
	if err != nil {
		return nil, err
	}
	return newMapped(f, false, unix.MAP_SHARED, false, "ordinary file, mapped through the page cache (baseline)")
}

// Temp makes a file as File does.
func (Mmap) Temp(dir string) (Medium, error) { return File{}.Temp(dir) }
