package kernels

import (
	"fmt"
	"slices"
)

// Modulus is a prime with the kernels that serve rows of its residues.
type Modulus struct {
	Prime
	Rows
}

// maxSources is the number of primes that a basis extends from at most: sums of as
// many products stay below twice the target (see sum128.lazy). The vector kernels take
// the most special primes that there are and one more.
const (
	maxSources       = 15
	maxVectorSources = 9
)

// Basis extends residues modulo a group of source primes to single target primes,
// exactly: with S the product of the sources, a value x is read as its centred
// representative in [-S/2, S/2) and reduced modulo the target (Halevi, Polyakov and
// Shoup, CT-RSA 2019, with the quotient from floating point; a quotient that is off by
// one at the very edge of the interval still gives a representative congruent to x).
// It is ModUp, and what ModDown and rescaling subtract. Results do not depend on the
// forms of the primes. It is read-only after it was made.
type Basis struct {
	form   Form // that serves all sources
	src    []source
	target []target
	unit   int
}

type source struct {
	*Modulus
	inv  uint64  // (S/q)^-1 mod q
	frac float64 // 1/q
}

type target struct {
	*Modulus
	form Form     // of conversions to it
	w    []uint64 // S/q_j mod p, times 2^52 for IFMA, else 2^64
	neg  uint64   // -S mod p, likewise
	down uint64   // S^-1 mod p, 0 where p divides S
}

// NewBasis returns the extension from src to each of targets. It refuses more than 15
// sources.
func NewBasis(src, targets []*Modulus) (*Basis, error) {
	if len(src) == 0 || len(src) > maxSources {
		return nil, fmt.Errorf("basis extension from %d primes: the kernels take 1 to %d", len(src), maxSources)
	}
	b := &Basis{form: IFMA, unit: 8}
	for j, s := range src {
		prod := uint64(1)
		for k, o := range src {
			if k != j {
				prod = s.Times(prod, o.Q%s.Q)
			}
		}
		b.src = append(b.src, source{s, s.Invert(prod), 1 / float64(s.Q)})
		b.form = min(b.form, s.Form())
	}
	if len(src) > maxVectorSources {
		b.form = Portable
	}
	if b.form != Portable {
		b.unit = 32
	}
	for _, t := range targets {
		u := target{Modulus: t, form: min(b.form, t.Form())}
		scaled := t.form64
		if u.form == IFMA {
			scaled = t.Montgomery
		}
		all := uint64(1)
		for j, s := range src {
			all = t.Times(all, s.Q%t.Q)
			w := uint64(1)
			for k, o := range src {
				if k != j {
					w = t.Times(w, o.Q%t.Q)
				}
			}
			u.w = append(u.w, scaled(w))
		}
		u.neg, u.down = scaled((t.Q-all)%t.Q), t.Invert(all)
		b.target = append(b.target, u)
	}
	return b, nil
}

// Doubled returns the extension that reads twice a value x and gives half of what it
// reads: half the centred representative of 2x, divided modulo each target. With Down,
// which is twice that of b, (x - that)*Down is 2x/S rounded. It takes no more time than b.
// Of a single source there is none.
func (b *Basis) Doubled() *Basis {
	if len(b.src) == 1 {
		panic("BUG: a basis of one prime is not doubled")
	}
	d := *b
	d.src, d.target = slices.Clone(b.src), slices.Clone(b.target)
	for j := range d.src {
		s := &d.src[j]
		s.inv = s.Times(2, s.inv)
	}
	for i := range d.target {
		t := &d.target[i]
		half := (t.Q + 1) / 2
		t.w = slices.Clone(t.w)
		for j, w := range t.w {
			t.w[j] = t.Times(w, half)
		}
		t.neg, t.down = t.Times(t.neg, half), t.Times(2, t.down)
	}
	return &d
}

// Targets returns the number of targets.
func (b *Basis) Targets() int { return len(b.target) }

// Down returns the inverse of the product of the sources modulo target t, 0 where there
// is none.
func (b *Basis) Down(t int) uint64 { return b.target[t].down }

// check refuses rows that do not fit each other or the kernels.
func (b *Basis) check(rows [][]uint64, v []uint8) {
	n := len(rows[0])
	if len(rows) != len(b.src) || n == 0 || n%b.unit != 0 || len(b.src) > 1 && len(v) != n {
		panic(fmt.Sprintf("BUG: %d rows of %d residues with %d quotients for a basis of %d", len(rows), n, len(v), len(b.src)))
	}
	for k := range rows {
		if len(rows[k]) != n {
			panic(fmt.Sprintf("BUG: rows of %d and %d residues", n, len(rows[k])))
		}
	}
}

// prepareBlock is the number of residues whose quotients are summed at a time.
const prepareBlock = 512

// Prepare turns the residues of a value modulo each source, in place, into the digits
// y_j = x_j*(S/q_j)^-1 mod q_j, and v into the quotients: the centred value is sum
// y_j*(S/q_j) - v*S. With a single source it leaves both as they are.
func (b *Basis) Prepare(rows [][]uint64, v []uint8) {
	b.check(rows, v)
	if len(b.src) == 1 {
		return // Convert compares with half the prime by itself
	}
	for k := range rows {
		for j := range k {
			apart(rows[k], rows[j])
		}
		apart(rows[k], v)
	}
	var block [prepareBlock]float64
	for base := 0; base < len(v); base += prepareBlock {
		end := min(base+prepareBlock, len(v))
		sum := block[:end-base]
		for i := range sum {
			sum[i] = 0.5
		}
		for j := range b.src {
			s, x := &b.src[j], rows[j][base:end]
			switch b.form {
			case Portable:
				s.prepare(x, sum, s.inv, s.frac)
			case DQ:
				dqPrepare(&x[0], &sum[0], len(x), s.inv, s.quotient(s.inv), s.Q, s.frac)
			default:
				ifmaPrepare(&x[0], &sum[0], len(x), s.inv, s.quotient52(s.inv), s.Q, s.frac)
			}
		}
		for i, out := 0, v[base:end]; i < len(out); i++ {
			out[i] = uint8(int32(sum[i]))
		}
	}
}

// groupOf is the number of targets that a kernel converts to at once: enough that
// reading the sources does not dominate.
const groupOf = 4

// Convert writes the prepared value modulo the targets of the given numbers to as many
// rows z, as coefficients below 4p, ready for the transform. The z must not overlap
// each other, rows or v.
func (b *Basis) Convert(z [][]uint64, to []int, rows [][]uint64, v []uint8) {
	b.check(rows, v)
	if len(z) != len(to) {
		panic(fmt.Sprintf("BUG: %d rows for %d targets", len(z), len(to)))
	}
	for i := range z {
		for _, x := range rows {
			like(z[i], x)
			apart(z[i], x)
		}
		for k := range i {
			apart(z[i], z[k])
		}
		apart(z[i], v)
	}
	for len(z) > 0 {
		k := 1
		if f := b.next(to); len(b.src) > 1 && f != Portable {
			k = groupOf
			b.convert4(z, to, rows, v, f)
		} else {
			b.convert(z[0], &b.target[to[0]], rows, v)
		}
		z, to = z[k:], to[k:]
	}
}

// next returns the vector form that serves a whole group of targets, if there is one.
func (b *Basis) next(to []int) Form {
	if len(to) < groupOf {
		return Portable
	}
	f := b.target[to[0]].form
	for _, t := range to[:groupOf] {
		if b.target[t].form != f {
			return Portable
		}
	}
	return f
}

func (b *Basis) convert4(z [][]uint64, to []int, rows [][]uint64, v []uint8, f Form) {
	var out [groupOf]*uint64
	var w [groupOf * maxVectorSources]uint64
	var c [3 * groupOf]uint64
	for i := range groupOf {
		t := &b.target[to[i]]
		out[i] = &z[i][0]
		for j, x := range t.w {
			w[groupOf*j+i] = x
		}
		c[i], c[groupOf+i], c[2*groupOf+i] = t.neg, t.Q, t.inv
	}
	if f == IFMA {
		ifmaConvert4(&out, &rows[0], &w, len(rows), &v[0], &c, len(z[0]))
	} else {
		dqConvert4(&out, &rows[0], &w, len(rows), &v[0], &c, len(z[0]))
	}
}

func (b *Basis) convert(z []uint64, t *target, rows [][]uint64, v []uint8) {
	if len(rows) == 1 {
		t.Centre(z, rows[0], b.src[0].Q, 1)
		return
	}
	switch t.form {
	case Portable:
		t.convert(z, rows, t.w, v, t.neg)
	case DQ:
		dqConvert(&z[0], &rows[0], &t.w[0], len(rows), &v[0], t.neg, len(z), t.Q, t.inv)
	default:
		ifmaConvert(&z[0], &rows[0], &t.w[0], len(rows), &v[0], t.neg, len(z), t.Q, t.inv)
	}
}
