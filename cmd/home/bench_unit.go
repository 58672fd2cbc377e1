package main

import (
	"fmt"
	"slices"

	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/runtime"
)

type unitReport struct {
	Schema  int       `json:"schema"`
	Machine string    `json:"machine"`
	Unit    string    `json:"unit"`
	Median  float64   `json:"median_seconds"`
	Seconds []float64 `json:"seconds"`
	CPU     []float64 `json:"cpu_seconds"`
	Setup   float64   `json:"setup_seconds"`
	Mean    float64   `json:"mean_bits"`
	Worst   float64   `json:"worst_bits"`
	PeakRSS int64     `json:"peak_rss_bytes"`
}

// unit times one bootstrap of stock Lattigo.
func (c *benchCmd) unit(e *env) error {
	if have := runtime.Memory(); have > 0 && have < lattigo.UnitBytes {
		return fmt.Errorf("a bootstrap of stock Lattigo takes %s of memory, and there are %s", byteSize(lattigo.UnitBytes), byteSize(have))
	}
	bar := e.bar("keys and bootstraps of stock Lattigo", 1)
	defer bar.stop()
	u, err := lattigo.StockBootstrap(c.Runs, runtime.CPUSeconds)
	bar.stop()
	if err != nil {
		return err
	}
	sorted := slices.Sorted(slices.Values(u.Seconds))
	bits := precisionBits(u.Errors)
	r := unitReport{1, machine(), lattigo.UnitName, sorted[len(sorted)/2], u.Seconds, u.CPU, u.Setup, bits[0], bits[1], runtime.PeakRSS()}
	if c.JSON {
		return e.printJSON(r)
	}
	t := newTable()
	t.row("unit", "one bootstrap of stock Lattigo v5, "+r.Unit+", one thread")
	t.row("time", fmt.Sprintf("%s, %s to %s in %d runs", seconds(r.Median), seconds(sorted[0]), seconds(sorted[len(sorted)-1]), len(sorted)))
	t.row("processor", fmt.Sprintf("%s at least", seconds(slices.Min(r.CPU))))
	t.row("set-up", seconds(r.Setup))
	t.row("precision", fmt.Sprintf("%.1f bits in the mean, %.1f in the worst slot", r.Mean, r.Worst))
	t.row("peak memory", byteSize(r.PeakRSS).String())
	e.note("%s", r.Machine)
	return t.write(e.out, "")
}
