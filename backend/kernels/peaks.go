package kernels

import (
	"math/bits"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// Unit is an instruction of which arithmetic needs many and a core has few per second.
type Unit uint8

const (
	Mul64    Unit = iota // product of two words, low or high half or both: plain Go
	Madd52               // VPMADD52LUQ, VPMADD52HUQ
	MulHalf              // VPMULUDQ, 32 by 32 bits
	MulLow               // VPMULLQ
	Float                // product or sum of two doubles: plain Go
	FMA                  // VFMADD213PD
	AES                  // VAESENC: a round of AES on two words
	NumUnits             // of them
)

// String returns the instruction, as x86-64 has it.
func (u Unit) String() string {
	return [...]string{"MUL", "VPMADD52", "VPMULUDQ", "VPMULLQ", "MULSD, ADDSD", "VFMADD213PD", "VAESENC"}[u]
}

// lanes is the number of words on which one instruction works.
const lanes = 8

// Peaks is what cores of this machine do per second when they do nothing else.
type Peaks struct {
	Cores int // busy at once, together as fast as below
	// Rate holds words per second: an instruction on 512-bit registers counts eight
	// times. It is 0 where the machine lacks the instruction.
	Rate   [NumUnits]float64
	Memory []Bandwidth // from the first cache to DRAM
}

// Bandwidth is that of a level of the memory hierarchy in bytes per second.
type Bandwidth struct {
	Level string // L1, L2, ..., DRAM
	Holds int64  // bytes of the level; 0 for DRAM
	Read  float64
	Copy  float64 // bytes read plus bytes written
}

// Write returns the seconds that a written byte costs: what a copy takes beyond
// reading.
func (b *Bandwidth) Write() float64 { return max(0, 2/b.Copy-1/b.Read) }

// MeasurePeaks measures the peaks of so many cores at once. clock returns seconds: for
// one core best those that the processor has spent on this process; for several they
// must be those on the wall. It takes a few seconds and 256 MiB per core.
func MeasurePeaks(cores int, clock func() float64) *Peaks {
	return measurePeaks(meter{cores, clock, meterRuns}, 256<<20)
}

// measurePeaks takes so many bytes per core for DRAM, more than any cache has.
func measurePeaks(m meter, dram int64) *Peaks {
	cores := m.cores
	p := &Peaks{Cores: cores}
	const x = 0x000f_edcb_a987_6543
	p.Rate[Mul64] = m.rate(func(_, turns int) int { mulWords(turns, x); return turns * 8 })
	p.Rate[Float] = m.rate(func(_, turns int) int { runtime.KeepAlive(mulAddFloats(turns, 0.75)); return turns * 24 })
	vector := func(u Unit, has bool, loop func(turns int, x uint64)) {
		if has {
			p.Rate[u] = m.rate(func(_, turns int) int { loop(turns, x); return turns * 24 * lanes })
		}
	}
	vector(Madd52, hasIFMA(), peakMadd52)
	vector(MulHalf, hasDQ(), peakMulHalf)
	vector(MulLow, hasDQ(), peakMulLow)
	vector(FMA, hasDQ(), peakFMA)
	vector(AES, hasVAES(), peakAES)
	read, move := func(x []uint64) { readWords(x) }, func(z, x []uint64) { copy(z, x) }
	if hasDQ() {
		read = func(x []uint64) { peakRead(&x[0], len(x)) }
		move = func(z, x []uint64) { peakCopy(&z[0], &x[0], len(x)) }
	}
	buffers := make([][]uint64, cores)
	for i := range buffers {
		buffers[i] = make([]uint64, dram/8)
		for k := range buffers[i] {
			buffers[i][k] = uint64(k)
		}
	}
	for i, c := range caches() {
		b := Bandwidth{Level: c.name, Holds: c.bytes}
		// Half of the level, so that it stays there; the last two are shared.
		words := int(c.bytes / 2 / 8)
		if c.bytes == 0 {
			words = len(buffers[0])
		} else if i > 1 {
			words /= cores
		}
		words &^= 127
		b.Read = m.rate(func(core, turns int) int {
			for range turns {
				read(buffers[core][:words])
			}
			return turns * 8 * words
		})
		b.Copy = m.rate(func(core, turns int) int {
			half := words / 2
			for range turns {
				move(buffers[core][half:words], buffers[core][:half])
			}
			return turns * 16 * half
		})
		p.Memory = append(p.Memory, b)
	}
	return p
}

// Pace is how long the kernels of a form take when all they touch is in the first
// cache, in seconds per residue: what their instructions cost apart from memory.
type Pace struct {
	Butterfly, Inverse float64 // of NTT and INTT
	Product            float64 // with a factor that is known beforehand
	Term, Reduction    float64 // of sums of products
	Uniform            float64 // made from a seed
}

// MeasurePace measures a form, which the process must support, on one core for a prime
// of so many bits.
func MeasurePace(form Form, primeBits int, clock func() float64) (Pace, error) {
	const logN = 10
	p, err := NewPrime(1<<primeBits - 1) // that it is prime does not matter here
	if err != nil {
		return Pace{}, err
	}
	row := func(n int) []uint64 {
		x := make([]uint64, n)
		for i := range x {
			x[i] = uint64(i*i*i) % p.Q
		}
		return x
	}
	t := Transform{N: 1 << logN, Forward: row(1 << logN), Inverse: row(1 << logN), NInv: 3}
	all, err := New(p, form, &t)
	if err != nil {
		return Pace{}, err
	}
	r := all.(*checked).Rows
	m := meter{1, clock, meterRuns}
	per := func(work int, f func()) float64 {
		return 1 / m.rate(func(_, turns int) int {
			for range turns {
				f()
			}
			return turns * work
		})
	}
	x := row(1 << logN)
	var seed Seed
	seed.set(new([32]byte), DrawWide, form.seeds())
	out := Pace{
		Butterfly: per(logN<<logN/2, func() { r.NTT(x, x) }),
		Inverse:   per(logN<<logN/2, func() { r.INTT(x, x) }),
		Product:   per(1<<logN, func() { r.MulConst(x, x, 3) }),
		Uniform:   per(1<<logN, func() { seed.Fill(x, p.Q, [8]byte{}) }),
	}
	const n, few, many = 256, 2, 6
	var a, b, c [][]uint64
	for range many {
		a, b, c = append(a, row(n)), append(b, row(n)), append(c, row(n))
	}
	sums := func(k int) float64 {
		return per(2*n, func() { r.Dot(x[:n], x[n:2*n], a[:k], b[:k], c[:k]) })
	}
	least, most := sums(few), sums(many)
	out.Term = (most - least) / (many - few)
	out.Reduction = max(0, least-few*out.Term)
	return out, nil
}

// cache is a level of the hierarchy and its size, 0 for DRAM.
type cache struct {
	name  string
	bytes int64
}

// caches returns the data caches of the first core as Linux names them, or sizes that
// are common, and DRAM.
func caches() []cache {
	var out []cache
	for i := range 8 {
		dir := "/sys/devices/system/cpu/cpu0/cache/index" + strconv.Itoa(i) + "/"
		get := func(name string) string {
			b, _ := os.ReadFile(dir + name) // absent: ""
			return strings.TrimSpace(string(b))
		}
		size, err := strconv.ParseInt(strings.TrimSuffix(get("size"), "K"), 10, 64)
		if err == nil && size >= 8 && get("type") != "Instruction" {
			out = append(out, cache{"L" + get("level"), size << 10})
		}
	}
	if out == nil {
		out = []cache{{"L1", 32 << 10}, {"L2", 1 << 20}, {"L3", 32 << 20}}
	}
	return append(out, cache{name: "DRAM"})
}

// meter times work on several cores at once.
type meter struct {
	cores int
	clock func() float64
	runs  int
}

// Runs of a meter, and how long one lasts at least, in seconds.
const (
	meterRuns    = 9
	meterSeconds = 10e-3
)

// rate returns how much work per second all cores do, in the best of several runs.
// work does so many turns on a core and returns how much that is.
func (m *meter) rate(work func(core, turns int) int) float64 {
	run := func(turns int) (seconds, rate float64) {
		var wait sync.WaitGroup
		done := make([]int, m.cores)
		start := m.clock()
		for core := range m.cores {
			wait.Go(func() { done[core] = work(core, turns) })
		}
		wait.Wait()
		seconds = m.clock() - start
		total := 0
		for _, n := range done {
			total += n
		}
		return seconds, float64(total) / seconds
	}
	turns := 1
	for {
		if s, _ := run(turns); s >= meterSeconds {
			break
		}
		turns *= 2
	}
	best := 0.0
	for range m.runs {
		_, r := run(turns)
		best = max(best, r)
	}
	return best
}

// mulWords multiplies words eight at a time.
//
//go:noinline
func mulWords(turns int, x uint64) uint64 {
	a, b, c, d, e, f, g, h := x, x+1, x+2, x+3, x+4, x+5, x+6, x+7
	high := func(y uint64) uint64 { hi, _ := bits.Mul64(y, x); return hi }
	for range turns {
		a, b, c, d = high(a), high(b), high(c), high(d)
		e, f, g, h = high(e), high(f), high(g), high(h)
	}
	return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h
}

// mulAddFloats multiplies and adds doubles, twelve at a time: both take several cycles.
//
//go:noinline
func mulAddFloats(turns int, x float64) float64 {
	a, b, c, d, e, f := x, x+1, x+2, x+3, x+4, x+5
	g, h, i, j, k, l := x+6, x+7, x+8, x+9, x+10, x+11
	for range turns {
		a, b, c, d, e, f = a*x+x, b*x+x, c*x+x, d*x+x, e*x+x, f*x+x
		g, h, i, j, k, l = g*x+x, h*x+x, i*x+x, j*x+x, k*x+x, l*x+x
	}
	return a + b + c + d + e + f + g + h + i + j + k + l
}

// readWords reads all words of x, whose number is a multiple of eight.
//
//go:noinline
func readWords(x []uint64) uint64 {
	var a, b, c, d uint64
	for ; len(x) >= 8; x = x[8:] {
		a, b, c, d = a|x[0]|x[4], b|x[1]|x[5], c|x[2]|x[6], d|x[3]|x[7]
	}
	return a | b | c | d
}
