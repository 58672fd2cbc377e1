package plan

import (
	"fmt"

	"github.com/home-fhe/home/ir"
)

// ActionKind is what the tier plan does at a point of the program.
type ActionKind uint8

// Actions of the tier plan. They concern slabs, numbered as in the object; the
// number after the last is that of the object's source, where it has one.
const (
	// ActFetch begins to bring slabs into free slabs of the arena: of keys and
	// plaintexts from the slow tier, of inputs from the caller, of temporaries and
	// outputs from where ActSpill wrote them since they were changed last.
	ActFetch ActionKind = iota
	// ActDrop frees slabs: their content is not needed, or can be had again.
	ActDrop
	// ActSpill writes slabs of a ciphertext to the slow tier, then frees them.
	ActSpill
	// ActMake begins to compute slabs into free slabs of the arena: those of a
	// plaintext from its source, which is resident; those of the uniform halves of
	// a key from its seed, which the runtime holds.
	ActMake
	// ActMap uses slabs where they lie in a byte-addressable slow tier. They take
	// no room in the arena; ActDrop ends it.
	ActMap
	numActions
)

// Action happens before step Step is issued, in list order, to the slabs
// First..First+Count-1 of an object. Step may equal len(Plan.Steps): then it
// happens after the last step, before the outputs are read.
type Action struct {
	Step  int32      `cbor:"s"`
	Kind  ActionKind `cbor:"k"`
	Obj   ObjectID   `cbor:"o"`
	First int32      `cbor:"f,omitempty"`
	Count int32      `cbor:"n"`
}

// Tier is the residency plan for one budget: a section of its own in .hplan, so
// that it can be made again when budget or profile differ.
//
// It says of every slab of every object, at every step, whether it is in DRAM. At
// first nothing is. ActFetch and ActMake make slabs resident; a step makes all of
// its result resident where it does not update it in place. ActDrop and ActSpill
// end residency; every temporary is dropped after its last use, nothing is dropped
// implicitly, and no action takes away what the step needs that it stands before.
// Temporaries, inputs and outputs come and go whole. The slabs that a step touches
// (Forms.Touched) are resident when it is issued, and all of the outputs at the end. In
// this order of events the slabs that are resident, and not mapped, never exceed
// ArenaSlabs; PeakSlabs is the most that they reach. passes.CheckTier verifies all of
// this.
type Tier struct {
	Budget     int64    `cbor:"budget"`      // --dram in bytes, the whole process
	Reserve    int64    `cbor:"reserve"`     // part of the budget left to the runtime itself
	ArenaSlabs int      `cbor:"arena_slabs"` // slabs of N*8 bytes that objects may occupy
	PeakSlabs  int      `cbor:"peak_slabs"`  // slabs that they do occupy at most
	Profile    string   `cbor:"profile"`     // digest of the cost profile it was made with
	Actions    []Action `cbor:"actions"`
	Forms      Forms    `cbor:"forms"`
	// Prediction for the cores it was made for.
	Seconds      float64 `cbor:"seconds"`
	StallSeconds float64 `cbor:"stall_seconds"`
	MakeSeconds  float64 `cbor:"make_seconds"`            // CPU time of ActMake
	InputSeconds float64 `cbor:"input_seconds,omitempty"` // that steps lose to what is read beside them
	BytesRead    int64   `cbor:"bytes_read"`              // fetched, and mapped each time it is read; inputs apart
	BytesWritten int64   `cbor:"bytes_written"`
	// Of the bytes that are read, those that a plan was found to do without, and the
	// predicted seconds that they save: time in which cores would make slabs instead.
	BytesBought   int64   `cbor:"bytes_bought,omitempty"`
	BoughtSeconds float64 `cbor:"bought_seconds,omitempty"`
	// The least that input and making can take from the steps together, whatever is
	// read, made and kept with the same forms and arena; 0 where that is not known.
	CostBound float64 `cbor:"cost_bound,omitempty"`
	// What no plan with the same forms and actions of the same kind can do without:
	// see passes.TierBound.
	BytesBound int64 `cbor:"bytes_bound"`
}

// Forms says in what form the slow tier holds keys and plaintexts. What is
// installed serves every budget, so that it is chosen once.
type Forms struct {
	// Compact is the least size in slabs of plaintexts that have a source: one slab
	// of coefficients, of which transforms make the others. 0: none has.
	Compact int `cbor:"compact,omitempty"`
	// Seeds says that evaluation keys have a source: the seed of their uniform
	// halves.
	Seeds bool `cbor:"seeds,omitempty"`
	// Twice says what lies there whole as well as with its source, so that every slab
	// of it can be had in two ways. Of anything else that has a source there is only
	// what the source does not give: the halves of keys that are not uniform, and
	// nothing of a plaintext.
	Twice Twice `cbor:"twice,omitempty"`
	// Streams says that steps make the uniform halves of evaluation keys from their seeds
	// as they read them: these slabs are never in DRAM. It needs Seeds.
	Streams bool `cbor:"streams,omitempty"`
	// Fused says of which plaintexts that have a source steps make the slabs that they
	// read: these are never in DRAM, the sources are.
	Fused Fused `cbor:"fused,omitempty"`
}

// Fused says which plaintexts are made in the steps that read them.
type Fused uint8

// Plaintexts that are made in steps.
const (
	FusedNone Fused = iota
	FusedOnce       // those outside bootstraps, which a run reads once or a few times
	FusedAll
)

// Check reports forms that no slow tier has.
func (f *Forms) Check() error {
	if f.Compact < 0 || f.Twice > TwiceAll || f.Fused > FusedAll || f.Streams && !f.Seeds || f.Fused > 0 && f.Compact == 0 {
		return fmt.Errorf("forms of the slow tier %+v", *f)
	}
	return nil
}

// Forms returns the forms of the slow tier of a plan; none without a tier plan.
func (p *Plan) Forms() Forms {
	if p.Tier == nil {
		return Forms{}
	}
	return p.Tier.Forms
}

// InSteps reports whether steps make slabs of an object as they read them: the uniform
// half of a key, or all of a plaintext.
func (f *Forms) InSteps(p *Plan, obj ObjectID) bool {
	switch o := &p.Objects[obj]; o.Role {
	case RoleKey:
		return f.Streams && o.Type.Kind == ir.KeyKind
	case RolePlain:
		return (f.Fused == FusedAll || f.Fused == FusedOnce && !p.reused(obj)) && p.Slabs(obj) >= f.Compact
	}
	return false
}

// reused reports whether a run reads a plaintext again and again: one of a bootstrap.
func (p *Plan) reused(obj ObjectID) bool {
	l := p.Objects[obj].Layer
	return l >= 0 && int(l) < len(p.Layers) && p.Layers[l].Kind == LayerRefresh
}

// Twice says which objects are held in both ways.
type Twice uint8

// Objects that are held in both ways.
const (
	TwiceNone   Twice = iota
	TwiceReused       // keys, and the plaintexts of bootstraps: what a run reads again and again
	TwiceAll
)

// Form is how the slow tier holds one object.
type Form uint8

// Forms of objects.
const (
	Absent  Form = iota // not at all: inputs, temporaries, outputs
	Whole               // all slabs
	Compact             // source, and the slabs that it does not give
	Both                // source, and all slabs
)

// Of returns the form of an object of p.
func (f *Forms) Of(p *Plan, obj ObjectID) Form {
	o := &p.Objects[obj]
	switch o.Role {
	case RoleKey:
		if !f.Seeds || o.Type.Kind != ir.KeyKind {
			return Whole
		}
	case RolePlain:
		if f.Compact == 0 || p.Slabs(obj) < f.Compact {
			return Whole
		}
	default:
		return Absent
	}
	switch {
	case f.Twice == TwiceNone, f.InSteps(p, obj):
		return Compact
	case f.Twice == TwiceAll || o.Role == RoleKey || p.reused(obj):
		return Both
	}
	return Compact
}

// Slabs returns the number of slabs of an object, its source apart.
func (p *Plan) Slabs(obj ObjectID) int {
	t := &p.Objects[obj].Type
	return p.Params.Slabs(t.Kind, t.Level)
}

// Uniform reports whether a slab of an object belongs to the uniform half of an
// evaluation key, which follows from a seed.
func (p *Plan) Uniform(obj ObjectID, slab int) bool {
	t := &p.Objects[obj].Type
	return t.Kind == ir.KeyKind && slab < p.Slabs(obj) && slab/(t.Level+1+len(p.Params.P))%2 == 1
}

// Stored returns how many slabs the slow tier holds of an object.
func (f *Forms) Stored(p *Plan, obj ObjectID) int {
	n := p.Slabs(obj)
	switch f.Of(p, obj) {
	case Whole:
		return n
	case Both:
		return n + 1
	case Compact:
		if p.Objects[obj].Role == RoleKey {
			return n/2 + 1
		}
		return 1
	}
	return 0
}

// StoredAt returns the place of a slab of an object, or of its source, among those
// that the slow tier holds of it, and false where it is not among them.
func (f *Forms) StoredAt(p *Plan, obj ObjectID, slab int) (int, bool) {
	n := p.Slabs(obj)
	if slab < 0 || slab > n {
		return 0, false
	}
	switch f.Of(p, obj) {
	case Whole:
		return slab, slab < n
	case Both:
		return slab, true
	case Compact:
		switch {
		case p.Objects[obj].Role != RoleKey:
			return 0, slab == n
		case slab == n:
			return n / 2, true
		case p.Uniform(obj, slab):
			return 0, false
		}
		stride := p.Objects[obj].Type.Level + 1 + len(p.Params.P)
		return slab/(2*stride)*stride + slab%stride, true
	}
	return 0, false
}

// Makes reports whether ActMake can compute a slab of an object.
func (f *Forms) Makes(p *Plan, obj ObjectID, slab int) bool {
	if form := f.Of(p, obj); slab < 0 || slab >= p.Slabs(obj) || form != Compact && form != Both {
		return false
	}
	return !f.InSteps(p, obj) && (p.Objects[obj].Role == RolePlain || p.Uniform(obj, slab))
}

// Span is a range of slabs of an object.
type Span struct{ First, Count int32 }

// Touched appends to spans the slabs of argument k of a step of p that the step reads,
// in ascending order. Of everything but evaluation keys that is all, or the source of
// what the step makes itself. Of a key it is, digit by digit and for both halves, or for
// that alone which steps do not make themselves, the limbs of the level at which the
// step switches and those of the special primes: a key may be of a higher level than the
// ciphertext.
func (f *Forms) Touched(p *Plan, spans []Span, step, k int) []Span {
	s := &p.Steps[step]
	obj := s.Args[k]
	key := &p.Objects[obj].Type
	if key.Kind != ir.KeyKind {
		n := int32(p.Slabs(obj))
		if f.InSteps(p, obj) {
			return append(spans, Span{n, 1})
		}
		return append(spans, Span{0, n})
	}
	// The level of a key switch is that of its result, before levels are dropped.
	level, special := min(p.Objects[s.Out].Type.Level+s.Op.Drops(), key.Level), len(p.Params.P)
	stride := key.Level + 1 + special
	by := 1
	if f.Streams {
		by = 2
	}
	for half := 0; half < 2*p.Params.Digits(level); half += by {
		at := int32(half * stride)
		if level == key.Level {
			spans = append(spans, Span{at, int32(stride)})
			continue
		}
		spans = append(spans, Span{at, int32(level + 1)}, Span{at + int32(key.Level+1), int32(special)})
	}
	return spans
}
