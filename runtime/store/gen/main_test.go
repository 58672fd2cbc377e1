package main

import (
	"testing"

	"github.com/home-fhe/home/internal/asm"
)

// TestGenerated holds the files of the tree against what the generator writes.
func TestGenerated(t *testing.T) {
	if err := asm.Verify("..", files); err != nil {
		t.Error(err)
	}
}
