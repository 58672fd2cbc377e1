package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/ir/plan/plantest"
	"github.com/home-fhe/home/passes"
)

var writePage = flag.String("write-page", "", "write the sample HTML page of inspect to this file, to look at it")

// sampleReport is a report with every part filled, as a deep network with a
// budget would give.
func sampleReport() *planReport {
	r := &planReport{
		Schema: 1, Model: "sample <network>", ModelSHA256: strings.Repeat("5a", 32), Batch: 1, Depth: 14, Levels: 15, Steps: 2381, Profile: "0123456789abcdef",
		Params:     paramsReport{Name: "real-15", Ring: "conjugate-invariant", LogN: 15, LogQP: 780, LogQPBound: 881, LogScale: 40, QPrimes: 16, PPrimes: 3, Slots: 32768, Secret: "ternary", SecurityBits: 128},
		Counts:     plan.Counts{Rotations: 311, KeySwitches: 352, GaloisKeys: 64, CtMults: 41, Diagonals: 1204},
		Bytes:      plan.Bytes{Keys: 1400 << 20, Weights: 900 << 20, CiphertextsPeak: 210 << 20, Footprint: 2510 << 20, DRAMMin: 700 << 20},
		Predicted:  plan.Predicted{CPUSeconds: 2.31, Seconds: 2.4, Bits: 17.5},
		OutputBits: 14.2,
		Inputs:     []portReport{{"image", []int{1, 1, 28, 28}, 15, 1, 1}},
		Outputs:    []portReport{{"logits", []int{1, 10}, 1, 1, 1}},
		ClientOps:  []clientOpReport{{"Softmax", "/head/Softmax", 1, []int{1, 10}}},
		Preprocess: &plan.Preprocess{Channels: "gray", Order: "nchw", Scale: 1.0 / 255, Resize: 28, Crop: []int{28, 28}, Labels: strings.Split("zero one two three four five six seven eight nine", " ")},
		Tier:       &tierReport{Budget: 900 << 20, Reserve: 200 << 20, Arena: 700 << 20, Seconds: 3.1, StallSeconds: 0.7, BytesRead: 2900 << 20, BytesLower: 2300 << 20, Fetches: 1480, Spills: 3, BytesWritten: 36 << 20, Keys: keysStreamed},
		Warnings:   []string{"/act2/Relu: interval bounds are wide (±212); calibrate with real samples"},
	}
	names := []string{"/conv1/Conv", "/act1/Relu", "/pool1/AveragePool + /conv2/Conv", "/act2/Relu", "/pool2/AveragePool + /fc1/Gemm", "/act3/Relu", "/fc2/Gemm", "/act4/Relu", "/fc3/Gemm"}
	level := 15
	for i, n := range names {
		l := layerReport{Name: n, Kind: "linear", Shape: []int{1, 6, 28, 28}, Ciphertexts: 1, Rotations: 31 + 9*i, KeySwitches: 31 + 9*i, Diagonals: 130 + 22*i, Steps: 260, WeightBytes: int64(40+20*i) << 20, Seconds: 0.11 + 0.03*float64(i%4)}
		level--
		if i%2 == 1 {
			l.Kind, l.Rotations, l.KeySwitches, l.Diagonals, l.WeightBytes, l.CtMults = "poly", 0, 9, 0, 0, 9
			l.Degree, l.Bound, l.PolyErr, l.Seconds = 15, 7.5, 3.1e-2, 0.35-0.05*float64(i)
			level--
		}
		l.Level = level
		r.Layers = append(r.Layers, l)
	}
	boot := layerReport{Name: "refresh of /act2/Relu", Kind: plan.LayerRefresh, Shape: []int{1, 6, 28, 28}, Ciphertexts: 1, KeySwitches: 75, Diagonals: 90, Steps: 700, WeightBytes: 1 << 30, Seconds: 3, Level: 12}
	r.Layers = slices.Insert(r.Layers, 3, boot)
	r.Refreshes, r.Counts.Bootstraps, r.Bytes.Matrices = 1, 2, 1<<30
	r.Keys = append(r.Keys, keyReport{"relinearisation", 0, 13, 40 << 20, 41}, keyReport{"to ephemeral", 0, 0, 2 << 20, 1})
	for i := range 64 {
		rot := 1 + i*i*7%4093
		r.Keys = append(r.Keys, keyReport{"rotation", rot, 2 + i%13, int64(4+3*(i%13)) << 20, 1 + i%9})
	}
	return r
}

// sampleWhatIf is what a sweep over budgets, technologies and speeds may give.
func sampleWhatIf() (out []whatIfReport) {
	for _, tier := range []struct {
		name string
		bps  float64
	}{{"cxl", 1.8e10}, {"sata", 5.5e8}} {
		for _, cores := range []int{1, 8, 32} {
			for _, dram := range []int64{1 << 30, 2 << 30, 4 << 30} {
				read := int64(1<<34) / (dram >> 28)
				out = append(out, whatIfReport{DRAM: dram, Tier: tier.name, Source: "a <paper>", Bandwidth: tier.bps, Cores: cores, Accelerator: 1, Fits: true, Least: 1 << 29,
					Seconds: math.Max(20/float64(cores), float64(read)/tier.bps), CPUSeconds: 20, BytesRead: read, BytesLower: read / 2})
			}
		}
	}
	return append(out, whatIfReport{DRAM: 1 << 20, Tier: "sata", Cores: 1, Accelerator: 1, Least: 1 << 29})
}

// Pictures stay inside their frames, and labels of an axis do not run into each
// other.
func TestCharts(t *testing.T) {
	r := sampleReport()
	r.WhatIf = sampleWhatIf()
	r.Trace = &passes.Trace{Touches: 9, Seconds: []float64{0, 1, 2}, Demand: []float64{3e9, 1e9}, First: []float64{1e9, 0}, Reuse: []int64{0, 5, 0, 70000}, Never: 12}
	for k := range r.Trace.Live {
		r.Trace.Live[k] = []int64{1 << 20, int64(k) << 30, 0}
	}
	charts := append(traceCharts(r), whatIfCharts(r.WhatIf)...)
	if len(charts) != 3+3+1+1 {
		t.Errorf("%d charts", len(charts))
	}
	checkCharts(t, charts)
	var b bytes.Buffer
	if err := htmlPage(&b, r); err != nil {
		t.Fatal(err)
	}
	if *writePage != "" {
		if err := os.WriteFile(*writePage, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checkPage(t, b.String())
}

// checkPage refuses what comes from elsewhere, runs, or is no number.
func checkPage(t *testing.T, page string) {
	t.Helper()
	if m := regexp.MustCompile(`(?i)<script|<link|<img|@import|url\(|https?://|NaN|Inf\b|%!`).FindString(page); m != "" {
		t.Errorf("the page contains %q", m)
	}
}

// checkCharts holds what is drawn within its frame and labels apart.
func checkCharts(t *testing.T, charts []*chartView) {
	t.Helper()
	for _, c := range charts {
		inside := func(what string, x, y float64) {
			if !(x >= c.Left-1e-6 && x <= c.Right+1e-6 && y >= c.Top-1e-6 && y <= c.Bottom+1e-6) {
				t.Errorf("%s: %s at %v, %v is outside", c.Title, what, x, y)
			}
		}
		for _, d := range c.Dots {
			inside(d.Label, d.X, d.Y)
		}
		for _, b := range c.Bars {
			inside(b.Label, b.X, b.Y)
			inside(b.Label, b.X+b.W, b.Y+b.H)
		}
		end := -100.0
		for _, x := range c.X {
			half := 3.6 * float64(len([]rune(x.Label)))
			if x.Pos-half < end {
				t.Errorf("%s: label %q overlaps the one before", c.Title, x.Label)
			}
			end = x.Pos + half
		}
		for i := 1; i < len(c.Y); i++ {
			if math.Abs(c.Y[i].Pos-c.Y[i-1].Pos) < 14 {
				t.Errorf("%s: labels %q and %q overlap", c.Title, c.Y[i-1].Label, c.Y[i].Label)
			}
		}
		if len(c.X) < 2 || len(c.Y) < 2 || len(c.Legend) == 0 {
			t.Errorf("%s: %d and %d ticks, %d entries of the legend", c.Title, len(c.X), len(c.Y), len(c.Legend))
		}
	}
}

func TestPage(t *testing.T) {
	var b bytes.Buffer
	if err := htmlPage(&b, sampleReport()); err != nil {
		t.Fatal(err)
	}
	if *writePage != "" {
		if err := os.WriteFile(*writePage, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := b.String()
	for _, want := range []string{"sample &lt;network&gt;", "/conv1/Conv", "128-bit security", "relinearisation", "Softmax", "least DRAM", "2 bootstraps in 1 layer", "bootstrapping matrices", "to ephemeral", "refresh of /act2/Relu", "calibrate with real samples", "<dt>keys</dt><dd>streamed<small>steps make the uniform halves of keys from seeds"} {
		if !strings.Contains(s, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if m := regexp.MustCompile(`(?i)<script|<link|<img|@import|url\(|https?://|NaN|Inf\b|%!`).FindString(s); m != "" {
		t.Errorf("the page contains %q", m)
	}
	var again bytes.Buffer
	if err := htmlPage(&again, sampleReport()); err != nil || !bytes.Equal(again.Bytes(), b.Bytes()) {
		t.Errorf("the same report gives another page (%v)", err)
	}
}

// A report says where keys come from, and counts as computed what is.
func TestReportKeys(t *testing.T) {
	p := plantest.Random(1, plantest.Config{LogN: 4, Steps: 60, Keys: 4})
	seen := map[keyForm]bool{}
	for _, c := range []struct {
		forms plan.Forms
		want  keyForm
	}{
		{plan.Forms{}, keysWhole}, {plan.Forms{Compact: 1}, keysWhole}, {plan.Forms{Seeds: true}, keysMade},
		{plan.Forms{Seeds: true, Twice: plan.TwiceAll}, keysEither}, {plan.Forms{Seeds: true, Streams: true}, keysStreamed},
		{plan.Forms{Seeds: true, Twice: plan.TwiceAll, Streams: true}, keysStreamed},
	} {
		p.Tier, _ = plantest.Tier(p, 1, c.forms, false, 0)
		r := reportPlan(p)
		if r.Tier.Keys != c.want || c.want.text() == "" {
			t.Errorf("forms %+v: keys are %q: %s", c.forms, r.Tier.Keys, r.Tier.Keys.text())
		}
		if computed := r.Tier.Transforms > 0; computed != (c.forms.Compact > 0 || c.want == keysMade) {
			t.Errorf("forms %+v: %d loads end with computing", c.forms, r.Tier.Transforms)
		}
		seen[r.Tier.Keys] = true
	}
	none := *p
	none.Objects = slices.DeleteFunc(slices.Clone(p.Objects), func(o plan.Object) bool { return o.Type.Kind == ir.KeyKind })
	if k := keyFormOf(&none, &plan.Forms{Seeds: true}); k != "" || k.text() != "" || len(seen) != 4 {
		t.Errorf("a plan without keys: %q; ways to have keys: %v", k, seen)
	}
}

// A report with nothing in it must not divide by zero or index what is absent.
func TestPageEmpty(t *testing.T) {
	var b bytes.Buffer
	if err := htmlPage(&b, &planReport{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "NOT SECURE") || strings.Contains(b.String(), "NaN") {
		t.Error("the page of an empty plan is wrong")
	}
}

// The JSON of inspect has the fields that tools rely on.
func TestReportFields(t *testing.T) {
	b, err := json.Marshal(sampleReport())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for path, names := range map[string]string{
		"":          "schema model params counts bytes depth levels predicted client_ops layers",
		"params":    "log_n log_qp secret security_bits insecure",
		"counts":    "bootstraps rotations key_switches galois_keys ct_mults diagonals",
		"bytes":     "keys weights matrices ciphertexts_peak footprint dram_min",
		"tier":      "budget arena seconds stall_seconds bytes_read bytes_written keys",
		"predicted": "cpu_seconds seconds bits",
	} {
		at := m
		if path != "" {
			at = m[path].(map[string]any)
		}
		for n := range strings.FieldsSeq(names) {
			if _, ok := at[n]; !ok {
				t.Errorf("field %s of %q is missing", n, path)
			}
		}
	}
}

func TestText(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want string
	}{{"512MiB", "512 MiB"}, {"1.5GiB", "1.50 GiB"}, {"4G", "4.00 GiB"}, {"1000", "0.98 KiB"}, {"999", "999 B"}, {"2GB", "1.86 GiB"}} {
		var b byteSize
		if err := b.UnmarshalText([]byte(tc.in)); err != nil || b.String() != tc.want {
			t.Errorf("%s: %v, %v; want %s", tc.in, b, err, tc.want)
		}
	}
	for _, in := range []string{"", "x", "-1", "0", "NaN", "1e40", "5 apples", "MiB"} {
		var b byteSize
		if err := b.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("size %q was read as %v", in, b)
		}
	}
	for in, want := range map[string]percent{"0.5%": 0.005, "100%": 1} {
		var p percent
		if err := p.UnmarshalText([]byte(in)); err != nil || p != want {
			t.Errorf("%s: %v, %v", in, p, err)
		}
	}
	for _, in := range []string{"0.5", "101%", "-1%", "x%", "%"} {
		var p percent
		if err := p.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("share %q was read as %v", in, p)
		}
	}
	for in, want := range map[float64]string{0: "0 s", 0.00012: "120 µs", 0.0123: "12.3 ms", 1.234: "1.23 s", 600: "10.0 min", 1e5: "27.8 h"} {
		if got := seconds(in); got != want {
			t.Errorf("%v s is written %q, want %q", in, got, want)
		}
	}
	if got := fmt.Sprint(count(1234567), " ", count(-1000), " ", count(12)); got != "1,234,567 -1,000 12" {
		t.Error(got)
	}
}
