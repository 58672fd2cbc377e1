//go:build !amd64

package kernels

func hasDQ() bool { return false }

func hasIFMA() bool { return false }

func hasVAES() bool { return false }

const noVector = "BUG: vector kernel called without a vector unit"

func expandKey(keys *[240]byte, seed *[32]byte) { panic(noVector) }

func uniformBelow(z *uint64, keys *[240]byte, iv uint64, ctr uint64, groups int, q uint64, mask uint64) int {
	panic(noVector)
}

func dqForward4(z *uint64, x *uint64, blocks int, t int, w *uint64, s *uint64, q uint64) {
	panic(noVector)
}
func dqForward2(z *uint64, x *uint64, blocks int, t int, w *uint64, s *uint64, q uint64) {
	panic(noVector)
}
func dqForwardLast(z *uint64, x *uint64, blocks int, w *uint64, q uint64)  { panic(noVector) }
func dqInverseFirst(z *uint64, x *uint64, blocks int, w *uint64, q uint64) { panic(noVector) }
func dqInverse4(z *uint64, x *uint64, blocks int, t int, w *uint64, s *uint64, q uint64) {
	panic(noVector)
}
func dqInverse2(z *uint64, x *uint64, blocks int, t int, w *uint64, s *uint64, q uint64) {
	panic(noVector)
}
func dqFold(z *uint64, x *uint64, n int, f uint64, s uint64, q uint64)      { panic(noVector) }
func dqMulConst(z *uint64, x *uint64, n int, c uint64, cs uint64, q uint64) { panic(noVector) }
func dqMacConst(z *uint64, a *uint64, x *uint64, n int, c uint64, cs uint64, q uint64) {
	panic(noVector)
}
func dqSubMul(z *uint64, x *uint64, y *uint64, n int, c uint64, cs uint64, q uint64) { panic(noVector) }
func dqCentre(z *uint64, x *uint64, n int, half uint64, add uint64, c uint64, cs uint64, q uint64) {
	panic(noVector)
}
func dqMul(z *uint64, x *uint64, y *uint64, n int, shift uint64, q uint64, inv uint64) {
	panic(noVector)
}
func dqMac(z *uint64, a *uint64, x *uint64, y *uint64, n int, shift uint64, q uint64, inv uint64) {
	panic(noVector)
}
func dqTensor(z0 *uint64, z1 *uint64, z2 *uint64, a0 *uint64, a1 *uint64, b0 *uint64, b1 *uint64, n int, c uint64, cs uint64, q uint64, inv uint64) {
	panic(noVector)
}
func dqDot(z0 *uint64, z1 *uint64, x *[]uint64, y0 *[]uint64, y1 *[]uint64, terms int, n int, shift uint64, q uint64, inv uint64) {
	panic(noVector)
}
func dqConvert(z *uint64, x *[]uint64, w *uint64, terms int, v *uint8, neg uint64, n int, q uint64, inv uint64) {
	panic(noVector)
}
func dqPrepare(x *uint64, sum *float64, n int, c uint64, cs uint64, q uint64, frac float64) {
	panic(noVector)
}
func nttPass4(dst, src *uint64, blocks, t int, w, ws *uint64, q uint64)         { panic(noVector) }
func nttPass2(dst, src *uint64, blocks, t int, w, ws *uint64, q uint64)         { panic(noVector) }
func nttLast(dst, src *uint64, blocks int, w *uint64, q, inv uint64)            { panic(noVector) }
func inttFirst(dst, src *uint64, blocks int, w *uint64, q, inv uint64)          { panic(noVector) }
func inttPass4(p *uint64, blocks, t int, w, ws *uint64, q uint64)               { panic(noVector) }
func inttPass2(p *uint64, blocks, t int, w, ws *uint64, q uint64)               { panic(noVector) }
func foldVec(dst, src *uint64, n int, f, fs, q uint64)                          { panic(noVector) }
func mulConstVec(z, x *uint64, n int, c, cs, q uint64)                          { panic(noVector) }
func macConstVec(z, a, x *uint64, n int, c, cs, q uint64)                       { panic(noVector) }
func subMulVec(z, x, t *uint64, n int, c, cs, q uint64)                         { panic(noVector) }
func addVec(z, x, y *uint64, n int, q uint64)                                   { panic(noVector) }
func subVec(z, x, y *uint64, n int, q uint64)                                   { panic(noVector) }
func mulVec(z, x, y *uint64, n int, q, neginv uint64)                           { panic(noVector) }
func macVec(z, a, x, y *uint64, n int, q, neginv uint64)                        { panic(noVector) }
func tensorVec(d0, d1, d2, a0, a1, b0, b1 *uint64, n int, q, neginv, r2 uint64) { panic(noVector) }
func dotVec(z0, z1 *uint64, x, y0, y1 *[]uint64, terms, n int, q, neginv uint64) {
	panic(noVector)
}
func convert1Vec(z, x *uint64, n int, half, add, c, cs, q uint64) { panic(noVector) }
func convertVec(z *uint64, x *[]uint64, w *uint64, terms int, v *uint8, neg uint64, n int, q, neginv uint64) {
	panic(noVector)
}
func prepareVec(x *uint64, sum *float64, n int, c, cs, q uint64, frac float64) { panic(noVector) }
func permuteVec(z, x *uint64, from *uint32, lanes *[8][8]uint64, groups int)   { panic(noVector) }

func convert4Vec(z *[4]*uint64, x *[]uint64, w *[32]uint64, terms int, v *uint8, c *[12]uint64, n int) {
	panic(noVector)
}
