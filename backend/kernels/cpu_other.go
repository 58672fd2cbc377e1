//go:build !amd64

package kernels

func hasIFMA() bool { return false }

func hasVAES() bool { return false }

const noVector = "BUG: vector kernel called without a vector unit"

func expandKey(keys *[240]byte, seed *[32]byte) { panic(noVector) }

func uniformBelow(z *uint64, keys *[240]byte, iv uint64, ctr uint64, groups int, q uint64, mask uint64) int {
	panic(noVector)
}
