package store

import (
	"os"
	"sync/atomic"
)

// File is the technology of ordinary files: direct I/O past the page cache
// where the file system has it, else ordinary I/O that drops the pages behind
// itself. It is what stands in where there is no persistent memory.
type File struct{}

// Name is "file".
func (File) Name() string { return "file" }

// Open opens a file of the tier.
func (File) Open(path string, write bool) (Medium, error) {
	f, err := openLocked(path, write)
	if err != nil {
		return nil, err
	}
	return newFileMedium(f, path, write), nil
}

// Temp makes a file in dir that has no name any more.
func (File) Temp(dir string) (Medium, error) {
	f, err := os.CreateTemp(dir, ".spill-*.htier")
	if err != nil {
		return nil, err
	}
	m := newFileMedium(f, f.Name(), true)
	if err := os.Remove(f.Name()); err != nil {
		m.removeOnClose = f.Name() // systems that keep open files by name
	}
	return m, nil
}

// fileMedium reads and writes one file. Transfers of whole pages go through
// the direct descriptor while it works; others, and all where there is none,
// through f.
type fileMedium struct {
	f             *os.File
	direct        directFile
	useDirect     atomic.Bool
	removeOnClose string
}

func newFileMedium(f *os.File, path string, write bool) *fileMedium {
	m := &fileMedium{f: f}
	if d, ok := openDirect(path, write); ok {
		m.direct = d
		m.useDirect.Store(true)
	}
	return m
}

func (m *fileMedium) ReadAt(slabs [][]byte, off int64) error {
	if m.useDirect.Load() {
		done, err := m.directRead(slabs, off)
		if done || err != nil {
			return err
		}
	}
	if err := readPlain(m.f, slabs, off); err != nil {
		return err
	}
	dropCache(m.f, off, total(slabs))
	return nil
}

// directRead reads past the page cache. It reports false where the file system
// refuses, once and for all.
func (m *fileMedium) directRead(slabs [][]byte, off int64) (bool, error) {
	whole := off%PageBytes == 0
	for _, s := range slabs {
		whole = whole && aligned(s)
	}
	if whole {
		refused, err := m.direct.read(slabs, off)
		if refused {
			m.useDirect.Store(false)
			return false, nil
		}
		return true, err
	}
	// Small slabs go through a buffer of whole pages around them.
	lo := off &^ (PageBytes - 1)
	end := off + total(slabs)
	buf := pageBuffer(pages(end) - lo)
	refused, err := m.direct.read([][]byte{buf}, lo)
	if refused {
		m.useDirect.Store(false)
		return false, nil
	}
	if err != nil {
		return true, err
	}
	at := off - lo
	for _, s := range slabs {
		copy(s, buf[at:])
		at += int64(len(s))
	}
	return true, nil
}

func (m *fileMedium) WriteAt(slabs [][]byte, off int64) error {
	whole := off%PageBytes == 0
	for _, s := range slabs {
		whole = whole && aligned(s)
	}
	if whole && m.useDirect.Load() {
		refused, err := m.direct.write(slabs, off)
		if !refused {
			return err
		}
		m.useDirect.Store(false)
	}
	return writePlain(m.f, slabs, off)
}

func (m *fileMedium) Reserve(size int64) error { return reserve(m.f, size) }

func (m *fileMedium) Truncate(size int64) error { return m.f.Truncate(size) }

func (m *fileMedium) Size() (int64, error) {
	fi, err := m.f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (m *fileMedium) Sync() error {
	if err := m.f.Sync(); err != nil {
		return err
	}
	dropCache(m.f, 0, 0) // clean now, so it can go
	return nil
}

func (m *fileMedium) Describe() string {
	if m.useDirect.Load() {
		return "ordinary file, direct I/O"
	}
	return "ordinary file, page cache dropped behind reads"
}

func (m *fileMedium) Close() error {
	m.direct.close()
	err := m.f.Close()
	if m.removeOnClose != "" {
		if e := os.Remove(m.removeOnClose); err == nil {
			err = e
		}
	}
	return err
}

// extend makes a file at least size bytes long.
func extend(f *os.File, size int64) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() >= size {
		return err
	}
	return f.Truncate(size)
}
