package main

import (
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/runtime"
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
}

type kernelReport struct {
	Schema     int         `json:"schema"`
	Machine    string      `json:"machine"`
	Arithmetic string      `json:"arithmetic"`
	Runs       int         `json:"runs"`
	Rows       []kernelRow `json:"kernels"`
}

// kernelCases are the chains of primes on which kernels are compared: as long as a
// ring of the degree carries, the special primes as catalogues have them. The primes
// of one family fit 52-bit multiply-add, those of the other do not.
var kernelCases = []struct{ logN, levels, special int }{{13, 3, 1}, {14, 7, 2}, {15, 14, 3}, {16, 24, 5}}

// kernelLevel is compared besides the top level: where networks compute.
const kernelLevel = 9

// leastKernelRuns is the number of runs from which a median means something.
const leastKernelRuns = 7

// kernels prints the comparison with stock Lattigo, both timed alternately in
// this process on one core, by the clock of the processor where the system has one:
// other processes hardly disturb it.
func (c *benchCmd) kernels(e *env) error {
	r := kernelReport{Schema: 1, Machine: machine(), Arithmetic: kernelsInUse(), Runs: max(c.Runs, leastKernelRuns), Rows: []kernelRow{}}
	began := time.Now()
	clock := runtime.CPUSeconds
	if clock() == 0 {
		clock = func() float64 { return time.Since(began).Seconds() }
	}
	bar := e.bar("chains of primes", 2*len(kernelCases))
	defer bar.stop()
	for _, family := range []struct{ q, p, scale int }{{45, 49, 45}, {60, 60, 45}} {
		for _, k := range kernelCases {
			bits := make([]int, k.levels+1+k.special)
			for i := range bits {
				if bits[i] = family.q; i > k.levels {
					bits[i] = family.p
				}
			}
			p, err := ir.NewParams("kernels", k.logN, ir.RingStandard, ir.SecretTernary, bits[:k.levels+1], bits[k.levels+1:], family.scale)
			if err != nil {
				return err
			}
			times, err := lattigo.CompareKernels(p, r.Runs, clock, kernelLevel)
			if err != nil {
				return fmt.Errorf("primes of %d bits, N=2^%d: %w", family.q, k.logN, err)
			}
			for _, t := range times {
				ours, stock := t.Medians()
				r.Rows = append(r.Rows, kernelRow{t.Step, t.LogN, t.Level, family.q, t.Form, ours, stock, t.Ratio(), spread(t.Ours), spread(t.Stock)})
			}
			debug.FreeOSMemory()
			bar.add(1)
		}
	}
	bar.stop()
	if c.JSON {
		return e.printJSON(r)
	}
	t := newTable(1, 2, 3, 5, 6, 7, 8, 9)
	t.row("step", "N", "level", "primes", "kernels", "ours ms", "spread", "stock ms", "spread", "ratio")
	for _, k := range r.Rows {
		t.row(k.Step, fmt.Sprintf("2^%d", k.LogN), fmt.Sprint(k.Level), fmt.Sprintf("%d bits", k.PrimeBits), k.Form,
			fmt.Sprintf("%.3f", k.Ours), fmt.Sprintf("%.3f to %.3f", k.OursSpread[0], k.OursSpread[1]),
			fmt.Sprintf("%.3f", k.Stock), fmt.Sprintf("%.3f to %.3f", k.StockSpread[0], k.StockSpread[1]), fmt.Sprintf("x%.2f", k.Ratio))
	}
	e.note("%s, %s kernels, median of %d, one core", r.Machine, r.Arithmetic, r.Runs)
	return t.write(e.out, "")
}

// spread returns the smallest and the largest.
func spread(x []float64) [2]float64 { return [2]float64{slices.Min(x), slices.Max(x)} }
