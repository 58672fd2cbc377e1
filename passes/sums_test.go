package passes

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/home-fhe/home/ir"
)

// sumProgram is the text of n products at level 1 that are added up one after the
// other, and of a multiplication at a level of its own, which needs more memory at once
// the higher it is.
func sumProgram(n, level int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `graph "sums"
%%0 = he.key() {level=%[1]d, rot=0} : key(level=%[1]d)
%%1 = he.input() {level=%[1]d, scale="2^30"} : ct(level=%[1]d, scale=2^30) enc "x"
%%2 = he.mul(%%1, %%1, %%0) : ct(level=%[1]d, scale=2^60) enc
`, level)
	at := 3
	for i := range n {
		fmt.Fprintf(&b, "%%%d = he.plain() {level=1, qp=0, scale=\"2^30\"} values=(period=1, index=[0], value=[%d]) : pt(level=1, scale=2^30)\n", at, i+1)
		if i == 0 {
			fmt.Fprintf(&b, "%%%d = he.mulplain(%%1, %%%d) {level=1} : ct(level=1, scale=2^60) enc\n", at+1, at)
		} else {
			fmt.Fprintf(&b, "%%%d = he.macplain(%%%d, %%1, %%%d) : ct(level=1, scale=2^60) enc\n", at+1, at-1, at)
		}
		at += 2
	}
	fmt.Fprintf(&b, `%%%d = he.add(%%2, %%%d) {level=1} : ct(level=1, scale=2^60) enc
%%%d = he.output(%%%d) : ct(level=1, scale=2^60) enc
inputs(%%1)
outputs(%%%d)
`, at, at-1, at+1, at, at+1)
	return b.String()
}

// Products that are added to one accumulator become steps of as many terms as fit what
// the neediest other step has in memory, and no more than a step may have.
func TestSums(t *testing.T) {
	for _, c := range []struct {
		special int // primes: more of them make keys of fewer digits
		level   int
		terms   int
		want    string
	}{
		// With one special prime the product of ciphertexts has 4 slabs of its argument,
		// 2 halves of 2 digits of 3 limbs of the key and 4 of the result: 20. A sum has 8 of
		// argument and result, and 3 for a plaintext and its source.
		{1, 1, 9, "4 4 1"},
		{1, 1, 4, "4"},
		// With two it is one digit of 4 limbs: 16.
		{2, 1, 9, "2 2 2 2 1"},
		// At level 4 it is five digits of 6 limbs, and 20 for the ciphertexts: 80. A sum has
		// 14 of argument and result, so that there is room for 22 terms.
		{1, 4, 17, "8 8 1"},
	} {
		p, err := ir.NewParams("sums", 4, ir.RingStandard, ir.SecretTernary, primes(5), primes(c.special), 30)
		if err != nil {
			t.Fatal(err)
		}
		g, err := ir.Parse(strings.NewReader(sumProgram(c.terms, c.level)), nil)
		if err != nil {
			t.Fatal(err)
		}
		u := &unit{par: p, scheme: g}
		if err := sums(u); err != nil {
			t.Fatal(err)
		}
		if err := ir.Verify(g, ir.Scheme); err != nil {
			t.Fatal(err)
		}
		var got []string
		values := 0.0
		for _, v := range g.Values {
			n := v.Op.Terms(len(v.Args))
			if n == 0 {
				continue
			}
			got = append(got, fmt.Sprint(n))
			for _, a := range v.Args {
				if a.Slots != nil {
					values = 31*values + a.Slots.Value[0]
				}
			}
		}
		if d := cmp.Diff(c.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%+v: terms of the steps (-want +got):\n%s", c, d)
		}
		want := 0.0
		for i := range c.terms {
			want = 31*want + float64(i+1)
		}
		if values != want {
			t.Errorf("%+v: they are added up in the order %v", c, values)
		}
	}
}

func primes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = 40
	}
	return out
}
