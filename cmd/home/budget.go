package main

import (
	"errors"

	"github.com/home-fhe/home/passes"
)

// budgetError reports whether a run was refused for lack of memory.
func budgetError(err error) bool {
	var b *passes.BudgetError
	return errors.As(err, &b)
}
