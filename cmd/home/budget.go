package main

import (
	"errors"
	"runtime/debug"

	"github.com/home-fhe/home/passes"
)

// boundHeap asks the collector to stay below a budget from the start: reading a
// large plan takes more memory, for a moment, than holding it.
func boundHeap(dram byteSize) {
	if dram > 0 {
		debug.SetMemoryLimit(int64(dram) * 3 / 4)
	}
}

// budgetError reports whether a run was refused for lack of memory.
func budgetError(err error) bool {
	var b *passes.BudgetError
	return errors.As(err, &b)
}
