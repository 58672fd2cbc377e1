//go:build !amd64

package store

// canFlush: this build has no instructions that write cache lines back, so that
// mappings are synced by the operating system.
const canFlush = false

func persist([]byte) { panic("BUG: no way to flush cache lines in this build") }
