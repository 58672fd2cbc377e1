package lattigo

import (
	"fmt"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// counted are rows that count what they are asked for.
type counted struct {
	kernels.Rows
	q       uint64
	n       int
	need    *Need
	streams *bool // second halves of keys are made
}

func (c *counted) product(z []uint64) { c.need.Products += int64(len(z)) }

func (c *counted) transform(z []uint64) (butterflies int64) {
	for h := 1; h < len(z); h *= 2 {
		butterflies += int64(len(z) / 2)
	}
	c.need.Butterflies += butterflies
	return butterflies
}

func (c *counted) NTT(z, x []uint64) { c.Rows.NTT(z, x); c.transform(z) }

func (c *counted) INTT(z, x []uint64) {
	c.Rows.INTT(z, x)
	c.need.Inverse += c.transform(z)
	c.need.Products += int64(len(z) / 2)
}

func (c *counted) MulConst(z, x []uint64, w uint64)    { c.Rows.MulConst(z, x, w); c.product(z) }
func (c *counted) MacConst(z, a, x []uint64, w uint64) { c.Rows.MacConst(z, a, x, w); c.product(z) }
func (c *counted) SubMul(z, x, y []uint64, w uint64)   { c.Rows.SubMul(z, x, y, w); c.product(z) }

func (c *counted) Centre(z, x []uint64, s, w uint64) {
	c.Rows.Centre(z, x, s, w)
	if w != 1 || s >= 2*c.q {
		c.product(z)
	}
}

func (c *counted) sum(z []uint64, terms int) {
	c.need.Terms += int64(terms * len(z))
	c.need.Reductions += int64(len(z))
}

func (c *counted) Mul(z, x, y []uint64)    { c.Rows.Mul(z, x, y); c.sum(z, 1) }
func (c *counted) Mac(z, a, x, y []uint64) { c.Rows.Mac(z, a, x, y); c.sum(z, 1) }

func (c *counted) Tensor(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	c.product(d0)
	c.product(d1)
	c.sum(d0, 1)
	c.sum(d1, 1+one(&a0[0] != &b0[0]))
	c.sum(d2, 1)
	c.Rows.Tensor(d0, d1, d2, a0, a1, b0, b1)
}

// made counts the terms of a product with the second half of a key.
func (c *counted) made(y [][]uint64) {
	if *c.streams {
		c.need.Uniform += int64(len(y) * len(y[0]))
	}
}

func (c *counted) Dot(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	c.Rows.Dot(z0, z1, x, y0, y1)
	c.sum(z0, len(x))
	c.sum(z1, len(x))
	c.made(y1)
}

func (c *counted) DotMap(z0, z1, a []uint64, f uint64, from int, x, y0, y1 [][]uint64, phi *kernels.Automorphism, far bool) {
	c.Rows.DotMap(z0, z1, a, f, from, x, y0, y1, phi, far)
	n := len(x[0])                                // of a part
	c.sum(z0[:n], len(x)+one(a != nil && f != 1)) // adding is free
	c.sum(z1[:n], len(x))
	c.made(y1)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// operandsOf makes operands and a place for the result, which has level l.
func operandsOf(c *comparison, op ir.Op, l int) (in []*operand, out *operand) {
	kind, ok := outKinds[op]
	if !ok {
		kind = ir.CipherKind
	}
	for _, k := range argKinds[op] {
		at := l + op.Drops()
		switch {
		case k == ir.SparseKeyKind, op == ir.OpHERaise && k == ir.CipherKind:
			at = 0
		}
		in = append(in, c.fill(k, at))
	}
	return in, c.fill(kind, l)
}

// eachKey calls f for a step as it is and, if it has a key, once more with the uniform
// half of that made from a seed.
func eachKey(c *comparison, op ir.Op, l int, f func(streams bool, in []*operand, out *operand)) {
	in, out := operandsOf(c, op, l)
	f(false, in, out)
	if i := slices.IndexFunc(in, func(o *operand) bool { return o.t.Kind == ir.KeyKind }); i >= 0 {
		in[i].seed, in[i].streams = newSeed(), true
		f(true, in, out)
	}
}

// do runs a step and records it. Where products can count twice they do.
func do(t *testing.T, c *comparison, op ir.Op, out *operand, in []*operand) {
	t.Helper()
	c.record.step(op, out, in)
	twice := slices.ContainsFunc(op.Info().Attrs, func(a ir.AttrSpec) bool { return a.Name == "twice" })
	c.record.p.Steps[len(c.record.p.Steps)-1].Twice = twice
	var args []backend.Operand
	for _, o := range in {
		args = append(args, o)
	}
	if err := c.e.Exec(&plan.Step{Op: op, Rot: 1, Const: 0.7, Scale: ir.ScaleTwo(30), Twice: twice}, args, out); err != nil {
		t.Fatal(err)
	}
}

// TestNeed holds the arithmetic that the roofline counts against what the engine asks
// of its kernels. With one special prime every conversion is of one source but for those
// of steps that drop a prime as well, so that all of it goes through rows; with more,
// transforms do.
func TestNeed(t *testing.T) {
	for _, special := range [][]int{{35}, {35, 36}} {
		p, err := ir.NewParams("need", 6, ir.RingStandard, ir.SecretTernary, []int{34, 33, 32, 33, 34}, special, 30)
		if err != nil {
			t.Fatal(err)
		}
		e := newEngine(must[*rings](t)(newRingsWith(p, kernels.Portable)), 1)
		var did Need
		var made bool
		for _, m := range e.mods {
			m.Rows = &counted{m.Rows, m.Q, e.n, &did, &made}
		}
		c := &comparison{e: e, memory: heapSlabs(p)}
		for op := range argKinds {
			for _, l := range []int{1, 3} {
				eachKey(c, op, l, func(streams bool, in []*operand, out *operand) {
					t.Run(fmt.Sprintf("%s/P%d/L%d/streams=%v", op, len(special), l, streams), func(t *testing.T) {
						did, made = Need{}, streams
						c.record = newRecorder(p)
						do(t, c, op, out, in)
						want := count{Params: p, streams: streams}
						want.step(&c.record.p.Steps[0], l)
						got := did
						if len(special) > 1 {
							got.Products, got.Terms, got.Reductions = want.Products, want.Terms, want.Reductions
						} else if op != ir.OpHERescale && op.Drops() > 0 { // converts from two primes
							conversion := count{Params: p}
							for range 2 {
								conversion.prepare(2)
								for _, q := range p.Q[:l+1] {
									conversion.convert([]uint64{p.Q[l+1], p.P[0]}, q)
								}
							}
							got.Products += conversion.Products
							got.Terms += conversion.Terms
							got.Reductions += conversion.Reductions
						}
						if got != want.Need {
							t.Errorf("the engine asks for %+v, counted are %+v", got, want.Need)
						}
						if c.record.forms.Streams != streams {
							t.Errorf("recorded are forms %+v", c.record.forms)
						}
					})
				})
			}
		}
	}
}

// TestNeedBytes holds the bytes that the roofline counts against what steps touch: every
// slab that is counted matters to the result, and every slab of that is written. What is
// made from a seed is what is then not read.
func TestNeedBytes(t *testing.T) {
	p, err := ir.NewParams("bytes", 6, ir.RingStandard, ir.SecretTernary, []int{34, 33, 32, 33}, []int{35, 36}, 30)
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(must[*rings](t)(newRings(p)), 1)
	c := &comparison{e: e, memory: heapSlabs(p)}
	const l = 2
	for op := range argKinds {
		var whole Need
		eachKey(c, op, l, func(streams bool, in []*operand, out *operand) {
			t.Run(fmt.Sprintf("%s/streams=%v", op, streams), func(t *testing.T) {
				run := func() [][]uint64 {
					out = c.fill(out.t.Kind, l) // random: what is not written shows
					c.record = newRecorder(p)
					do(t, c, op, out, in)
					return out.rows
				}
				equal := func(x, y [][]uint64) bool { return slices.EqualFunc(x, y, slices.Equal[[]uint64]) }
				want := run()
				need := c.record.need()
				if !equal(run(), want) {
					t.Fatal("not all of the result is written")
				}
				if got := len(want) * p.SlabBytes(); int64(got) != need.Written {
					t.Errorf("%d bytes are written, counted are %d", got, need.Written)
				}
				read := 0
				for _, o := range in {
					for _, row := range o.rows {
						row[5] ^= 1
						if !equal(run(), want) {
							read += p.SlabBytes()
						}
						row[5] ^= 1
					}
				}
				if int64(read) != need.Read {
					t.Errorf("%d bytes matter to the result, counted as read are %d", read, need.Read)
				}
				if !streams {
					whole = need
				}
				if made := 8 * need.Uniform; streams != (made > 0) || need.Read+made != whole.Read {
					t.Errorf("%d bytes are read and %d made, of %d", need.Read, made, whole.Read)
				}
			})
		})
	}
}
