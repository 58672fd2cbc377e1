//go:build !linux

package store

import "os"

// directFile is absent: this system has no O_DIRECT.
type directFile struct{}

func openDirect(string, bool) (directFile, bool)                 { return directFile{}, false }
func (directFile) close()                                        {}
func (directFile) read([][]byte, int64) (refused bool, _ error)  { return true, nil }
func (directFile) write([][]byte, int64) (refused bool, _ error) { return true, nil }

// dropCache has no portable form.
func dropCache(*os.File, int64, int64) {}

// reserve extends the file; whether the device has the room shows while
// writing.
func reserve(f *os.File, size int64) error {
	return extend(f, size)
}

// ignoreDirSync: some of these systems cannot sync directories at all.
func ignoreDirSync(error) bool { return true }
