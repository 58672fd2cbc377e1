package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

// What is read beside steps: so many bytes of a tier file, again and again, into as
// many of DRAM, which no cache holds.
const (
	besideBytes  = 256 << 20
	besideRounds = 24
)

// referenceMix are the reference steps, as many of each as ResNet-20 has in proportion:
// most of the time goes into key switches, a fifth into products that wait for DRAM.
var referenceMix = []struct {
	op    ir.Op
	count int
}{{ir.OpHEMul, 1}, {ir.OpHEHoistRot, 4}, {ir.OpHEGiant, 1}, {ir.OpHEMacQP, 7}, {ir.OpHEMacPlain, 13}}

// besideReader reads a tier file as a run does, with checksums, while it is on.
type besideReader struct {
	file  *store.TierFile
	slabs [][]byte
	moved atomic.Int64
	stop  atomic.Bool
	wg    sync.WaitGroup
	mu    sync.Mutex
	err   error
}

// besideAddr is the only object of the file.
var besideAddr = store.Addr{Kind: uint32(ir.KeyKind)}

func (b *besideReader) begin() {
	b.stop.Store(false)
	piece := max(1, tierPiece/len(b.slabs[0]))
	var next atomic.Int64
	for range tierDepth {
		b.wg.Add(1)
		go func() {
			defer b.wg.Done()
			for !b.stop.Load() {
				first := int(next.Add(1)-1) * piece % (len(b.slabs) / piece * piece)
				if err := b.file.Read(besideAddr, first, b.slabs[first:first+piece]); err != nil {
					b.mu.Lock()
					b.err = errors.Join(b.err, err)
					b.mu.Unlock()
					return
				}
				b.moved.Add(int64(piece * len(b.slabs[0])))
			}
		}()
	}
}

func (b *besideReader) end() error {
	b.stop.Store(true)
	b.wg.Wait()
	return b.err
}

// referenceSteps are the steps of referenceMix, ready to be timed again and again.
type referenceSteps struct {
	engine backend.Engine
	*operands
}

// referenceLevel is the level of the reference steps.
const referenceLevel = 12

func newReferenceSteps() (*referenceSteps, error) {
	deep, err := passes.BootCatalogue()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(deep, func(p *ir.Params) bool { return p.LogN == 16 && p.MaxLevel() > referenceLevel })
	if i < 0 {
		return nil, errors.New("BUG: no parameters for the reference steps")
	}
	engine, err := lattigo.Open(deep[i], lattigo.Threads(1))
	if err != nil {
		return nil, err
	}
	o, err := newOperands(engine, referenceLevel)
	if err == nil {
		if err = o.mix(newMixTimes()); err == nil { // operands are bound, and met for the first time
			return &referenceSteps{engine, o}, nil
		}
		err = errors.Join(err, o.close())
	}
	return nil, errors.Join(err, engine.Close())
}

func (r *referenceSteps) close() error { return errors.Join(r.operands.close(), r.engine.Close()) }

// predict is what a profile says that the steps take.
func (r *referenceSteps) predict(p *backend.Profile) float64 {
	if p.Reference > 0 {
		return p.Reference
	}
	sum := 0.0
	for _, x := range referenceMix {
		sum += float64(x.count) * p.Seconds(r.engine.Params(), x.op, referenceLevel)
	}
	return sum
}

// time returns how long the steps take now.
func (r *referenceSteps) time() (float64, error) {
	t := newMixTimes()
	for range 3 {
		if err := r.mix(t); err != nil {
			return 0, err
		}
	}
	return t.seconds(), nil
}

// timeBeside returns how long the reference steps take, and the time that they lose for
// each byte that is read from the slow tier in dir beside them, by a core that does
// nothing else. Each kind of step takes turns with and without a reader at full speed, now
// the one first and now the other.
func timeBeside(e *env, dir string) (alone, beside float64, err error) {
	goruntime.LockOSThread() // whose processor time is that of the steps
	defer goruntime.UnlockOSThread()
	undo := processors(runtime.Options{Threads: 1}.Processors()) // as in a run
	defer func() { err = errors.Join(err, undo()) }()
	tech, err := store.Detect(dir)
	if err != nil {
		return 0, 0, err
	}
	temp, err := os.MkdirTemp(dir, "home-characterize-*")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	steps, err := newReferenceSteps()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, steps.close()) }()
	block, err := steps.arena.Alloc(besideBytes/steps.engine.SlabBytes(), store.Ciphertexts, "characterize")
	if err != nil {
		return 0, 0, err
	}
	steps.blocks = append(steps.blocks, block)
	r := &besideReader{slabs: block.Slabs}
	if r.file, err = besideFile(tech, filepath.Join(temp, "beside"), block.Slabs); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, r.file.Close()) }()
	bar := e.bar("steps beside the slow tier", besideRounds)
	defer bar.stop()
	without, with := newMixTimes(), newMixTimes()
	with.moved = &r.moved
	for round := range besideRounds {
		for i := range referenceMix {
			for turn := range 2 {
				if err := e.ctx.Err(); err != nil {
					return 0, 0, err
				}
				if turn == round%2 {
					if err := steps.repeat(i, without); err != nil {
						return 0, 0, err
					}
					continue
				}
				r.begin()
				err := steps.repeat(i, with)
				if err = errors.Join(err, r.end()); err != nil {
					return 0, 0, err
				}
			}
		}
		bar.add(1)
	}
	if with.bytes == 0 {
		return 0, 0, errors.New("the slow tier gave nothing while steps ran beside it")
	}
	cost := func(from, to int) float64 { return besideCost(without, with, from, to) }
	fmt.Fprintf(e.err, "steps lose %.3f s to a GB that is read beside them; by the first half of the measurement %.3f s, by the second %.3f s\n",
		1e9*cost(0, besideRounds), 1e9*cost(0, besideRounds/2), 1e9*cost(besideRounds/2, besideRounds))
	return math.Round(without.seconds()*1e7) / 1e7, math.Max(0, math.Round(cost(0, besideRounds)*1e13)/1e13), nil
}

// besideCost is what a byte costs by some of the rounds: the processor time that a step
// takes longer than that without a reader just before or after it, in the median of all
// such pairs, over the bytes that are read in the time that the steps take.
func besideCost(alone, together *mixTimes, from, to int) float64 {
	lost, took := 0.0, 0.0
	for i, x := range referenceMix {
		a, b := alone.core[i][from*x.count:to*x.count], together.core[i][from*x.count:to*x.count]
		longer := make([]float64, len(a))
		for k := range a {
			longer[k] = b[k] - a[k]
		}
		lost += float64(x.count) * middle(longer)
		took += float64(x.count) * middle(b)
	}
	return lost / (took * float64(together.bytes) / together.total)
}

// besideFile writes the slabs as one object of a new tier file and opens it for reading.
func besideFile(tech store.Technology, path string, slabs [][]byte) (*store.TierFile, error) {
	fillRandom(slabs)
	h := store.Header{Kind: store.KeyFile, SlabBytes: len(slabs[0]), ID: "characterize"}
	f, err := store.Create(tech, path, h)
	if err != nil {
		return nil, err
	}
	s, err := f.Segment([]store.Spec{{Addr: besideAddr, Slabs: len(slabs)}})
	if err == nil {
		if err = s.Write(0, slabs); err == nil {
			err = s.Commit()
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return store.Open(tech, path, h)
}

// mixTimes is how long each call of the reference steps took, and what was read
// meanwhile.
type mixTimes struct {
	each  [][]float64   // by the clock
	core  [][]float64   // processor time, where the system tells
	total float64       // of each
	moved *atomic.Int64 // bytes that a reader has read; nil where there is none
	bytes int64
}

func newMixTimes() *mixTimes {
	return &mixTimes{each: make([][]float64, len(referenceMix)), core: make([][]float64, len(referenceMix))}
}

// seconds is the time of all reference steps: of each the lower quartile of its calls.
func (t *mixTimes) seconds() float64 {
	sum := 0.0
	for i, x := range referenceMix {
		sorted := slices.Sorted(slices.Values(t.each[i]))
		sum += float64(x.count) * sorted[len(sorted)/4]
	}
	return sum
}

// mix times the reference steps with cold operands.
func (o *operands) mix(t *mixTimes) error {
	for i := range referenceMix {
		if err := o.repeat(i, t); err != nil {
			return err
		}
	}
	return nil
}

// repeat times kind i of the reference steps, as often as it is in the mix.
func (o *operands) repeat(i int, t *mixTimes) error {
	moved := func() int64 {
		if t.moved == nil {
			return 0
		}
		return t.moved.Load()
	}
	x := referenceMix[i]
	row := slices.IndexFunc(measured, func(m stepCase) bool { return m.op == x.op })
	f, err := o.step(row, o.level)
	if err != nil {
		return fmt.Errorf("%s: %w", x.op, err)
	}
	for range x.count {
		o.cool()
		before, began, core := moved(), time.Now(), threadTime()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", x.op, err)
		}
		c, s := threadTime()-core, time.Since(began).Seconds()
		if c <= 0 {
			c = s
		}
		t.each[i], t.core[i] = append(t.each[i], s), append(t.core[i], c)
		t.total, t.bytes = t.total+s, t.bytes+moved()-before
	}
	return nil
}
