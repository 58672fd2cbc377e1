package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// mappedMedium is one file that is mapped whole. The lock guards the mapping, which
// moves when the file grows.
type mappedMedium struct {
	f     *os.File
	write bool
	flags int
	lines bool // flush cache lines as soon as they are written; else msync
	about string

	mu      sync.RWMutex
	mem     []byte
	resized bool // since the last Sync
}

func newMapped(f *os.File, write bool, flags int, lines bool, about string) (*mappedMedium, error) {
	m := &mappedMedium{f: f, write: write, flags: flags, lines: lines, about: about, resized: write}
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
func (m *mappedMedium) remap(size int64) error {
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
		return fmt.Errorf("%s: cannot map %d bytes: %w", m.f.Name(), size, err)
	}
	m.mem = mem
	return nil
}

func (m *mappedMedium) ReadAt(slabs [][]byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off < 0 || off+total(slabs) > int64(len(m.mem)) {
		return io.ErrUnexpectedEOF
	}
	return touching(func() {
		for _, s := range slabs {
			copy(s, m.mem[off:])
			off += int64(len(s))
		}
	})
}

func (m *mappedMedium) WriteAt(slabs [][]byte, off int64) error {
	if err := m.Reserve(off + total(slabs)); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return touching(func() {
		for _, s := range slabs {
			to := m.mem[off:][:len(s)]
			copy(to, s)
			if m.lines {
				persist(to)
			}
			off += int64(len(s))
		}
	})
}

// Map implements Mapper, for files that are open for reading.
func (m *mappedMedium) Map(off, n int64) ([]byte, error) {
	if m.write {
		return nil, errMapWriter
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off < 0 || n < 0 || off+n > int64(len(m.mem)) {
		return nil, io.ErrUnexpectedEOF
	}
	return m.mem[off : off+n : off+n], nil
}

func (m *mappedMedium) Reserve(size int64) error {
	m.mu.RLock()
	enough := size <= int64(len(m.mem))
	m.mu.RUnlock()
	if enough {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if size <= int64(len(m.mem)) {
		return nil
	}
	// Blocks are allocated before they are mapped: a store into a hole of a
	// full file system would be a fault.
	if err := reserve(m.f, size); err != nil {
		return err
	}
	m.resized = true
	return m.remap(size)
}

func (m *mappedMedium) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if size < int64(len(m.mem)) {
		if err := m.remap(size); err != nil {
			return err
		}
	}
	m.resized = true
	return m.f.Truncate(size)
}

func (m *mappedMedium) Size() (int64, error) {
	fi, err := m.f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Sync makes what was written durable. Where lines are flushed that has happened;
// what is left is the length of the file.
func (m *mappedMedium) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.lines && len(m.mem) > 0 {
		if err := unix.Msync(m.mem, unix.MS_SYNC); err != nil {
			return os.NewSyscallError("msync", err)
		}
	}
	if m.lines && !m.resized {
		return nil
	}
	if err := m.f.Sync(); err != nil {
		return err
	}
	m.resized = false
	return nil
}

func (m *mappedMedium) Describe() string { return m.about }

func (m *mappedMedium) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return errors.Join(m.remap(0), m.f.Close())
}
