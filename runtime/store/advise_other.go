//go:build darwin || freebsd

package store

// adviseHuge has nothing to ask for here: these systems promote on their own.
func adviseHuge([]byte) {}
