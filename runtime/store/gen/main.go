// Command gen writes the assembly of package store, and the Go declarations beside
// it:
//
//	go run ./gen [folder]
package main

import (
	"fmt"
	"math/bits"

	"github.com/home-fhe/home/internal/asm"
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// castagnoli is the polynomial of CRC-32C, without x^32, the highest power first.
const castagnoli = 0x1edc6f41

// power returns x^n modulo the polynomial as multiplication of reflected operands
// wants it: bits reversed, shifted by the one place that the product falls short.
func power(n int) uint64 {
	r := uint32(1)
	for range n {
		top := r >> 31
		r = r<<1 ^ top*castagnoli
	}
	return uint64(bits.Reverse32(r)) << 1
}

// lanes is a register full of what moves 128 bits of a message on by a number of bits:
// the factor of the first half, then that of the second (V. Gopal et al., Fast CRC
// Computation for Generic Polynomials Using PCLMULQDQ Instruction, Intel, 2009).
func lanes(distance int) []uint64 {
	var words []uint64
	for range 4 {
		words = append(words, power(distance+32), power(distance-32))
	}
	return words
}

const (
	register = 64            // bytes
	group    = 4 * register  // bytes of a step of the loop
	ahead    = 16 * register // how far it prefetches
)

// fold generates the loop over groups.
func fold(c *build.Context) {
	far, near, next := asm.Table(c, "foldByGroup", lanes(8*group)), asm.Table(c, "foldByRegister", lanes(8*register)), asm.Table(c, "foldByLane", lanes(128))

	c.Function("foldCRC")
	c.Attributes(attr.NOSPLIT)
	c.Pragma("noescape")
	c.SignatureExpr("func(p *byte, groups int, state uint32) uint32")
	c.Doc(fmt.Sprintf("foldCRC takes a CRC-32C, not inverted, on by groups times %d bytes, groups > 0.", group))
	p, groups := c.Load(c.Param("p"), c.GP64()), c.Load(c.Param("groups"), c.GP64())
	state, k := c.GP32(), c.ZMM()
	c.Load(c.Param("state"), state)
	var x [4]reg.VecVirtual
	for i := range x {
		x[i] = c.ZMM()
		c.VMOVDQU64(Mem{Base: p, Disp: register * i}, x[i])
	}
	first := c.XMM()
	c.VMOVD(state, first) // clears what is above
	c.VPXORQ(first.AsZ(), x[0], x[0])
	c.VMOVDQU64(far, k)
	// on moves x by the distance of factor and adds what y points to.
	on := func(x, factor, y Op, z reg.VecVirtual, high, low reg.VecVirtual) {
		c.VPCLMULQDQ(U8(0x00), factor, x, low)
		c.VPCLMULQDQ(U8(0x11), factor, x, high)
		c.VMOVDQU64(y, z)
		c.VPTERNLOGQ(U8(0x96), high, low, z)
	}
	c.JMP(LabelRef("test"))
	c.Label("group")
	c.ADDQ(U32(group), p)
	for i := range x {
		high, low := c.ZMM(), c.ZMM()
		c.PREFETCHT0(Mem{Base: p, Disp: ahead + register*i})
		on(x[i], k, Mem{Base: p, Disp: register * i}, x[i], high, low)
	}
	c.Label("test")
	c.DECQ(groups)
	c.JNZ(LabelRef("group"))

	high, low := c.ZMM(), c.ZMM()
	c.VMOVDQU64(near, k)
	for i := 1; i < len(x); i++ {
		c.VPCLMULQDQ(U8(0x00), k, x[i-1], low)
		c.VPCLMULQDQ(U8(0x11), k, x[i-1], high)
		c.VPTERNLOGQ(U8(0x96), high, low, x[i])
	}
	c.VMOVDQU64(next, k)
	sum, lane := c.XMM(), c.XMM()
	c.VEXTRACTI32X4(U8(0), x[3], sum)
	for i := 1; i < 4; i++ {
		c.VPCLMULQDQ(U8(0x00), k.AsX(), sum, low.AsX())
		c.VPCLMULQDQ(U8(0x11), k.AsX(), sum, high.AsX())
		c.VEXTRACTI32X4(U8(i), x[3], lane)
		c.VPXOR(low.AsX(), high.AsX(), sum)
		c.VPXOR(lane, sum, sum)
	}
	// 128 bits are left that have the remainder of all.
	crc, word := c.GP64(), c.GP64()
	c.XORQ(crc, crc)
	c.VMOVQ(sum, word)
	c.CRC32Q(word, crc)
	c.VPEXTRQ(U8(1), sum, word)
	c.CRC32Q(word, crc)
	c.Store(crc.As32(), c.ReturnIndex(0))
	c.VZEROUPPER()
	c.RET()
}

// files returns all generated files.
func files() (asm.Files, error) {
	c := build.NewContext()
	fold(c)
	out := asm.Files{}
	_, err := out.Add("store", "fold", c)
	return out, err
}

func main() { asm.Main(files) }
