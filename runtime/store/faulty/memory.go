package faulty

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"

	"github.com/home-fhe/home/runtime/store"
)

// Memory is simulated persistent memory, a store.Device: what was stored since its
// last Persist may be lost when the power fails, each word independently of the
// others. Attach opens it; operations are those that take locks and Persist.
type Memory struct {
	mu      sync.Mutex
	now     []byte // what loads see
	durable []byte
	n, cut  int
	cuts    bool
	dead    []byte // what loads saw when the power failed
	locks   map[int64]*held
}

type held struct {
	writer  *handle
	readers map[*handle]bool
}

// NewMemory returns memory that holds content.
func NewMemory(content []byte) *Memory {
	now := make([]byte, len(content)+store.PageBytes)
	return &Memory{now: append(now[:0], content...), durable: bytes.Clone(content)}
}

// Attach opens the memory.
func (m *Memory) Attach(string, bool) (store.Device, error) { return &handle{m}, nil }

// CutAt lets the power fail before operation n.
func (m *Memory) CutAt(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut, m.cuts = n, true
}

// start counts an operation. m.mu is held.
func (m *Memory) start() error {
	if m.cuts && m.n >= m.cut && m.dead == nil {
		m.dead = bytes.Clone(m.now)
	}
	m.n++
	if m.dead != nil {
		return ErrPower
	}
	return nil
}

// AfterPowerFailure yields memories as a power failure at this moment, or the one that
// happened, may leave them: all where there are at most limit, else limit of them
// chosen by rng.
func (m *Memory) AfterPowerFailure(limit int, rng *rand.Rand) iter.Seq[*Memory] {
	return func(yield func(*Memory) bool) {
		m.mu.Lock()
		seen := m.dead
		if seen == nil {
			seen = bytes.Clone(m.now)
		}
		durable := bytes.Clone(m.durable)
		m.mu.Unlock()
		var open, sizes []int
		for i := 0; i < len(seen); i += Word {
			if k := min(i+Word, len(seen)); !bytes.Equal(seen[i:k], durable[i:k]) {
				open, sizes = append(open, i), append(sizes, 2)
			}
		}
		outcomes(sizes, limit, rng, func(pick []int) bool {
			left := bytes.Clone(durable)
			for k, i := range open {
				if pick[k] == 1 {
					copy(left[i:min(i+Word, len(left))], seen[i:])
				}
			}
			return yield(NewMemory(left))
		})
	}
}

// Copy returns memory with the same content, all persistent.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return NewMemory(m.now)
}

// handle is one opening of a Memory; locks belong to it.
type handle struct{ m *Memory }

func (h *handle) Bytes() []byte { return h.m.now }

func (h *handle) Persist(off, n int64) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.start(); err != nil {
		return err
	}
	lo := off / 64 * 64 // whole lines
	hi := min((off+n+63)/64*64, int64(len(h.m.now)))
	copy(h.m.durable[lo:hi], h.m.now[lo:hi])
	return nil
}

// Lock takes a lock. A lock that it would have to wait for in vain, because nobody
// else runs, is a bug of the test: it panics.
func (h *handle) Lock(number int64, exclusive, wait bool) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if err := h.m.start(); err != nil {
		return err
	}
	if h.m.locks == nil {
		h.m.locks = map[int64]*held{}
	}
	l := h.m.locks[number]
	if l == nil {
		l = &held{readers: map[*handle]bool{}}
		h.m.locks[number] = l
	}
	others := len(l.readers)
	if l.readers[h] {
		others--
	}
	if l.writer != nil && l.writer != h || exclusive && others > 0 {
		if wait {
			panic(fmt.Sprintf("faulty: lock %d is waited for", number))
		}
		return store.ErrLocked
	}
	if exclusive {
		l.writer = h
	} else {
		l.readers[h] = true
	}
	return nil
}

func (h *handle) Unlock(number int64) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.drop(h.m.locks[number])
	return nil
}

func (h *handle) drop(l *held) {
	if l == nil {
		return
	}
	if l.writer == h {
		l.writer = nil
	}
	delete(l.readers, h)
}

func (h *handle) Close() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	for _, l := range h.m.locks {
		h.drop(l)
	}
	return nil
}
