package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime/store"
)

type characterizeCmd struct {
	Output string `short:"o" placeholder:"FILE" help:"Write the profile here. Default: standard output."`
	PMem   string `name:"pmem" placeholder:"DIR" help:"Folder of the slow tier to measure. Default: the current folder."`

	validateFlags
}

func (*characterizeCmd) Help() string {
	return `Times the operations of CKKS on one core, with operands that no cache holds, and the memory tiers by size and
number of transfers, and writes a cost profile for --profile. Run it on the machine that will run the plans,
while nothing else runs there. It takes a minute or two and 2 GiB of memory, and writes 1 GiB into the folder
of the slow tier, which it removes again. HOME_KERNELS chooses the arithmetic that is timed.

  home characterize --pmem /mnt/pmem -o profile.json
  home compile model.onnx -o model.hplan --profile profile.json

With --validate it measures nothing, but runs a plan under several budgets while the slow tier imitates several
bandwidths, and compares the times with what the profile predicts.

  home characterize --validate model.hplan --keys keys/eval.hevk --input x.hct --pmem pmem --dram 4GiB,2GiB,1GiB,512MiB`
}

func (c *characterizeCmd) Run(e *env) error {
	if c.Validate != "" {
		return c.validate(e)
	}
	if err := writable(c.Output); err != nil {
		return err
	}
	form, err := kernels.Chosen()
	if err != nil {
		return err
	}
	prof := &backend.Profile{Schema: backend.ProfileSchema, Machine: machine(), Kernels: form.String()}
	dir := c.PMem
	if dir == "" {
		dir = "."
	}
	slow, err := timeTier(e, dir)
	if err != nil {
		return fmt.Errorf("--pmem %s: %w", dir, err)
	}
	dram, err := timeDRAM(e)
	if err != nil {
		return err
	}
	prof.Tiers = []backend.TierProfile{dram, slow}
	real, err := passes.Catalogue()
	if err != nil {
		return err
	}
	deep, err := passes.BootCatalogue()
	if err != nil {
		return err
	}
	var timings []timing
	for _, want := range []struct {
		from   []*ir.Params
		logN   int
		levels []int
	}{{real, 13, []int{3, 1}}, {real, 14, []int{6, 3}}, {real, 15, []int{10, 5}}, {real, 16, []int{20}}, {deep, 16, []int{26, 22, 18, 12, 9, 4, 2}}} {
		i := slices.IndexFunc(want.from, func(p *ir.Params) bool { return p.LogN == want.logN && p.MaxLevel() >= want.levels[0] })
		if i < 0 {
			continue
		}
		t, err := timeSteps(e, want.from[i], want.levels)
		if err != nil {
			return err
		}
		timings = append(timings, t...)
		if len(want.levels) > 2 && goruntime.NumCPU() > 1 {
			if prof.Split, err = timeSplit(want.from[i], want.levels[len(want.levels)/2]); err != nil {
				return err
			}
		}
	}
	if store.IsDevice(dir) {
		e.warn("--pmem %s: what reading from a device costs the steps beside it is not measured", dir)
	} else if prof.Reference, prof.Tiers[1].Beside, err = timeBeside(e, dir); err != nil {
		return fmt.Errorf("--pmem %s: %w", dir, err)
	}
	fitProfile(prof, timings)
	if err := reportFit(e.err, prof, timings); err != nil {
		return err
	}
	return e.writeText(c.Output, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(prof)
	})
}

// machine describes this machine for people.
func machine() string {
	name := goruntime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				name = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("one core of %d, %s, %s", goruntime.NumCPU(), name, goruntime.Version())
}

// timing is how long something takes at some parameters: an operation; encoding
// a plaintext of a kind, where op is OpHEPlain; or making a slab of it, or of a
// key, from its source, where op is OpHEKey.
type timing struct {
	par     *ir.Params
	op      ir.Op
	kind    ir.Kind
	level   int // at which it computes, that of Profile.Seconds
	seconds float64
	streams bool // the step makes half of its key
}

// name is what people call it.
func (t *timing) name() string {
	switch t.op {
	case ir.OpHEPlain:
		return "encode " + t.kind.String()
	case ir.OpHEKey:
		return "make a slab of " + t.kind.String()
	}
	if t.streams {
		return t.op.String() + ", key streamed"
	}
	return t.op.String()
}

// stepCase is an operation that is timed: kinds of its arguments and of its
// result, where that is not the first argument.
type stepCase struct {
	op      ir.Op
	args    []ir.Kind
	out     ir.Kind
	inPlace bool
	complex bool // part of bootstrapping only
	bits    int  // log2 of the scale of a constant
	streams bool // the uniform half of the key is made from its seed
}

// measured lists every operation that plans contain.
var measured = []stepCase{
	{op: ir.OpHEAdd, args: []ir.Kind{ir.CipherKind, ir.CipherKind}, out: ir.CipherKind},
	{op: ir.OpHEAddPlain, args: []ir.Kind{ir.CipherKind, ir.PlainKind}, out: ir.CipherKind},
	{op: ir.OpHEAddConst, args: []ir.Kind{ir.CipherKind}, out: ir.CipherKind, bits: 30},
	{op: ir.OpHEMulPlain, args: []ir.Kind{ir.CipherKind, ir.PlainKind}, out: ir.CipherKind},
	{op: ir.OpHEMacPlain, args: []ir.Kind{ir.CipherKind, ir.CipherKind, ir.PlainKind}, inPlace: true},
	{op: ir.OpHEMulConst, args: []ir.Kind{ir.CipherKind}, out: ir.CipherKind, bits: 30},
	{op: ir.OpHEMacConst, args: []ir.Kind{ir.CipherKind, ir.CipherKind}, inPlace: true, bits: 30},
	{op: ir.OpHEMul, args: []ir.Kind{ir.CipherKind, ir.CipherKind, ir.KeyKind}, out: ir.CipherKind},
	{op: ir.OpHEMul, args: []ir.Kind{ir.CipherKind, ir.CipherKind, ir.KeyKind}, out: ir.CipherKind, streams: true},
	{op: ir.OpHEMulRescale, args: []ir.Kind{ir.CipherKind, ir.CipherKind, ir.KeyKind}, out: ir.CipherKind},
	{op: ir.OpHEMacRescale, args: []ir.Kind{ir.CipherKind, ir.CipherKind, ir.CipherKind, ir.KeyKind}, out: ir.CipherKind},
	{op: ir.OpHERescale, args: []ir.Kind{ir.CipherKind}, out: ir.CipherKind},
	{op: ir.OpHERotate, args: []ir.Kind{ir.CipherKind, ir.KeyKind}, out: ir.CipherKind},
	{op: ir.OpHEDecompose, args: []ir.Kind{ir.CipherKind}, out: ir.DigitsKind},
	{op: ir.OpHEHoistRot, args: []ir.Kind{ir.CipherKind, ir.DigitsKind, ir.KeyKind}, out: ir.CipherQPKind},
	{op: ir.OpHEHoistRot, args: []ir.Kind{ir.CipherKind, ir.DigitsKind, ir.KeyKind}, out: ir.CipherQPKind, streams: true},
	{op: ir.OpHELift, args: []ir.Kind{ir.CipherKind}, out: ir.CipherQPKind},
	{op: ir.OpHEMulQP, args: []ir.Kind{ir.CipherQPKind, ir.PlainQPKind}, out: ir.CipherQPKind},
	{op: ir.OpHEMacQP, args: []ir.Kind{ir.CipherQPKind, ir.CipherQPKind, ir.PlainQPKind}, inPlace: true},
	{op: ir.OpHEAddQP, args: []ir.Kind{ir.CipherQPKind, ir.CipherQPKind}, inPlace: true},
	{op: ir.OpHEModDown, args: []ir.Kind{ir.CipherQPKind}, out: ir.CipherKind},
	{op: ir.OpHEModDownRescale, args: []ir.Kind{ir.CipherQPKind}, out: ir.CipherKind},
	{op: ir.OpHEGiant, args: []ir.Kind{ir.CipherQPKind, ir.KeyKind}, out: ir.CipherQPKind},
	{op: ir.OpHEGiant, args: []ir.Kind{ir.CipherQPKind, ir.KeyKind}, out: ir.CipherQPKind, streams: true},
	{op: ir.OpHERealPart, args: []ir.Kind{ir.CipherKind, ir.KeyKind}, out: ir.CipherKind, complex: true},
	{op: ir.OpHEMulI, args: []ir.Kind{ir.CipherKind}, out: ir.CipherKind, complex: true},
	{op: ir.OpHERaise, args: []ir.Kind{ir.CipherKind, ir.SparseKeyKind, ir.KeyKind}, out: ir.CipherKind, complex: true},
}

// timeSteps times every operation, encoding and making at the given levels.
func timeSteps(e *env, p *ir.Params, levels []int) ([]timing, error) {
	engine, err := lattigo.Open(p, lattigo.Threads(1))
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	var out []timing
	bar := e.bar(fmt.Sprintf("operations, N = 2^%d", p.LogN), len(levels)*(len(measured)+2))
	defer bar.stop()
	for k, level := range levels {
		o, err := newOperands(engine, level)
		if err != nil {
			return nil, err
		}
		t, err := timeLevel(e, o, p, level, bar)
		if err == nil && k == 0 {
			var made []timing
			made, err = timeMaking(o, p, level)
			t = append(t, made...)
		}
		if err = errors.Join(err, o.close()); err != nil {
			return nil, fmt.Errorf("at N = 2^%d, level %d: %w", p.LogN, level, err)
		}
		out = append(out, t...)
	}
	return out, nil
}

func timeLevel(e *env, o *operands, p *ir.Params, level int, bar *bar) ([]timing, error) {
	var out []timing
	for i := range measured {
		bar.add(1)
		m := &measured[i]
		if m.complex && (p.Ring != ir.RingStandard || p.CheckBootstrap() != nil) {
			continue
		}
		if err := e.ctx.Err(); err != nil {
			return nil, err
		}
		s, err := o.time(i, level)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.op, err)
		}
		kind := m.out
		if m.inPlace {
			kind = m.args[0]
		}
		out = append(out, timing{p, m.op, kind, level, s, m.streams})
	}
	for _, k := range []ir.Kind{ir.PlainKind, ir.PlainQPKind} {
		bar.add(1)
		s, err := timeEncode(o, k, level)
		if err != nil {
			return nil, fmt.Errorf("encoding: %w", err)
		}
		out = append(out, timing{p, ir.OpHEPlain, k, level, s, false})
	}
	return out, nil
}

// operands is a set of operands of one level, by kind, that is freed together.
type operands struct {
	engine backend.Engine
	level  int
	arena  *store.Arena
	blocks []*store.Block
	have   map[operandKey]backend.Operand
	slabs  map[backend.Operand][][]byte
	chill  [2][]byte
}

type operandKey struct {
	kind  ir.Kind
	level int
	n     int // among those of one step
}

// chillBytes is half of what is moved between two timed calls, so that the
// operands of the next come from memory as they do in a run: more than the caches
// that one core uses.
const chillBytes = 48 << 20

func newOperands(engine backend.Engine, level int) (*operands, error) {
	a, err := store.NewArena(engine.SlabBytes(), 0, nil)
	o := &operands{engine: engine, level: level, arena: a, have: map[operandKey]backend.Operand{}, slabs: map[backend.Operand][][]byte{}}
	for i := range o.chill {
		o.chill[i] = make([]byte, chillBytes)
		for k := range o.chill[i] {
			o.chill[i][k] = byte(k)
		}
	}
	return o, err
}

// get binds an operand over residues far below any prime, or the one it bound
// before.
func (o *operands) get(k ir.Kind, level, n int) (backend.Operand, error) {
	key := operandKey{k, level, n}
	if x := o.have[key]; x != nil {
		return x, nil
	}
	t := ir.Type{Kind: k, Encrypted: k != ir.PlainKind && k != ir.PlainQPKind, Level: level, Scale: ir.ScaleTwo(o.engine.Params().LogScale)}
	b, err := o.arena.Alloc(o.engine.Slabs(t), store.Ciphertexts, "characterize")
	if err != nil {
		return nil, err
	}
	o.blocks = append(o.blocks, b)
	r := rand.New(rand.NewPCG(1, uint64(len(o.blocks))))
	for _, s := range b.Slabs {
		for i := 0; i < len(s); i += 8 {
			v := r.Uint32() & (1<<24 - 1)
			s[i], s[i+1], s[i+2] = byte(v), byte(v>>8), byte(v>>16)
		}
	}
	x, err := o.engine.Bind(t, b.Slabs)
	o.have[key], o.slabs[x] = x, b.Slabs
	return x, err
}

func (o *operands) close() error {
	for _, b := range o.blocks {
		b.Free()
	}
	return o.arena.Close()
}

// time times row i of the operations that are measured.
func (o *operands) time(i, level int) (float64, error) {
	f, err := o.step(i, level)
	if err != nil {
		return 0, err
	}
	return o.cold(f)
}

// step returns what executes row i of the operations that are measured.
func (o *operands) step(i, level int) (func() error, error) {
	m := &measured[i]
	used := map[ir.Kind]int{}
	next := func(k ir.Kind, level int) (backend.Operand, error) {
		used[k]++
		x, err := o.get(k, level, used[k])
		if err == nil && m.streams && k == ir.KeyKind {
			c := o.engine.(backend.Compact)
			if x, err = o.engine.Bind(x.Type(), o.slabs[x]); err == nil {
				err = c.Stream(x, make([]byte, c.SeedBytes()))
			}
		}
		return x, err
	}
	var args []backend.Operand
	for k, kind := range m.args {
		at := level
		if m.op == ir.OpHERaise && k < 2 {
			at = 0
		}
		a, err := next(kind, at)
		if err != nil {
			return nil, err
		}
		args = append(args, a)
	}
	var out backend.Operand
	var err error
	if m.inPlace {
		out = args[0]
	} else if out, err = next(m.out, level-m.op.Drops()); err != nil {
		return nil, err
	}
	step := &plan.Step{Op: m.op, Rot: 1, Const: 0.75, Scale: ir.ScaleTwo(m.bits)}
	return func() error { return o.engine.Exec(step, args, out) }, nil
}

// cold returns the time of f: the lower quartile of a few calls, between which the
// caches are filled with something else.
func (o *operands) cold(f func() error) (float64, error) {
	var times []float64
	for n, total := 0, 0.0; n < 7 || n < 19 && total < 0.02; n++ {
		o.cool()
		began := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		s := time.Since(began).Seconds()
		times, total = append(times, s), total+s
	}
	slices.Sort(times)
	return times[len(times)/4], nil
}

// cool fills the caches with something else.
func (o *operands) cool() { copy(o.chill[0], o.chill[1]) }

// sine is a plaintext that fills all slots.
func sine(n int) *ir.SlotData {
	d := &ir.SlotData{Period: n, Index: make([]int32, n), Value: make([]float64, n)}
	for i := range n {
		d.Index[i], d.Value[i] = int32(i), math.Sin(float64(i))
	}
	return d
}

func timeEncode(o *operands, k ir.Kind, level int) (float64, error) {
	out, err := o.get(k, level, 1)
	if err != nil {
		return 0, err
	}
	d := sine(o.engine.Params().Slots())
	return repeat(func() error { return o.engine.Encode(d, out) })
}

// timeMaking times what makes slabs from their sources.
func timeMaking(o *operands, p *ir.Params, level int) ([]timing, error) {
	c, ok := o.engine.(backend.Compact)
	if !ok {
		return nil, nil
	}
	var out []timing
	for _, k := range []ir.Kind{ir.PlainKind, ir.KeyKind} {
		t := ir.Type{Kind: k, Encrypted: k == ir.KeyKind, Level: level, Scale: ir.ScaleTwo(p.LogScale)}
		b, err := o.arena.Alloc(o.engine.Slabs(t), store.Ciphertexts, "characterize")
		if err != nil {
			return nil, err
		}
		o.blocks = append(o.blocks, b)
		x, err := o.engine.Bind(t, b.Slabs)
		if err != nil {
			return nil, err
		}
		source := make([]byte, c.SeedBytes())
		var made []int32
		if k == ir.PlainKind {
			source = make([]byte, o.engine.SlabBytes())
			if err := c.EncodeCompact(sine(p.Slots()), t, source); err != nil {
				return nil, err
			}
			for i := range b.Slabs {
				made = append(made, int32(i))
			}
		} else {
			for i := level + 1 + len(p.P); i < 2*(level+1+len(p.P)); i++ {
				made = append(made, int32(i)) // the uniform half of the first digit
			}
		}
		s, err := o.cold(func() error { return c.Make(x, source, made) })
		if err != nil {
			return nil, err
		}
		out = append(out, timing{p, ir.OpHEKey, k, level, s / float64(len(made)), false})
	}
	return out, nil
}

// timeSplit returns how many times faster two cores run a key switch than one.
func timeSplit(p *ir.Params, level int) (float64, error) {
	var took [2]float64
	row := slices.IndexFunc(measured, func(m stepCase) bool { return m.op == ir.OpHEMul })
	for i := range took {
		engine, err := lattigo.Open(p, lattigo.Threads(i+1))
		if err != nil {
			return 0, err
		}
		o, err := newOperands(engine, level)
		if err == nil {
			took[i], err = o.time(row, level)
			err = errors.Join(err, o.close())
		}
		if err = errors.Join(err, engine.Close()); err != nil {
			return 0, err
		}
	}
	return math.Round(100*math.Max(1, math.Min(2, took[0]/took[1]))) / 100, nil
}

// repeat returns the shortest time of f over at least eight calls and 60 ms: what
// it takes when nothing else disturbs the core.
func repeat(f func() error) (float64, error) {
	best := math.Inf(1)
	for n, total := 0, 0.0; n < 8 || total < 0.06; n++ {
		began := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		s := time.Since(began).Seconds()
		best, total = math.Min(best, s), total+s
	}
	return best, nil
}

// costs are the constants of a profile that timings are linear in.
func costs(p *backend.Profile) []*float64 {
	return []*float64{&p.NTT, &p.Mul, &p.Mac, &p.Add, &p.Permute, &p.Extend, &p.Prepare, &p.Encode, &p.Memory, &p.Uniform, &p.Reduce, &p.Stream}
}

// fitProfile finds the positive constants that predict the timings best. The
// predictions are linear in the constants, so each timing is a row of a matrix
// and its error is weighed by the time itself; constants are improved one by one
// until nothing changes (coordinate descent on the non-negative least-squares
// problem, which is convex). Rows that are far off then count for less, so that a
// timing that something disturbed does not bend the others (Huber's weights).
func fitProfile(prof *backend.Profile, timings []timing) {
	constants := costs(prof)
	rows, weight := make([][]float64, len(timings)), make([]float64, len(timings))
	for i, t := range timings {
		rows[i], weight[i] = make([]float64, len(constants)), 1
		for k := range constants {
			unit := new(backend.Profile)
			*costs(unit)[k] = 1
			rows[i][k] = t.predict(unit) / t.seconds
		}
	}
	for _, c := range constants {
		*c = 0.1
	}
	for range 30 {
		descend(rows, weight, constants)
		for i, row := range rows {
			weight[i] = min(1, fitSlack/max(fitSlack, math.Abs(1-dotCosts(row, constants))))
		}
	}
	for _, c := range constants {
		*c = math.Round(*c*1e4) / 1e4
	}
}

// fitSlack is the relative error beyond which a timing begins to count for less.
const fitSlack = 0.08

func dotCosts(row []float64, constants []*float64) float64 {
	sum := 0.0
	for k, c := range constants {
		sum += row[k] * *c
	}
	return sum
}

// descend minimises the weighed sum of (1 - row·constants)² over constants of at
// least a thousandth of a nanosecond.
func descend(rows [][]float64, weight []float64, constants []*float64) {
	const least = 1e-3
	for range 2000 {
		moved := 0.0
		for k, c := range constants {
			num, den := 0.0, 0.0
			for i, row := range rows {
				if row[k] != 0 {
					num += weight[i] * row[k] * (1 - dotCosts(row, constants) + row[k]**c)
					den += weight[i] * row[k] * row[k]
				}
			}
			if den == 0 {
				continue
			}
			next := math.Max(least, num/den)
			moved = math.Max(moved, math.Abs(next-*c)/next)
			*c = next
		}
		if moved < 1e-6 {
			break
		}
	}
}

// predict is what a profile says of a timing.
func (t *timing) predict(p *backend.Profile) float64 {
	switch t.op {
	case ir.OpHEPlain:
		return p.EncodeSeconds(t.par, t.kind, t.level)
	case ir.OpHEKey:
		if t.kind == ir.KeyKind {
			return p.UniformSeconds(t.par)
		}
		return p.ExpandSeconds(t.par, t.par.Slots(), false)
	}
	return p.StepSeconds(t.par, t.op, t.level, t.op.Info().MinArgs, t.streams)
}

// reportFit shows how well the profile explains what was measured.
func reportFit(w io.Writer, prof *backend.Profile, timings []timing) error {
	t := newTable(1, 2, 3, 4, 5)
	t.row("operation", "N", "level", "measured", "predicted", "ratio")
	off := make([]float64, 0, len(timings))
	for i := range timings {
		x := &timings[i]
		p := x.predict(prof)
		off = append(off, math.Abs(p/x.seconds-1))
		t.row(x.name(), fmt.Sprintf("2^%d", x.par.LogN), fmt.Sprint(x.level), seconds(x.seconds), seconds(p), fmt.Sprintf("%.2f", p/x.seconds))
	}
	if err := t.write(w, ""); err != nil {
		return err
	}
	if slices.Sort(off); len(off) > 0 {
		if _, err := fmt.Fprintf(w, "\nkernels %s; the fit is off by %.0f %% in the median, %.0f %% at most; words from memory at %s/s; two cores on one step: %.2f times as fast\n\n",
			prof.Kernels, 100*off[len(off)/2], 100*off[len(off)-1], byteSize(8e9/prof.Memory), prof.Split); err != nil {
			return err
		}
	}
	return reportTiers(w, prof)
}
