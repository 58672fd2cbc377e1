package main

import (
	"fmt"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/passes"
)

// kernelRow compares one step with stock Lattigo. Times are the best of the runs.
type kernelRow struct {
	Step  string  `json:"step"`
	LogN  int     `json:"log_n"`
	Form  string  `json:"form"`
	Ours  float64 `json:"ours_ms"`
	Stock float64 `json:"stock_ms"`
	Ratio float64 `json:"ratio"`
}

type kernelReport struct {
	Schema     int         `json:"schema"`
	Machine    string      `json:"machine"`
	Arithmetic string      `json:"arithmetic"`
	Rows       []kernelRow `json:"kernels"`
}

// kernelParams are the catalogue entries whose kernels are compared.
var kernelParams = []string{"real-13-5", "real-14-9", "real-15-16"}

// kernels prints the comparison with stock Lattigo, both timed alternately in
// this process on one core.
func (c *benchCmd) kernels(e *env) error {
	all, err := passes.Catalogue()
	if err != nil {
		return err
	}
	r := kernelReport{Schema: 1, Machine: machine(), Arithmetic: kernelsInUse(), Rows: []kernelRow{}}
	for _, name := range kernelParams {
		for _, p := range all {
			if p.Name != name {
				continue
			}
			times, err := lattigo.CompareKernels(p, c.Runs)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, k := range times {
				r.Rows = append(r.Rows, kernelRow{k.Step, k.LogN, k.Form, k.Ours, k.Stock, k.Ratio()})
			}
		}
	}
	if c.JSON {
		return e.printJSON(r)
	}
	t := newTable(2, 3, 4)
	t.row("step", "ring", "ours ms", "stock ms", "ratio")
	for _, k := range r.Rows {
		t.row(k.Step, fmt.Sprintf("N=2^%d %s", k.LogN, k.Form), fmt.Sprintf("%.3f", k.Ours), fmt.Sprintf("%.3f", k.Stock), fmt.Sprintf("x%.1f", k.Ratio))
	}
	e.note("%s, arithmetic %s, best of %d, one core", r.Machine, r.Arithmetic, c.Runs)
	return t.write(e.out, "")
}
