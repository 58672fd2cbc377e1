package lattigo

// This file holds the steps that add up products of ciphertexts with plaintexts.
// They go limb by limb, and each limb block by block, so that the sum stays in cache
// while the terms, each read once, stream past.

const (
	// sumBlock is the number of residues of a block: two of its rows fit the first
	// cache or nearly, eight the second.
	sumBlock = 4096
	// sumOnce is how many terms are read side by side. Limbs lie at multiples of their
	// own size, so that what is read side by side competes for the same places of the
	// caches: three rows a term, of twelve ways of the first.
	sumOnce = 4
)

// addUpLimb computes limb i of out = in[0] + in[1]*in[2] + ..., or without the
// accumulator where there is an even number of operands.
func addUpLimb(e *engine, w *scratch, i int) {
	var sum *operand
	pairs := w.in
	if len(pairs)%2 != 0 {
		sum, pairs = pairs[0], pairs[1:]
	}
	m := e.mod(i, w.l)
	for k := range len(pairs) / 2 {
		if pairs[2*k+1].streams {
			w.vals[k] = m.values(w.tmp[k], &w.plains[k])
		}
	}
	x, y0, y1 := w.terms, w.y0, w.y1
	for base := 0; base < e.n; base += sumBlock {
		end := min(base+sumBlock, e.n)
		row := func(o *operand, k int) []uint64 { return o.qp(k, i, w.l)[base:end] }
		z0, z1 := row(w.out, 0), row(w.out, 1)
		s0, s1 := w.acc[0][:end-base], w.acc[1][:end-base]
		last := sum
		for at := 0; at < len(pairs); at += 2 * sumOnce {
			n := min(len(pairs)-at, 2*sumOnce) / 2
			for k := range n {
				ct, pt := pairs[at+2*k], pairs[at+2*k+1]
				y0[k], y1[k] = row(ct, 0), row(ct, 1)
				if gap := w.plains[at/2+k].gap; !pt.streams {
					x[k] = row(pt, 0)
				} else if x[k] = w.vals[at/2+k]; gap == 0 {
					x[k] = x[k][base:end]
				} else {
					part := w.block[k][:end-base]
					m.Repeat(part, x[k][base>>gap:end>>gap])
					x[k] = part
				}
			}
			switch {
			case last == nil && n == 1:
				m.Mul(z0, y0[0], x[0])
				m.Mul(z1, y1[0], x[0])
			case last == nil:
				m.Dot(z0, z1, x[:n], y0[:n], y1[:n])
			case n == 1:
				m.Mac(z0, row(last, 0), y0[0], x[0])
				m.Mac(z1, row(last, 1), y1[0], x[0])
			default:
				m.Dot(s0, s1, x[:n], y0[:n], y1[:n])
				m.Add(z0, row(last, 0), s0)
				m.Add(z1, row(last, 1), s1)
			}
			last = w.out
		}
	}
}
