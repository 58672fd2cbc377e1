package passes

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/home-fhe/home/ir"
)

// TestDivisions joins what stands between a key switch or ModDown and a rescale, and
// leaves alone what is used elsewhere.
func TestDivisions(t *testing.T) {
	// The first product is there for what it needs.
	const head = `graph "divisions"
%0 = he.key() {level=4, rot=0} : key(level=4)
%1 = he.input() {level=3, scale="2^30"} : ct(level=3, scale=2^30) enc "x"
%2 = he.input() {level=2, scale="2^30"} : ct(level=2, scale=2^30) enc "y"
%3 = he.input() {level=4, scale="2^30"} : ct(level=4, scale=2^30) enc "z"
%4 = he.mul(%3, %3, %0)
`
	for _, c := range []struct{ name, in, want string }{
		{"moddown", `%5 = he.lift(%1)
%6 = he.moddown(%5)
%7 = he.rescale(%6)
%8 = he.output(%7)`, `%5 = he.lift(%1)
%6 = he.moddownrescale(%5)
%7 = he.output(%6)`},
		{"moddown, used elsewhere", `%5 = he.lift(%1)
%6 = he.moddown(%5)
%7 = he.rescale(%6)
%8 = he.mul(%6, %7, %0)
%9 = he.output(%8)`, ""},
		{"a product of higher level", `%5 = he.mul(%1, %1, %0)
%6 = he.addconst(%5) {c=0.5, level=2}
%7 = he.rescale(%6)
%8 = he.output(%7)`, `%5 = he.mulrescale(%1, %1, %0) {c=0.5, level=1}
%6 = he.output(%5)`},
		{"doubled", `%5 = he.mul(%1, %2, %0)
%6 = he.addconst(%5) {c=0.25}
%7 = he.add(%6, %6)
%8 = he.addconst(%7) {c=-1.0}
%9 = he.rescale(%8)
%10 = he.output(%9)`, `%5 = he.mulrescale(%1, %2, %0) {c=-0.5, level=1, twice=1}
%6 = he.output(%5)`},
		{"doubled, one of them used elsewhere", `%5 = he.mul(%1, %2, %0)
%6 = he.add(%5, %5)
%7 = he.rescale(%6)
%8 = he.mul(%7, %5, %0)
%9 = he.output(%8)`, ""},
		{"doubled sum", `%5 = he.mul(%1, %2, %0)
%6 = he.mulconst(%1) {c=0.5, level=2, scale="2^30"}
%7 = he.add(%5, %6)
%8 = he.add(%7, %7)
%9 = he.rescale(%8)
%10 = he.output(%9)`, ""},
		{"sums", `%5 = he.mul(%1, %2, %0)
%6 = he.add(%5, %5)
%7 = he.macconst(%6, %1) {c=-1.0, level=2, scale="2^30"}
%8 = he.mul(%2, %2, %0)
%9 = he.addconst(%8) {c=3.0}
%10 = he.add(%9, %7)
%11 = he.macconst(%10, %2) {c=2.0, level=2, scale="2^30"}
%12 = he.rescale(%11)
%13 = he.output(%12)`, `%5 = he.mul(%1, %2, %0)
%6 = he.add(%5, %5)
%7 = he.macconst(%6, %1) {c=-1.0, level=2, scale="2^30"}
%8 = he.macconst(%7, %2) {c=2.0, level=2, scale="2^30"}
%9 = he.macrescale(%8, %2, %2, %0) {c=3.0, level=1}
%10 = he.output(%9)`},
		{"an accumulator becomes a product with a constant", `%5 = he.mul(%1, %2, %0)
%6 = he.add(%5, %5)
%7 = he.macconst(%6, %1) {c=-1.0, level=2, scale="2^30"}
%8 = he.rescale(%7)
%9 = he.output(%8)`, `%5 = he.mulconst(%1) {c=-1.0, level=2, scale="2^30"}
%6 = he.macrescale(%5, %1, %2, %0) {level=1, twice=1}
%7 = he.output(%6)`},
		{"the level of the sum", `%5 = he.mul(%1, %1, %0)
%6 = he.mulconst(%2) {c=0.5, scale="2^30"}
%7 = he.add(%6, %5) {level=2}
%8 = he.rescale(%7)
%9 = he.output(%8)`, `%5 = he.mulconst(%2) {c=0.5, scale="2^30"}
%6 = he.macrescale(%5, %1, %1, %0) {level=1}
%7 = he.output(%6)`},
		{"products that are added up", `%5 = he.mul(%1, %2, %0)
%6 = he.mul(%2, %2, %0)
%7 = he.add(%5, %6)
%8 = he.rescale(%7)
%9 = he.output(%8)`, `%5 = he.mulrescale(%1, %2, %2, %2, %0) {level=1}
%6 = he.output(%5)`},
		{"more products than a step adds up", `%5 = he.mul(%1, %2, %0)
%6 = he.mul(%2, %2, %0)
%7 = he.add(%5, %6)
%8 = he.mul(%1, %1, %0) {level=2}
%9 = he.add(%7, %8)
%10 = he.mul(%1, %2, %0)
%11 = he.mul(%2, %2, %0)
%12 = he.add(%10, %11)
%13 = he.add(%9, %12)
%14 = he.rescale(%13)
%15 = he.output(%14)`, `%5 = he.mul(%1, %2, %0)
%6 = he.mul(%2, %2, %0)
%7 = he.add(%5, %6)
%8 = he.macrescale(%7, %1, %2, %2, %2, %1, %1, %0) {level=1}
%9 = he.output(%8)`},
		{"three sums", `%5 = he.mulconst(%1) {c=0.5, level=2, scale="2^30"}
%6 = he.mulconst(%2) {c=0.25, level=2, scale="2^30"}
%7 = he.mul(%1, %2, %0)
%8 = he.add(%6, %7)
%9 = he.macconst(%8, %1) {c=2.0, level=2, scale="2^30"}
%10 = he.addconst(%9) {c=1.0}
%11 = he.add(%5, %10)
%12 = he.rescale(%11)
%13 = he.output(%12)`, `%5 = he.mulconst(%1) {c=0.5, level=2, scale="2^30"}
%6 = he.mulconst(%2) {c=0.25, level=2, scale="2^30"}
%7 = he.add(%5, %6) {level=2}
%8 = he.macconst(%7, %1) {c=2.0, level=2, scale="2^30"}
%9 = he.macrescale(%8, %1, %2, %0) {c=1.0, level=1}
%10 = he.output(%9)`},
		{"complex products, a real sum", `%5 = he.muli(%1)
%6 = he.mulconst(%2) {c=0.5, scale="2^30"}
%7 = he.mul(%5, %5, %0)
%8 = he.macconst(%7, %1) {c=0.5, level=3, scale="2^30"}
%9 = he.add(%8, %6)
%10 = he.rescale(%9)
%11 = he.key() {level=1, rot=-1}
%12 = he.realpart(%10, %11)
%13 = he.output(%12)`, `%5 = he.muli(%1)
%6 = he.mulconst(%2) {c=0.5, scale="2^30"}
%7 = he.macconst(%6, %1) {c=0.5, level=2, scale="2^30"}
%8 = he.macrescale(%7, %5, %5, %0) {level=1}
%9 = he.key() {level=1, rot=-1}
%10 = he.realpart(%8, %9)
%11 = he.output(%10)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := func(body string) *ir.Graph {
				out := body[strings.LastIndexByte(body, '\n')+1:]
				out, _, _ = strings.Cut(out, " ")
				g, err := ir.ParseString(head + body + "\ninputs(%1, %2, %3)\noutputs(" + out + ")\n")
				if err != nil {
					t.Fatal(err)
				}
				return g
			}
			want := c.want
			if want == "" {
				want = c.in
			}
			p, err := ir.NewParams("divisions", 4, ir.RingStandard, ir.SecretTernary, primes(5), primes(2), 30)
			if err != nil {
				t.Fatal(err)
			}
			u := &unit{par: p, scheme: program(c.in)}
			if err := divisions(u); err != nil {
				t.Fatal(err)
			}
			if err := ir.Verify(u.scheme, ir.Scheme); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(program(want).String(), u.scheme.String()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A sum is no accumulator where that would have the step touch more than the neediest.
func TestDivisionsPinned(t *testing.T) {
	const text = `graph "pinned"
%0 = he.key() {level=1, rot=0} : key(level=1)
%1 = he.input() {level=1, scale="2^30"} : ct(level=1, scale=2^30) enc "x"
%2 = he.input() {level=1, scale="2^30"} : ct(level=1, scale=2^30) enc "y"
%3 = he.mulconst(%2) {c=0.5, scale="2^30"} : ct(level=1, scale=2^60) enc
%4 = he.mul(%1, %2, %0) : ct(level=1, scale=2^60) enc
%5 = he.add(%3, %4) : ct(level=1, scale=2^60) enc
%6 = he.rescale(%5) : ct(level=0, scale=2^60*q1^-1) enc
%7 = he.output(%6) : ct(level=0, scale=2^60*q1^-1) enc
inputs(%1, %2)
outputs(%7)
`
	p, err := ir.NewParams("pinned", 4, ir.RingStandard, ir.SecretTernary, primes(2), primes(1), 30)
	if err != nil {
		t.Fatal(err)
	}
	g, err := ir.ParseString(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := divisions(&unit{par: p, scheme: g}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, g.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
