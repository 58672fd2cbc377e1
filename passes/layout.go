package passes

import (
	"math/bits"
	"slices"

	"github.com/home-fhe/home/ir"
)

// grid describes how images of shape [C,H,W] lie in planes of one size: element
// (c,h,w) sits in plane block(c) at row h*gapY+i and column w*gapX+j of a row
// stride, with (i,j) the place of channel c inside the gap (multiplexed packing:
// Lee et al., ICML 2022; as one matrix per layer: Ebel et al., ASPLOS 2025). Where
// a network takes several images at once, a plane has a part for each, so that
// channels of all images are the same number of slots apart.
type grid struct {
	row, image, plane int // slots from row to row, image to image, plane to plane
	gapY, gapX        int
	chanIn            int // consecutive planes that hold the same channel block
}

// packed is a layout with what the packing pass knows about it.
type packed struct {
	layout *ir.Layout
	grid   *grid
	period int // the content repeats with this many slots; Slots if it does not
	// bounded says that every slot, gaps included, holds a value of the tensor
	// or one no larger, so that a polynomial may be applied.
	bounded bool
}

func nextPow2(n int) int {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len(uint(n-1))
}

// spatial reads a shape as n images of [C,H,W], leading ones removed; H is 1 for
// 1-D signals. ok is false for tensors without spatial axes.
func spatial(shape []int) (n, c, h, w int, ok bool) {
	s := shape
	for len(s) > 0 && s[0] == 1 && len(s) > 2 {
		s = s[1:]
	}
	switch len(s) {
	case 4:
		return s[0], s[1], s[2], s[3], true
	case 3:
		return 1, s[0], s[1], s[2], true
	case 2:
		if len(shape) >= 4 { // one channel
			return 1, 1, s[0], s[1], true
		}
		if len(shape) == 3 {
			return 1, s[0], 1, s[1], true
		}
	}
	return 0, 0, 0, 0, false
}

// flatLayout places n elements one after the other from slot 0 and repeats them
// with the given period. Zeros fill the period.
func flatLayout(slots, n, period int) *packed {
	cts := (n + slots - 1) / slots
	l := ir.NewLayout(slots, cts, 1)
	if cts > 1 {
		period = slots
		for i := range n {
			l.Map[i] = int32(i)
		}
		return &packed{layout: l, period: slots, bounded: true}
	}
	for base := 0; base+period <= slots; base += period {
		for i := range n {
			l.Map[base+i] = int32(i)
		}
	}
	return &packed{layout: l, period: period, bounded: true}
}

// skewedLayout repeats n elements with the given period, each copy rotated by a
// further shift slots: copy r holds element (t - r*shift) mod period at place t.
// A dense layer that follows needs shift diagonals instead of period/copies
// times as many.
func skewedLayout(slots, n, period, shift int) *packed {
	l := ir.NewLayout(slots, 1, 1)
	for r := 0; r*period < slots; r++ {
		for i := range n {
			l.Map[r*period+(i+r*shift)%period] = int32(i)
		}
	}
	return &packed{layout: l, period: slots, bounded: true}
}

// gridLayout places n images of [C,H,W] on planes, mux channels to a plane. copies
// says what the planes beyond those needed hold: 0 zeros, 1 the whole pattern
// again (period), 2 each plane several times in a row. It returns nil where the
// tensor does not fit the grid.
func gridLayout(slots, n, c, h, w int, g grid, copies, mux int) *packed {
	need := nextPow2((c + mux - 1) / mux)
	planes := slots / g.plane
	if planes == 0 {
		return nil
	}
	cts, chanIn, period := 1, 1, slots
	if need > planes {
		cts, copies = ((c+mux-1)/mux+planes-1)/planes, 0
	}
	last := min(mux, c) - 1
	di, dj := last/g.gapX, min(last, g.gapX-1)
	if ((h-1)*g.gapY+di)*g.row+(w-1)*g.gapX+dj >= g.image || (w-1)*g.gapX+dj >= g.row || n*g.image > g.plane {
		return nil
	}
	total := planes * cts
	l := ir.NewLayout(slots, cts, 1)
	for p := range total {
		b := p
		switch copies {
		case 1:
			b, period = p%need, need*g.plane
		case 2:
			chanIn = planes / need
			b = p / chanIn
		}
		for s := range mux {
			ch := b*mux + s
			if ch >= c {
				break
			}
			di, dj := s/g.gapX, s%g.gapX
			for i := range n * h {
				n, y := i/h, i%h
				for x := range w {
					a := p*g.plane + n*g.image + (y*g.gapY+di)*g.row + x*g.gapX + dj
					l.Map[a] = int32(((n*c+ch)*h+y)*w + x)
				}
			}
		}
	}
	g.chanIn = chanIn
	return &packed{layout: l, grid: &g, period: period, bounded: true}
}

// inputLayouts returns the layouts a client may pack the input in.
func inputLayouts(slots int, shape []int, firstRows []int) []*packed {
	n := ir.NumElems(shape)
	var out []*packed
	m, c, h, w, ok := spatial(shape)
	last := len(shape) == 4 && w < min(c, h) // channels come last
	if last {
		c, h, w = w, c, h
	}
	if ok && nextPow2(m)*nextPow2(h*w) <= slots {
		g := grid{row: w, image: nextPow2(h * w), gapY: 1, gapX: 1}
		g.plane = g.image * nextPow2(m)
		copies := []int{1, 2}
		if nextPow2(c)*g.plane > slots {
			copies = []int{0}
		}
		for _, k := range copies {
			p := gridLayout(slots, m, c, h, w, g, k, 1)
			for i, e := range p.layout.Map {
				if last && e >= 0 {
					ch, px := int(e)/(h*w)%c, int(e)%(h*w)
					p.layout.Map[i] = int32((int(e)/(c*h*w)*h*w+px)*c + ch)
				}
			}
			out = append(out, p)
		}
	}
	if n > slots {
		return append(out, flatLayout(slots, n, slots))
	}
	period := nextPow2(n)
	for _, rows := range firstRows {
		p := nextPow2(rows)
		copies := slots / period
		for r := copies; r > 1; r /= 2 {
			if p/r >= 1 && p <= period {
				out = append(out, skewedLayout(slots, n, period, p/r))
				break
			}
		}
	}
	return append(out, flatLayout(slots, n, period))
}

// placement is a way to compute a linear layer: where its result lies, and how
// partial sums are folded. The result y is the sum over k < count of the
// partial vector rotated by k*unit; count is a power of two.
type placement struct {
	out         *packed
	unit, count int
	// blocks: the partial sums of an element lie in a block of their own, so the
	// fold leaves garbage in the block's other slots. Otherwise the fold is
	// cyclic and every slot ends up with a valid sum.
	blocks bool
}

// placements lists ways to place the result of a linear layer with the given
// argument layouts. next tells whether a polynomial follows, which needs every
// slot bounded.
func placements(slots int, args []*packed, shape []int, polyNext bool) []placement {
	n := ir.NumElems(shape)
	var out []placement
	keep := func(p placement) {
		if p.out == nil || polyNext && !p.out.bounded {
			return
		}
		out = append(out, p)
	}
	in := args[0]
	if m, c, h, w, ok := spatial(shape); ok && h*w > 1 {
		for _, a := range args {
			if a.grid == nil {
				continue
			}
			for _, g := range gapChoices(*a.grid, m, h, w) {
				for _, mux := range muxChoices(g) {
					for copies := range 3 {
						keep(placement{gridLayout(slots, m, c, h, w, g, copies, mux), slots, 1, false})
					}
					// Sum over the channel planes of a channel-major argument.
					if ci := a.grid.chanIn; ci > 1 && a.layout.Cts == 1 {
						need := nextPow2((c + mux - 1) / mux)
						span := ci * g.plane
						if need <= ci && span < slots {
							p := gridLayout(span, m, c, h, w, g, 1, mux)
							if p != nil && p.layout.Cts == 1 {
								keep(placement{repeat(p, slots), span, slots / span, false})
							}
						}
					}
				}
			}
			break
		}
	}
	rows := nextPow2(n)
	if n <= slots {
		// Diagonals modulo the number of rows, folded over the argument's period.
		period := slots
		if len(args) == 1 && in.layout.Cts == 1 {
			period = in.period
		}
		if rows <= period {
			out2 := flatLayout(slots, n, rows)
			keep(placement{out2, rows, period / rows, false})
		} else {
			keep(placement{flatLayout(slots, n, rows), slots, 1, false})
		}
		// One block per row: a product and a sum inside each block.
		if len(args) == 1 && in.layout.Cts == 1 && in.period < slots && n <= slots/in.period {
			l := ir.NewLayout(slots, 1, 1)
			for i := range l.Map {
				l.Map[i] = ir.SlotUnknown
			}
			for i := range n {
				l.Map[i*in.period] = int32(i)
			}
			keep(placement{&packed{layout: l, period: slots}, 1, in.period, true})
		}
	} else {
		keep(placement{flatLayout(slots, n, slots), slots, 1, false})
	}
	// In place: a layer that only scales its argument's slots.
	for _, a := range args {
		if maxElem(a.layout) == n-1 {
			keep(placement{a, slots, 1, false})
		}
	}
	return out
}

func maxElem(l *ir.Layout) int { return int(slices.Max(l.Map)) }

// repeat extends a layout to more slots by repeating it.
func repeat(p *packed, slots int) *packed {
	l := ir.NewLayout(slots, 1, 1)
	n := len(p.layout.Map)
	for i := range l.Map {
		l.Map[i] = p.layout.Map[i%n]
	}
	return &packed{layout: l, grid: p.grid, period: min(p.period, n), bounded: p.bounded}
}

// gapChoices returns the grids on which m results of h x w may lie on the planes
// of an argument: the gaps grow with the strides. They are the widest that fit,
// the same in both directions or not, and half as wide.
func gapChoices(g grid, m, h, w int) []grid {
	rows := g.image / g.row
	fits := func(y, x int) bool {
		return (h-1)*y+1 <= rows+y-1 && (w-1)*x < g.row && (h-1)*y*g.row+(w-1)*x < g.image
	}
	widest := func(y, x int) int { // how many times
		k := 1
		for k < 16 && fits(g.gapY*(1+y*(2*k-1)), g.gapX*(1+x*(2*k-1))) {
			k *= 2
		}
		return k
	}
	y, x := 1, widest(0, 1)
	if h > 1 { // signals have one row, whatever their stride
		y = widest(1, 0)
	}
	both := x
	if h > 1 {
		both = widest(1, 1)
	}
	var out []grid
	for _, k := range [][2]int{{both / 2, both / 2}, {both, both}, {y / 2, x / 2}, {y, x}} {
		c := grid{row: g.row, image: g.image, plane: g.image * nextPow2(m), gapY: g.gapY * max(1, k[0]), gapX: g.gapX * max(1, k[1]), chanIn: 1}
		if h == 1 {
			c.gapY = g.gapY
		}
		if fits(c.gapY, c.gapX) && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// muxChoices returns how many channels share a plane: none, or as many as the
// gap has room for.
func muxChoices(g grid) []int {
	if m := g.gapY * g.gapX; m > 1 {
		return []int{1, m}
	}
	return []int{1}
}
