package runtime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// fakeEngine computes nonsense that depends on every byte of every operand, so
// that a wrong, stale or torn operand changes the result.
type fakeEngine struct {
	params *ir.Params
	delay  time.Duration
	before func(s *plan.Step) error // called first in Exec, if set
	alone  bool                     // joins no steps
	joined atomic.Int64             // steps that were not the first of those done together
}

type fakeOperand struct {
	t      ir.Type
	slabs  [][]byte
	source []byte // of a plaintext that steps make
}

func (o *fakeOperand) Type() ir.Type        { return o.t }
func (o *fakeOperand) Space() backend.Space { return backend.SpaceHost }

func (e *fakeEngine) Name() string       { return "fake" }
func (e *fakeEngine) Params() *ir.Params { return e.params }
func (e *fakeEngine) SlabBytes() int     { return e.params.SlabBytes() }
func (e *fakeEngine) Close() error       { return nil }

func (e *fakeEngine) Slabs(t ir.Type) int { return e.params.Slabs(t.Kind, t.Level) }

func (e *fakeEngine) Bind(t ir.Type, slabs [][]byte) (backend.Operand, error) {
	if len(slabs) != e.Slabs(t) {
		return nil, fmt.Errorf("%d slabs for %v", len(slabs), t.Kind)
	}
	return &fakeOperand{t: t, slabs: slices.Clone(slabs)}, nil
}

// Rebind overwrites what an operand in use would read.
func (e *fakeEngine) Rebind(o backend.Operand, t ir.Type, slabs [][]byte) error {
	if len(slabs) != e.Slabs(t) {
		return fmt.Errorf("%d slabs for %v", len(slabs), t.Kind)
	}
	x := o.(*fakeOperand)
	x.t, x.slabs, x.source = t, append(x.slabs[:0], slabs...), nil
	return nil
}

func mix(h, v uint64) uint64 {
	h ^= v
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// fill writes a pattern that depends on the seed; each slab follows from its number.
func fill(slabs [][]byte, seed uint64) {
	for i, s := range slabs {
		fillSlab(s, seed, i)
	}
}

func fillSlab(s []byte, seed uint64, i int) {
	seed = mix(seed, uint64(i)+1)
	for j := 0; j < len(s); j += 8 {
		seed = mix(seed, uint64(j))
		binary.LittleEndian.PutUint64(s[j:], seed)
	}
}

func digest(h uint64, s []byte) uint64 {
	for j := 0; j < len(s); j += 8 {
		h = mix(h, binary.LittleEndian.Uint64(s[j:]))
	}
	return h
}

// digest depends on what a step whose result has the level reads of an operand: all,
// but of a key the digits of the level, and of each the limbs up to it and those of
// the special primes.
func (e *fakeEngine) digest(o *fakeOperand, level int) uint64 {
	h, special := uint64(1), len(e.params.P)
	if o.source != nil {
		slab := make([]byte, e.SlabBytes())
		for i := range o.slabs {
			fillSlab(slab, binary.LittleEndian.Uint64(o.source), i)
			h = digest(h, slab)
		}
		return h
	}
	stride := o.t.Level + 1 + special
	for i, s := range o.slabs {
		if o.t.Kind == ir.KeyKind && (i/(2*stride) >= e.params.Digits(min(level, o.t.Level)) || i%stride > level && i%stride <= o.t.Level) {
			continue
		}
		h = digest(h, s)
	}
	return h
}

func seedOf(v *ir.SlotData) uint64 {
	h := uint64(v.Period)
	for i := range v.Index {
		h = mix(h, uint64(v.Index[i]))
		h = mix(h, math.Float64bits(v.Value[i]))
	}
	return h
}

func (e *fakeEngine) Encode(v *ir.SlotData, out backend.Operand) error {
	fill(out.(*fakeOperand).slabs, seedOf(v))
	return nil
}

// compactEngine can make slabs as well. A source begins with the seed of the
// pattern.
type compactEngine struct {
	*fakeEngine
	made atomic.Int64 // slabs
	fail atomic.Value // error of Make
}

func (e *compactEngine) SeedBytes() int { return 8 }

func (e *compactEngine) EncodeCompact(v *ir.SlotData, _ ir.Type, slab []byte) error {
	clear(slab)
	binary.LittleEndian.PutUint64(slab, seedOf(v))
	return nil
}

func (e *compactEngine) Make(out backend.Operand, source []byte, slabs []int32) error {
	if err, ok := e.fail.Load().(error); ok {
		return err
	}
	e.made.Add(int64(len(slabs)))
	for _, i := range slabs {
		fillSlab(out.(*fakeOperand).slabs[i], binary.LittleEndian.Uint64(source), int(i))
	}
	return nil
}

// Stream gives the uniform halves of a key memory of their own, and notes the source of a
// plaintext; what the arena has of them is not used.
func (e *compactEngine) Stream(key backend.Operand, seed []byte) error {
	o := key.(*fakeOperand)
	if o.t.Kind == ir.PlainKind || o.t.Kind == ir.PlainQPKind {
		o.source = seed
		return nil
	}
	if o.t.Kind != ir.KeyKind || len(seed) != e.SeedBytes() {
		return fmt.Errorf("a %s with a seed of %d bytes", o.t.Kind, len(seed))
	}
	stride := o.t.Level + 1 + len(e.params.P)
	for i := range o.slabs {
		if i/stride%2 == 1 {
			o.slabs[i] = make([]byte, e.SlabBytes())
			fillSlab(o.slabs[i], binary.LittleEndian.Uint64(seed), i)
		}
	}
	return nil
}

func (e *fakeEngine) Exec(s *plan.Step, args []backend.Operand, out backend.Operand) error {
	if e.before != nil {
		if err := e.before(s); err != nil {
			return err
		}
	}
	if e.delay > 0 {
		time.Sleep(e.delay)
	}
	h := uint64(s.Op)<<32 ^ uint64(s.Rot)
	for _, a := range args {
		h = mix(h, e.digest(a.(*fakeOperand), out.Type().Level))
	}
	fill(out.(*fakeOperand).slabs, h)
	return nil
}

// Joins says that all steps without keys are done together.
func (e *fakeEngine) Joins(op ir.Op) bool {
	switch op {
	case ir.OpHERotate, ir.OpHEMul, ir.OpHERescale:
		return false
	}
	return !e.alone
}

// ExecJoined performs steps one after another.
func (e *fakeEngine) ExecJoined(calls []backend.Call) error {
	if len(calls) < 2 || len(calls) > backend.MostJoined {
		return fmt.Errorf("%d steps together", len(calls))
	}
	e.joined.Add(int64(len(calls) - 1))
	for i, c := range calls {
		if !e.Joins(c.Step.Op) {
			return fmt.Errorf("step %d of %d together is %s", i, len(calls), c.Step.Op)
		}
		if err := e.Exec(c.Step, c.Args, c.Out); err != nil {
			return err
		}
	}
	return nil
}

// fakeKeys expands keys that depend on rotation and level.
type fakeKeys struct{ broken int } // rotation whose key fails, 0 for none

func (fakeKeys) ID() string { return "fake-key-set" }

var errBrokenKey = errors.New("broken key")

func (k fakeKeys) Key(rot, level int, dst [][]byte, seed []byte) error {
	if k.broken != 0 && rot == k.broken {
		return errBrokenKey
	}
	from := uint64(rot)<<8 | uint64(level) | 1<<60
	if seed != nil {
		binary.LittleEndian.PutUint64(seed, from)
	}
	for i, s := range dst {
		if s != nil {
			fillSlab(s, from, i)
		}
	}
	return nil
}

func newSlabs(n, size int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = make([]byte, size)
	}
	return out
}

// fakeInputs fills inputs from their ids.
func fakeInputs(obj plan.ObjectID, dst [][]byte) error {
	fill(dst, uint64(obj)+0xabcdef)
	return nil
}

// reference executes a plan one step after the other with all objects in
// memory: the slower twin of the executor.
func reference(t *testing.T, p *plan.Plan) Outputs {
	t.Helper()
	e := &fakeEngine{params: &p.Params}
	ops := make([]backend.Operand, len(p.Objects))
	mem := make([][][]byte, len(p.Objects))
	for i := range p.Objects {
		o := &p.Objects[i]
		mem[i] = newSlabs(e.Slabs(o.Type), e.SlabBytes())
		op, err := e.Bind(o.Type, mem[i])
		if err != nil {
			t.Fatal(err)
		}
		ops[i] = op
		switch o.Role {
		case plan.RoleInput:
			err = fakeInputs(plan.ObjectID(i), mem[i])
		case plan.RoleKey:
			err = fakeKeys{}.Key(o.Rot, o.Type.Level, mem[i], nil)
		case plan.RolePlain:
			err = e.Encode(&p.Plains[o.Plain], op)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for s := range p.Steps {
		st := &p.Steps[s]
		var args []backend.Operand
		for _, a := range st.Args {
			args = append(args, ops[a])
		}
		if err := e.Exec(st, args, ops[st.Out]); err != nil {
			t.Fatal(err)
		}
	}
	out := Outputs{}
	for _, port := range p.Outputs {
		for _, o := range port.Objects {
			out[o] = mem[o]
		}
	}
	return out
}

func sameOutputs(a, b Outputs) bool {
	if len(a) != len(b) {
		return false
	}
	for id, x := range a {
		y := b[id]
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !slices.Equal(x[i], y[i]) {
				return false
			}
		}
	}
	return true
}
