//go:build !linux

package main

import "errors"

// memoryGroup bounds the memory of processes; only Linux has control groups.
type memoryGroup struct{}

type groupUsage struct {
	Peak  int64 `json:"peak_bytes"`
	Hits  int64 `json:"limit_hits"`
	Kills int64 `json:"kills"`
}

func newMemoryGroup(int64, bool) (*memoryGroup, error) {
	return nil, errors.New("a memory limit needs the control groups of Linux")
}

func (g *memoryGroup) wrap(args []string) []string { return args }
func (g *memoryGroup) usage() (groupUsage, error)  { return groupUsage{}, nil }
func (g *memoryGroup) remove() error               { return nil }
func swapBytes() int64                             { return 0 }
