//go:build !linux

package store

import "errors"

// adviseHuge has nothing to ask for here: these systems promote on their own.
func adviseHuge([]byte) {}

// mapReserved: there is nothing set aside.
func mapReserved(int) []byte { return nil }

func hugeIn([][2]uintptr) (int64, error) {
	return 0, errors.New("this system does not say which pages are huge")
}
