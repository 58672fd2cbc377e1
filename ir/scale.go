package ir

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Scale is the exact scaling factor of a ciphertext or plaintext: a product
// 2^Two * q_0^Q[0] * q_1^Q[1] * ... over the primes of the modulus chain.
//
// Every scale a plan can produce has this form, because plaintexts are encoded
// at target*q/scale and a rescale divides by a prime of the chain. Holding the
// exponents instead of a float makes scales exact at any depth: two scales are
// equal or they are a type error, there is no tolerance to choose. (Cheon et
// al., ASIACRYPT 2017, for the scale; Kim, Papadimitriou and Polyakov, CT-RSA
// 2022, for why approximate equality loses precision.)
type Scale struct {
	Two int64   // exponent of 2
	Q   []int64 // exponents of the primes of the chain, trailing zeros trimmed
}

// ScaleTwo returns the scale 2^e.
func ScaleTwo(e int) Scale { return Scale{Two: int64(e)} }

// ScalePrime returns the scale q_i.
func ScalePrime(i int) Scale {
	q := make([]int64, i+1)
	q[i] = 1
	return Scale{Q: q}
}

func (s Scale) trim() Scale {
	n := len(s.Q)
	for n > 0 && s.Q[n-1] == 0 {
		n--
	}
	s.Q = s.Q[:n]
	if n == 0 {
		s.Q = nil
	}
	return s
}

func (s Scale) combine(t Scale, sign int64) Scale {
	r := Scale{Two: s.Two + sign*t.Two, Q: make([]int64, max(len(s.Q), len(t.Q)))}
	copy(r.Q, s.Q)
	for i, e := range t.Q {
		r.Q[i] += sign * e
	}
	return r.trim()
}

// Mul returns s*t.
func (s Scale) Mul(t Scale) Scale { return s.combine(t, 1) }

// Div returns s/t.
func (s Scale) Div(t Scale) Scale { return s.combine(t, -1) }

// Equal reports exact equality.
func (s Scale) Equal(t Scale) bool { return s.Two == t.Two && slices.Equal(s.trim().Q, t.trim().Q) }

// Check reports a scale that does not belong to a chain of so many primes, or
// whose exponents no plan can produce. A scale read from a file is checked before
// it is evaluated: large exponents cost memory, or overflow.
func (s Scale) Check(primes int) error {
	const most = 1 << 14
	if len(s.Q) > primes {
		return fmt.Errorf("a scale of %d primes, the chain has %d", len(s.Q), primes)
	}
	if s.Two > 64*most || s.Two < -64*most {
		return fmt.Errorf("a scale of 2^%d", s.Two)
	}
	for i, e := range s.Q {
		if e > most || e < -most {
			return fmt.Errorf("a scale of q%d^%d", i, e)
		}
	}
	return nil
}

// String prints the canonical form, for example "2^30", "q3", "2^60*q5^-1", "1".
func (s Scale) String() string {
	var b strings.Builder
	put := func(base string, e int64) {
		if e == 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteByte('*')
		}
		b.WriteString(base)
		if e != 1 || base == "2" {
			b.WriteByte('^')
			b.WriteString(strconv.FormatInt(e, 10))
		}
	}
	put("2", s.Two)
	for i, e := range s.Q {
		put("q"+strconv.Itoa(i), e)
	}
	if b.Len() == 0 {
		return "1"
	}
	return b.String()
}

// ParseScale is the inverse of String.
func ParseScale(text string) (Scale, error) {
	var s Scale
	if text == "1" {
		return s, nil
	}
	for _, f := range strings.Split(text, "*") {
		base, exp, has := strings.Cut(f, "^")
		e := int64(1)
		if has {
			v, err := strconv.ParseInt(exp, 10, 64)
			if err != nil {
				return s, fmt.Errorf("scale %q: bad exponent %q", text, exp)
			}
			e = v
		}
		switch {
		case base == "2":
			s.Two += e
		case strings.HasPrefix(base, "q"):
			i, err := strconv.Atoi(base[1:])
			if err != nil || i < 0 || i > 255 {
				return s, fmt.Errorf("scale %q: bad prime %q", text, base)
			}
			for len(s.Q) <= i {
				s.Q = append(s.Q, 0)
			}
			s.Q[i] += e
		default:
			return s, fmt.Errorf("scale %q: bad factor %q", text, f)
		}
	}
	return s.trim(), nil
}
