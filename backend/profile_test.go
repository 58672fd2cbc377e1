package backend

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/home-fhe/home/ir"
)

func TestTechnologies(t *testing.T) {
	seen := map[string]bool{}
	last := 0.0
	for i, x := range Technologies() {
		if seen[x.Name] || x.Source == "" || i > 0 && x.ReadBps > last {
			t.Errorf("%s: twice, of no source, or out of order", x.Name)
		}
		seen[x.Name], last = true, x.ReadBps
		p := DefaultProfile().With(x)
		if p.Slow().Name != x.Name || len(p.Tiers) != len(DefaultProfile().Tiers) || p.Digest() == DefaultProfile().Digest() || p.Slow().Beside != DefaultProfile().Slow().Beside {
			t.Errorf("%s: not the slow tier of %v", x.Name, p.Tiers)
		}
	}
}

// Profiles of the first schema are read as they always were; what makes no sense is
// refused.
func TestProfileSchemas(t *testing.T) {
	const old = `{"schema":1,"ntt_ns":0.085,"mul_ns":0.38,"mac_ns":0.38,"add_ns":0.33,"extend_ns":0.2,"encode_ns":0.9,"tiers":[{"name":"dram","read_bytes_per_second":2e10,"write_bytes_per_second":2e10,"latency_seconds":1e-7}]}`
	p, err := parseProfile([]byte(old))
	if err != nil {
		t.Fatal(err)
	}
	if p.Permute != p.Add || p.Uniform != oldUniform || p.Stream != oldUniform || p.Memory != 0 || p.Slow().Beside != oldBeside {
		t.Errorf("a profile of schema 1 is read as %+v", p)
	}
	if p, err := parseProfile([]byte(strings.Replace(strings.Replace(old, `"schema":1`, `"schema":3`, 1), `1e-7`, `1e-7,"beside_seconds_per_byte":0`, 1))); err != nil || p.Slow().Beside != 0 {
		t.Errorf("a profile of schema 3 where input costs nothing is read as %+v, %v", p, err)
	}
	if p, err := parseProfile([]byte(strings.Replace(old, `"schema":1`, `"schema":4`, 1))); err != nil || p.Stream != 0 {
		t.Errorf("a profile of schema 4 where keys that are made cost nothing is read as %+v, %v", p, err)
	}
	for _, c := range [][2]string{{`"schema":1`, `"schema":5`}, {`"schema":1`, `"schema":0`}, {`0.085`, `-1`}, {`"encode_ns"`, `"memory_ns":-1,"encode_ns"`}, {`2e10`, `0`}, {`"encode_ns"`, `"split":3,"encode_ns"`}, {`1e-7`, `-1`}, {`1e-7`, `1e-7,"beside_seconds_per_byte":-1`}} {
		if _, err := parseProfile([]byte(strings.Replace(old, c[0], c[1], 1))); err == nil {
			t.Errorf("%s in place of %s is accepted", c[1], c[0])
		}
	}
	b, err := json.Marshal(DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseProfile(b)
	if err != nil || again.Digest() != DefaultProfile().Digest() {
		t.Errorf("the default profile does not survive being written: %v", err)
	}
}

// Every step costs time and, but for the transforms of small rings, grows with the
// level in work and words.
func TestWorkGrows(t *testing.T) {
	par := &ir.Params{LogN: 16, Q: make([]uint64, 28), P: make([]uint64, 6)}
	p := DefaultProfile()
	for _, op := range ir.Ops() {
		if !op.Steps() {
			continue
		}
		for l := 2; l < len(par.Q); l++ {
			more, less := WorkOf(par, op, l), WorkOf(par, op, l-1)
			if p.Seconds(par, op, l) <= p.Seconds(par, op, l-1) || more.Bytes() <= less.Bytes() {
				t.Errorf("%s costs no more at level %d than at %d", op, l, l-1)
			}
		}
	}
}

// Products that are relinearised together cost less than one by one, and more than one.
func TestWorkOfProducts(t *testing.T) {
	par := &ir.Params{LogN: 16, Q: make([]uint64, 28), P: make([]uint64, 6)}
	p := DefaultProfile()
	const l = 12
	one, two := p.StepSeconds(par, ir.OpHEMulRescale, l, 3, false), p.StepSeconds(par, ir.OpHEMulRescale, l, 5, false)
	if both := p.Seconds(par, ir.OpHEMul, l) + p.StepSeconds(par, ir.OpHEMacRescale, l, 4, false); !(one < two && two < both) {
		t.Errorf("one product takes %v s, two at once %v s, one after the other %v s", one, two, both)
	}
	if apart := p.Seconds(par, ir.OpHEMul, l) + p.Seconds(par, ir.OpHERescale, l); one >= apart {
		t.Errorf("a product that is divided at once takes %v s, in two steps %v s", one, apart)
	}
}
