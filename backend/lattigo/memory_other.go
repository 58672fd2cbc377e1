//go:build !linux

package lattigo

// adviseHuge has nothing to ask for here.
func adviseHuge([]uint64) {}
