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
}

type fakeOperand struct {
	t     ir.Type
	slabs [][]byte
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
	return &fakeOperand{t, slabs}, nil
}

func mix(h, v uint64) uint64 {
	h ^= v
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// fill writes a pattern that depends on the seed.
func fill(slabs [][]byte, seed uint64) {
	for i, s := range slabs {
		for j := 0; j < len(s); j += 8 {
			seed = mix(seed, uint64(i)<<32|uint64(j))
			binary.LittleEndian.PutUint64(s[j:], seed)
		}
	}
}

func digest(slabs [][]byte) uint64 {
	h := uint64(1)
	for _, s := range slabs {
		for j := 0; j < len(s); j += 8 {
			h = mix(h, binary.LittleEndian.Uint64(s[j:]))
		}
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

// compactEngine has a compact form as well: the seed of the pattern.
type compactEngine struct {
	*fakeEngine
	expanded atomic.Int64
	fail     error // of Expand
}

func (e *compactEngine) CompactSlabs(t ir.Type) []int {
	n := e.Slabs(t)
	switch t.Kind {
	case ir.PlainKind, ir.PlainQPKind:
		return []int{n - 1}
	case ir.KeyKind:
		out := make([]int, n/2+1)
		for i := range out {
			out[i] = n/2 - 1 + i
		}
		return out
	}
	return nil
}

func (e *compactEngine) EncodeCompact(v *ir.SlotData, _ ir.Type, slab []byte) error {
	clear(slab)
	binary.LittleEndian.PutUint64(slab[len(slab)-8:], seedOf(v))
	return nil
}

func (e *compactEngine) Expand(out backend.Operand) error {
	if e.fail != nil {
		return e.fail
	}
	e.expanded.Add(1)
	slabs := out.(*fakeOperand).slabs
	last := slabs[len(slabs)-1]
	fill(slabs, binary.LittleEndian.Uint64(last[len(last)-8:]))
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
		h = mix(h, digest(a.(*fakeOperand).slabs))
	}
	fill(out.(*fakeOperand).slabs, h)
	return nil
}

// fakeKeys expands keys that depend on rotation and level.
type fakeKeys struct{ broken int } // rotation whose key fails, 0 for none

func (fakeKeys) ID() string { return "fake-key-set" }

var errBrokenKey = errors.New("broken key")

func (k fakeKeys) Key(rot, level int, dst [][]byte) error {
	if k.broken != 0 && rot == k.broken {
		return errBrokenKey
	}
	fill(dst, uint64(rot)<<8|uint64(level)|1<<60)
	return nil
}

// Compact writes the seed of the pattern into the last slab and nothing else.
func (k fakeKeys) Compact(rot, level int, dst [][]byte) error {
	for _, s := range dst {
		clear(s)
	}
	last := dst[len(dst)-1]
	binary.LittleEndian.PutUint64(last[len(last)-8:], uint64(rot)<<8|uint64(level)|1<<60)
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
			err = fakeKeys{}.Key(o.Rot, o.Type.Level, mem[i])
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
