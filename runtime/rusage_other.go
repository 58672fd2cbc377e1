//go:build !(linux || darwin || freebsd)

package runtime

// cpuSeconds is unknown on this system.
func cpuSeconds() float64 { return 0 }

// PeakRSS is unknown on this system.
func PeakRSS() int64 { return 0 }
