//go:build linux || darwin || freebsd

package runtime

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CPUSeconds returns the processor time, user and system, that the process has
// used.
func CPUSeconds() float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	s := func(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }
	return s(u.Utime) + s(u.Stime)
}

// PeakRSS returns the largest resident set of the process so far in bytes:
// VmHWM where there is one, else the maximum of getrusage.
func PeakRSS() int64 {
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range bytes.Lines(b) {
			if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
				if f := bytes.Fields(rest); len(f) > 0 {
					if kib, err := strconv.ParseInt(string(f[0]), 10, 64); err == nil {
						return kib << 10
					}
				}
			}
		}
	}
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return int64(u.Maxrss) * maxrssUnit
}
