//go:build !linux

package store

import "errors"

// Mmap is a baseline for measurements on Linux.
type Mmap struct{}

var errNoMmap = errors.New("the mmap baseline needs Linux")

// Name is "mmap".
func (Mmap) Name() string { return "mmap" }

// Open fails.
func (Mmap) Open(string, bool) (Medium, error) { return nil, errNoMmap }

// Temp fails.
func (Mmap) Temp(string) (Medium, error) { return nil, errNoMmap }
