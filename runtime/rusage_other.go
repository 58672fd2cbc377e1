//go:build !(linux || darwin || freebsd)

package runtime

// CPUSeconds is unknown on this system.
func CPUSeconds() float64 { return 0 }

// PeakRSS is unknown on this system.
func PeakRSS() int64 { return 0 }
