//go:build !linux

package store

import "time"

// sleepUntil waits for a moment.
func sleepUntil(due time.Time) { time.Sleep(time.Until(due)) }
