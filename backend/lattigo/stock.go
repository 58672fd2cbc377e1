package lattigo

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/tuneinsight/lattigo/v5/core/rlwe"
	"github.com/tuneinsight/lattigo/v5/ring"
	"github.com/tuneinsight/lattigo/v5/ring/ringqp"
	"github.com/tuneinsight/lattigo/v5/schemes/ckks"
)

// KernelTime compares one step of the engine with stock Lattigo v5, on the same
// parameters, in the same process, one thread.
type KernelTime struct {
	Step  string // what is computed
	LogN  int    // ring degree
	Level int
	Form  kernels.Form // that serves the primes
	Ours  []float64    // milliseconds, run by run
	Stock []float64
	Need  Need // that of one run
	Key   Key  // how ours reads its key
}

// Key says how a step reads its evaluation key.
type Key string

// Ways to read a key.
const (
	KeyNone     Key = ""         // there is none
	KeyWhole    Key = "whole"    // from memory
	KeyStreamed Key = "streamed" // its uniform half is made from a seed
)

// Medians returns the times in the middle, in milliseconds.
func (k KernelTime) Medians() (ours, stock float64) { return middle(k.Ours), middle(k.Stock) }

// Ratio returns how many times faster the engine is, by medians.
func (k KernelTime) Ratio() float64 { ours, stock := k.Medians(); return stock / ours }

func middle(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}

// served names the kernels that serve the largest of the primes.
func (r *rings) served() kernels.Form {
	form := kernels.IFMA
	for _, m := range r.mods {
		form = min(form, m.Form())
	}
	return form
}

// Form returns the kernels that serve the largest primes of an engine of this package.
func Form(e backend.Engine) kernels.Form { return e.(*engine).served() }

// comparison holds the same computation twice.
type comparison struct {
	e      *engine
	stock  ckks.Parameters
	runs   int
	wanted func(step string) bool
	clock  func() float64
	memory func(slabs int) ([][]byte, error)
	record *recorder // of what runs now, or nil
	out    []KernelTime
	failed error
}

// CompareKernels times the engine's steps against stock Lattigo for the given
// parameters, at the top level and at the levels given below it, alternating between
// the two so that a busy machine harms both alike. clock returns seconds, best those
// that the processor has spent on this process. memory hands out slabs for the engine's
// objects, as in a run; stock Lattigo makes its own. It runs the steps that are wanted,
// all where that is nil. It uses keys of its own, for timing only, and says nothing of
// security.
func CompareKernels(p *ir.Params, runs int, clock func() float64, memory func(slabs int) ([][]byte, error), wanted func(step string) bool, levels ...int) ([]KernelTime, error) {
	r, err := newRings(p)
	if err != nil {
		return nil, err
	}
	c := &comparison{e: newEngine(r, 1), runs: max(runs, 1), wanted: wanted, clock: clock, memory: memory}
	c.stock, err = ckks.NewParametersFromLiteral(ckks.ParametersLiteral{LogN: p.LogN, Q: p.Q, P: p.P, RingType: ringType(p.Ring), LogDefaultScale: p.LogScale})
	if err != nil {
		return nil, err
	}
	c.rows()
	top := p.MaxLevel()
	key := rlwe.NewKeyGenerator(c.stock)
	sk := key.GenSecretKeyNew()
	var rotations []*rlwe.GaloisKey
	for k := range hoisted {
		rotations = append(rotations, key.GenGaloisKeyNew(c.stock.GaloisElement(k+1), sk))
	}
	eval := ckks.NewEvaluator(c.stock, rlwe.NewMemEvaluationKeySet(key.GenRelinearizationKeyNew(sk), rotations...))
	for _, l := range append(slices.DeleteFunc(slices.Clone(levels), func(l int) bool { return l >= top }), top) {
		if l > 0 {
			c.steps(eval, l)
		}
	}
	c.encode()
	return c.out, c.failed
}

func (c *comparison) fail(err error) {
	if c.failed == nil {
		c.failed = err
	}
}

// compare times both and checks nothing: that results agree is for tests. Steps of ours
// go through exec, which notes what they need.
func (c *comparison) compare(step string, level int, ours, theirs func()) {
	c.timed(step, level, func(k *KernelTime) {
		r := newRecorder(c.e.p)
		c.record = r
		defer func() { c.record = nil }()
		ours()
		k.Need = r.need()
		switch {
		case r.forms.Streams:
			k.Key = KeyStreamed
		case r.keys:
			k.Key = KeyWhole
		}
	}, ours, theirs)
}

// timed compares what is not made of steps, or does not go through exec; need sets what
// it needs.
func (c *comparison) timed(step string, level int, need func(k *KernelTime), ours, theirs func()) {
	if c.failed != nil || c.wanted != nil && !c.wanted(step) {
		return
	}
	k := KernelTime{Step: step, LogN: c.e.p.LogN, Level: level, Form: c.e.served()}
	need(&k)
	n, m := c.calls(ours), c.calls(theirs)
	for range c.runs {
		k.Ours, k.Stock = append(k.Ours, c.milliseconds(ours, n)), append(k.Stock, c.milliseconds(theirs, m))
	}
	c.out = append(c.out, k)
}

// needs returns arithmetic and so many bytes as a need.
func (c *comparison) needs(arithmetic func(*count), read, written int) func(*KernelTime) {
	return func(k *KernelTime) {
		w := count{Params: c.e.p}
		arithmetic(&w)
		w.Read, w.Written = int64(read), int64(written)
		k.Need = w.Need
	}
}

// fill makes an object of random residues, or returns nil and has the comparison fail
// where there is no memory.
func (c *comparison) fill(k ir.Kind, level int) *operand {
	e, t := c.e, ir.Type{Kind: k, Level: level}
	slabs, err := c.memory(e.Slabs(t))
	if err != nil {
		c.fail(err)
		return nil
	}
	o, err := e.bind(t, slabs)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	seed := newSeed()
	for i, row := range o.rows {
		uniformRow(row, e.mod(i%o.stride, level).Q, &seed, rowName(elementNoise, int(k), i))
	}
	return o
}

// keyed compares a step with a key that is read whole and, where kernels make uniform
// rows with vector instructions, so that plans may have it, with the same key whose
// uniform half is made from a seed.
func (c *comparison) keyed(step string, level int, ours, theirs func(), keys ...*operand) {
	c.compare(step, level, ours, theirs)
	if kernels.VectorSeeds() {
		for _, key := range keys {
			key.seed, key.streams = newSeed(), true
		}
		c.compare(step+", key "+string(KeyStreamed), level, ours, theirs)
		for _, key := range keys {
			key.streams = false
		}
	}
}

// exec runs a step of the engine.
func (c *comparison) exec(op ir.Op, rot int, out *operand, in ...*operand) {
	if c.record != nil {
		c.record.step(op, out, in)
	}
	if err := c.e.exec(&plan.Step{Op: op, Rot: rot}, in, out); err != nil {
		c.fail(fmt.Errorf("%s: %w", op, err))
	}
}

// rows compares what one row goes through.
func (c *comparison) rows() {
	x, y := c.fill(ir.CipherKind, 0), c.fill(ir.CipherKind, 0)
	if c.failed != nil {
		return
	}
	m, s := c.e.mods[0], c.stock.RingQ().SubRings[0]
	a, b, z := x.q(0, 0), x.q(1, 0), y.q(0, 0)
	limb := c.e.p.SlabBytes()
	c.timed("NTT", 0, c.needs(func(w *count) { w.ntt(1) }, limb, limb), func() { m.NTT(z, a) }, func() { s.NTT(a, z) })
	c.timed("inverse NTT", 0, c.needs(func(w *count) { w.intt(1) }, limb, limb), func() { m.INTT(z, a) }, func() { s.INTT(a, z) })
	c.timed("multiply and accumulate", 0, c.needs(func(w *count) { w.sums(1, 1) }, 2*limb, limb),
		func() { m.Mac(z, z, a, b) }, func() { s.MulCoeffsMontgomeryThenAdd(a, b, z) })
}

// steps compares steps of a plan at one level.
func (c *comparison) steps(eval *ckks.Evaluator, l int) {
	poly := func(o *operand, k int) ring.Poly { return ring.Poly{Coeffs: o.rows[k*o.stride : (k+1)*o.stride]} }
	x, y, res := c.fill(ir.CipherKind, l), c.fill(ir.CipherKind, l), c.fill(ir.CipherKind, l)
	low, key := c.fill(ir.CipherKind, l-1), c.fill(ir.KeyKind, l)
	if c.failed != nil {
		return
	}
	in, in2, out := ckks.NewCiphertext(c.stock, 1, l), ckks.NewCiphertext(c.stock, 1, l), ckks.NewCiphertext(c.stock, 1, l)
	for k := range 2 {
		in.Value[k].Copy(poly(x, k))
		in2.Value[k].Copy(poly(y, k))
	}
	galois := c.stock.GaloisElement(1)
	must := func(err error) {
		if err != nil {
			c.fail(err)
		}
	}

	rq := c.stock.RingQ().AtLevel(l)
	buff := rq.NewPoly()
	c.compare("rescale", l, func() { c.exec(ir.OpHERescale, 0, low, x) }, func() {
		for k := range 2 {
			rq.DivRoundByLastModulusNTT(in.Value[k], buff, out.Value[k])
		}
	})
	c.keyed("rotation", l, func() { c.exec(ir.OpHERotate, 1, res, x, key) }, func() { must(eval.Automorphism(in, galois, out)) }, key)

	digits, wide := c.fill(ir.DigitsKind, l), c.fill(ir.CipherQPKind, l)
	lp := c.stock.MaxLevelP()
	decomposed := eval.GetBuffDecompQP()
	lazy := rlwe.NewElementExtended(c.stock, 1, l, lp)
	lazy.MetaData = in.MetaData
	c.compare("decomposition", l, func() { c.exec(ir.OpHEDecompose, 0, digits, x) }, func() { eval.DecomposeNTT(l, lp, lp+1, in.Value[1], true, decomposed) })
	c.keyed("hoisted rotation", l, func() { c.exec(ir.OpHEHoistRot, 1, wide, x, digits, key) }, func() {
		must(eval.AutomorphismHoistedLazy(l, in, decomposed, galois, lazy))
	}, key)
	c.together(eval, l, x, digits, in, decomposed)

	product := ckks.NewCiphertext(c.stock, 1, l)
	// Ours divides by P and the last prime at once and rounds once, where Lattigo does so
	// twice: coefficients of the results differ by one at most.
	c.keyed("multiply, relinearise, rescale", l, func() { c.exec(ir.OpHEMulRescale, 0, low, x, y, key) }, func() {
		product.Resize(1, l)
		must(eval.MulRelin(in, in2, product))
		must(eval.Rescale(product, product))
	}, key)
}

// hoisted is how many rotations of one ciphertext are compared: as a transform of 16 to 64
// diagonals has.
const hoisted = 4

// together compares the hoisted rotations of one ciphertext, with a key each: ours are done
// limb by limb together, as in a run.
func (c *comparison) together(eval *ckks.Evaluator, l int, x, digits *operand, in *rlwe.Ciphertext, decomposed []ringqp.Poly) {
	step := fmt.Sprintf("%d hoisted rotations", hoisted)
	if c.wanted != nil && !c.wanted(step) && !c.wanted(step+", key "+string(KeyStreamed)) {
		return // keys take a while
	}
	var keys, wide []*operand
	var calls []backend.Call
	for k := range hoisted {
		key, out := c.fill(ir.KeyKind, l), c.fill(ir.CipherQPKind, l)
		if c.failed != nil {
			return
		}
		keys, wide = append(keys, key), append(wide, out)
		calls = append(calls, backend.Call{Step: &plan.Step{Op: ir.OpHEHoistRot, Rot: k + 1}, Args: []backend.Operand{x, digits, key}, Out: out})
	}
	lazy := rlwe.NewElementExtended(c.stock, 1, l, c.stock.MaxLevelP())
	lazy.MetaData = in.MetaData
	c.keyed(step, l, func() {
		for k := range keys {
			if c.record != nil {
				c.record.step(ir.OpHEHoistRot, wide[k], []*operand{x, digits, keys[k]})
			}
		}
		if err := c.e.ExecJoined(calls); err != nil {
			c.fail(err)
		}
	}, func() {
		for k := range keys {
			if err := eval.AutomorphismHoistedLazy(l, in, decomposed, c.stock.GaloisElement(k+1), lazy); err != nil {
				c.fail(err)
			}
		}
	}, keys...)
}

// encode compares the encoding of a full vector modulo all primes.
func (c *comparison) encode() {
	e, top := c.e, c.e.p.MaxLevel()
	scale := float64(uint64(1) << min(c.e.p.LogScale, 62))
	out := c.fill(ir.PlainQPKind, top)
	out.t.Scale = ir.ScaleTwo(c.e.p.LogScale)
	v := &ir.SlotData{Period: e.p.Slots()}
	rng := rand.New(rand.NewPCG(1, 1))
	values := make([]float64, e.p.Slots())
	for i := range values {
		values[i] = 2*rng.Float64() - 1
		v.Index, v.Value = append(v.Index, int32(i)), append(v.Value, values[i])
	}
	ecd := ckks.NewEncoder(c.stock)
	pt := ckks.NewPlaintext(c.stock, top)
	meta := pt.MetaData.CopyNew()
	meta.IsMontgomery, meta.Scale = true, rlwe.NewScale(scale)
	poly := c.stock.RingQP().NewPoly()
	need := c.needs(func(w *count) { w.encode(v.Period, len(out.rows)) }, 8*v.Period, len(out.rows)*e.p.SlabBytes())
	c.timed("encode at QP", top, need, func() {
		if err := e.Encode(v, out); err != nil {
			c.fail(err)
		}
	}, func() {
		if err := ecd.Embed(values, meta, poly); err != nil {
			c.fail(err)
		}
	})
}

// calls returns how often f must be called for a millisecond to pass. The first call
// makes tables and scratch memory.
func (c *comparison) calls(f func()) int {
	f()
	for n := 1; ; n *= 2 {
		if c.milliseconds(f, n)*float64(n) >= 1 {
			return n
		}
	}
}

// milliseconds times n calls of f, per call.
func (c *comparison) milliseconds(f func(), n int) float64 {
	start := c.clock()
	for range n {
		f()
	}
	return (c.clock() - start) * 1e3 / float64(n)
}
