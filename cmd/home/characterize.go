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
	"sync"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime/store"
)

type characterizeCmd struct {
	Output string `short:"o" placeholder:"FILE" help:"Write the profile here. Default: standard output."`
	PMem   string `name:"pmem" placeholder:"DIR" help:"Folder of the slow tier to measure. Default: the current folder."`
}

func (*characterizeCmd) Help() string {
	return `Times the operations of CKKS on one core and the memory tiers, and writes a cost profile for --profile. Run
it on the machine that will run the plans, while nothing else runs there. It takes about half a minute and
writes 256 MiB into the folder of the slow tier, which it removes again.

  home characterize --pmem /mnt/pmem -o profile.json
  home compile model.onnx -o model.hplan --profile profile.json`
}

// tierProbe is how much is written to and read from a tier.
const (
	tierProbe = 256 << 20
	tierPiece = 2 << 20
	tierDepth = 4
)

func (c *characterizeCmd) Run(e *env) error {
	if err := writable(c.Output); err != nil {
		return err
	}
	prof := &backend.Profile{Schema: 1, Machine: machine()}
	all, err := passes.Catalogue()
	if err != nil {
		return err
	}
	var timings []timing
	for _, want := range []struct{ logN, levels int }{{13, 3}, {14, 6}, {15, 10}} {
		i := slices.IndexFunc(all, func(p *ir.Params) bool { return p.LogN == want.logN && p.MaxLevel() >= want.levels })
		if i < 0 {
			continue
		}
		t, err := timeSteps(e, all[i], want.levels)
		if err != nil {
			return err
		}
		timings = append(timings, t...)
	}
	fitProfile(prof, timings)
	dram, err := timeDRAM()
	if err != nil {
		return err
	}
	dir := c.PMem
	if dir == "" {
		dir = "."
	}
	slow, err := timeTier(dir)
	if err != nil {
		return fmt.Errorf("--pmem %s: %w", dir, err)
	}
	prof.Tiers = []backend.TierProfile{dram, slow}
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

// timing is how long an operation takes at some parameters. For an encoding op
// is OpHEPlain and kind says of what.
type timing struct {
	par     *ir.Params
	op      ir.Op
	kind    ir.Kind
	level   int // that of Profile.Seconds: of the result, for a rescale of the argument
	seconds float64
}

// measured lists the operations that are timed: kinds of their arguments and
// result.
var measured = []struct {
	op   ir.Op
	args []ir.Kind
	out  ir.Kind
}{
	{ir.OpHEAdd, []ir.Kind{ir.CipherKind, ir.CipherKind}, ir.CipherKind},
	{ir.OpHEMulPlain, []ir.Kind{ir.CipherKind, ir.PlainKind}, ir.CipherKind},
	{ir.OpHEMul, []ir.Kind{ir.CipherKind, ir.CipherKind, ir.KeyKind}, ir.CipherKind},
	{ir.OpHERescale, []ir.Kind{ir.CipherKind}, ir.CipherKind},
	{ir.OpHERotate, []ir.Kind{ir.CipherKind, ir.KeyKind}, ir.CipherKind},
	{ir.OpHEDecompose, []ir.Kind{ir.CipherKind}, ir.DigitsKind},
	{ir.OpHEHoistRot, []ir.Kind{ir.CipherKind, ir.DigitsKind, ir.KeyKind}, ir.CipherQPKind},
	{ir.OpHEMulQP, []ir.Kind{ir.CipherQPKind, ir.PlainQPKind}, ir.CipherQPKind},
	{ir.OpHEMacQP, []ir.Kind{ir.CipherQPKind, ir.CipherQPKind, ir.PlainQPKind}, ir.CipherQPKind},
	{ir.OpHEAddQP, []ir.Kind{ir.CipherQPKind, ir.CipherQPKind}, ir.CipherQPKind},
	{ir.OpHEModDown, []ir.Kind{ir.CipherQPKind}, ir.CipherKind},
	{ir.OpHEGiant, []ir.Kind{ir.CipherQPKind, ir.KeyKind}, ir.CipherQPKind},
}

// timeSteps times every operation at the given level and half of it.
func timeSteps(e *env, p *ir.Params, top int) ([]timing, error) {
	engine, err := lattigo.Open(p)
	if err != nil {
		return nil, err
	}
	defer engine.Close()
	var out []timing
	levels := []int{top, (top + 1) / 2}
	bar := e.bar(fmt.Sprintf("operations, N = 2^%d", p.LogN), len(levels)*(len(measured)+2))
	defer bar.stop()
	for _, level := range levels {
		for _, m := range measured {
			s, err := timeStep(engine, m.op, m.args, m.out, level)
			if err != nil {
				return nil, fmt.Errorf("%s at level %d: %w", m.op, level, err)
			}
			out = append(out, timing{p, m.op, m.out, level, s})
			bar.add(1)
		}
		for _, k := range []ir.Kind{ir.PlainKind, ir.PlainQPKind} {
			s, err := timeEncode(engine, k, level)
			if err != nil {
				return nil, fmt.Errorf("encoding at level %d: %w", level, err)
			}
			out = append(out, timing{p, ir.OpHEPlain, k, level, s})
			bar.add(1)
		}
		if e.ctx.Err() != nil {
			return nil, e.ctx.Err()
		}
	}
	return out, nil
}

// operands is a set of operands that is freed together.
type operands struct {
	engine backend.Engine
	arena  *store.Arena
	blocks []*store.Block
}

func newOperands(engine backend.Engine) (*operands, error) {
	a, err := store.NewArena(engine.SlabBytes(), 0, nil)
	return &operands{engine: engine, arena: a}, err
}

// make binds an operand over residues far below any prime.
func (o *operands) make(k ir.Kind, level int) (backend.Operand, error) {
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
	return o.engine.Bind(t, b.Slabs)
}

func (o *operands) close() error {
	for _, b := range o.blocks {
		b.Free()
	}
	return o.arena.Close()
}

func timeStep(engine backend.Engine, op ir.Op, args []ir.Kind, out ir.Kind, level int) (_ float64, err error) {
	o, err := newOperands(engine)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	var operands []backend.Operand
	for _, k := range args {
		a, err := o.make(k, level)
		if err != nil {
			return 0, err
		}
		operands = append(operands, a)
	}
	var result backend.Operand
	switch op {
	case ir.OpHEMacQP, ir.OpHEAddQP:
		result = operands[0] // in place
	case ir.OpHERescale:
		result, err = o.make(out, level-1)
	default:
		result, err = o.make(out, level)
	}
	if err != nil {
		return 0, err
	}
	step := &plan.Step{Op: op, Rot: 1}
	return repeat(func() error { return engine.Exec(step, operands, result) })
}

func timeEncode(engine backend.Engine, k ir.Kind, level int) (_ float64, err error) {
	o, err := newOperands(engine)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	out, err := o.make(k, level)
	if err != nil {
		return 0, err
	}
	n := engine.Params().Slots()
	d := &ir.SlotData{Period: n, Index: make([]int32, n), Value: make([]float64, n)}
	for i := range n {
		d.Index[i], d.Value[i] = int32(i), math.Sin(float64(i))
	}
	return repeat(func() error { return engine.Encode(d, out) })
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
	return []*float64{&p.NTT, &p.Mul, &p.Mac, &p.Add, &p.Extend, &p.Encode}
}

// fitProfile finds the positive constants that predict the timings best. The
// predictions are linear in the constants, so each timing is a row of a matrix
// and its error is weighed by the time itself; constants are improved one by one
// until nothing changes (coordinate descent on the non-negative least-squares
// problem, which is convex).
func fitProfile(prof *backend.Profile, timings []timing) {
	const least = 1e-3
	constants := costs(prof)
	rows := make([][]float64, len(timings))
	for i, t := range timings {
		rows[i] = make([]float64, len(constants))
		for k := range constants {
			unit := new(backend.Profile)
			*costs(unit)[k] = 1
			rows[i][k] = t.predict(unit) / t.seconds
		}
	}
	for _, c := range constants {
		*c = 1
	}
	for range 20000 {
		moved := 0.0
		for k, c := range constants {
			num, den := 0.0, 0.0
			for _, row := range rows {
				rest := 1.0
				for j, d := range constants {
					if j != k {
						rest -= row[j] * *d
					}
				}
				num += row[k] * rest
				den += row[k] * row[k]
			}
			if den == 0 {
				continue
			}
			next := math.Max(least, num/den)
			moved = math.Max(moved, math.Abs(next-*c)/next)
			*c = next
		}
		if moved < 1e-9 {
			break
		}
	}
	for _, c := range constants {
		*c = math.Round(*c*1e4) / 1e4
	}
}

// predict is what a profile says of a timing.
func (t *timing) predict(p *backend.Profile) float64 {
	if t.op == ir.OpHEPlain {
		return p.EncodeSeconds(t.par, t.kind, t.level)
	}
	return p.Seconds(t.par, t.op, t.level)
}

// reportFit shows how well the profile explains what was measured.
func reportFit(w io.Writer, prof *backend.Profile, timings []timing) error {
	t := newTable(1, 2, 3, 4, 5)
	t.row("operation", "N", "level", "measured", "predicted", "ratio")
	for i := range timings {
		x := &timings[i]
		name := x.op.String()
		if x.op == ir.OpHEPlain {
			name = "encode " + x.kind.String()
		}
		t.row(name, fmt.Sprintf("2^%d", x.par.LogN), fmt.Sprint(x.level), seconds(x.seconds), seconds(x.predict(prof)), fmt.Sprintf("%.2f", x.predict(prof)/x.seconds))
	}
	for _, x := range prof.Tiers {
		t.row("tier "+x.Name, "", "", byteSize(x.ReadBps).String()+"/s read", byteSize(x.WritBps).String()+"/s written", seconds(x.Latency))
	}
	return t.write(w, "")
}

// timeDRAM times copies between buffers that no cache holds.
func timeDRAM() (backend.TierProfile, error) {
	a, b := make([]byte, tierProbe), make([]byte, tierProbe)
	for i := range a {
		a[i] = byte(i)
	}
	s, err := repeat(func() error { copy(b, a); return nil })
	if err != nil {
		return backend.TierProfile{}, err
	}
	bps := math.Round(tierProbe / s)
	return backend.TierProfile{Name: "dram", ReadBps: bps, WritBps: bps, Latency: 1e-7}, nil
}

// timeTier times the slow tier in dir, as the runtime uses it: pieces of 2 MiB,
// several at once, without the page cache.
func timeTier(dir string) (p backend.TierProfile, err error) {
	tech, err := store.Detect(dir)
	if err != nil {
		return p, err
	}
	m, err := tech.Temp(dir)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Reserve(tierProbe); err != nil {
		return p, err
	}
	arena, err := store.NewArena(tierPiece, 0, nil)
	if err != nil {
		return p, err
	}
	block, err := arena.Alloc(tierDepth, store.Ciphertexts, "characterize")
	if err != nil {
		return p, errors.Join(err, arena.Close())
	}
	defer func() {
		block.Free()
		err = errors.Join(err, arena.Close())
	}()
	for k, s := range block.Slabs { // bytes that a device cannot compress away
		r := rand.New(rand.NewPCG(3, uint64(k)))
		for i := 0; i < len(s); i += 8 {
			v := r.Uint64()
			for j := range 8 {
				s[i+j] = byte(v >> (8 * j))
			}
		}
	}
	all := func(f func(slabs [][]byte, off int64) error) error {
		var wg sync.WaitGroup
		errs := make([]error, tierDepth)
		for k := range tierDepth {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for off := int64(k) * tierPiece; off < tierProbe && errs[k] == nil; off += tierDepth * tierPiece {
					errs[k] = f(block.Slabs[k:k+1], off)
				}
			}()
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	began := time.Now()
	if err := errors.Join(all(m.WriteAt), m.Sync()); err != nil {
		return p, err
	}
	write := time.Since(began).Seconds()
	read := math.Inf(1)
	for range 2 {
		began = time.Now()
		if err := all(m.ReadAt); err != nil {
			return p, err
		}
		read = math.Min(read, time.Since(began).Seconds())
	}
	page := [][]byte{block.Slabs[0][:store.PageBytes]}
	r := rand.New(rand.NewPCG(5, 8))
	latency, err := repeat(func() error {
		return m.ReadAt(page, r.Int64N(tierProbe/store.PageBytes)*store.PageBytes)
	})
	if err != nil {
		return p, err
	}
	return backend.TierProfile{Name: tech.Name(), ReadBps: math.Round(tierProbe / read), WritBps: math.Round(tierProbe / write), Latency: latency}, nil
}
