package main

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

// kernelRow compares one step with stock Lattigo: medians, and the fastest and
// slowest run of either.
type kernelRow struct {
	Step        string     `json:"step"`
	LogN        int        `json:"log_n"`
	Level       int        `json:"level"`
	PrimeBits   int        `json:"prime_bits"`
	Form        string     `json:"form"` // kernels that served the primes
	Ours        float64    `json:"ours_ms"`
	Stock       float64    `json:"stock_ms"`
	Ratio       float64    `json:"ratio"`
	OursSpread  [2]float64 `json:"ours_spread_ms"`
	StockSpread [2]float64 `json:"stock_spread_ms"`
	Runs        int        `json:"runs"` // of either
	// How ours reads evaluation keys: "whole", or "streamed", the uniform halves made from
	// seeds; empty where there are none.
	Key lattigo.Key `json:"key,omitempty"`
	// Of circuits: -log2 of the mean and of the largest error; what the plan does; what
	// was best for stock, where there is a choice.
	OursBits    *[2]float64 `json:"ours_bits,omitempty"`
	StockBits   *[2]float64 `json:"stock_bits,omitempty"`
	Products    int         `json:"products,omitempty"`     // with diagonals and of ciphertexts
	KeySwitches int         `json:"key_switches,omitempty"` // all
	StockWay    string      `json:"stock_way,omitempty"`
	Roof        *roof       `json:"roof,omitempty"` // with --roofline

	form kernels.Form
	need lattigo.Need
}

// newKernelRow returns a row without its times.
func newKernelRow(step string, logN, level int, form kernels.Form, need lattigo.Need, key lattigo.Key) *kernelRow {
	return &kernelRow{Step: step, LogN: logN, Level: level, Form: form.String(), Key: key, form: form, need: need}
}

// times sets what follows from the times of all runs, in milliseconds.
func (k *kernelRow) times(ours, stock []float64) {
	t := lattigo.KernelTime{Ours: ours, Stock: stock}
	k.Ours, k.Stock = t.Medians()
	k.Ratio, k.OursSpread, k.StockSpread, k.Runs = t.Ratio(), spread(ours), spread(stock), len(ours)
}

type kernelReport struct {
	Schema     int          `json:"schema"`
	Machine    string       `json:"machine"`
	Arithmetic string       `json:"arithmetic"`
	Rows       []kernelRow  `json:"kernels"`
	Left       []string     `json:"left_out,omitempty"` // rows, with the reason
	Peaks      []peakReport `json:"peaks,omitempty"`    // with --roofline, as are the paces
	Paces      []paceReport `json:"paces,omitempty"`
}

// kernelCase is a chain of primes on which kernels are compared.
type kernelCase struct {
	logN, levels, special int // primes of Q beside the first, and of P
	q, p, scale           int // bits
}

// kernelCases are chains whose primes fit 52-bit multiply-add, and such whose do
// not: as long as, or little longer than, a ring of the degree carries.
var kernelCases = []kernelCase{
	{13, 4, 1, 34, 38, 34}, {14, 7, 2, 45, 49, 45}, {15, 14, 3, 45, 49, 45}, {16, 24, 5, 45, 49, 45},
	{13, 4, 1, 60, 60, 45}, {14, 7, 2, 60, 60, 45}, {15, 14, 3, 60, 60, 45}, {16, 24, 5, 60, 60, 45},
}

func (k *kernelCase) params() (*ir.Params, error) {
	bits := slices.Concat(slices.Repeat([]int{k.q}, k.levels+1), slices.Repeat([]int{k.p}, k.special))
	return ir.NewParams("kernels", k.logN, ir.RingStandard, ir.SecretTernary, bits[:k.levels+1], bits[k.levels+1:], k.scale)
}

// circuits reports whether scale and primes agree, so that circuits can be run.
func (k *kernelCase) circuits() bool { return k.q == k.scale }

// compareSteps times steps on memory such as runs have.
func compareSteps(p *ir.Params, runs int, clock func() float64, wanted func(step string) bool) ([]lattigo.KernelTime, error) {
	arena, err := store.NewArena(p.SlabBytes(), 0, nil)
	if err != nil {
		return nil, err
	}
	var blocks []*store.Block
	times, err := lattigo.CompareKernels(p, runs, clock, func(slabs int) ([][]byte, error) {
		b, err := arena.Alloc(slabs, store.Scratch, "bench")
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, b)
		return b.Slabs, nil
	}, wanted, kernelLevel)
	for _, b := range blocks {
		b.Free()
	}
	return times, errors.Join(err, arena.Close())
}

// kernelLevel is compared besides the top level: where networks compute. Circuits
// start there.
const kernelLevel = 9

// leastKernelRuns is the number of runs from which a median means something.
const leastKernelRuns = 7

// kernels prints the comparison with stock Lattigo, both timed alternately in
// this process on one core, by the clock of the processor where the system has one:
// other processes hardly disturb it.
func (c *benchCmd) kernels(e *env) error {
	r := kernelReport{Schema: 1, Machine: machine(), Arithmetic: kernelsInUse(), Rows: []kernelRow{}}
	runs := max(c.Runs, leastKernelRuns)
	began := time.Now()
	clock := runtime.CPUSeconds
	if clock() == 0 {
		clock = func() float64 { return time.Since(began).Seconds() }
	}
	var limits *limits
	if c.Roofline != "" {
		limits = measureLimits(clock)
	}
	bar := e.bar("chains of primes", len(kernelCases)+len(lattigo.StockChains))
	defer bar.stop()
	circuit := func(k *circuitCase, bits, runs int) error {
		if have := runtime.Memory(); have > 0 && have < k.bytes {
			r.Left = append(r.Left, fmt.Sprintf("%s, N=2^16: takes %s of memory, and there are %s", k.step, byteSize(k.bytes), byteSize(have)))
			return nil
		}
		row, err := compareCircuit(e.ctx, k, runs, clock)
		debug.FreeOSMemory()
		if err != nil {
			return fmt.Errorf("%s: %w", k.step, err)
		}
		row.PrimeBits = bits
		r.Rows = append(r.Rows, *row)
		return nil
	}
	for _, k := range kernelCases {
		p, err := k.params()
		if err != nil {
			return err
		}
		where := fmt.Sprintf("primes of %d bits, N=2^%d", k.q, k.logN)
		times, err := compareSteps(p, runs, clock, func(step string) bool { return c.wanted(step, k.logN, k.q) })
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		for _, t := range times {
			row := newKernelRow(t.Step, t.LogN, t.Level, t.Form, t.Need, t.Key)
			row.PrimeBits = k.q
			row.times(t.Ours, t.Stock)
			r.Rows = append(r.Rows, *row)
		}
		debug.FreeOSMemory()
		if k.circuits() {
			level := min(kernelLevel, p.MaxLevel())
			cases, err := circuitCases(p, level, clock)
			if err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			for i := range cases {
				switch {
				case !c.wanted(cases[i].step, k.logN, k.q):
				case cases[i].depth > level:
					r.Left = append(r.Left, fmt.Sprintf("%s, N=2^%d: takes %d levels, and there are %d", cases[i].step, k.logN, cases[i].depth, level))
				default:
					if err := circuit(&cases[i], k.q, runs); err != nil {
						return fmt.Errorf("%s: %w", where, err)
					}
				}
			}
		}
		bar.add(1)
	}
	for i := range lattigo.StockChains {
		chain := &lattigo.StockChains[i]
		k, err := bootstrapCase(i, chain.LogN)
		if err != nil {
			return err
		}
		if c.wanted(k.step, chain.LogN, chain.PrimeBits) {
			n := runs
			if c.BootRuns > 0 {
				n = c.BootRuns
			}
			if err := circuit(k, chain.PrimeBits, n); err != nil {
				return err
			}
		}
		bar.add(1)
	}
	bar.stop()
	if len(r.Rows)+len(r.Left) == 0 {
		return fmt.Errorf("no row has all of %q: give words of its name, such as rotation, its N, such as 2^16, or the bits of its primes", c.Only)
	}
	if limits != nil {
		if err := r.measure(limits); err != nil {
			return err
		}
		if err := r.writeRoofline(e, c.Roofline, limits.peaks[0]); err != nil {
			return err
		}
	}
	if c.JSON {
		return e.printJSON(r)
	}
	t := newTable(1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
	t.row("step", "N", "level", "primes", "kernels", "ours ms", "spread", "stock ms", "spread", "ratio", "runs", "bits ours", "bits stock")
	for _, k := range r.Rows {
		t.row(k.Step, fmt.Sprintf("2^%d", k.LogN), fmt.Sprint(k.Level), fmt.Sprintf("%d bits", k.PrimeBits), k.Form,
			fmt.Sprintf("%.3f", k.Ours), fmt.Sprintf("%.3f to %.3f", k.OursSpread[0], k.OursSpread[1]),
			fmt.Sprintf("%.3f", k.Stock), fmt.Sprintf("%.3f to %.3f", k.StockSpread[0], k.StockSpread[1]), fmt.Sprintf("x%.2f", k.Ratio), fmt.Sprint(k.Runs),
			bitsText(k.OursBits), bitsText(k.StockBits))
	}
	e.note("%s, %s kernels, medians, one core; bits: of the mean and of the largest error", r.Machine, r.Arithmetic)
	if slices.ContainsFunc(r.Rows, func(k kernelRow) bool { return k.OursBits != nil }) {
		e.note("circuits on real slots, as the compiler makes them: pairs of real diagonals are one complex one, bootstraps reduce real parts alone; stock works on complex slots")
	}
	if s := r.keys(); s != "" {
		e.note("%s", s)
	}
	if err := t.write(e.out, ""); err != nil {
		return err
	}
	for _, s := range r.Left {
		e.note("left out: %s", s)
	}
	if limits != nil {
		return r.roofText(e.out)
	}
	return nil
}

// keys says in words how the rows read evaluation keys.
func (r *kernelReport) keys() string {
	has := func(key lattigo.Key) bool {
		return slices.ContainsFunc(r.Rows, func(k kernelRow) bool { return k.Key == key })
	}
	switch {
	case has(lattigo.KeyStreamed):
		return "key streamed: the step makes the uniform half of its key from a seed, as the compiler has it where a plan uses a slow tier and this is faster than DRAM; all other rows read keys whole"
	case has(lattigo.KeyWhole):
		return "keys are read whole"
	}
	return ""
}

func bitsText(b *[2]float64) string {
	if b == nil {
		return ""
	}
	return fmt.Sprintf("%.1f, %.1f", b[0], b[1])
}

// spread returns the smallest and the largest.
func spread(x []float64) [2]float64 { return [2]float64{slices.Min(x), slices.Max(x)} }
