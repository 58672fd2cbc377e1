package backend

import "fmt"

// Guard runs f and turns a panic into an error. Goroutines that work for a
// caller run their work under it: a panic there would end the process without
// removing temporary files, and with an exit code that means something else.
func Guard(f func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }: // with debug.SetPanicOnFault: a medium that is read in place
			err = fmt.Errorf("memory at %#x cannot be read: the medium fails, or its file was cut", r.Addr())
		default:
			err = fmt.Errorf("BUG: %v", r)
		}
	}()
	return f()
}
