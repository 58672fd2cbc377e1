//go:build invariants

package store

import "fmt"

// invariants is true in check builds: freed memory is poisoned, and writes to
// it and leaks are found.
const invariants = true

const poisonByte = 0xdb

func poison(s []byte) {
	for i := range s {
		s[i] = poisonByte
	}
}

func checkPoison(s []byte) {
	for i, b := range s {
		if b != poisonByte {
			panic(fmt.Sprintf("BUG: freed memory was written at byte %d of a slab", i))
		}
	}
}
