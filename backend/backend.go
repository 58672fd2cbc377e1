// Package backend defines what a machine that runs plans must do. Three
// machines implement it: clear (float64 slots, the reference), sim (the same
// with noise, levels and costs) and lattigo (encrypted). All pass the suite in
// backend/conformance.
package backend

import (
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Space names the memory an operand lives in.
type Space uint8

// Memory spaces.
const (
	SpaceHost Space = iota // addressable by the CPU: DRAM arena or mapped PMEM
)

// Operand is an opaque handle to an object that an engine can compute with.
// It refers to memory that the caller owns; the caller must not free that
// memory while a call of Exec uses the operand.
type Operand interface {
	Type() ir.Type
	Space() Space
}

// Engine executes scheme operations under fixed parameters. All methods may be
// called from several goroutines at once, as long as no two of them write the
// same operand and none reads what another writes.
type Engine interface {
	// Name is "clear", "simulate" or "encrypted".
	Name() string
	// Params returns the parameters the engine was opened with.
	Params() *ir.Params
	// SlabBytes is the size of one slab; every object is a whole number of them.
	SlabBytes() int
	// Slabs is the number of slabs an object of the type occupies; 0 where the
	// engine needs no memory for it (keys in the clear).
	Slabs(t ir.Type) int
	// Bind makes an operand over caller-owned slabs, each SlabBytes long and
	// 64-byte aligned. The content is whatever the slabs hold: a valid encoding
	// of the type for operands that are read, anything for results. The list of
	// slabs is not kept. Slabs of evaluation keys that no step with the operand
	// touches (plan.Touched) may be nil, and so may those that Make is not asked for.
	Bind(t ir.Type, slabs [][]byte) (Operand, error)
	// Encode writes the plaintext for slot values into out, whose type gives
	// kind, level and scale. It fails if a value does not fit the scale.
	Encode(values *ir.SlotData, out Operand) error
	// Exec performs one step: out = op(args). Types are already verified. out
	// is args[0] where the step updates in place, and overlaps no operand
	// otherwise.
	Exec(s *plan.Step, args []Operand, out Operand) error
	// Close releases everything the engine holds.
	Close() error
}

// Rebinder is an Engine whose operands can serve again.
type Rebinder interface {
	Engine
	// Rebind is Bind that makes o, an operand of this engine, stand for other slabs. No
	// call uses o. After an error it is good for nothing but another Rebind.
	Rebind(o Operand, t ir.Type, slabs [][]byte) error
}

// Call is a step with its operands, as for Engine.Exec.
type Call struct {
	Step *plan.Step
	Args []Operand
	Out  Operand
}

// MostJoined is the number of steps that are performed together at most.
const MostJoined = 32

// Joint is an Engine that performs some steps together in less time than one after
// another.
type Joint interface {
	Engine
	// Joins reports whether steps of an op are of that kind.
	Joins(op ir.Op) bool
	// ExecJoined performs at most MostJoined such steps as if one after another: each may
	// read and update what those before it wrote.
	ExecJoined(calls []Call) error
}
