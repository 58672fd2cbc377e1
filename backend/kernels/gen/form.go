package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// form is an arithmetic that the kernels below are generated for.
type form interface {
	modulus() *prime

	// Products with constants w < q of known quotients (Shoup's trick). times returns
	// y*w in [0, lift), and over are the multiples of q to subtract from it.
	times(y vec, f *factor) vec
	lift() vec
	over() []vec
	factor(w, s vec) *factor

	// The six layers within a block of 64 residues: seven factors for all lanes stand at
	// 0, their quotients at 64 bytes, and lane returns the others.
	blockBytes() int
	lane(w reg.GPVirtual, i int) *factor
	forwardLane(x, y *vec, f *factor)
	inverseLane(x, y *vec, f *factor)

	// Sums of products over the Montgomery radix R. montgomery makes what they need; a
	// second factor is shifted where the prime's radix is not the form's.
	montgomery(inv, shift vec)
	first(x vec) multiplicand
	second(y vec) multiplicand
	clear() sum
	mul(x, y multiplicand) sum
	mulByte(x vec, y multiplicand) sum // x below 2^8, ready for mac
	mac(s *sum, x, y multiplicand)
	twice(x, y, u, v multiplicand) sum // x*y + u*v
	divide(s sum) vec                  // s/R mod q in (-q, s/R]
	divideProduct(s sum) vec           // the same for a single product
	other(q, inv vec) form             // of another prime
}

// prime holds a prime and its double in all lanes.
type prime struct {
	*emit
	q, q2 vec
}

func (e *emit) prime(q vec) *prime { return &prime{e, q, e.add(q, q)} }

func (p *prime) modulus() *prime { return p }

// below reduces x from below twice the largest multiple of q, a multiple at a time.
func (p *prime) below(x vec, multiples ...vec) vec {
	for _, m := range multiples {
		x = p.min(x, p.sub(x, m))
	}
	return x
}

// positive brings x from (-q, q) to [0, q).
func (p *prime) positive(x vec) vec { return p.min(x, p.add(x, p.q)) }

// factor is a constant w < q with its quotient s, and what a form adds.
type factor struct{ w, s, high vec }

// forward is the butterfly of Harvey: x, y in [0, 2*lift) become x+y*w and x-y*w in
// [0, 2*lift).
func forward(f form, x, y *vec, c *factor) {
	p, l := f.modulus(), f.lift()
	t := f.times(*y, c)
	*x = p.below(*x, l)
	*x, *y = p.add(*x, t), p.sub(p.add(*x, l), t)
}

// inverse is its inverse: x, y in [0, lift) become x+y and (x-y)*w in [0, lift).
func inverse(f form, x, y *vec, c *factor) {
	p, l := f.modulus(), f.lift()
	d := p.sub(p.add(*x, l), *y)
	*x, *y = p.below(p.add(*x, *y), l), f.times(d, c)
}

// kernel generates the kernels of a form.
type kernel struct {
	*emit
	prefix string // of their names
	start  func(e *emit, q vec) form
	radix  string // R
	limit  string // of the number of terms of a sum
	params string // of products: those that montgomery loads
	shift  string // what x*y is multiplied with in Mul, Mac and Dot
	vecs   int    // registers of a result that Dot sums at a time
	wide   int    // registers of a result that Convert4 sums at a time
}

func dqKernels(e *emit) *kernel {
	return &kernel{e, "dq", newDQ, "2^64", "terms*q*2^shift <= 3*2^64 and at most 24 terms", "shift, q, inv", "*2^shift", 1, 1}
}

func ifmaKernels(e *emit) *kernel {
	return &kernel{e, "ifma", newIFMA, "2^52", "terms*q <= 3*2^52", "q, inv", "", 4, 2}
}

func (k *kernel) all() {
	k.passes()
	k.blocks()
	k.fold()
	k.byConstant()
	k.products()
	k.tensor()
	k.dot()
	k.convert()
	k.convert4()
	k.prepare()
}

// begin starts a kernel.
func (k *kernel) begin(name, signature, doc string, more ...string) {
	name = k.prefix + name
	k.function(name, signature, append([]string{name + " " + doc}, more...)...)
}

// form loads parameter q.
func (k *kernel) form() form { return k.start(k.emit, k.broadcast("q")) }

// montgomery loads parameters q, inv and, for kernels that shift, shift.
func (k *kernel) montgomery(shift bool) form {
	f := k.form()
	var by vec
	if shift && k.shift != "" {
		by = k.broadcast("shift")
	}
	f.montgomery(k.broadcast("inv"), by)
	return f
}

// at returns the factor at an index of the tables w and s, for all lanes.
func (k *kernel) at(f form, w, s reg.GPVirtual, index int) *factor {
	return f.factor(k.spread(Mem{Base: w, Disp: 8 * index}), k.spread(Mem{Base: s, Disp: 8 * index}))
}

func (k *kernel) store(x vec, m Mem) { k.VMOVDQU64(x, m) }

func (k *kernel) end() {
	k.VZEROUPPER()
	k.RET()
}
