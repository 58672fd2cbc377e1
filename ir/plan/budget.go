package plan

import "fmt"

// BudgetError says that something cannot be done within a budget of DRAM. The
// command turns it into exit code 4.
type BudgetError struct {
	Budget int64 // bytes that were given
	Least  int64 // bytes that would do
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("a budget of %s of DRAM is too small: the least that works is %s (--dram %d)", byteSize(e.Budget), byteSize(e.Least), e.Least)
}

func byteSize(b int64) string {
	switch {
	case b >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(b)/(1<<30))
	case b >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", b)
}
