package lattigo

import (
	"math"
	"math/bits"
	"slices"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Need is what steps take at least: the multiplications of the algorithms that the
// engine follows, and the bytes that must come from and go to memory. Additions,
// permutations and floating-point quotients are not counted. (backend.WorkOf counts
// what the engine does, for prediction; this is what bounds it.)
type Need struct {
	// Per residue. A butterfly is x+w*y and x-w*y and, like a product, has a factor that
	// is known beforehand. Terms are products of two residues that are summed in two
	// words, reductions bring such sums below the prime.
	Butterflies, Products, Terms, Reductions int64
	// Inverse is the part of the butterflies that belongs to inverse transforms.
	Inverse int64
	// Complex counts butterflies of the encoder.
	Complex int64
	// Uniform counts residues of keys that steps make from seeds.
	Uniform int64
	// Bytes of operands that the steps read and did not compute themselves, each once,
	// and of their result.
	Read, Written int64
}

// Instructions is how many words of each kind of instruction something takes.
type Instructions [kernels.NumUnits]int64

// price is what one of each takes. Shoup's product with a known factor is the high
// word of y*w', and the low ones of y*w and of the quotient times q; a term has a low
// and a high word, a Montgomery reduction a low and a high one. Words of 64 bits from
// 32-bit products (DQ) take four of these, a quotient three, one Montgomery step of 32
// bits three. A complex butterfly has ten operations, six when fused.
var price = map[kernels.Form]struct{ butterfly, term, reduction, complex Instructions }{
	kernels.Portable: {Instructions{kernels.Mul64: 3}, Instructions{kernels.Mul64: 1}, Instructions{kernels.Mul64: 2}, Instructions{kernels.Float: 10}},
	kernels.DQ:       {Instructions{kernels.MulHalf: 3, kernels.MulLow: 2}, Instructions{kernels.MulHalf: 4}, Instructions{kernels.MulHalf: 6}, Instructions{kernels.FMA: 6}},
	kernels.IFMA:     {Instructions{kernels.Madd52: 3}, Instructions{kernels.Madd52: 2}, Instructions{kernels.Madd52: 2}, Instructions{kernels.FMA: 6}},
}

// aesRounds is what one word of the key stream takes at least, and so a residue made
// from a seed: AES-256 has so many rounds, and works on two words at a time.
const aesRounds = 14

// Instructions returns what is needed in a form.
func (w *Need) Instructions(form kernels.Form) Instructions {
	var out Instructions
	p := price[form]
	for u := range out {
		out[u] = p.butterfly[u]*(w.Butterflies+w.Products) + p.term[u]*w.Terms + p.reduction[u]*w.Reductions + p.complex[u]*w.Complex
	}
	out[kernels.AES] += aesRounds * w.Uniform
	return out
}

// Multiplying returns the seconds that the instructions of a form take at least: all
// are executed by the same units of a core.
func (w *Need) Multiplying(form kernels.Form, p *kernels.Peaks) float64 {
	s := 0.0
	for u, n := range w.Instructions(form) {
		if n > 0 {
			s += float64(n) / p.Rate[u]
		}
	}
	return s
}

// MultiplierRate returns the words per second that butterflies of a form may multiply.
func MultiplierRate(form kernels.Form, p *kernels.Peaks) float64 {
	words, one := int64(0), Need{Butterflies: 1}
	for _, n := range one.Instructions(form) {
		words += n
	}
	return float64(words) / one.Multiplying(form, p)
}

// Memory returns the seconds that the bytes take at least where all come from DRAM, and
// where all is repeated on the same operands: then as many of them as fit are in
// the caches. limit is the level at which the latter takes longest.
func (w *Need) Memory(p *kernels.Peaks) (dram, cached float64, limit string) {
	total := w.Read + w.Written
	left, longest := total, 0.0
	for i := range p.Memory {
		m := &p.Memory[i]
		all := float64(w.Read)/m.Read + float64(w.Written)*m.Write()
		part := left
		if m.Holds > 0 {
			part = min(left, m.Holds)
		} else {
			dram = all
		}
		if part > 0 {
			s := all * float64(part) / float64(total)
			left -= part
			if cached += s; s > longest {
				longest, limit = s, m.Level
			}
		}
	}
	return dram, cached, limit
}

// Kernels returns the seconds that the kernels take with everything in the first cache,
// complex being those of a butterfly of the encoder.
func (w *Need) Kernels(p *kernels.Pace, complex float64) float64 {
	return p.Butterfly*float64(w.Butterflies-w.Inverse) + p.Inverse*float64(w.Inverse) + p.Product*float64(w.Products) +
		p.Term*float64(w.Terms) + p.Reduction*float64(w.Reductions) + complex*float64(w.Complex) + p.Uniform*float64(w.Uniform)
}

// count sums the arithmetic of steps under parameters.
type count struct {
	*ir.Params
	Need
	streams bool // the uniform halves of keys are made
}

func (c *count) products(rows int) { c.Products += int64(rows) * int64(c.N()) }

// sums counts sums of so many products, each reduced once.
func (c *count) sums(rows, terms int) {
	c.Terms += int64(rows) * int64(terms) * int64(c.N())
	c.Reductions += int64(rows) * int64(c.N())
}

// ntt counts transforms; the conjugate-invariant ring folds before them.
func (c *count) ntt(rows int) {
	c.Butterflies += int64(rows) * int64(c.N()/2) * int64(c.LogN)
	if c.Ring == ir.RingReal {
		c.products(rows)
	}
}

// intt counts inverse transforms; the last layer multiplies both results, by 1/N too.
func (c *count) intt(rows int) {
	before := c.Butterflies
	c.ntt(rows)
	c.Inverse += c.Butterflies - before
	c.Products += int64(rows) * int64(c.N()/2)
}

// prepare counts preparing values modulo so many primes for conversion.
func (c *count) prepare(sources int) {
	if sources > 1 {
		c.products(sources)
	}
}

// convert counts the conversion of prepared values to one more prime. A residue that is
// below twice that prime is as good as converted.
func (c *count) convert(sources []uint64, target uint64) {
	switch {
	case len(sources) > 1:
		c.sums(1, len(sources)+1)
	case sources[0] >= 2*target:
		c.products(1)
	}
}

// divide counts dividing transformed polynomials by primes, of which they have limbs
// besides those of level l.
func (c *count) divide(by []uint64, polynomials, l int) {
	for range polynomials {
		c.intt(len(by))
		c.prepare(len(by))
		for _, q := range c.Q[:l+1] {
			c.convert(by, q)
			c.ntt(1)
			c.products(1)
		}
	}
}

// decompose counts the digits of a transformed polynomial of level l, modulo all primes
// but their own.
func (c *count) decompose(l int) {
	c.intt(l + 1)
	all := slices.Concat(c.Q[:l+1], c.P)
	for from := 0; from <= l; from += len(c.P) {
		to := min(from+len(c.P), l+1)
		c.prepare(to - from)
		for i, q := range all {
			if i < from || i >= to {
				c.convert(c.Q[from:to], q)
				c.ntt(1)
			}
		}
	}
}

// lift counts reading coefficients modulo q_0 modulo other primes, transformed.
func (c *count) lift(to []uint64) {
	for _, q := range to {
		c.convert(c.Q[:1], q)
		c.ntt(1)
	}
}

// gadget counts the product of digits with a key.
func (c *count) gadget(l int) {
	nqp := l + 1 + len(c.P)
	c.sums(2*nqp, c.Digits(l))
	if c.streams {
		c.Uniform += int64(nqp) * int64(c.Digits(l)) * int64(c.N())
	}
}

// switchKey counts a key switch, from a transformed polynomial.
func (c *count) switchKey(l int) {
	c.decompose(l)
	c.gadget(l)
	c.divide(c.P, 2, l)
}

// step counts a step whose result has level out.
func (c *count) step(s *plan.Step, out int) {
	l := out + s.Op.Drops()
	terms := len(s.Args) / 2 // of a sum of products with plaintexts, the accumulator apart
	nq := l + 1
	nqp := nq + len(c.P)
	switch s.Op {
	case ir.OpHEInput, ir.OpHEPlain, ir.OpHEKey, ir.OpHEOutput:
	case ir.OpHEAdd, ir.OpHESub, ir.OpHEAddQP, ir.OpHEAddConst:
	case ir.OpHEAddPlain: // out of Montgomery form
		c.products(nq)
	case ir.OpHEMulPlain, ir.OpHEMacPlain:
		c.sums(2*nq, terms)
	case ir.OpHEMulQP, ir.OpHEMacQP:
		c.sums(2*nqp, terms)
	case ir.OpHEMulConst, ir.OpHEMacConst, ir.OpHELift, ir.OpHEMulI:
		c.products(2 * nq)
	case ir.OpHEMul:
		c.products(2 * nq) // to Montgomery form
		c.sums(2*nq, 1)
		if c.sums(nq, 2); s.Args[0] == s.Args[1] {
			c.Terms -= int64(nq) * int64(c.N())
		}
		c.switchKey(l)
	case ir.OpHEMulRescale, ir.OpHEMacRescale:
		for last := len(s.Args) - 1; last > 1; last -= 2 {
			c.products(2 * nq) // to Montgomery form
			c.sums(2*nq, 1)
			if c.sums(nq, 2); s.Args[last-1] == s.Args[last-2] {
				c.Terms -= int64(nq) * int64(c.N())
			}
		}
		if s.Op == ir.OpHEMacRescale && s.Twice { // half of what is added
			c.products(2 * nq)
		}
		c.decompose(l)
		c.gadget(l)
		c.products(2 * nq) // times P
		c.divide(slices.Concat(c.Q[l:nq], c.P), 2, out)
	case ir.OpHERotate, ir.OpHERealPart:
		c.switchKey(l)
	case ir.OpHERescale:
		c.divide(c.Q[l:nq], 2, out)
	case ir.OpHEModDown, ir.OpHEModDownRescale:
		c.divide(slices.Concat(c.Q[out+1:nq], c.P), 2, out)
	case ir.OpHEDecompose:
		c.decompose(l)
	case ir.OpHEHoistRot:
		c.gadget(l)
		c.Terms += int64(nq) * int64(c.N())
	case ir.OpHEGiant:
		c.divide(c.P, 1, l)
		c.decompose(l)
		c.gadget(l)
	case ir.OpHERaise:
		// Modulo q_0 and p_0: c1 up, its two products, and these back, divided by p_0.
		c.intt(1)
		c.lift(c.P[:1])
		c.sums(4, 1)
		c.products(1)
		for range 2 {
			c.intt(2)
			c.products(2)
			c.convert(c.P[:1], c.Q[0])
		}
		// Both halves modulo Q_l, what is switched modulo P as well.
		c.lift(slices.Concat(c.Q[:nq], c.P))
		c.gadget(l)
		c.divide(c.P, 2, l)
		c.lift(c.Q[:nq])
	default:
		panic("BUG: the arithmetic of " + s.Op.String() + " is not known")
	}
}

// MeasureComplex returns the seconds of a butterfly of the encoder, in the first cache.
func MeasureComplex(clock func() float64) float64 {
	const logSlots = 9
	e, x := ir.NewEmbedding(1<<logSlots), make([]complex128, 1<<logSlots)
	best := math.Inf(1)
	for range 9 {
		n, start := 0, clock()
		for clock()-start < 2e-3 {
			e.ToCoefs(x)
			n++
		}
		best = min(best, (clock()-start)/float64(n))
	}
	return best / (logSlots << logSlots / 2)
}

// encode counts encoding slot values of a period modulo so many primes.
func (c *count) encode(period, limbs int) {
	c.Complex += int64(period/2) * int64(bits.Len(uint(period))-1)
	c.products(limbs)
	c.ntt(limbs)
}

// PlanNeed returns what the steps of a plan take together: of an operand that no
// earlier step computed the slabs that are needed, each once, and the results.
// Results are the objects of role RoleOutput and that of the last step. Forms say whether
// steps make the uniform halves of keys, each whenever it needs them.
func PlanNeed(p *plan.Plan, forms plan.Forms) Need {
	c := count{Params: &p.Params, streams: forms.Streams}
	slab := int64(p.Params.SlabBytes())
	computed, read := make([]bool, len(p.Objects)), make([][]bool, len(p.Objects))
	var spans []plan.Span
	var last plan.ObjectID
	if n := len(p.Steps); n > 0 {
		last = p.Steps[n-1].Out
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		c.step(s, p.Objects[s.Out].Type.Level)
		for k, id := range s.Args {
			if computed[id] || id == last { // what is written anyway is brought for that
				continue
			}
			if read[id] == nil {
				read[id] = make([]bool, p.Slabs(id))
			}
			spans = touched(spans[:0], &forms, p, i, k)
			for _, x := range spans {
				for j := range x.Count {
					if !read[id][x.First+j] {
						read[id][x.First+j] = true
						c.Read += slab
					}
				}
			}
		}
		computed[s.Out] = true
		if i == len(p.Steps)-1 || s.Out != last && p.Objects[s.Out].Role == plan.RoleOutput {
			c.Written += slab * int64(p.Slabs(s.Out))
		}
	}
	return c.Need
}

// touched returns the slabs that a step reads of argument k: as Forms.Touched, but only
// one polynomial where the other is not needed.
func touched(spans []plan.Span, forms *plan.Forms, p *plan.Plan, step, k int) []plan.Span {
	s := &p.Steps[step]
	half := int32(p.Slabs(s.Args[k]) / 2)
	switch {
	case k == 0 && s.Op == ir.OpHEDecompose:
		return append(spans, plan.Span{First: half, Count: half})
	case k == 0 && s.Op == ir.OpHEHoistRot:
		return append(spans, plan.Span{First: 0, Count: half})
	}
	return forms.Touched(p, spans, step, k)
}

// recorder notes the steps that a computation makes of the engine, as a plan.
type recorder struct {
	p     plan.Plan
	forms plan.Forms // how the engine reads keys; all of them alike
	keys  bool       // there are some
	ids   map[*operand]plan.ObjectID
}

func newRecorder(p *ir.Params) *recorder {
	return &recorder{p: plan.Plan{Params: *p}, ids: map[*operand]plan.ObjectID{}}
}

// need returns what the steps take.
func (r *recorder) need() Need { return PlanNeed(&r.p, r.forms) }

// object returns the number of an operand, a new one for one not seen before.
func (r *recorder) object(o *operand) plan.ObjectID {
	id, ok := r.ids[o]
	if !ok {
		id = plan.ObjectID(len(r.p.Objects))
		r.ids[o] = id
		r.p.Objects = append(r.p.Objects, plan.Object{Role: plan.RoleTemp, Type: o.t})
		if o.t.Kind == ir.KeyKind {
			r.keys, r.forms = true, plan.Forms{Seeds: o.streams, Streams: o.streams}
		}
	}
	return id
}

// step notes a step.
func (r *recorder) step(op ir.Op, out *operand, in []*operand) {
	s := plan.Step{Op: op}
	for _, a := range in {
		s.Args = append(s.Args, r.object(a))
	}
	s.Out = r.object(out)
	r.p.Steps = append(r.p.Steps, s)
}
