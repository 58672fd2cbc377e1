package passes

import (
	"math"
	"math/bits"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
)

// bootstrap describes a bootstrapping circuit, slots to coefficients first: the
// transform that costs least at a low level is done there, and what leaves the
// circuit are slots. With real data only the real part of the raised
// coefficients carries the message, so one reduction serves all slots.
//
//	slots to coefficients      levels stc..1, ends at level 0
//	raise the modulus          coefficients become v + (q_0/S)*I
//	sum over the copies        where the data repeats: removes what does not
//	coefficients to slots      cts levels
//	real part                  v*S/q_0 + I, and a quarter off: an even function
//	cosine, double angles      c*sin(2*pi*v*S/q_0), c = q_0/(2*pi*S)
//
// (Cheon, Han, Kim, Kim and Song, EUROCRYPT 2018; Han and Ki, CT-RSA 2020, for
// the double angles; Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, EUROCRYPT
// 2021, for the merged layers.)
type bootstrap struct {
	stc, cts int // levels of the two transforms
	// bound on |I|. The ephemeral secret of weight h gives I the deviation
	// sqrt((h+1)/12), 1.66: 14 is more than eight of them, and one coefficient in
	// 10^16 lies beyond.
	bound     int
	degree    int // of the cosine, even
	doublings int // of its angle
	// ratio is log2(q_0/S): the sine differs from the identity by a share of
	// (2*pi/2^ratio)^2/6.
	ratio int
}

// levelsIn is the level a value needs to be refreshed.
func (c *bootstrap) levelsIn() int { return c.stc }

// levelsOver is how many levels above its result the modulus is raised.
func (c *bootstrap) levelsOver() int { return c.cts + polyDepth(c.degree) + c.doublings }

// layers returns how many layers of a transform of n points each of so many
// levels takes, the first applied first. What is left over goes to the levels
// that are lower, where it costs less.
func layers(n, levels int) []int {
	all := bits.Len(uint(n)) - 1
	out := make([]int, 0, levels)
	for i := range levels {
		k := all / (levels - i) // the largest groups come last
		out = append(out, k)
		all -= k
	}
	return out
}

// stage is one level of a transform.
type stage struct {
	inverse  bool
	from, to int
	factor   float64
	scale    int // log2 of the scale of its plaintexts
}

// keys lists the diagonals of a stage as rotations, as small as they can be.
func (s *stage) keys(n int) []diagKey {
	var out []diagKey
	for _, o := range ir.Offsets(n, s.from, s.to) {
		out = append(out, diagKey{rot: centred(o, n)})
	}
	return out
}

// span is the largest argument of the cosine: the multiples of q_0, and the quarter
// that makes a sine of it.
func (c *bootstrap) span() float64 { return float64(c.bound) + 0.25 }

// inner is log2 of the scale of the cosine, with the modulus raised to level top:
// the size of the primes that it rescales by.
func (c *bootstrap) inner(par *ir.Params, top int) float64 {
	return math.Round(math.Log2(float64(par.Q[top-c.cts])))
}

// stages returns the two transforms of n points, the modulus being raised to level
// top in between. in is log2 of the scale of what is refreshed.
func (c *bootstrap) stages(par *ir.Params, n, top int, in float64) (stc, cts []stage) {
	log := func(i int) float64 { return math.Log2(float64(par.Q[i])) }
	// Primes of one size give the same scales, whatever top, so that bootstraps to
	// several levels share their matrices.
	whole := func(x float64) int { return int(math.Round(math.Round(x*256) / 256)) }
	// Down to a message of q_0/2^ratio, the last stage taking what is too much.
	at, s := 0, in
	for i, k := range layers(n, c.stc) {
		level := c.stc - i
		want := in
		if i == c.stc-1 {
			want = log(0) - float64(c.ratio)
		}
		p := whole(want + log(level) - s)
		stc = append(stc, stage{from: at, to: at + k, factor: 1, scale: p})
		s += float64(p) - log(level)
		at += k
	}
	// Back up. The factor and the change of scale are spread evenly, so that no
	// stage rounds its plaintexts more than the others: together they bring
	// (q_0/S)*span to one, the doubling of the real part and the sum over the
	// copies included.
	copies := par.Slots() / n
	total := math.Exp2(s-log(0)) / (float64(2*copies) * c.span())
	k := layers(n, c.cts)
	for i := range k {
		level := top - i
		want := s + (c.inner(par, top)-s)/float64(len(k)-i)
		p := whole(want + log(level) - s)
		cts = append(cts, stage{inverse: true, from: at - k[i], to: at, factor: math.Pow(total, 1/float64(len(k))), scale: p})
		s += float64(p) - log(level)
		at -= k[i]
	}
	return stc, cts
}

// likely and unlikely weigh the multiples of q_0 in the fit of the cosine: a normal
// curve almost twice as wide as theirs, and what counts everywhere.
const (
	likely   = 3
	unlikely = 1e-8
)

// cosine returns the Chebyshev coefficients of y_0 = c_0*cos(2*pi*span*u/2^doublings)
// and the constants of the recurrence y_k = 2*y_(k-1)^2 - c_k that ends at
// c*cos(2*pi*span*u), c_k = c^(2^(k-doublings)). Half of the coefficients are zero, and
// with them half of the powers of u.
func (c *bootstrap) cosine(scale float64) (coef, consts []float64) {
	root := func(k int) float64 { return math.Pow(scale, math.Exp2(float64(k-c.doublings))) }
	nodes, weight := withRange(nil, 1, 4*(c.degree+1))
	f := make([]float64, len(nodes))
	for j, u := range nodes {
		// Multiples of q_0 beyond a few deviations are rare: there more bits may be lost,
		// if enough remain, so that the others keep more.
		x := c.span() * u / likely
		weight[j] *= unlikely + math.Exp(-x*x/2)
		f[j] = root(0) * math.Cos(2*math.Pi*c.span()*u/math.Exp2(float64(c.doublings)))
	}
	coef, err := chebyshevFit(nodes, f, weight, c.degree, func(k int) bool { return k%2 == 0 })
	if err != nil {
		panic("BUG: cosine: " + err.Error())
	}
	for k := 1; k <= c.doublings; k++ {
		consts = append(consts, root(k))
	}
	return coef, consts
}

// points returns the number of points of the transform for slots that repeat
// after period.
func (c *bootstrap) points(period int) int { return max(period, 1<<max(c.stc, c.cts)) }

// seconds predicts the time to refresh so many ciphertexts, whose slots repeat
// after n, to a level, on one core.
func (c *bootstrap) seconds(par *ir.Params, prof *backend.Profile, level, n, cts int) float64 {
	n = c.points(n)
	top := level + c.levelsOver()
	stc, up := c.stages(par, n, top, float64(par.LogScale))
	t := prof.Seconds(par, ir.OpHERaise, top)
	for k := n; k < par.Slots(); k *= 2 {
		t += prof.Seconds(par, ir.OpHERotate, top) + prof.Seconds(par, ir.OpHEAdd, top)
	}
	for i := range stc {
		t += c.split(&stc[i], n, par, prof, c.stc-i).cost
	}
	for i := range up {
		t += c.split(&up[i], n, par, prof, top-i).cost
	}
	at := top - c.cts
	t += prof.Seconds(par, ir.OpHERealPart, at) + polyCost(c.degree, par, prof, at)
	at -= polyDepth(c.degree)
	for range c.doublings {
		t += prof.Seconds(par, ir.OpHEMulRescale, at)
		at--
	}
	return float64(cts) * t
}

func (c *bootstrap) split(s *stage, n int, par *ir.Params, prof *backend.Profile, level int) *rotations {
	return chooseSplit(s.keys(n), splitWidths(n, nil), par, prof, level)
}

// refresh brings a ciphertext of real slots, which repeat after period, to a
// level.
func (lw *lowering) refresh(c *bootstrap, x *ir.Value, period, level int) *ir.Value {
	b, par, n := lw.b, lw.par, c.points(period)
	top := level + c.levelsOver()
	stc, cts := c.stages(par, n, top, math.Log2(x.Type.Scale.Float64(par.Q)))
	at := c.stc
	for i := range stc {
		x = lw.transform(c, &stc[i], x, n, at)
		at--
	}
	message := x.Type.Scale.Float64(par.Q)
	x = b.emit(ir.OpHERaise, ir.Attrs{"level": top}, x, b.key(ir.KeySparse, 0), b.key(ir.KeyDense, top))
	for k := n; k < par.Slots(); k *= 2 {
		x = b.add(x, b.rotate(x, k))
	}
	at = top
	for i := range cts {
		x = lw.transform(c, &cts[i], x, n, at)
		at--
	}
	x = b.addConst(b.emit(ir.OpHERealPart, nil, x, b.key(ir.KeyConj, at)), -0.25/c.span())
	coef, consts := c.cosine(float64(par.Q[0]) / (2 * math.Pi * message))
	// The scale that squaring and rescaling bring to that of a plan.
	want := float64(par.LogScale)
	for k := range c.doublings {
		want = (want + math.Log2(float64(par.Q[level+1+k]))) / 2
	}
	x = b.polynomial(x, coef, at, ir.ScaleTwo(int(math.Round(want))))
	for _, k := range consts {
		y := b.mul(x, x)
		x = b.rescale(b.addConst(b.add(y, y), -k))
	}
	return x
}

// transform emits one stage at a level; its result is one lower.
func (lw *lowering) transform(c *bootstrap, s *stage, x *ir.Value, n, level int) *ir.Value {
	r := c.split(s, n, lw.par, lw.prof, level)
	var terms []term
	for _, k := range s.keys(n) {
		terms = append(terms, term{k, func(giant int) *ir.SlotData {
			return &ir.SlotData{Period: n, DFT: &ir.Diagonal{Inverse: s.inverse, From: s.from, To: s.to,
				Offset: mod(k.rot, n), Shift: mod(giant, n), Factor: s.factor}}
		}})
	}
	product := x.Type.Scale.Mul(ir.ScaleTwo(s.scale))
	return lw.b.rescale(lw.bsgs(terms, r, func(diagKey) *ir.Value { return x }, 1, level, product)[0])
}

// bootEntry is a row of the catalogue for networks that are refreshed.
type bootEntry struct {
	entry
	boot bootstrap
}

// bootEntries go from many levels to much precision. All primes of Q but the
// first have one size, so that a value can be raised to just the level it is
// needed at. The secret is sparse, and log2(QP) just below the bound for N=2^16.
var bootEntries = []bootEntry{
	{entry{"boot-16-31", 16, 49, 40, 31, repeatSize(42, 6)}, bootstrap{stc: 3, cts: 4, bound: 14, degree: 30, doublings: 3, ratio: 9}},
	{entry{"boot-16-29", 16, 49, 42, 29, repeatSize(44, 6)}, bootstrap{stc: 3, cts: 4, bound: 14, degree: 30, doublings: 3, ratio: 9}},
	{entry{"boot-16-27", 16, 49, 44, 27, repeatSize(46, 6)}, bootstrap{stc: 3, cts: 4, bound: 14, degree: 30, doublings: 3, ratio: 10}},
	{entry{"boot-16-26", 16, 49, 46, 26, repeatSize(48, 6)}, bootstrap{stc: 3, cts: 4, bound: 14, degree: 30, doublings: 3, ratio: 10}},
}
