// Package store owns the memory a plan runs in. Its Arena holds objects in
// DRAM outside the Go heap, in slabs of one limb each; its tier files hold
// keys and encoded weights in a slow tier (persistent memory, or an ordinary
// file that stands in for it) and bring them into the arena by planned copies,
// never by page faults.
package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// ErrFull says that the arena has too few free slabs at the moment. Callers
// wait for a Free and try again.
var ErrFull = errors.New("arena is full")

// Purpose says what memory is used for; the arena accounts by it.
type Purpose uint8

// Purposes of arena memory.
const (
	Keys        Purpose = iota // evaluation keys
	Weights                    // encoded plaintexts and matrices
	Ciphertexts                // inputs, temporaries and outputs
	Scratch                    // everything else: staging buffers of install
	numPurposes
)

func (p Purpose) String() string {
	if p < numPurposes {
		return [...]string{"keys", "weights", "ciphertexts", "scratch"}[p]
	}
	return fmt.Sprintf("purpose(%d)", uint8(p))
}

// Owner names who an object belongs to, for example a plan's run. Accounting
// and admission go by owner, so that several plans can share one arena.
type Owner string

// Admission decides whether an owner may take more slabs. Admit is called
// before slabs are handed out and Release after they come back; both are called
// with the arena locked and must not call into it.
type Admission interface {
	Admit(o Owner, slabs int) bool
	Release(o Owner, slabs int)
}

// Usage is a snapshot of an arena in slabs.
type Usage struct {
	Limit     int // most slabs that may be out at once, 0 for no limit
	Mapped    int // slabs obtained from the operating system
	InUse     int
	Peak      int // high-water mark of InUse
	ByPurpose [numPurposes]int
	PeakBy    [numPurposes]int // high-water mark of each purpose by itself
}

// Block is an object's memory: a vector of slabs that need not be adjacent, so
// that the arena never fragments. A block belongs to whoever allocated it; it
// may be read and written by several goroutines, which must order themselves.
// Its slabs are invalid after Free.
type Block struct {
	Slabs   [][]byte // each SlabBytes long; 4096-byte aligned where slabs are a page or more, else 64
	Purpose Purpose
	Owner   Owner
	arena   *Arena
	freed   atomic.Bool
}

// Arena hands out off-heap memory in slabs of one size. All methods may be
// called from several goroutines. Slabs are mapped on demand up to the limit
// and stay resident after Free: they count to the budget until Close.
type Arena struct {
	slab int

	mu        sync.Mutex
	free      [][]byte // last in, first out: warm pages are used again first
	chunks    []chunk
	admission Admission
	use       Usage
	owners    map[Owner]int
	out       map[*byte]bool // slabs that are out, in check builds
	closed    bool
}

// chunkBytes is how much the arena asks of the operating system at a time: a
// multiple of the huge page size.
const chunkBytes = 32 << 20

// hugeBytes is the size of a transparent huge page.
const hugeBytes = 2 << 20

// NewArena returns an arena of slabs of slabBytes each, a multiple of 64. At
// most limit slabs are out at once; 0 means no limit. admission may be nil.
func NewArena(slabBytes, limit int, admission Admission) (*Arena, error) {
	if slabBytes <= 0 || slabBytes%64 != 0 {
		return nil, fmt.Errorf("arena: a slab of %d bytes is not a positive multiple of 64", slabBytes)
	}
	if limit < 0 {
		return nil, fmt.Errorf("arena: limit of %d slabs", limit)
	}
	return &Arena{slab: slabBytes, admission: admission, use: Usage{Limit: limit}, owners: map[Owner]int{}, out: map[*byte]bool{}}, nil
}

// Alloc hands out n slabs or none. It fails with ErrFull where they are not
// free at the moment; the content of fresh slabs is undefined.
func (a *Arena) Alloc(n int, p Purpose, o Owner) (*Block, error) {
	if n < 0 {
		panic(fmt.Sprintf("BUG: arena asked for %d slabs of %v", n, p))
	}
	b := &Block{Slabs: make([][]byte, n), Purpose: p, Owner: o, arena: a}
	ok, err := a.Take(b.Slabs, p, o)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		u := a.Usage()
		return nil, fmt.Errorf("%w: %s wants %d slabs, %d of %d are in use", ErrFull, o, n, u.InUse, u.Limit)
	}
	return b, nil
}

// Take sets every entry of dst to a slab and reports true, or false where there are not
// as many at the moment, and takes none. The slabs are the caller's, who hands them back
// to Give, one by one or together, with the same purpose and owner.
func (a *Arena) Take(dst [][]byte, p Purpose, o Owner) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(dst)
	switch {
	case a.closed:
		panic("BUG: allocation from a closed arena")
	case p >= numPurposes:
		panic(fmt.Sprintf("BUG: arena asked for %d slabs of %v", n, p))
	case a.use.Limit > 0 && a.use.InUse+n > a.use.Limit:
		return false, nil
	}
	for len(a.free) < n {
		if err := a.grow(n - len(a.free)); err != nil {
			return false, err
		}
	}
	if a.admission != nil && !a.admission.Admit(o, n) {
		return false, nil
	}
	rest := len(a.free) - n
	for i := range dst {
		dst[i] = a.free[len(a.free)-1-i]
		if invariants {
			checkPoison(dst[i])
			a.out[&dst[i][0]] = true
		}
	}
	clear(a.free[rest:])
	a.free = a.free[:rest]
	a.account(p, o, n)
	return true, nil
}

// Give takes slabs back that Take handed out. Giving one back twice is a bug; check
// builds find it.
func (a *Arena) Give(slabs [][]byte, p Purpose, o Owner) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		panic("BUG: slabs freed after their arena was closed")
	}
	if len(slabs) > a.use.ByPurpose[p] || len(slabs) > a.owners[o] {
		panic(fmt.Sprintf("BUG: %d slabs of %v come back to the arena, %d are out", len(slabs), p, a.use.ByPurpose[p]))
	}
	for i := len(slabs) - 1; i >= 0; i-- {
		if invariants {
			if at := &slabs[i][0]; a.out[at] {
				delete(a.out, at)
			} else {
				panic(fmt.Sprintf("BUG: a slab of %v is freed that is not out", p))
			}
			poison(slabs[i])
		}
		a.free = append(a.free, slabs[i])
	}
	a.account(p, o, -len(slabs))
	if a.admission != nil {
		a.admission.Release(o, len(slabs))
	}
}

// Populate maps the first n slabs, within the limit, and has the operating
// system back them with memory, from several goroutines: it may take longer to
// find and clear a page than to fill it. It is for the time before the first
// Alloc.
func (a *Arena) Populate(n, threads int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.use.Limit > 0 {
		n = min(n, a.use.Limit)
	}
	for a.use.Mapped < n {
		if err := a.grow(1); err != nil {
			return err
		}
	}
	if invariants {
		return nil // poisoned, and so backed
	}
	var wg sync.WaitGroup
	rest := make(chan []byte, len(a.chunks))
	left := n * a.slab
	for _, c := range a.chunks {
		m := c.mem[:max(0, min(len(c.mem), left))]
		left -= len(m)
		rest <- m
	}
	close(rest)
	for range max(threads, 1) {
		wg.Go(func() {
			for m := range rest {
				for i := 0; i < len(m); i += PageBytes {
					m[i] = 0
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func (a *Arena) account(p Purpose, o Owner, n int) {
	a.use.InUse += n
	a.use.ByPurpose[p] += n
	a.use.Peak = max(a.use.Peak, a.use.InUse)
	a.use.PeakBy[p] = max(a.use.PeakBy[p], a.use.ByPurpose[p])
	if a.owners[o] += n; a.owners[o] == 0 {
		delete(a.owners, o)
	}
}

// grow maps enough for at least n more slabs, within the limit. Chunks are
// large, except that the last one ends exactly at the limit.
func (a *Arena) grow(n int) error {
	slabs := max(n, chunkBytes/a.slab)
	if a.use.Limit > 0 {
		slabs = min(slabs, a.use.Limit-a.use.Mapped)
	}
	if slabs < n {
		panic("BUG: arena counts do not add up")
	}
	c, err := mapChunk(slabs * a.slab)
	if err != nil {
		return fmt.Errorf("arena: cannot map %d bytes: %w", slabs*a.slab, err)
	}
	a.chunks = append(a.chunks, c)
	a.use.Mapped += slabs
	fresh := make([][]byte, 0, slabs+len(a.free))
	for i := slabs - 1; i >= 0; i-- { // lowest address on top
		s := c.mem[i*a.slab : (i+1)*a.slab : (i+1)*a.slab]
		if invariants {
			poison(s)
		}
		fresh = append(fresh, s)
	}
	a.free = append(fresh, a.free...)
	return nil
}

// Free gives the block's slabs back. Freeing twice is a bug and panics.
func (b *Block) Free() {
	if b.freed.Swap(true) {
		panic(fmt.Sprintf("BUG: block of %d slabs of %v freed twice", len(b.Slabs), b.Purpose))
	}
	b.arena.Give(b.Slabs, b.Purpose, b.Owner)
	b.Slabs = nil
}

// Usage returns the counts of this moment.
func (a *Arena) Usage() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.use
}

// HugeBytes returns how much of what is mapped lies in huge pages. It asks the
// operating system, which takes some milliseconds, and fails where that cannot tell.
func (a *Arena) HugeBytes() (int64, error) {
	a.mu.Lock()
	var ranges [][2]uintptr
	for _, c := range a.chunks {
		at := address(c.mem)
		ranges = append(ranges, [2]uintptr{at, at + uintptr(len(c.mem))})
	}
	a.mu.Unlock()
	return hugeIn(ranges)
}

// OwnedBy returns how many slabs an owner holds.
func (a *Arena) OwnedBy(o Owner) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owners[o]
}

// Close gives all memory back to the operating system. Blocks still out are a
// leak: check builds (-tags invariants) panic, others return an error that
// says how much of what was leaked, and keep that memory mapped.
func (a *Arena) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	if a.use.InUse != 0 {
		msg := fmt.Sprintf("arena closed with %d slabs in use (", a.use.InUse)
		for p := Purpose(0); p < numPurposes; p++ {
			msg += fmt.Sprintf(" %v %d", p, a.use.ByPurpose[p])
		}
		msg += " )"
		if invariants {
			panic("BUG: " + msg)
		}
		return errors.New(msg)
	}
	a.closed = true
	var errs []error
	for _, c := range a.chunks {
		errs = append(errs, c.unmap())
	}
	a.chunks, a.free = nil, nil
	return errors.Join(errs...)
}
