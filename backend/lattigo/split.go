package lattigo

import (
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/home-fhe/home/backend"
)

// This file spreads steps over cores. What a step does limb by limb begins on one core;
// whenever a scratch space is free, a core has nothing else to do and takes part. Who
// does what is decided as they go, a few limbs at a time, so that nobody waits long for
// anybody at the end. Results do not depend on it.

// linger is how long a core that took part stays for more of the same: waking another
// takes as long, and the sections of a step follow each other at once.
const linger = 100 * time.Microsecond

// section is the numbers up to to-1 of something, limbs for example, and what is to be
// done with them, at most per at a time.
type section struct {
	f       func(e *engine, w *scratch, from, to int)
	job     *job         // of the step
	next    atomic.Int32 // what nobody has begun with
	to, per int32
	helpers sync.WaitGroup
	mu      sync.Mutex
	failed  error
}

// helper is a scratch space that takes part in the sections of another.
type helper struct {
	of    *scratch                // whose
	stays atomic.Pointer[scratch] // set while it waits for another section of this one
	again atomic.Bool             // there is one
}

// split runs f over numbers from..to-1, a group of limbs at most at a time, on this core
// and on those that have nothing else to do. They work in scratch spaces of their own,
// which share the job of w.
func (e *engine) split(w *scratch, from, to int, f func(e *engine, w *scratch, from, to int)) {
	e.splitBy(w, e.group, from, to, f)
}

// splitBy is split with so many numbers at most at a time.
func (e *engine) splitBy(w *scratch, per, from, to int, f func(e *engine, w *scratch, from, to int)) {
	if to-from < 2 || cap(e.scratch) == 1 {
		f(e, w, from, to)
		return
	}
	s := &w.section
	s.f, s.job, s.to, s.per = f, w.job, int32(to), int32(per)
	s.next.Store(int32(from))
	e.work(w, w)
	s.helpers.Wait()
	if err := s.failed; err != nil {
		s.failed = nil
		panic(err)
	}
}

// work does numbers of a section of w in scratch space me, until all are begun with.
func (e *engine) work(w, me *scratch) {
	s := &w.section
	err := backend.Guard(func() error {
		for {
			from := s.next.Load()
			rest := s.to - from
			if rest <= 0 {
				return nil
			}
			n := min(s.per, (rest+1)/2)
			if !s.next.CompareAndSwap(from, from+n) {
				continue
			}
			if n < rest {
				e.enlist(w)
			}
			s.f(e, me, int(from), int(from+n))
		}
	})
	if err != nil {
		s.next.Store(s.to)
		s.mu.Lock()
		s.failed = errors.Join(s.failed, err)
		s.mu.Unlock()
	}
}

// enlist has a core that has nothing else to do take part in the section of w.
func (e *engine) enlist(w *scratch) {
	if h := w.last.Load(); h != nil && h.stays.CompareAndSwap(w, nil) {
		w.section.helpers.Add(1)
		h.again.Store(true)
		return
	}
	select {
	case h := <-e.scratch:
		h = e.ready(h)
		h.of = w
		w.last.Store(h)
		w.section.helpers.Add(1)
		go h.run()
	default:
	}
}

// help takes part in sections of h.of until there are no more.
func (e *engine) help(h *scratch) {
	debug.SetPanicOnFault(true) // operands may lie in a medium that fails under a load
	w := h.of
	for {
		h.job = w.section.job
		e.work(w, h)
		h.stays.Store(w)
		w.section.helpers.Done()
		if !e.stay(h, w) {
			break
		}
	}
	e.give(h)
}

// stay waits a little for another section of w, and reports whether there is one.
func (e *engine) stay(h, w *scratch) bool {
	for began := time.Now(); ; {
		for range 256 {
			if h.again.Load() {
				h.again.Store(false)
				return true
			}
		}
		if (time.Since(began) > linger || e.wanted.Load() > 0) && h.stays.CompareAndSwap(w, nil) {
			return false
		}
	}
}
