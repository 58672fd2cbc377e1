package lattigo

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Option changes how a role accepts parameters.
type Option func(*options)

type options struct {
	insecure bool
	threads  int
}

// Threads bounds how many cores the steps of an engine use at once; 0, or without
// it, all. A step alone is split over cores that have nothing else to do.
func Threads(n int) Option { return func(o *options) { o.threads = n } }

// AllowInsecure lets parameters through that carry the insecure stamp although
// they miss the 128-bit bound. It exists for tests and demonstrations.
func AllowInsecure() Option { return func(o *options) { o.insecure = true } }

// checkSecurity recomputes the bound. Insecure parameters pass only when they
// are stamped and the caller asked for it.
func checkSecurity(p *ir.Params, opts []Option) error {
	if err := p.CheckSecurity(); err != nil && !allowed(p, opts) {
		return err
	}
	return nil
}

// allowed reports whether parameters are stamped insecure and the caller asked
// for such.
func allowed(p *ir.Params, opts []Option) bool {
	var o options
	for _, f := range opts {
		f(&o)
	}
	return o.insecure && p.Insecure
}

// engine implements backend.Engine. Its fields are read-only but for the
// channel of scratch spaces.
type engine struct {
	*rings
	scratch chan *scratch
	wanted  atomic.Int32 // steps that wait for one
}

// scratch is the working memory of one running step, or of one of the parts that it is
// done in.
type scratch struct {
	*job             // mine, or that of the step that this does a part of
	mine  job        // of a step that runs here
	tmp   [][]uint64 // group limbs per digit, and two groups
	acc   [][]uint64 // 2*(nP+2) limbs: results modulo P and a prime that is dropped, and two more
	key   kernels.Seeded
	vals  [ir.MostTerms][]uint64 // values of plains
	block [][]uint64             // sumOnce blocks of sums
	x     [][]uint64             // group limbs per digit
	part  [][]uint64             // parts of limbs
	terms [][]uint64             // operands of inner products
	y0    [][]uint64
	y1    [][]uint64
	cplx  []complex128
	float []float64

	steps []*job // those that run here together

	section                         // of what runs here
	last    atomic.Pointer[scratch] // that took part in one
	helper
	run func() // takes part
}

// job is a running step with what its parts share. They only read it, or write it number
// by number.
type job struct {
	l      int // level at which it computes
	drop   int // levels by which the result lies below
	twice  bool
	c      integer // constant of the step, 0 for none
	out    *operand
	in     []*operand
	coef   [][]uint64 // L+1 limbs: coefficients of what is decomposed
	poly   [][]uint64 // as many: the same in the transform domain
	own    [][]uint64 // L+1 limbs: room for that
	v      [][]uint8  // quotients, per digit, and two more
	auto   kernels.Automorphism
	plains [ir.MostTerms]polynomial // plaintexts of a sum that are made on the way
	div    division
	mul    product
	near   bool                               // a step beside it reads the result
	limb   func(e *engine, w *scratch, i int) // computes limb i, see limbwise
	beside []*job                             // steps that work limb by limb together
}

// Open returns an engine for the parameters. It refuses parameters below 128
// bits unless they are stamped insecure and AllowInsecure is given.
//
// At most as many steps run at a time as Threads says; further calls of Exec wait.
// Each running step uses scratch memory of its own, allocated once; see Reserve.
func Open(p *ir.Params, opts ...Option) (backend.Engine, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if err := checkSecurity(p, opts); err != nil {
		return nil, err
	}
	c := *p
	r, err := newRings(&c)
	if err != nil {
		return nil, err
	}
	var o options
	for _, f := range opts {
		f(&o)
	}
	if o.threads < 1 {
		o.threads = runtime.NumCPU()
	}
	return newEngine(r, o.threads), nil
}

func newEngine(r *rings, threads int) *engine {
	e := &engine{rings: r, scratch: make(chan *scratch, threads)}
	for range threads {
		e.scratch <- nil // made when first used
	}
	return e
}

// Reserve returns the bytes of the Go heap that an engine for the parameters holds by
// itself, at most: its tables, and the scratch memory of one running step.
func Reserve(p *ir.Params) (tables, scratch int64) {
	n, nq, np := int64(p.N()), int64(len(p.Q)), int64(len(p.P))
	// Transform constants: four tables of N words for each prime in portable Go; two for
	// the inner layers and as much for shorter transforms with kernels that have wide ones,
	// two for the inverse, and a sixteenth more for the outer layers.
	tables = (nq+np)*(8*(6*n+n/16)+1024) + 16*int64(p.Slots())
	tables += nq * (3*nq + np + 1) * (144 + 16*np) // conversions, by target
	digits := (nq + np - 1) / np
	rows := 2*nq + max((digits+2)*int64(groupSize(p)), ir.MostTerms) + 2*np + 4
	scratch = rows*(8*n+64) + (digits+3)*n + 4096 // with quotients and an automorphism
	scratch += 16*int64(p.Slots()) + 8*n          // encoding
	scratch += sumOnce * (8*min(sumBlock, n) + 64)
	scratch += backend.MostJoined * (n + 2048) // automorphisms of steps that are done together
	return tables, scratch
}

func (e *engine) take() *scratch {
	select {
	case s := <-e.scratch:
		return e.ready(s)
	default:
	}
	e.wanted.Add(1)
	defer e.wanted.Add(-1)
	return e.ready(<-e.scratch)
}

// ready returns a scratch space that serves a step of its own, s or a new one where that
// is nil.
func (e *engine) ready(s *scratch) *scratch {
	if s == nil {
		s = e.newScratch()
	}
	s.job = &s.mine
	return s
}

func (e *engine) give(s *scratch) { e.scratch <- s }

func makeRows(k, n int) [][]uint64 {
	all := make([]uint64, k*n)
	adviseHuge(all)
	rows := make([][]uint64, k)
	for i := range rows {
		rows[i] = all[i*n : (i+1)*n : (i+1)*n]
	}
	return rows
}

func (e *engine) newScratch() *scratch {
	nq, np, digits := len(e.p.Q), len(e.p.P), len(e.digit)
	terms := max(digits, sumOnce)
	s := &scratch{
		mine: job{
			in: make([]*operand, 0, 2+2*ir.MostProducts), coef: makeRows(nq, e.n), own: makeRows(nq, e.n),
			div: division{x: make([][][]uint64, 0, 2)},
		},
		tmp: makeRows(max((digits+2)*e.group, ir.MostTerms), e.n), acc: makeRows(2*np+4, e.n),
		block: makeRows(sumOnce, min(sumBlock, e.n)),
		x:     make([][]uint64, digits*e.group), part: make([][]uint64, np+1),
		terms: make([][]uint64, terms), y0: make([][]uint64, terms), y1: make([][]uint64, terms),
	}
	for range digits + 2 {
		s.mine.v = append(s.mine.v, make([]uint8, e.n))
	}
	s.run = func() { e.help(s) }
	return s
}

func (s *scratch) encoding(r *rings) ([]complex128, []float64) {
	if s.cplx == nil {
		s.cplx, s.float = make([]complex128, r.enc.n), make([]float64, r.n)
	}
	return s.cplx, s.float
}

// EngineName is what engines of this package call themselves, and what they make in
// the slow tier.
const EngineName = "encrypted"

// Name returns EngineName.
func (e *engine) Name() string { return EngineName }

// Params returns the parameters; they must not be changed.
func (e *engine) Params() *ir.Params { return e.p }

// SlabBytes returns the bytes of one limb.
func (e *engine) SlabBytes() int { return e.p.SlabBytes() }

// Slabs returns the number of limbs of an object.
func (e *engine) Slabs(t ir.Type) int { return e.p.Slabs(t.Kind, t.Level) }

// Close waits for running steps and releases the scratch memory.
func (e *engine) Close() error {
	for range cap(e.scratch) {
		<-e.scratch
	}
	for range cap(e.scratch) {
		e.scratch <- nil
	}
	return nil
}

// operand is an object over caller-owned limbs.
type operand struct {
	t       ir.Type
	rows    [][]uint64
	stride  int // limbs per polynomial
	np      int
	owner   *engine
	streams bool // what follows from seed or source is made as it is used
	seed    Seed
	source  []uint64 // coefficients of a plaintext whose limbs are made so
}

// Type returns the type the operand was bound with.
func (o *operand) Type() ir.Type { return o.t }

// Space returns host memory.
func (o *operand) Space() backend.Space { return backend.SpaceHost }

// q returns limb i of polynomial k modulo q_i.
func (o *operand) q(k, i int) []uint64 { return o.rows[k*o.stride+i] }

// limbs returns the limbs of polynomial k.
func (o *operand) limbs(k int) [][]uint64 { return o.rows[k*o.stride : (k+1)*o.stride] }

// qp returns limb i of polynomial k as if the object had level l.
func (o *operand) qp(k, i, l int) []uint64 {
	if i > l {
		i += o.t.Level - l
	}
	return o.rows[k*o.stride+i]
}

// Bind makes an operand over limbs, of which those may be nil that nothing touches.
// It copies nothing; the memory stays the caller's and must outlive every call that
// uses the operand.
func (e *engine) Bind(t ir.Type, slabs [][]byte) (backend.Operand, error) {
	return e.bind(t, slabs)
}

func (e *engine) bind(t ir.Type, slabs [][]byte) (*operand, error) {
	o := &operand{owner: e}
	if err := e.rebind(o, t, slabs); err != nil {
		return nil, err
	}
	return o, nil
}

// Rebind makes an operand that no call uses one over other limbs, as Bind does.
func (e *engine) Rebind(o backend.Operand, t ir.Type, slabs [][]byte) error {
	x, err := e.operand(o)
	if err != nil {
		return err
	}
	return e.rebind(x, t, slabs)
}

func (e *engine) rebind(o *operand, t ir.Type, slabs [][]byte) error {
	if t.Kind.Vocab() != ir.Scheme {
		return fmt.Errorf("a value of kind %s is no object of the encrypted backend", t.Kind)
	}
	if t.Level < 0 || t.Level > e.p.MaxLevel() {
		return fmt.Errorf("level %d is outside 0..%d", t.Level, e.p.MaxLevel())
	}
	if err := t.Scale.Check(len(e.p.Q)); err != nil {
		return fmt.Errorf("scale %s does not belong to the parameters: %w", t.Scale, err)
	}
	if want := e.Slabs(t); len(slabs) != want {
		return fmt.Errorf("%s at level %d needs %d slabs, got %d", t.Kind, t.Level, want, len(slabs))
	}
	rows := slices.Grow(o.rows[:0], len(slabs))[:len(slabs)]
	clear(rows)
	*o = operand{t: t, rows: rows, stride: t.Level + 1, np: len(e.p.P), owner: e}
	switch t.Kind {
	case ir.CipherQPKind, ir.DigitsKind, ir.PlainQPKind, ir.KeyKind:
		o.stride += o.np
	case ir.SparseKeyKind:
		o.stride = 2 // q_0 and p_0
	}
	for i, s := range slabs {
		if s == nil {
			continue // nothing that uses the operand touches it
		}
		if len(s) != e.SlabBytes() {
			return fmt.Errorf("slab %d has %d bytes, want %d", i, len(s), e.SlabBytes())
		}
		at := unsafe.Pointer(unsafe.SliceData(s))
		if uintptr(at)&63 != 0 {
			return fmt.Errorf("slab %d is not aligned to 64 bytes", i)
		}
		o.rows[i] = unsafe.Slice((*uint64)(at), e.n)
	}
	return nil
}

// Encode writes the plaintext of slot values at the level and scale of out, in
// Montgomery form.
func (e *engine) Encode(values *ir.SlotData, out backend.Operand) error {
	o, err := e.operand(out)
	if err != nil {
		return err
	}
	if o.t.Kind != ir.PlainKind && o.t.Kind != ir.PlainQPKind {
		return fmt.Errorf("cannot encode into a %s", o.t.Kind)
	}
	s := e.take()
	defer e.give(s)
	c, big, err := e.coefs(s, values, o.t)
	if err != nil {
		return err
	}
	work := s.own[0]
	e.limbs(o, nil, work, packed(work, c, big))
	return nil
}

// fits verifies that coefficients of magnitude at most big lie within half the
// modulus of a level.
func (r *rings) fits(big float64, level int) error {
	if big-big != 0 {
		return errors.New("a value overflows")
	}
	bound := -1.0
	for _, m := range r.mods[:level+1] {
		bound += math.Log2(float64(m.Q))
	}
	if big > 0 && math.Log2(big) >= bound {
		return fmt.Errorf("values need %.1f bits, the modulus of level %d holds %.1f", math.Log2(big), level, bound)
	}
	return nil
}

func (e *engine) operand(o backend.Operand) (*operand, error) {
	x, ok := o.(*operand)
	if !ok || x.owner != e {
		return nil, errors.New("operand belongs to another engine")
	}
	return x, nil
}

var argKinds = map[ir.Op][]ir.Kind{
	ir.OpHEAdd: {ir.CipherKind, ir.CipherKind}, ir.OpHESub: {ir.CipherKind, ir.CipherKind},
	ir.OpHEAddPlain: {ir.CipherKind, ir.PlainKind}, ir.OpHEMulPlain: {ir.CipherKind, ir.PlainKind},
	ir.OpHEAddConst: {ir.CipherKind}, ir.OpHEMulConst: {ir.CipherKind},
	ir.OpHEMacConst:   {ir.CipherKind, ir.CipherKind},
	ir.OpHEMacPlain:   {ir.CipherKind, ir.CipherKind, ir.PlainKind},
	ir.OpHEMul:        {ir.CipherKind, ir.CipherKind, ir.KeyKind},
	ir.OpHEMulRescale: {ir.CipherKind, ir.CipherKind, ir.KeyKind}, // and more factors before the key
	ir.OpHEMacRescale: {ir.CipherKind, ir.CipherKind, ir.CipherKind, ir.KeyKind},
	ir.OpHERescale:    {ir.CipherKind}, ir.OpHERotate: {ir.CipherKind, ir.KeyKind},
	ir.OpHEDecompose: {ir.CipherKind}, ir.OpHEHoistRot: {ir.CipherKind, ir.DigitsKind, ir.KeyKind},
	ir.OpHELift: {ir.CipherKind}, ir.OpHEMulQP: {ir.CipherQPKind, ir.PlainQPKind},
	ir.OpHEMacQP: {ir.CipherQPKind, ir.CipherQPKind, ir.PlainQPKind},
	ir.OpHEGiant: {ir.CipherQPKind, ir.KeyKind}, ir.OpHEAddQP: {ir.CipherQPKind, ir.CipherQPKind},
	ir.OpHEModDown: {ir.CipherQPKind}, ir.OpHEModDownRescale: {ir.CipherQPKind}, ir.OpHEOutput: {ir.CipherKind},
	ir.OpHERaise:    {ir.CipherKind, ir.SparseKeyKind, ir.KeyKind},
	ir.OpHERealPart: {ir.CipherKind, ir.KeyKind}, ir.OpHEMulI: {ir.CipherKind},
}

var outKinds = map[ir.Op]ir.Kind{
	ir.OpHEDecompose: ir.DigitsKind, ir.OpHEHoistRot: ir.CipherQPKind, ir.OpHELift: ir.CipherQPKind,
	ir.OpHEMulQP: ir.CipherQPKind, ir.OpHEMacQP: ir.CipherQPKind, ir.OpHEGiant: ir.CipherQPKind,
	ir.OpHEAddQP: ir.CipherQPKind, // all others: ct
}

// Exec performs one step. Arguments may have a higher level than the result:
// then only the limbs of the result's level are read, which drops levels for
// nothing.
func (e *engine) Exec(s *plan.Step, args []backend.Operand, out backend.Operand) error {
	w := e.take()
	defer e.give(w)
	if limbwise[s.Op] != nil {
		call := [1]backend.Call{{Step: s, Args: args, Out: out}}
		return e.execLimbs(w, call[:])
	}
	if err := e.accept(w.job, s, args, out); err != nil {
		return err
	}
	switch s.Op {
	case ir.OpHERescale:
		e.rescale(w)
	case ir.OpHEModDown, ir.OpHEModDownRescale:
		e.modDown(w)
	case ir.OpHEMulRescale, ir.OpHEMacRescale:
		e.mulRescale(w)
	case ir.OpHEMul:
		e.mulRelin(w)
	case ir.OpHERotate:
		e.rotate(w, s.Rot)
	case ir.OpHERealPart:
		e.realPart(w)
	case ir.OpHERaise:
		e.raise(w)
	case ir.OpHEDecompose:
		e.decompose(w)
	case ir.OpHEGiant:
		e.giant(w, s.Rot)
	default:
		panic("BUG: " + s.Op.String() + " has operand kinds but no semantics")
	}
	return nil
}

// exec is Exec on operands of this engine.
func (e *engine) exec(s *plan.Step, in []*operand, out *operand) error {
	args := make([]backend.Operand, len(in))
	for i, o := range in {
		args[i] = o
	}
	return e.Exec(s, args, out)
}

// accept verifies the operands of a step and notes them in its job.
func (e *engine) accept(j *job, s *plan.Step, args []backend.Operand, out backend.Operand) error {
	kinds, ok := argKinds[s.Op]
	if !ok {
		return fmt.Errorf("%s is no step of the encrypted backend", s.Op)
	}
	o, err := e.operand(out)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Op, err)
	}
	want, ok := outKinds[s.Op]
	if !ok {
		want = ir.CipherKind
	}
	if o.t.Kind != want {
		return fmt.Errorf("%s: result is a %s, want a %s", s.Op, o.t.Kind, want)
	}
	more := len(args) - len(kinds) // operands beyond those that there always are
	if more < 0 || more%2 != 0 || len(args) > s.Op.Info().MaxArgs {
		return fmt.Errorf("%s: %d operands", s.Op, len(args))
	}
	switch s.Op {
	case ir.OpHERaise, ir.OpHERealPart, ir.OpHEMulI:
		if e.p.Ring != ir.RingStandard {
			return fmt.Errorf("%s: it needs the standard ring, not the %s one", s.Op, e.p.Ring)
		}
	}
	j.drop = s.Op.Drops()
	j.l, j.out, j.in, j.twice = o.t.Level+j.drop, o, j.in[:0], s.Twice
	sum, _ := s.Op.Accumulates()
	for i, a := range args {
		need := j.l
		if s.Op == ir.OpHERaise && i < 2 {
			need = 0
		}
		k := max(i-more, 0) // factors come first
		if terms := len(kinds) - 2; sum {
			k = min(i, terms+max(i-terms, 0)%2) // terms come last
		}
		x, err := e.argument(s.Op, i, a, kinds[k], need)
		if err != nil {
			return err
		}
		j.in = append(j.in, x)
	}
	if j.c, err = e.constantOf(s, o.t.Scale, j.l); err != nil {
		return fmt.Errorf("%s: %w", s.Op, err)
	}
	return nil
}

// constantOf returns the constant of a step whose result has a scale, computed at level l.
func (e *engine) constantOf(s *plan.Step, scale ir.Scale, l int) (integer, error) {
	switch s.Op {
	case ir.OpHEAddConst:
		return e.constant(s.Const, scale)
	case ir.OpHEMulConst, ir.OpHEMacConst:
		return e.constant(s.Const, s.Scale)
	case ir.OpHEMulRescale, ir.OpHEMacRescale: // added before the division
		return e.constant(s.Const, scale, e.p.Q[l])
	}
	return integer{}, nil
}

// argument returns operand i of a step, which must be of a kind and of a level at least.
func (e *engine) argument(op ir.Op, i int, a backend.Operand, want ir.Kind, level int) (*operand, error) {
	x, err := e.operand(a)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", op, err)
	case x.t.Kind != want:
		return nil, fmt.Errorf("%s: operand %d is a %s, want a %s", op, i, x.t.Kind, want)
	case x.t.Level < level:
		return nil, fmt.Errorf("%s: operand %d has level %d, the result needs %d", op, i, x.t.Level, level)
	}
	return x, nil
}
