package plan

import (
	"os"
	"sync"
	"time"
)

// Temporary files that an interrupt must remove. The set is a property of the
// operating-system process, like the signal that empties it.
var temps struct {
	sync.Mutex
	m map[string]bool
}

// CreateTemp is os.CreateTemp for a file that RemoveTemps removes: no interrupt
// can fall between creation and registration. release takes it back.
func CreateTemp(dir, pattern string) (f *os.File, release func(), err error) {
	temps.Lock()
	defer temps.Unlock()
	if f, err = os.CreateTemp(dir, pattern); err != nil {
		return nil, nil, err
	}
	return f, register(f.Name()), nil
}

// MkdirTemp is os.MkdirTemp with the promise of CreateTemp.
func MkdirTemp(dir, pattern string) (path string, release func(), err error) {
	temps.Lock()
	defer temps.Unlock()
	if path, err = os.MkdirTemp(dir, pattern); err != nil {
		return "", nil, err
	}
	return path, register(path), nil
}

// publish puts a finished file in place. After RemoveTemps it waits for the end of
// the process instead: nothing appears that an interrupt has removed.
func publish(put func() error) error {
	temps.Lock()
	defer temps.Unlock()
	return put()
}

// register adds a file or folder to those that RemoveTemps removes, and returns
// the function that takes it back. It is called with the lock held.
func register(path string) (release func()) {
	if temps.m == nil {
		temps.m = map[string]bool{}
	}
	temps.m[path] = true
	return func() {
		temps.Lock()
		defer temps.Unlock()
		delete(temps.m, path)
	}
}

// RemoveTemps removes every registered temporary file or folder and lets no other
// be created, nor a finished one be put in place: whoever tries waits for the end of the process. The command calls it
// when it is interrupted, before it exits with 130.
func RemoveTemps() {
	temps.Lock() // for good
	for p := range temps.m {
		// Others may still be writing into a folder while it is emptied.
		for range 20 {
			if os.RemoveAll(p) == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}
