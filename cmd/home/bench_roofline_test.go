package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/backend/lattigo"
)

// sampleLimits are those of an invented machine of two cores with one cache.
func sampleLimits() *limits {
	peaks := func(cores int) *kernels.Peaks {
		p := &kernels.Peaks{Cores: cores, Memory: []kernels.Bandwidth{
			{Level: "L1", Holds: 1 << 20, Read: 100e9, Copy: 100e9}, {Level: "DRAM", Read: 10e9, Copy: 10e9},
		}}
		for u := range p.Rate {
			p.Rate[u] = 30e9 * float64(cores)
		}
		return p
	}
	at := paceOf{kernels.IFMA, 45}
	return &limits{peaks: []*kernels.Peaks{peaks(1), peaks(2)}, pace: map[paceOf]kernels.Pace{at: {Butterfly: 1e-9, Inverse: 2e-9, Product: 3e-9, Uniform: 5e-10}}, order: []paceOf{at}}
}

// TestRoof holds limits against figures worked out by hand.
func TestRoof(t *testing.T) {
	l := sampleLimits()
	for _, c := range []struct {
		name string
		need lattigo.Need
		ours float64
		want roof
	}{
		// Three words for a butterfly: 1 ms. A MiB from the cache, 9 from DRAM: 0.96 ms.
		{"multiplying", lattigo.Need{Butterflies: 10e6, Read: 10 << 20}, 4,
			roof{Words: 30e6, Multiply: 1, Kernels: 10, Memory: 0.0105 + 0.9437, Least: 1, Limit: "multiplying", Attained: 0.25, DRAM: 1.0486, DRAMAll: 1.0486, DRAMLimit: "DRAM"}},
		// A written byte costs as much as one read, where copies count both at that rate.
		{"memory", lattigo.Need{Terms: 3e6, Reductions: 3e6, Read: 50e6, Written: 50e6}, 40,
			roof{Words: 12e6, Multiply: 0.4, Memory: 9.9056, Least: 9.9056, Limit: "DRAM", Attained: 0.2476, DRAM: 10, DRAMAll: 10, DRAMLimit: "DRAM"}},
		{"in the cache", lattigo.Need{Products: 1e6, Read: 1e6}, 1,
			roof{Words: 3e6, Multiply: 0.1, Kernels: 3, Memory: 0.01, Least: 0.1, Limit: "multiplying", Attained: 0.1, DRAM: 0.1, DRAMAll: 0.1, DRAMLimit: "multiplying"}},
		// Fourteen words a residue: half of the time is for AES.
		{"halves of keys that are made", lattigo.Need{Products: 14e6, Uniform: 3e6, Read: 1e6}, 5.6,
			roof{Words: 84e6, Multiply: 2.8, Kernels: 43.5, Memory: 0.01, Least: 2.8, Limit: "multiplying", Attained: 0.5, DRAM: 2.8, DRAMAll: 1.4, DRAMLimit: "multiplying"}},
	} {
		row := newKernelRow("step", 16, 9, kernels.IFMA, c.need, lattigo.KeyNone)
		row.PrimeBits, row.Ours = 45, c.ours
		got, err := l.roof(row)
		if err != nil {
			t.Fatal(err)
		}
		near := func(what string, got, want float64) {
			if got < want-2e-4 || got > want+2e-4 {
				t.Errorf("%s: %s is %v, want %v", c.name, what, got, want)
			}
		}
		near("words", float64(got.Words), float64(c.want.Words))
		near("multiplying", got.Multiply, c.want.Multiply)
		near("kernels", got.Kernels, c.want.Kernels)
		near("memory", got.Memory, c.want.Memory)
		near("the least", got.Least, c.want.Least)
		near("what is attained", got.Attained, c.want.Attained)
		near("from DRAM", got.DRAM, c.want.DRAM)
		near("on all cores", got.DRAMAll, c.want.DRAMAll)
		if got.Limit != c.want.Limit || got.DRAMLimit != c.want.DRAMLimit {
			t.Errorf("%s: limits are %s and %s, want %s and %s", c.name, got.Limit, got.DRAMLimit, c.want.Limit, c.want.DRAMLimit)
		}
	}
}

// TestRooflinePage draws a report and prints it.
func TestRooflinePage(t *testing.T) {
	l := sampleLimits()
	r := kernelReport{Schema: 1, Machine: "invented", Arithmetic: "ifma"}
	for i, name := range []string{"NTT", "rotation", "hoisted rotation"} {
		row := newKernelRow(name, 16, 9, kernels.IFMA, lattigo.Need{Butterflies: 50e6 / int64(i+1), Read: 10e6 * int64(i+1)}, lattigo.KeyNone)
		row.PrimeBits, row.Ours = 45, float64(20+i)
		r.Rows = append(r.Rows, *row)
	}
	if err := r.measure(l); err != nil {
		t.Fatal(err)
	}
	checkCharts(t, []*chartView{rooflineChart(r.Rows, kernels.IFMA, l.peaks[0])})
	var text bytes.Buffer
	if err := r.roofText(&text); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "r.html")
	if err := r.writeRoofline(&env{}, file, l.peaks[0]); err != nil {
		t.Fatal(err)
	}
	html, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	checkPage(t, string(html))
	for _, want := range []string{"VPMADD52", "2 cores", "hoisted rotation", "multiplying", "30.0 G words/s", "1.000", "VAESENC", "0.500"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q", want)
		}
		if !strings.Contains(string(html), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// TestKernelKeys: a report says how its rows read keys, in words and in JSON.
func TestKernelKeys(t *testing.T) {
	for _, c := range []struct {
		keys       []lattigo.Key
		text, json string
	}{
		{[]lattigo.Key{lattigo.KeyNone}, "", ""},
		{[]lattigo.Key{lattigo.KeyNone, lattigo.KeyWhole}, "read whole", `"key":"whole"`},
		{[]lattigo.Key{lattigo.KeyWhole, lattigo.KeyStreamed}, "from a seed", `"key":"streamed"`},
	} {
		var r kernelReport
		for _, k := range c.keys {
			r.Rows = append(r.Rows, *newKernelRow("step", 16, 9, kernels.IFMA, lattigo.Need{}, k))
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.keys(); !strings.Contains(got, c.text) || (got == "") != (c.text == "") || !strings.Contains(string(b), c.json) || strings.Contains(string(b), `"key"`) != (c.json != "") {
			t.Errorf("keys %q are told as %q and %s", c.keys, got, b)
		}
	}
}
