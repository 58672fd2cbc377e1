package store

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepUntil waits for a moment. The runtime's timers are a millisecond late where a
// program has nothing else to do; this is late by some 0.1 ms.
func sleepUntil(due time.Time) {
	for {
		left := time.Until(due)
		if left <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(left))
		_ = unix.Nanosleep(&ts, nil) // cut short by a signal: again
	}
}
