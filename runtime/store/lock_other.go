//go:build !(linux || darwin || freebsd)

package store

import "os"

// lockFile has no portable form: on these systems the user keeps two installs
// from one directory.
func lockFile(*os.File, bool) error { return nil }
