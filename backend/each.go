package backend

import (
	"errors"
	"runtime"
	"sync"
)

// Each runs f for 0..n-1 on all processors, begun in that order, under Guard, and
// returns the errors in order.
func Each(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for i := range next {
				errs[i] = Guard(func() error { return f(i) })
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}
