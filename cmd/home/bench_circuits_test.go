package main

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
)

// TestCompareCircuits runs every circuit on both sides in a small ring: results agree
// with what they should be, to the precision that the chain of primes allows. How long
// it takes is not looked at.
func TestCompareCircuits(t *testing.T) {
	began := time.Now()
	clock := func() float64 { return time.Since(began).Seconds() }
	check := func(t *testing.T, k *circuitCase, bits float64) *kernelRow {
		t.Helper()
		const runs = 2
		row, err := compareCircuit(context.Background(), k, runs, clock)
		if err != nil {
			t.Fatal(err)
		}
		if row.Step != k.step || row.Level != k.level || row.Runs != runs || row.Products == 0 || row.KeySwitches == 0 || !(row.Ours > 0 && row.Stock > 0 && row.Ratio == row.Stock/row.Ours) {
			t.Errorf("%+v", row)
		}
		for _, b := range []*[2]float64{row.OursBits, row.StockBits} {
			if b[0] < bits+2 || b[1] < bits || b[0] <= b[1] {
				t.Errorf("%s: bits %v of ours, %v of stock are right, want %v at least", k.step, *row.OursBits, *row.StockBits, bits)
			}
		}
		return row
	}
	bits := slices.Repeat([]int{45}, 10)
	p, err := ir.NewParams("small", 11, ir.RingStandard, ir.SecretTernary, bits, []int{49, 49, 49}, 45)
	if err != nil {
		t.Fatal(err)
	}
	cases, err := circuitCases(p, kernelLevel, clock)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range cases {
		names = append(names, cases[i].step)
		t.Run(cases[i].step, func(t *testing.T) { check(t, &cases[i], 24) })
	}
	want := []string{"linear transform, 128 diagonals", "linear transform, 1024 diagonals", "Chebyshev, degree 15", "Chebyshev, degree 63"}
	if !slices.Equal(names, want) {
		t.Errorf("the circuits are %q, want %q", names, want)
	}
	for i, bits := range []float64{21, 14} {
		k, err := bootstrapCase(i, 10)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(lattigo.StockChains[i].Name, func(t *testing.T) {
			row := check(t, k, bits)
			if wide := lattigo.StockChains[i].PrimeBits > 50; wide == (row.Form == kernels.IFMA.String()) && os.Getenv(kernels.Env) == "" && slices.Contains(kernels.Supported(), kernels.IFMA) {
				t.Errorf("served by %s kernels", row.Form)
			}
		})
	}
}

// TestKernelCases checks that the chains of the comparison exist, with primes that the
// kernels they are meant for can serve.
func TestKernelCases(t *testing.T) {
	for _, k := range kernelCases {
		p, err := k.params()
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range slices.Concat(p.Q, p.P) {
			if narrow := q < 1<<50; narrow != k.circuits() {
				t.Errorf("N=2^%d: prime %d is of the wrong family", k.logN, q)
			}
		}
	}
}
