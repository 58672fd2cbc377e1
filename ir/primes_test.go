package ir

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestNewParams(t *testing.T) {
	for _, c := range []struct {
		name string
		logN int
		ring Ring
		q, p []int
	}{
		{"toy", 4, RingStandard, []int{40, 30, 30, 30}, []int{40}},
		{"real", 13, RingReal, []int{40, 30, 30, 30, 30}, []int{41}},
		{"n15", 15, RingStandard, []int{50, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40, 40}, []int{60, 60, 60}},
		{"n16", 16, RingReal, []int{61, 45, 45, 45, 45, 45, 45}, []int{61, 61}},
	} {
		p, err := NewParams(c.name, c.logN, c.ring, SecretTernary, c.q, c.p, 30)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		again, err := NewParams(c.name, c.logN, c.ring, SecretTernary, c.q, c.p, 30)
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%s: two runs differ: %v %v (%v)", c.name, p, again, err)
		}
		drift := 0.0
		for i, q := range p.Q[1:] {
			d := math.Log2(float64(q)) - float64(c.q[i+1])
			if math.Abs(d) > 0.1 {
				t.Errorf("%s: q%d is 2^%d*2^%g", c.name, i+1, c.q[i+1], d)
			}
			if drift += d; math.Abs(drift) > 0.1 {
				t.Errorf("%s: product of q1..q%d drifts by 2^%g", c.name, i+1, drift)
			}
		}
		for i, q := range p.P {
			if math.Ceil(math.Log2(float64(q))) != float64(c.p[i]) {
				t.Errorf("%s: p%d=%d is not just below 2^%d", c.name, i, q, c.p[i])
			}
		}
	}
}

func TestNewParamsRefuses(t *testing.T) {
	for _, c := range []struct {
		logN int
		q    []int
		want string
	}{
		{3, []int{40}, "ring degree"},
		{16, []int{17}, "no prime"},
		{13, []int{62}, "no prime"},
		{16, []int{60, 20, 20, 20, 20, 20, 20, 20, 20, 20}, "too few primes"},
	} {
		_, err := NewParams("x", c.logN, RingStandard, SecretTernary, c.q, []int{40}, 30)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("logN %d, sizes %v: error %v, want %q", c.logN, c.q, err, c.want)
		}
	}
}
