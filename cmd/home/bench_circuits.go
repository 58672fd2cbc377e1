package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	goruntime "runtime"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
)

// This file compares whole circuits with stock Lattigo: a step of a network, compiled
// as in a network and executed as in a run that holds everything in DRAM.

// circuitRun is a plan of one step with its keys and an encrypted argument.
type circuitRun struct {
	ctx    context.Context
	p      *plan.Plan
	sk     *lattigo.SecretKey
	engine backend.Engine
	exec   *runtime.Executor
	in     *lattigo.Ciphertexts
	out    runtime.Outputs
}

// newCircuitRun makes the keys of a plan and encrypts its argument, on one thread.
// It says nothing of security.
func newCircuitRun(ctx context.Context, p *plan.Plan, x []float64) (_ *circuitRun, err error) {
	p.Params.Insecure = true // whether it is or not: these keys live as long as the process
	opt := lattigo.AllowInsecure()
	c := &circuitRun{ctx: ctx, p: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.sk, err = lattigo.NewSecretKey(&p.Params, opt); err != nil {
		return nil, err
	}
	if c.engine, err = lattigo.Open(&p.Params, opt, lattigo.Threads(1)); err != nil {
		return nil, err
	}
	if c.exec, err = runtime.NewExecutor(ctx, p, c.engine, runtime.Options{Threads: 1, Keys: lattigo.NewMomentaryKeys(c.sk, opt)}); err != nil {
		return nil, err
	}
	port := &p.Inputs[0]
	c.in, err = lattigo.Encrypt(c.sk, &p.Params, "", 1, []lattigo.PortValues{{Port: port.Name, Level: port.Level, Scale: port.Scale, Values: [][]float64{x}}}, opt)
	return c, err
}

func (c *circuitRun) run() error {
	g, err := c.in.Group(c.p.Inputs[0].Name)
	if err != nil {
		return err
	}
	c.out, _, err = c.exec.Run(c.ctx, func(_ plan.ObjectID, dst [][]byte) error { return g.Load(0, dst) })
	return err
}

// slots decrypts what the last run returned.
func (c *circuitRun) slots() ([]float64, error) {
	port, reply := &c.p.Outputs[0], c.in.Reply()
	if err := reply.Append(port.Name, port.Level, port.Scale, c.out[port.Objects[0]]); err != nil {
		return nil, err
	}
	z, err := lattigo.Decrypt(c.sk, reply, reply.Groups[0])
	if err != nil {
		return nil, err
	}
	return z[0], nil
}

func (c *circuitRun) close() error {
	var err error
	if c.exec != nil {
		err = c.exec.Close()
	}
	if c.engine != nil {
		err = errors.Join(err, c.engine.Close())
	}
	return err
}

// leastCircuitBits is the precision, as -log2 of the largest error, that either side
// must reach for a comparison to count.
const leastCircuitBits = 8

// circuitCase is a circuit to compare, on vectors whose elements lie between -1 and 1.
type circuitCase struct {
	step  string
	level int
	depth int // levels that it takes; a refresh brings some
	x     []float64
	want  func() []float64
	ours  func() (*plan.Plan, error)
	stock func() (*lattigo.StockCircuit, error)
	bytes int64 // memory that it takes
}

// manyBytes is how much a comparison may take before garbage is collected earlier.
const manyBytes = 4 << 30

// compareCircuit times both sides by turns, after a run of each that does not count.
func compareCircuit(ctx context.Context, k *circuitCase, runs int, clock func() float64) (_ *kernelRow, err error) {
	if k.bytes > manyBytes {
		defer debug.SetGCPercent(debug.SetGCPercent(10))
	}
	theirs, err := k.stock()
	if err != nil {
		return nil, fmt.Errorf("stock: %w", err)
	}
	debug.FreeOSMemory()
	p, err := k.ours()
	if err != nil {
		return nil, err
	}
	ours, err := newCircuitRun(ctx, p, k.x)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ours.close()) }()
	debug.FreeOSMemory()
	row := newKernelRow(k.step, p.Params.LogN, k.level, lattigo.Form(ours.engine), lattigo.PlanNeed(p, plan.Forms{}), lattigo.KeyWhole)
	row.StockWay, row.Products, row.KeySwitches = theirs.Way, p.Counts.Diagonals+p.Counts.CtMults, p.Counts.KeySwitches
	var times [2][]float64
	for i := range runs + 1 {
		for side, run := range []func() error{ours.run, theirs.Run} {
			goruntime.GC() // so that neither collects for the other
			began := clock()
			if err := run(); err != nil {
				return nil, err
			}
			if i > 0 {
				times[side] = append(times[side], (clock()-began)*1e3)
			}
		}
	}
	got, err := ours.slots()
	if err != nil {
		return nil, err
	}
	z, err := theirs.Slots()
	if err != nil {
		return nil, fmt.Errorf("stock: %w", err)
	}
	off, stockOff := make([]float64, len(got)), make([]float64, len(got))
	for i, want := range k.want() {
		off[i], stockOff[i] = math.Abs(got[i]-want), math.Abs(real(z[i])-want)
	}
	row.OursBits, row.StockBits = precisionBits(off), precisionBits(stockOff)
	if worst := min(row.OursBits[1], row.StockBits[1]); !(worst >= leastCircuitBits) {
		return nil, fmt.Errorf("results are off: %.1f bits of ours are right, %.1f of stock", row.OursBits[1], row.StockBits[1])
	}
	row.times(times[0], times[1])
	return row, nil
}

// precisionBits returns -log2 of the mean and of the largest of errors.
func precisionBits(errors []float64) *[2]float64 {
	sum, worst := 0.0, 0.0
	for _, e := range errors {
		sum, worst = sum+e, max(worst, e)
	}
	return &[2]float64{-math.Log2(sum / float64(len(errors))), -math.Log2(worst)}
}

// circuitCases lists the circuits that are compared on a chain of primes.
func circuitCases(par *ir.Params, level int, clock func() float64) ([]circuitCase, error) {
	prof, x := backend.DefaultProfile(), lattigo.Uniform(par.Slots(), 1)
	stock, err := lattigo.NewStock(par)
	if err != nil {
		return nil, err
	}
	var out []circuitCase
	for _, n := range []int{128, 1024} {
		m := sync.OnceValue(func() *band { return newBand(par.Slots(), n) })
		out = append(out, circuitCase{
			step: fmt.Sprintf("linear transform, %d diagonals", n), level: level, depth: 1, x: x,
			want:  func() []float64 { return m().times(x) },
			ours:  func() (*plan.Plan, error) { return passes.CompileLinear(par, prof, m().sparse(), level) },
			stock: func() (*lattigo.StockCircuit, error) { return stock.Linear(m().diagonals(), x, level, clock) },
			bytes: int64(2 * n * par.Slabs(ir.PlainQPKind, level) * par.SlabBytes()),
		})
	}
	for _, degree := range []int{15, 63} {
		c := lattigo.Uniform(degree+1, 2)
		for i := range c {
			c[i] /= float64(degree + 1)
		}
		poly := ir.Approx{Coef: c, Bound: 1}
		want := func() []float64 {
			y := make([]float64, len(x))
			for i := range x {
				y[i] = poly.At(0, x[i])
			}
			return y
		}
		out = append(out, circuitCase{
			step: fmt.Sprintf("Chebyshev, degree %d", degree), level: level, depth: bits.Len(uint(degree)), x: x, want: want,
			ours:  func() (*plan.Plan, error) { return passes.CompilePolynomial(par, prof, c, level) },
			stock: func() (*lattigo.StockCircuit, error) { return stock.Chebyshev(c, x, level) },
		})
	}
	return out, nil
}

// band is a square matrix of neighbouring diagonals: entry (i, i+k mod n) is
// values[k][i].
type band struct{ values [][]float64 }

// newBand makes a matrix of random multiples of 1/128, so small that products with
// vectors of numbers up to one stay below one.
func newBand(n, diagonals int) *band {
	b := &band{make([][]float64, diagonals)}
	for k := range b.values {
		b.values[k] = lattigo.Uniform(n, uint64(3+k))
		for i, v := range b.values[k] {
			b.values[k][i] = (math.Round(128*v) + 0.5) / 129 / float64(diagonals)
		}
	}
	return b
}

func (b *band) times(x []float64) []float64 {
	y := make([]float64, len(x))
	for k, d := range b.values {
		for i := range y {
			y[i] += d[i] * x[(i+k)%len(x)]
		}
	}
	return y
}

func (b *band) diagonals() map[int][]float64 {
	d := map[int][]float64{}
	for k := range b.values {
		d[k] = b.values[k]
	}
	return d
}

func (b *band) sparse() *ir.Sparse {
	n := len(b.values[0])
	m := &ir.Sparse{Rows: n, Cols: n, Ptr: make([]int32, 1, n+1)}
	for i := range n {
		first := max(0, i+len(b.values)-n) // what wraps around has the least columns
		for j := range b.values {
			k := j - first
			if k < 0 {
				k += len(b.values)
			}
			m.Col, m.Val = append(m.Col, int32((i+k)%n)), append(m.Val, b.values[k][i])
		}
		m.Ptr = append(m.Ptr, int32(len(m.Col)))
	}
	return m
}

// bootstrapRatio is log2(q_0/S) for each of lattigo.StockChains: larger lessens the
// error of the sine, and gives more weight to noise.
var bootstrapRatio = []int{14, 11}

// bootstrapBytes is the memory that a comparison of bootstraps takes.
const bootstrapBytes = 20 << 30

// bootstrapCase compares bootstraps on chain i of lattigo.StockChains, in a ring of
// the degree given. Stock Lattigo refreshes complex slots; ours refreshes real ones,
// which is what networks have.
func bootstrapCase(i, logN int) (*circuitCase, error) {
	chain := lattigo.StockChains[i]
	chain.LogN = logN
	par, err := chain.Params()
	if err != nil {
		return nil, err
	}
	x := lattigo.Uniform(par.Slots(), 1)
	z := make([]complex128, len(x))
	for i, v := range x {
		z[i] = complex(v, 0)
	}
	return &circuitCase{
		step: fmt.Sprintf("bootstrap, 2^%d slots, %s", logN-1, chain.Name), level: par.MaxLevel(), x: x, want: func() []float64 { return x },
		ours: func() (*plan.Plan, error) {
			return passes.CompileRefresh(par, backend.DefaultProfile(), bootstrapRatio[i])
		},
		stock: func() (*lattigo.StockCircuit, error) { return chain.Bootstrap(z) },
		bytes: bootstrapBytes,
	}, nil
}

// wanted reports whether a row is asked for: by name, ring degree and size of the
// primes.
func (c *benchCmd) wanted(step string, logN, bits int) bool {
	name := strings.ToLower(fmt.Sprintf("%s N=2^%d %d bits", step, logN, bits))
	for _, word := range strings.Fields(strings.ToLower(c.Only)) {
		if !strings.Contains(name, word) {
			return false
		}
	}
	return true
}
