//go:build !amd64

package kernels

func ifmaDotMap(z0 *uint64, z1 *uint64, a *uint64, f uint64, x *[]uint64, y0 *[]uint64, y1 *[]uint64, terms int, n int, to *uint32, lanes *[8][8]uint64, q uint64, neginv uint64) {
	panic(noVector)
}
func dqDotMap(z0 *uint64, z1 *uint64, a *uint64, f uint64, x *[]uint64, y0 *[]uint64, y1 *[]uint64, terms int, n int, to *uint32, lanes *[8][8]uint64, shift uint64, q uint64, inv uint64) {
	panic(noVector)
}
func ifmaDotMapFar(z0 *uint64, z1 *uint64, a *uint64, f uint64, x *[]uint64, y0 *[]uint64, y1 *[]uint64, terms int, n int, to *uint32, lanes *[8][8]uint64, q uint64, neginv uint64) {
	panic(noVector)
}
func dqDotMapFar(z0 *uint64, z1 *uint64, a *uint64, f uint64, x *[]uint64, y0 *[]uint64, y1 *[]uint64, terms int, n int, to *uint32, lanes *[8][8]uint64, shift uint64, q uint64, inv uint64) {
	panic(noVector)
}
