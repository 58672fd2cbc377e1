//go:build !unix

package frontend

// openNonblock is zero where opening a file never waits.
const openNonblock = 0
