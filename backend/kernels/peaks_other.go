//go:build !amd64

package kernels

func peakMadd52(turns int, x uint64)  { panic(noVector) }
func peakMulLow(turns int, x uint64)  { panic(noVector) }
func peakMulHalf(turns int, x uint64) { panic(noVector) }
func peakFMA(turns int, x uint64)     { panic(noVector) }
func peakRead(x *uint64, n int)       { panic(noVector) }
func peakCopy(z, x *uint64, n int)    { panic(noVector) }
