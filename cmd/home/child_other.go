//go:build !linux

package main

import "os/exec"

// endWithParent does nothing where the system has no such wish: an interrupt still
// ends the child.
func endWithParent(*exec.Cmd) {}

// uncache does nothing: only Linux has the memory groups that make it necessary.
func uncache(string) error { return nil }
