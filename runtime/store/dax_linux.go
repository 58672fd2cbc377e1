package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// DAX is the technology of byte-addressable persistent memory behind a DAX file
// system: the file is mapped with MAP_SYNC and read by copying out of the
// mapping. Sync uses msync, which on such a mapping writes the processor's
// caches back to the module. It has never met real modules: untested on
// hardware.
type DAX struct{}

// Name is "dax".
func (DAX) Name() string { return "dax" }

// Open opens and maps a file of the tier.
func (DAX) Open(path string, write bool) (Medium, error) {
	f, err := openLocked(path, write)
	if err != nil {
		return nil, err
	}
	return newDAX(f, write, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC)
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
	return newDAX(f, true, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC)
}

// supportsDAX reports whether a file in dir can be mapped with MAP_SYNC, which
// only a DAX file system on persistent memory grants.
func supportsDAX(dir string) bool {
	f, err := os.CreateTemp(dir, ".dax-*")
	if err != nil {
		return false
	}
	defer os.Remove(f.Name())
	m, err := newDAX(f, true, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC)
	if err != nil {
		return false
	}
	defer m.Close()
	return m.Reserve(PageBytes) == nil
}

// daxMedium is one mapped file. The lock guards the mapping, which moves when
// the file grows.
type daxMedium struct {
	f     *os.File
	write bool
	flags int
	mu    sync.RWMutex
	mem   []byte
}

func newDAX(f *os.File, write bool, flags int) (*daxMedium, error) {
	m := &daxMedium{f: f, write: write, flags: flags}
	size, err := m.Size()
	if err == nil && size > 0 {
		err = m.remap(size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

// remap maps the first size bytes. m.mu is held, or m is not yet shared.
func (m *daxMedium) remap(size int64) error {
	if m.mem != nil {
		if err := unix.Munmap(m.mem); err != nil {
			return os.NewSyscallError("munmap", err)
		}
		m.mem = nil
	}
	if size == 0 {
		return nil
	}
	prot := unix.PROT_READ
	if m.write {
		prot |= unix.PROT_WRITE
	}
	mem, err := unix.Mmap(int(m.f.Fd()), 0, int(size), prot, m.flags)
	if err != nil {
		return fmt.Errorf("%s: cannot map %d bytes with MAP_SYNC: %w", m.f.Name(), size, err)
	}
	m.mem = mem
	return nil
}

func (m *daxMedium) ReadAt(slabs [][]byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off < 0 || off+total(slabs) > int64(len(m.mem)) {
		return io.ErrUnexpectedEOF
	}
	for _, s := range slabs {
		copy(s, m.mem[off:])
		off += int64(len(s))
	}
	return nil
}

func (m *daxMedium) WriteAt(slabs [][]byte, off int64) error {
	if err := m.Reserve(off + total(slabs)); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range slabs {
		copy(m.mem[off:], s)
		off += int64(len(s))
	}
	return nil
}

func (m *daxMedium) Reserve(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if size <= int64(len(m.mem)) {
		return nil
	}
	// Blocks are allocated before they are mapped: a store into a hole of a
	// full file system would kill the process.
	if err := unix.Fallocate(int(m.f.Fd()), 0, 0, size); err != nil {
		return os.NewSyscallError("fallocate", err)
	}
	return m.remap(size)
}

func (m *daxMedium) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if size < int64(len(m.mem)) {
		if err := m.remap(size); err != nil {
			return err
		}
	}
	return m.f.Truncate(size)
}

func (m *daxMedium) Size() (int64, error) {
	fi, err := m.f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (m *daxMedium) Sync() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if len(m.mem) > 0 {
		if err := unix.Msync(m.mem, unix.MS_SYNC); err != nil {
			return os.NewSyscallError("msync", err)
		}
	}
	return m.f.Sync()
}

func (m *daxMedium) Describe() string { return "DAX mapping (untested on hardware)" }

func (m *daxMedium) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(m.remap(0), m.f.Close())
}
