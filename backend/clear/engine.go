// Package clear computes in the clear: the tensor semantics of a network, and the
// scheme engine on float64 slots that all other engines are held against.
package clear

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"unsafe"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// engine executes scheme steps on float64 slots without noise: the reference
// that the simulated and the encrypted engine are held against. A ciphertext or
// plaintext is one slab of slots, real parts; a complex one has a second slab
// with the imaginary parts. Digits and keys need no memory.
type engine struct {
	p         *ir.Params
	embedding func() *ir.Embedding // of as many points as there are slots
	diagonals diagonals
}

// NewEngine returns the clear engine for the parameters. It checks that they are
// well formed; security does not matter in the clear.
func NewEngine(p *ir.Params) (backend.Engine, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	c := *p
	return &engine{p: &c, embedding: sync.OnceValue(func() *ir.Embedding { return ir.NewEmbedding(c.Slots()) })}, nil
}

// Name returns "clear".
func (e *engine) Name() string { return "clear" }

// Params returns the parameters; they must not be changed.
func (e *engine) Params() *ir.Params { return e.p }

// SlabBytes returns the bytes of one vector of slots.
func (e *engine) SlabBytes() int { return e.p.Slots() * 8 }

// Slabs returns 1 for ciphertexts and plaintexts, 2 for complex ones, 0 for
// digits and keys.
func (e *engine) Slabs(t ir.Type) int {
	switch {
	case t.Kind == ir.DigitsKind || t.Kind == ir.KeyKind || t.Kind == ir.SparseKeyKind:
		return 0
	case t.Complex:
		return 2
	}
	return 1
}

// Close does nothing: the engine holds nothing.
func (e *engine) Close() error { return nil }

// operand is a vector of slots in caller-owned memory; nil for digits and keys.
// Where im is nil, imaginary parts are zero.
type operand struct {
	t      ir.Type
	re, im []float64
}

// Type returns the type the operand was bound with.
func (o *operand) Type() ir.Type { return o.t }

// Space returns host memory.
func (o *operand) Space() backend.Space { return backend.SpaceHost }

// Bind makes an operand over its slabs.
func (e *engine) Bind(t ir.Type, slabs [][]byte) (backend.Operand, error) {
	if t.Kind.Vocab() != ir.Scheme {
		return nil, fmt.Errorf("a value of kind %s is no object of the clear engine", t.Kind)
	}
	if t.Complex && e.p.Ring != ir.RingStandard {
		return nil, fmt.Errorf("the %s ring has no complex slots", e.p.Ring)
	}
	if want := e.Slabs(t); len(slabs) != want {
		return nil, fmt.Errorf("%s needs %d slabs, got %d", t.Kind, want, len(slabs))
	}
	o := &operand{t: t}
	for i, s := range slabs {
		if len(s) != e.SlabBytes() {
			return nil, fmt.Errorf("slab has %d bytes, want %d", len(s), e.SlabBytes())
		}
		at := unsafe.Pointer(unsafe.SliceData(s))
		if uintptr(at)&63 != 0 {
			return nil, errors.New("slab is not aligned to 64 bytes")
		}
		slots := unsafe.Slice((*float64)(at), e.p.Slots())
		if i == 0 {
			o.re = slots
		} else {
			o.im = slots
		}
	}
	return o, nil
}

// Slots returns the real parts of the slots of an operand of the clear engine,
// aliasing its memory: writing them is encryption in the clear, reading them
// decryption. It returns false for operands of other engines, digits and keys.
func Slots(o backend.Operand) ([]float64, bool) {
	x, ok := o.(*operand)
	if !ok || x.re == nil {
		return nil, false
	}
	return x.re, true
}

// Imaginary returns the imaginary parts as Slots does the real ones. It returns
// false where the type is not complex.
func Imaginary(o backend.Operand) ([]float64, bool) {
	x, ok := o.(*operand)
	if !ok || x.im == nil {
		return nil, false
	}
	return x.im, true
}

// Encode writes the values of all slots.
func (e *engine) Encode(values *ir.SlotData, out backend.Operand) error {
	o, ok := out.(*operand)
	if !ok || o.re == nil {
		return errors.New("operand cannot hold slots of the clear engine")
	}
	n := values.Period
	if n <= 0 || len(o.re)%n != 0 || values.LogLanes < 0 || n>>values.LogLanes == 0 {
		return fmt.Errorf("slot values with period %d do not fit %d slots", n, len(o.re))
	}
	logMost := -1.0 - math.Log2(o.t.Scale.Float64(e.p.Q))
	for _, q := range e.p.Q[:o.t.Level+1] {
		logMost += math.Log2(float64(q))
	}
	most := min(math.Exp2(logMost), math.MaxFloat64)
	fits := func(s int, v float64) error {
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			return fmt.Errorf("slot %d: %v cannot be encoded", s, v)
		case math.Abs(v) >= most:
			return fmt.Errorf("slot %d: %g does not fit scale %s at level %d", s, v, o.t.Scale, o.t.Level)
		}
		return nil
	}
	if d := values.DFT; d != nil {
		if o.im == nil {
			return fmt.Errorf("complex slot values for %s, which is real", o.t.Kind)
		}
		v := e.diagonals.get(values)
		if err := fits(0, v.most); err != nil {
			return err
		}
		copy(o.re, v.re)
		copy(o.im, v.im)
	} else {
		clear(o.re[:n])
		clear(o.im)
		for i, v := range values.Entries() {
			s, z := int(i)<<values.LogLanes, o.re
			if s >= n && o.im != nil {
				s, z = s-n, o.im
			}
			if s < 0 || s >= n {
				return fmt.Errorf("slot %d lies outside the period of %d", s, n)
			}
			if !(math.Abs(v) < most) {
				return fits(s, v)
			}
			for k := range 1 << values.LogLanes {
				z[s+k] = v
			}
		}
	}
	for _, z := range [][]float64{o.re, o.im} {
		for at := n; at < len(z); at *= 2 { // doubles what is there
			copy(z[at:], z[:at])
		}
	}
	return nil
}

// diagonals keeps what the diagonals of transforms hold: they take long to make,
// are few, and every bootstrap of every sample uses them again.
type diagonals struct {
	mu    sync.Mutex
	bytes int
	made  map[diagonalKey]*diagonal
}

type diagonalKey struct {
	ir.Diagonal
	period int
}

// diagonal is one period of a diagonal.
type diagonal struct {
	re, im []float64
	most   float64 // largest magnitude of a part
}

// diagonalBytes bounds what is kept; what is beyond is made again each time.
const diagonalBytes = 512 << 20

// get returns the slots of a diagonal. It may be called from several goroutines.
func (d *diagonals) get(values *ir.SlotData) *diagonal {
	key := diagonalKey{*values.DFT, values.Period}
	d.mu.Lock()
	v := d.made[key]
	d.mu.Unlock()
	if v != nil {
		return v
	}
	z := make([]complex128, values.Period)
	values.Fill(z)
	parts := make([]float64, 2*len(z))
	v = &diagonal{re: parts[:len(z)], im: parts[len(z):]}
	for i, x := range z {
		v.re[i], v.im[i] = real(x), imag(x)
		v.most = max(v.most, math.Abs(real(x)), math.Abs(imag(x)))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made[key] == nil && d.bytes+8*len(parts) <= diagonalBytes {
		if d.made == nil {
			d.made = map[diagonalKey]*diagonal{}
		}
		d.made[key] = v
		d.bytes += 8 * len(parts)
	}
	return v
}

// Exec performs one step on the slots. Levels and scales were verified when the
// program was typed; in the clear they have no effect, but for the multiples of
// q_0 that a raise adds.
func (e *engine) Exec(s *plan.Step, args []backend.Operand, out backend.Operand) error {
	z, ok := out.(*operand)
	if !ok {
		return fmt.Errorf("%s: result belongs to another engine", s.Op)
	}
	if sum, acc := s.Op.Accumulates(); sum {
		return addUp(s, acc, args, z)
	}
	if s.Op == ir.OpHEMulRescale || s.Op == ir.OpHEMacRescale {
		return addProducts(s, args, z)
	}
	var in [3]*operand
	if len(args) > len(in) {
		return fmt.Errorf("%s: %d operands", s.Op, len(args))
	}
	vectors := 0
	for i, a := range args {
		x, ok := a.(*operand)
		if !ok {
			return fmt.Errorf("%s: operand %d belongs to another engine", s.Op, i)
		}
		if x.re != nil {
			in[i] = x
			vectors++
		}
		if x.im != nil && z.re != nil && z.im == nil && s.Op != ir.OpHERealPart {
			return fmt.Errorf("%s: operand %d is complex, the result is not", s.Op, i)
		}
	}
	if want, ok := vectorArgs[s.Op]; !ok || vectors != want || in[0] == nil {
		return fmt.Errorf("%s: %d vectors of slots among the operands, want %d", s.Op, vectors, vectorArgs[s.Op])
	}
	a, b := in[0], in[1]
	if s.Op == ir.OpHEDecompose {
		return nil
	}
	if z.re == nil {
		return fmt.Errorf("%s: result holds no slots", s.Op)
	}
	if (s.Op == ir.OpHERaise || s.Op == ir.OpHEMulI) && z.im == nil {
		return fmt.Errorf("%s: result cannot hold complex slots", s.Op)
	}
	switch s.Op {
	case ir.OpHEAdd, ir.OpHEAddPlain, ir.OpHEAddQP:
		sum(z.re, a.re, b.re)
		sum(z.im, a.im, b.im)
	case ir.OpHESub:
		difference(z.re, a.re, b.re)
		difference(z.im, a.im, b.im)
	case ir.OpHEMul:
		multiply(z, a, b)
	case ir.OpHEAddConst:
		for i := range z.re {
			z.re[i] = a.re[i] + s.Const
		}
		assign(z.im, a.im)
	case ir.OpHEMulConst:
		scale(z.re, a.re, s.Const)
		scale(z.im, a.im, s.Const)
	case ir.OpHEMacConst:
		macConst(z.re, a.re, b.re, s.Const)
		macConst(z.im, a.im, b.im, s.Const)
	case ir.OpHERotate, ir.OpHEHoistRot, ir.OpHEGiant:
		rotate(z.re, a.re, s.Rot)
		rotate(z.im, a.im, s.Rot)
	case ir.OpHERescale, ir.OpHELift, ir.OpHEModDown, ir.OpHEModDownRescale, ir.OpHEOutput:
		assign(z.re, a.re)
		assign(z.im, a.im)
	case ir.OpHERealPart:
		scale(z.re, a.re, 2)
		clear(z.im)
	case ir.OpHEMulI:
		scale(z.re, a.im, -1)
		assign(z.im, a.re)
	case ir.OpHERaise:
		assign(z.re, a.re)
		assign(z.im, a.im)
		e.addMultiples(s, a, z)
	default:
		panic("BUG: " + s.Op.String() + " has operands but no semantics")
	}
	return nil
}

// addUp adds up products with plaintexts, to the first operand where acc is set, in
// the order of the operands.
func addUp(s *plan.Step, acc bool, args []backend.Operand, z *operand) error {
	in, err := slotted(s, args, z)
	if err != nil {
		return err
	}
	first := 0
	if acc {
		first = 1
	}
	if n := len(in) - first; n < 2 || n%2 != 0 || n > 2*ir.MostTerms {
		return fmt.Errorf("%s: %d operands", s.Op, len(in))
	}
	sum := z
	if acc {
		sum = in[0]
	} else {
		multiply(z, in[0], in[1])
		first = 2
	}
	for ; first < len(in); first += 2 {
		accumulate(z, sum, in[first], in[first+1])
		sum = z
	}
	return nil
}

// addProducts adds up products of operands, doubles them where the step does, and adds a
// constant and the operand that stands before the factors, if any. The last is a key.
func addProducts(s *plan.Step, args []backend.Operand, z *operand) error {
	n := s.Op.Products(len(args))
	before := len(args) - 1 - 2*n
	if n < 1 || n > ir.MostProducts || before != s.Op.Info().MinArgs-3 {
		return fmt.Errorf("%s: %d operands", s.Op, len(args))
	}
	in, err := slotted(s, args[:len(args)-1], z)
	if err != nil {
		return err
	}
	for k := range n {
		if a, b := in[before+2*k], in[before+2*k+1]; k == 0 {
			multiply(z, a, b)
		} else {
			accumulate(z, z, a, b)
		}
	}
	if s.Twice {
		scale(z.re, z.re, 2)
		scale(z.im, z.im, 2)
	}
	for i := range z.re {
		z.re[i] += s.Const
	}
	if before > 0 {
		sum(z.re, z.re, in[0].re)
		sum(z.im, z.im, in[0].im)
	}
	return nil
}

// slotted returns operands of slots.
func slotted(s *plan.Step, args []backend.Operand, z *operand) ([]*operand, error) {
	in := make([]*operand, len(args))
	for i, a := range args {
		x, ok := a.(*operand)
		switch {
		case !ok:
			return nil, fmt.Errorf("%s: operand %d belongs to another engine", s.Op, i)
		case x.re == nil || z.re == nil:
			return nil, fmt.Errorf("%s: operand %d or the result holds no slots", s.Op, i)
		case x.im != nil && z.im == nil:
			return nil, fmt.Errorf("%s: operand %d is complex, the result is not", s.Op, i)
		}
		in[i] = x
	}
	return in, nil
}

// The functions below work on one part of the slots, where nil stands for zeros;
// a result that is nil is not wanted. z may be the first argument.

func assign(z, a []float64) {
	switch {
	case z == nil:
	case a == nil:
		clear(z)
	case &z[0] != &a[0]:
		copy(z, a)
	}
}

func sum(z, a, b []float64) {
	switch {
	case z == nil:
	case b == nil:
		assign(z, a)
	case a == nil:
		copy(z, b)
	default:
		a, b = a[:len(z)], b[:len(z)]
		for i := range z {
			z[i] = a[i] + b[i]
		}
	}
}

func difference(z, a, b []float64) {
	switch {
	case z == nil:
	case b == nil:
		assign(z, a)
	case a == nil:
		scale(z, b, -1)
	default:
		a, b = a[:len(z)], b[:len(z)]
		for i := range z {
			z[i] = a[i] - b[i]
		}
	}
}

func scale(z, a []float64, k float64) {
	if z == nil || a == nil {
		clear(z)
		return
	}
	a = a[:len(z)]
	for i := range z {
		z[i] = a[i] * k
	}
}

func macConst(z, a, b []float64, k float64) {
	switch {
	case z == nil:
	case b == nil:
		assign(z, a)
	case a == nil:
		scale(z, b, k)
	default:
		a, b = a[:len(z)], b[:len(z)]
		for i := range z {
			z[i] = a[i] + b[i]*k
		}
	}
}

func product(z, a, b []float64) {
	if z == nil || a == nil || b == nil {
		clear(z)
		return
	}
	a, b = a[:len(z)], b[:len(z)]
	for i := range z {
		z[i] = a[i] * b[i]
	}
}

func mac(z, a, b, c []float64) {
	switch {
	case z == nil:
	case b == nil || c == nil:
		assign(z, a)
	case a == nil:
		product(z, b, c)
	default:
		a, b, c = a[:len(z)], b[:len(z)], c[:len(z)]
		for i := range z {
			z[i] = a[i] + b[i]*c[i]
		}
	}
}

// rotate rotates to the left by k.
func rotate(z, a []float64, k int) {
	if z == nil || a == nil {
		clear(z)
		return
	}
	k = ((k % len(z)) + len(z)) % len(z)
	copy(z, a[k:])
	copy(z[len(z)-k:], a[:k])
}

// multiply sets z to the product of a and b; z is neither of them.
func multiply(z, a, b *operand) {
	if a.im == nil || b.im == nil {
		product(z.re, a.re, b.re)
		if a.im == nil {
			product(z.im, a.re, b.im)
		} else {
			product(z.im, a.im, b.re)
		}
		return
	}
	zr, zi, ar, ai, br, bi := z.re, z.im[:len(z.re)], a.re[:len(z.re)], a.im[:len(z.re)], b.re[:len(z.re)], b.im[:len(z.re)]
	for i := range zr {
		zr[i] = ar[i]*br[i] - ai[i]*bi[i]
		zi[i] = ar[i]*bi[i] + ai[i]*br[i]
	}
}

// accumulate sets z to a plus the product of b and c; z may be a.
func accumulate(z, a, b, c *operand) {
	if b.im == nil || c.im == nil {
		mac(z.re, a.re, b.re, c.re)
		if b.im == nil {
			mac(z.im, a.im, b.re, c.im)
		} else {
			mac(z.im, a.im, b.im, c.re)
		}
		return
	}
	n := len(z.re)
	zr, zi, br, bi, cr, ci := z.re, z.im[:n], b.re[:n], b.im[:n], c.re[:n], c.im[:n]
	assign(zr, a.re)
	assign(zi, a.im)
	for i := range zr {
		zr[i] += br[i]*cr[i] - bi[i]*ci[i]
		zi[i] += br[i]*ci[i] + bi[i]*cr[i]
	}
}

// addMultiples adds to z what raising its modulus does: q_0 times a polynomial
// of integers, whose coefficients are a sum of h+1 terms uniform on [-1/2,1/2],
// h the weight of the ephemeral secret, rounded; the sum is taken as normal. The
// multiples follow from the step and the first slots of its argument a.
func (e *engine) addMultiples(s *plan.Step, a, z *operand) {
	seed := uint64(s.Out)
	for _, x := range a.re[:min(8, len(a.re))] {
		seed = (seed ^ math.Float64bits(x)) * 0x94d049bb133111eb
		seed ^= seed >> 29
	}
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	std := math.Sqrt(ir.EphemeralWeight / 12.0) // and 1/12 of rounding
	multiples := make([]complex128, len(z.re))
	for i := range multiples {
		multiples[i] = complex(math.Round(std*r.NormFloat64()), math.Round(std*r.NormFloat64()))
	}
	e.embedding().ToSlots(multiples)
	q := float64(e.p.Q[0]) / z.t.Scale.Float64(e.p.Q)
	for i, x := range multiples {
		z.re[i] += q * real(x)
		z.im[i] += q * imag(x)
	}
}

// vectorArgs is the number of operands of each step that hold slots.
var vectorArgs = map[ir.Op]int{
	ir.OpHEAdd: 2, ir.OpHESub: 2, ir.OpHEAddPlain: 2, ir.OpHEMulPlain: 2,
	ir.OpHEAddConst: 1, ir.OpHEMulConst: 1, ir.OpHEMacConst: 2, ir.OpHEMul: 2,
	ir.OpHEModDownRescale: 1,
	ir.OpHERescale:        1, ir.OpHERotate: 1, ir.OpHEDecompose: 1, ir.OpHEHoistRot: 1,
	ir.OpHELift: 1, ir.OpHEGiant: 1,
	ir.OpHEAddQP: 2, ir.OpHEModDown: 1, ir.OpHEOutput: 1,
	ir.OpHERaise: 1, ir.OpHERealPart: 1, ir.OpHEMulI: 1,
}
