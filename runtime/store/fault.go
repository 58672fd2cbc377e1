package store

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// touching runs f, which loads from or stores to mapped memory, and turns an access
// that the memory or the file behind it cannot serve into an error.
func touching(f func()) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		switch r := recover().(type) {
		case nil:
		case interface {
			runtime.Error
			Addr() uintptr
		}:
			err = fmt.Errorf("%w: the mapped memory cannot be read or written: a bad cell, an I/O error, or a file that was cut meanwhile", ErrDamaged)
		default:
			panic(r)
		}
	}()
	f()
	return nil
}
