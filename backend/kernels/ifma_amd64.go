package kernels

// The kernels of ifma_amd64.s.

//go:noescape
func nttPass4(dst, src *uint64, blocks, t int, w, ws *uint64, q uint64)

//go:noescape
func nttPass2(dst, src *uint64, blocks, t int, w, ws *uint64, q uint64)

//go:noescape
func nttLast(dst, src *uint64, blocks int, w *uint64, q, inv uint64)

//go:noescape
func inttFirst(dst, src *uint64, blocks int, w *uint64, q, inv uint64)

//go:noescape
func inttPass4(p *uint64, blocks, t int, w, ws *uint64, q uint64)

//go:noescape
func inttPass2(p *uint64, blocks, t int, w, ws *uint64, q uint64)

//go:noescape
func foldVec(dst, src *uint64, n int, f, fs, q uint64)

//go:noescape
func mulConstVec(z, x *uint64, n int, c, cs, q uint64)

//go:noescape
func macConstVec(z, a, x *uint64, n int, c, cs, q uint64)

//go:noescape
func subMulVec(z, x, t *uint64, n int, c, cs, q uint64)

//go:noescape
func addVec(z, x, y *uint64, n int, q uint64)

//go:noescape
func subVec(z, x, y *uint64, n int, q uint64)

//go:noescape
func mulVec(z, x, y *uint64, n int, q, neginv uint64)

//go:noescape
func macVec(z, a, x, y *uint64, n int, q, neginv uint64)

//go:noescape
func tensorVec(d0, d1, d2, a0, a1, b0, b1 *uint64, n int, q, neginv, r2 uint64)

//go:noescape
func dotVec(z0, z1 *uint64, x, y0, y1 *[]uint64, terms, n int, q, neginv uint64)

//go:noescape
func convert1Vec(z, x *uint64, n int, half, add, c, cs, q uint64)

//go:noescape
func convertVec(z *uint64, x *[]uint64, w *uint64, terms int, v *uint8, neg uint64, n int, q, neginv uint64)

//go:noescape
func prepareVec(x *uint64, sum *float64, n int, c, cs, q uint64, frac float64)

//go:noescape
func permuteVec(z, x *uint64, from *uint32, lanes *[8][8]uint64, groups int)

//go:noescape
func convert4Vec(z *[4]*uint64, x *[]uint64, w *[32]uint64, terms int, v *uint8, c *[12]uint64, n int)
