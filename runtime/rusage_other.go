//go:build !(linux || darwin || freebsd)

package runtime

// cpuSeconds is unknown on this system.
func cpuSeconds() float64 { return 0 }

// peakRSS is unknown on this system.
func peakRSS() int64 { return 0 }
