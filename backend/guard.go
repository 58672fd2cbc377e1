package backend

import "fmt"

// Guard runs f and turns a panic into an error. Goroutines that work for a
// caller run their work under it: a panic there would end the process without
// removing temporary files, and with an exit code that means something else.
func Guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("BUG: %v", r)
		}
	}()
	return f()
}
