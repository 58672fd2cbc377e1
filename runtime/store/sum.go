package store

import "hash/crc32"

//go:generate go run ./gen

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the CRC-32C of b (RFC 3720, appendix B.4).
func checksum(b []byte) uint32 {
	n := 0
	sum := uint32(0)
	if canFold {
		sum, n = foldChecksum(b)
	}
	return crc32.Update(sum, castagnoli, b[n:])
}

var zeros [PageBytes]byte

// padded continues a checksum over n zeros.
func padded(sum uint32, n int) uint32 {
	for ; n > 0; n -= len(zeros) {
		sum = crc32.Update(sum, castagnoli, zeros[:min(n, len(zeros))])
	}
	return sum
}
