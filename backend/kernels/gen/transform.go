package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
)

// passes generates the layers between blocks: two at a time, and one.
func (k *kernel) passes() {
	const signature = "func(z, x *uint64, blocks, t int, w, s *uint64, q uint64)"
	k.begin("Forward4", signature, "runs two forward layers, x to z: blocks of 4t residues; factors", "blocks+i, then 2*blocks+2i and the one after.")
	f := k.form()
	k.pass(f, 4, func(x []vec, c []*factor) {
		forward(f, &x[0], &x[2], c[0])
		forward(f, &x[1], &x[3], c[0])
		forward(f, &x[0], &x[1], c[1])
		forward(f, &x[2], &x[3], c[2])
	})
	k.begin("Forward2", signature, "runs one forward layer: blocks of 2t residues; factors blocks+i.")
	f = k.form()
	k.pass(f, 2, func(x []vec, c []*factor) { forward(f, &x[0], &x[1], c[0]) })
	k.begin("Inverse4", signature, fmt.Sprintf("runs two inverse layers: those of %sForward4, backwards.", k.prefix))
	f = k.form()
	k.pass(f, 4, func(x []vec, c []*factor) {
		inverse(f, &x[0], &x[1], c[1])
		inverse(f, &x[2], &x[3], c[2])
		inverse(f, &x[0], &x[2], c[0])
		inverse(f, &x[1], &x[3], c[0])
	})
	k.begin("Inverse2", signature, fmt.Sprintf("runs one inverse layer: that of %sForward2.", k.prefix))
	f = k.form()
	k.pass(f, 2, func(x []vec, c []*factor) { inverse(f, &x[0], &x[1], c[0]) })
}

// pass generates the loops over blocks of radix*t residues; body computes with one
// register of each of the radix rows and the factors of the block: that of the outer
// layer, and two of the inner one for radix 4.
func (k *kernel) pass(f form, radix int, body func(x []vec, c []*factor)) {
	z, x, blocks, t := k.arg("z"), k.arg("x"), k.arg("blocks"), k.arg("t")
	w, s := k.arg("w"), k.arg("s")
	k.SHLQ(U8(3), t)
	k.LEAQ(Mem{Base: w, Index: blocks, Scale: 8}, w)
	k.LEAQ(Mem{Base: s, Index: blocks, Scale: 8}, s)
	w2, s2, x2, z2 := k.GP64(), k.GP64(), k.GP64(), k.GP64()
	if radix == 4 {
		k.LEAQ(Mem{Base: w, Index: blocks, Scale: 8}, w2)
		k.LEAQ(Mem{Base: s, Index: blocks, Scale: 8}, s2)
	}
	left := k.GP64()
	k.Label("block")
	c := []*factor{k.at(f, w, s, 0)}
	k.ADDQ(U8(8), w)
	k.ADDQ(U8(8), s)
	if radix == 4 {
		c = append(c, k.at(f, w2, s2, 0), k.at(f, w2, s2, 1))
		k.ADDQ(U8(16), w2)
		k.ADDQ(U8(16), s2)
		k.LEAQ(Mem{Base: x, Index: t, Scale: 2}, x2)
		k.LEAQ(Mem{Base: z, Index: t, Scale: 2}, z2)
	}
	k.MOVQ(t, left)
	k.Label("inner")
	rows := []vec{k.load(Mem{Base: x}), k.load(Mem{Base: x, Index: t, Scale: 1})}
	if radix == 4 {
		rows = append(rows, k.load(Mem{Base: x2}), k.load(Mem{Base: x2, Index: t, Scale: 1}))
	}
	body(rows, c)
	k.store(rows[0], Mem{Base: z})
	k.store(rows[1], Mem{Base: z, Index: t, Scale: 1})
	k.ADDQ(U8(64), x)
	k.ADDQ(U8(64), z)
	if radix == 4 {
		k.store(rows[2], Mem{Base: z2})
		k.store(rows[3], Mem{Base: z2, Index: t, Scale: 1})
		k.ADDQ(U8(64), x2)
		k.ADDQ(U8(64), z2)
	}
	k.SUBQ(U8(64), left)
	k.JNZ(LabelRef("inner"))
	if radix == 4 {
		k.LEAQ(Mem{Base: x2, Index: t, Scale: 1}, x)
		k.LEAQ(Mem{Base: z2, Index: t, Scale: 1}, z)
	} else {
		k.ADDQ(t, x)
		k.ADDQ(t, z)
	}
	k.DECQ(blocks)
	k.JNZ(LabelRef("block"))
	k.end()
}

// blocks generates the six layers within blocks of 64 residues.
func (k *kernel) blocks() {
	const signature = "func(z, x *uint64, blocks int, w *uint64, q, inv uint64)"
	k.begin("ForwardLast", signature, "runs the last six forward layers on blocks of 64 residues and reduces", "fully.")
	f := k.montgomery(false)
	k.block(f, func(x *[8]vec, all, lane func(i int) *factor) {
		layers(x, all, func(x, y *vec, c *factor) { forward(f, x, y, c) }, false)
		k.transpose(x)
		layers(x, lane, f.forwardLane, false)
		for i := range x {
			x[i] = f.modulus().below(x[i], append([]vec{f.lift()}, f.over()...)...)
		}
		k.transpose(x)
	})
	k.begin("InverseFirst", signature, "runs the first six inverse layers on blocks of 64 residues below q.")
	f = k.montgomery(false)
	k.block(f, func(x *[8]vec, all, lane func(i int) *factor) {
		k.transpose(x)
		layers(x, lane, f.inverseLane, true)
		k.transpose(x)
		layers(x, all, func(x, y *vec, c *factor) { inverse(f, x, y, c) }, true)
	})
}

// block generates the loop over blocks of 64 residues and their factors. body gets a
// function for either kind.
func (k *kernel) block(f form, body func(x *[8]vec, all, lane func(i int) *factor)) {
	z, x, blocks, w := k.arg("z"), k.arg("x"), k.arg("blocks"), k.arg("w")
	k.Label("block")
	var rows [8]vec
	for i := range rows {
		rows[i] = k.load(Mem{Base: x, Disp: 64 * i})
	}
	body(&rows,
		func(i int) *factor {
			return f.factor(k.spread(Mem{Base: w, Disp: 8 * i}), k.spread(Mem{Base: w, Disp: 8 * (8 + i)}))
		},
		func(i int) *factor { return f.lane(w, i) })
	for i := range rows {
		k.store(rows[i], Mem{Base: z, Disp: 64 * i})
	}
	k.ADDQ(U32(512), x)
	k.ADDQ(U32(512), z)
	k.ADDQ(U32(uint32(f.blockBytes())), w)
	k.DECQ(blocks)
	k.JNZ(LabelRef("block"))
	k.end()
}

// layers runs three layers on eight registers: factor 0 at distance 4, 1 and 2 at
// distance 2, 3 to 6 at distance 1.
func layers(x *[8]vec, at func(i int) *factor, butterfly func(x, y *vec, c *factor), inverse bool) {
	for k := range 3 {
		d := 4 >> k
		if inverse {
			d = 1 << k
		}
		for i := range 4 / d {
			c := at(4/d - 1 + i)
			for j := range d {
				butterfly(&x[2*d*i+j], &x[2*d*i+j+d], c)
			}
		}
	}
}

// fold generates the step between the conjugate-invariant ring and the transform.
func (k *kernel) fold() {
	order := k.table(k.prefix+"Reversed", []uint64{7, 6, 5, 4, 3, 2, 1, 0})
	k.begin("Fold", "func(z, x *uint64, n int, f, s, q uint64)",
		"sets z[j] = x[j] - f*x[n-j], and the same for n-j, for j = 8..n/2-1: the step",
		"of the conjugate-invariant ring. Residues below 4q, lazy results.")
	f := k.form()
	z, x, n := k.arg("z"), k.arg("x"), k.arg("n")
	c := f.factor(k.broadcast("f"), k.broadcast("s"))
	flip := k.load(order)
	x2, z2 := k.GP64(), k.GP64()
	k.LEAQ(Mem{Base: x, Index: n, Scale: 8, Disp: -120}, x2)
	k.LEAQ(Mem{Base: z, Index: n, Scale: 8, Disp: -120}, z2)
	k.ADDQ(U8(64), x)
	k.ADDQ(U8(64), z)
	k.SHRQ(U8(4), n)
	k.DECQ(n)
	k.JZ(LabelRef("done"))
	k.Label("fold")
	turn := func(a vec) vec { y := k.ZMM(); k.VPERMQ(a, flip, y); return y }
	minus := func(a, b vec) vec { // a - b*f
		return k.sub(k.add(f.modulus().below(a, f.lift()), f.lift()), f.times(b, c))
	}
	a, b := k.load(Mem{Base: x}), turn(k.load(Mem{Base: x2}))
	u, v := minus(a, b), turn(minus(b, a))
	k.store(u, Mem{Base: z})
	k.store(v, Mem{Base: z2})
	k.ADDQ(U8(64), x)
	k.ADDQ(U8(64), z)
	k.SUBQ(U8(64), x2)
	k.SUBQ(U8(64), z2)
	k.DECQ(n)
	k.JNZ(LabelRef("fold"))
	k.Label("done")
	k.end()
}

// permute generates the permutation of rows by an automorphism.
func (e *emit) permute() {
	e.function("dqPermute", "func(z, x *uint64, from *uint32, lanes *[8][8]uint64, groups int)",
		"dqPermute sets group i of eight residues of z to group from[i]>>3 of x, permuted by",
		"lanes[from[i]&7].")
	z, x, from, lanes, groups := e.arg("z"), e.arg("x"), e.arg("from"), e.arg("lanes"), e.arg("groups")
	at, lane := e.GP64(), e.GP64()
	e.Label("group")
	e.MOVL(Mem{Base: from}, at.As32())
	e.MOVQ(at, lane)
	e.ANDQ(U8(7), lane)
	e.SHLQ(U8(6), lane)
	e.SHRQ(U8(3), at)
	e.SHLQ(U8(6), at)
	order, y := e.load(Mem{Base: lanes, Index: lane, Scale: 1}), e.ZMM()
	e.VPERMQ(Mem{Base: x, Index: at, Scale: 1}, order, y)
	e.VMOVDQU64(y, Mem{Base: z})
	e.ADDQ(U8(4), from)
	e.ADDQ(U8(64), z)
	e.DECQ(groups)
	e.JNZ(LabelRef("group"))
	e.VZEROUPPER()
	e.RET()
}

// repeat generates what puts each word of a row several times in a row.
func (e *emit) repeat() {
	e.function("dqRepeat", "func(z, x *uint64, n, words int, mask uint64, order *[8]uint64)",
		"dqRepeat sets each group of eight residues of z to the next words of x, as many as mask",
		"has bits, in the given order.")
	z, x, n, words := e.arg("z"), e.arg("x"), e.arg("n"), e.arg("words")
	mask, k, order, y := e.arg("mask"), e.K(), e.load(Mem{Base: e.arg("order")}), e.ZMM()
	e.KMOVB(mask.As32(), k)
	e.Label("group")
	e.VMOVDQU64_Z(Mem{Base: x}, k, y)
	e.VPERMQ(y, order, y)
	e.VMOVDQU64(y, Mem{Base: z})
	e.LEAQ(Mem{Base: x, Index: words, Scale: 8}, x)
	e.ADDQ(U8(64), z)
	e.SUBQ(U8(8), n)
	e.JNZ(LabelRef("group"))
	e.VZEROUPPER()
	e.RET()

	e.function("dqRepeatWord", "func(z, x *uint64, n, groups int)",
		"dqRepeatWord puts each word of x into as many groups of eight residues of z.")
	z, x, n = e.arg("z"), e.arg("x"), e.arg("n")
	groups, left := e.arg("groups"), e.GP64()
	e.Label("word")
	y = e.spread(Mem{Base: x})
	e.MOVQ(groups, left)
	e.Label("group")
	e.VMOVDQU64(y, Mem{Base: z})
	e.ADDQ(U8(64), z)
	e.SUBQ(U8(8), n)
	e.DECQ(left)
	e.JNZ(LabelRef("group"))
	e.ADDQ(U8(8), x)
	e.TESTQ(n, n)
	e.JNZ(LabelRef("word"))
	e.VZEROUPPER()
	e.RET()
}
