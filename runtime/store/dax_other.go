//go:build !linux

package store

import "errors"

// DAX needs MAP_SYNC, which this system does not have.
type DAX struct{}

var errNoDAX = errors.New("this system has no MAP_SYNC mappings")

// Name is "dax".
func (DAX) Name() string { return "dax" }

// Open fails.
func (DAX) Open(string, bool) (Medium, error) { return nil, errNoDAX }

// Temp fails.
func (DAX) Temp(string) (Medium, error) { return nil, errNoDAX }

func supportsDAX(string) bool { return false }
