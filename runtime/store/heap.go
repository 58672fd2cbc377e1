package store

import (
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// Heap is the technology that keeps a tier in DRAM, for machines that have
// enough of it and for tests. Files live as long as the Heap.
type Heap struct {
	mu    sync.Mutex
	files map[string]*heapFile
}

type heapFile struct {
	mu      sync.RWMutex
	data    []byte
	readers int
	writer  bool
}

// Name is "heap".
func (h *Heap) Name() string { return "heap" }

// Open opens a file of this Heap.
func (h *Heap) Open(path string, write bool) (Medium, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.files[path]
	if f == nil {
		if !write {
			return nil, fmt.Errorf("%s: %w in memory", path, fs.ErrNotExist)
		}
		if h.files == nil {
			h.files = map[string]*heapFile{}
		}
		f = &heapFile{}
		h.files[path] = f
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.writer || write && f.readers > 0 {
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	if write {
		f.writer = true
	} else {
		f.readers++
	}
	return &heapMedium{f: f, write: write}, nil
}

// Temp makes a nameless file.
func (h *Heap) Temp(string) (Medium, error) {
	return &heapMedium{f: &heapFile{writer: true}, write: true}, nil
}

type heapMedium struct {
	f     *heapFile
	write bool
}

func (m *heapMedium) ReadAt(slabs [][]byte, off int64) error {
	m.f.mu.RLock()
	defer m.f.mu.RUnlock()
	for _, s := range slabs {
		if off < 0 || off+int64(len(s)) > int64(len(m.f.data)) {
			return io.ErrUnexpectedEOF
		}
		copy(s, m.f.data[off:])
		off += int64(len(s))
	}
	return nil
}

func (m *heapMedium) WriteAt(slabs [][]byte, off int64) error {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	m.grow(off + total(slabs))
	for _, s := range slabs {
		copy(m.f.data[off:], s)
		off += int64(len(s))
	}
	return nil
}

// Map implements Mapper, for files that are open for reading.
func (m *heapMedium) Map(off, n int64) ([]byte, error) {
	if m.write {
		return nil, errMapWriter
	}
	m.f.mu.RLock()
	defer m.f.mu.RUnlock()
	if off < 0 || n < 0 || off+n > int64(len(m.f.data)) {
		return nil, io.ErrUnexpectedEOF
	}
	return m.f.data[off : off+n : off+n], nil
}

func (m *heapMedium) Reserve(size int64) error {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	m.grow(size)
	return nil
}

func (m *heapMedium) grow(size int64) {
	if n := size - int64(len(m.f.data)); n > 0 {
		m.f.data = append(m.f.data, make([]byte, n)...)
	}
}

func (m *heapMedium) Truncate(size int64) error {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	if size < int64(len(m.f.data)) {
		m.f.data = m.f.data[:size]
	}
	return nil
}

func (m *heapMedium) Size() (int64, error) {
	m.f.mu.RLock()
	defer m.f.mu.RUnlock()
	return int64(len(m.f.data)), nil
}

func (m *heapMedium) Sync() error      { return nil }
func (m *heapMedium) Describe() string { return "heap (DRAM)" }

func (m *heapMedium) Close() error {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	if m.write {
		m.f.writer = false
	} else {
		m.f.readers--
	}
	return nil
}
