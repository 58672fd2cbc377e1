//go:build !linux

package main

// threadTime is unknown on this system.
func threadTime() float64 { return 0 }
