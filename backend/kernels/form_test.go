package kernels

import (
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	all := []Form{Portable, DQ, IFMA}
	for _, c := range []struct {
		name string
		have []Form
		want Form
		err  string
	}{
		{"", all, IFMA, ""},
		{"", all[:1], Portable, ""},
		{"portable", all, Portable, ""},
		{"ifma", all, IFMA, ""},
		{"avx512dq", all, DQ, ""},
		{"ifma", all[:2], 0, "this machine has portable, avx512dq"},
		{"ifma", all[:1], 0, `HOME_KERNELS="ifma": this CPU lacks the instructions; this machine has portable`},
		{"IFMA", all, 0, `"IFMA": no such kernels; this machine has portable, avx512dq, ifma`},
		{"fast", all, 0, "no such kernels"},
	} {
		f, err := choose(c.name, c.have)
		if c.err == "" && (err != nil || f != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q among %v: %v, %v", c.name, c.have, f, err)
		}
	}
	if s := Supported(); s[0] != Portable {
		t.Errorf("supported: %v", s)
	}
}
