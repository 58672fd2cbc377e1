package runtime

import "runtime/debug"

// LimitHeap asks the collector to keep the Go heap within the reserve of a
// budget (plan.Tier.Reserve). A quarter of the reserve is left to what the
// collector does not count: the program's own pages and what the kernel maps
// for it. The arena lies outside the Go heap and is bounded by itself. The
// limit is that of the process, so the command calls this, once.
func LimitHeap(reserve int64) { debug.SetMemoryLimit(max(reserve*3/4, 32<<20)) }
