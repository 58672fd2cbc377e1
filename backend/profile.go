package backend

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"

	"github.com/home-fhe/home/ir"
)

// Profile is the cost model of a machine: how long the inner loops of CKKS take
// per coefficient on one core, and how fast its memory tiers are. It is written
// by `home characterize` and read with --profile.
//
// A step takes the time of its arithmetic and of the words that it moves between
// DRAM and core; what it keeps in caches meanwhile costs nothing extra.
type Profile struct {
	Schema  int    `json:"schema"`
	Machine string `json:"machine"` // for people
	// Kernels that were timed; see backend/kernels. Empty where that was not recorded.
	Kernels string `json:"kernels,omitempty"`
	// Nanoseconds on one core. NTT is per coefficient and per butterfly stage
	// (N*log2 N of them in a limb), all others per coefficient of a limb.
	NTT     float64 `json:"ntt_ns"`
	Mul     float64 `json:"mul_ns"`               // product, modular
	Mac     float64 `json:"mac_ns"`               // product added to an accumulator
	Add     float64 `json:"add_ns"`               // sum or copy
	Permute float64 `json:"permute_ns,omitempty"` // permutation; in schema 1 it costs what Add does
	Extend  float64 `json:"extend_ns"`            // basis extension, per source limb and target limb
	Prepare float64 `json:"prepare_ns,omitempty"` // the same, per source limb
	Encode  float64 `json:"encode_ns"`            // embedding of slot values, per coefficient and stage
	Memory  float64 `json:"memory_ns,omitempty"`  // a word of 8 bytes moved between DRAM and core
	// Uniform is the time to make one residue of a key from its seed; Reduce that to
	// reduce a coefficient of a plaintext modulo a prime, its transform apart.
	Uniform float64 `json:"uniform_ns,omitempty"`
	Reduce  float64 `json:"reduce_ns,omitempty"`
	// Stream is the time to make one residue of a key where a step multiplies with it,
	// beyond that of the product; in schemas before 4 it is Uniform.
	Stream float64 `json:"stream_ns,omitempty"`
	// Split is how many times faster a step becomes that two cores share; 0 where that
	// was not measured.
	Split float64 `json:"split,omitempty"`
	// Reference is how long the steps took that characterize --validate repeats, to see
	// whether the machine is as fast as it was; 0 where that was not measured.
	Reference float64 `json:"reference_seconds,omitempty"`
	// Memory tiers from fast to slow; the last one is the slow tier.
	Tiers []TierProfile `json:"tiers"`
}

// TierProfile describes one memory tier.
type TierProfile struct {
	Name string `json:"name"`
	// Bytes per second that all cores together read and write.
	ReadBps float64 `json:"read_bytes_per_second"`
	WritBps float64 `json:"write_bytes_per_second"`
	Latency float64 `json:"latency_seconds"` // from asking to the first byte
	// Addressable says that steps can work on the tier in place.
	Addressable bool `json:"addressable,omitempty"`
	// Depth is the number of transfers in flight at which the bandwidths hold; 0
	// means that one is enough.
	Depth int `json:"depth,omitempty"`
	// CPU is the time that a core spends on each byte that is read, beside the steps.
	CPU float64 `json:"cpu_seconds_per_byte,omitempty"`
	// Beside is the time that steps on another core lose for each byte that is read
	// beside them: they share the bandwidth of DRAM and the last cache with the
	// transfer, its copies and its checksum.
	Beside float64 `json:"beside_seconds_per_byte,omitempty"`
	// Source says where the figures come from: a measurement, or who published
	// them and when.
	Source string `json:"source,omitempty"`
	// Table holds what was measured: bandwidths by size, concurrency and mix.
	Table []TierPoint `json:"table,omitempty"`
}

// TierPoint is one measurement of a tier.
type TierPoint struct {
	Bytes   int     `json:"bytes"`   // of one transfer
	Threads int     `json:"threads"` // transfers in flight
	Reads   float64 `json:"reads"`   // share of the transfers that read; the others write
	Bps     float64 `json:"bytes_per_second"`
	Seconds float64 `json:"seconds"` // of one transfer, median
}

//go:embed profile_default.json
var defaultProfile []byte

// DefaultProfile returns the profile that is shipped with the program.
func DefaultProfile() *Profile {
	p, err := parseProfile(defaultProfile)
	if err != nil {
		panic("BUG: shipped profile: " + err.Error())
	}
	return p
}

// LoadProfile reads a profile written by `home characterize`.
func LoadProfile(path string) (*Profile, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := parseProfile(b)
	if err != nil {
		return nil, fmt.Errorf("profile %s: %w", path, err)
	}
	return p, nil
}

func parseProfile(b []byte) (*Profile, error) {
	p := new(Profile)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, err
	}
	if p.Schema < 1 || p.Schema > ProfileSchema {
		return nil, fmt.Errorf("schema %d, want 1 to %d", p.Schema, ProfileSchema)
	}
	for _, c := range []float64{p.NTT, p.Mul, p.Mac, p.Add, p.Extend, p.Encode} {
		if !(c > 0) || math.IsInf(c, 0) {
			return nil, fmt.Errorf("a cost of %v nanoseconds; every cost must be positive", c)
		}
	}
	for _, c := range []float64{p.Permute, p.Prepare, p.Memory, p.Uniform, p.Reduce, p.Stream} {
		if !(c >= 0) || math.IsInf(c, 0) {
			return nil, fmt.Errorf("a cost of %v nanoseconds; no cost may be negative", c)
		}
	}
	if !(p.Reference >= 0) || math.IsInf(p.Reference, 0) {
		return nil, fmt.Errorf("reference steps of %v s; no time may be negative", p.Reference)
	}
	if p.Split != 0 && !(p.Split >= 1 && p.Split <= 2) {
		return nil, fmt.Errorf("two cores are %v times as fast as one; that must be from 1 to 2", p.Split)
	}
	if p.Schema == 1 { // what it did not know
		p.Permute, p.Uniform, p.Reduce = p.Add, oldUniform, 2*p.Mul
	}
	if p.Schema < 4 {
		p.Stream = p.Uniform
	}
	if len(p.Tiers) == 0 {
		return nil, fmt.Errorf("no memory tiers")
	}
	if slow := &p.Tiers[len(p.Tiers)-1]; p.Schema <= 2 && slow.Beside == 0 {
		slow.Beside = oldBeside
	}
	for _, t := range p.Tiers {
		if err := t.Check(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// ProfileSchema is the schema of the profiles that are written. Schema 1 knew no
// memory, permutation nor preparation costs, schema 2 not what input costs the steps
// beside it, schema 3 not what keys cost that steps make.
const ProfileSchema = 4

// oldUniform is the cost of a uniform residue before it was part of profiles.
const oldUniform = 2.2

// oldBeside is what a byte of input was taken to cost before that was part of
// profiles: runs of the file tier took 0.05 to 0.12 s of CPU time for 10^9 bytes.
const oldBeside = 1e-10

// Check reports a tier that cannot be.
func (t *TierProfile) Check() error {
	positive := func(x float64) bool { return x > 0 && !math.IsInf(x, 0) }
	if !positive(t.ReadBps) || !positive(t.WritBps) {
		return fmt.Errorf("tier %q: bandwidths must be positive", t.Name)
	}
	if !(t.Latency >= 0) || math.IsInf(t.Latency, 0) || !(t.CPU >= 0) || math.IsInf(t.CPU, 0) || !(t.Beside >= 0) || math.IsInf(t.Beside, 0) || t.Depth < 0 {
		return fmt.Errorf("tier %q: latency, depth and the times that a byte costs cannot be negative", t.Name)
	}
	return nil
}

// Digest identifies the profile in plans: the first 16 hex digits of the
// SHA-256 of its canonical JSON.
func (p *Profile) Digest() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:8])
}

// Slow returns the slow tier.
func (p *Profile) Slow() TierProfile { return p.Tiers[len(p.Tiers)-1] }

// Work is what an operation asks of a core and of memory.
type Work struct {
	NTT                                     float64 // coefficients, times butterfly stages
	Mul, Mac, Add, Permute, Extend, Prepare float64 // coefficients
	Stream                                  float64 // coefficients of keys, made where they are used
	Words                                   float64 // of 8 bytes, between DRAM and core
	uniform                                 float64 // of Words, those of the uniform half of a key
}

// seconds is the time of the work on one core.
func (p *Profile) seconds(w *Work) float64 {
	return 1e-9 * (p.NTT*w.NTT + p.Mul*w.Mul + p.Mac*w.Mac + p.Add*w.Add + p.Permute*w.Permute +
		p.Extend*w.Extend + p.Prepare*w.Prepare + p.Stream*w.Stream + p.Memory*w.Words)
}

// Seconds predicts the time of one scheme operation on one core. level is that at which
// it computes: of the result, before levels are dropped (ir.Op.Drops).
func (p *Profile) Seconds(par *ir.Params, op ir.Op, level int) float64 {
	w := WorkOf(par, op, level)
	return p.seconds(&w)
}

// StepSeconds is Seconds for a step of so many arguments, which may add up several
// products (ir.Op.Terms, ir.Op.Products), and that makes the uniform half of its key
// itself where streams says so.
func (p *Profile) StepSeconds(par *ir.Params, op ir.Op, level, args int, streams bool) float64 {
	w := WorkOfStep(par, op, level, args, streams)
	return p.seconds(&w)
}

// Bytes is what the work moves between DRAM and core.
func (w *Work) Bytes() float64 { return 8 * w.Words }

// WorkOfStep is WorkOf for a step of several terms: the sum is read and written once, and
// relinearised once, for all; or for one that makes half of its key instead of reading it.
func WorkOfStep(par *ir.Params, op ir.Op, level, args int, streams bool) Work {
	w := WorkOf(par, op, level)
	if streams {
		w.Stream, w.Words, w.uniform = w.uniform, w.Words-w.uniform, 0
	}
	if more := float64(op.Products(args) - 1); more > 0 {
		limbs := float64(par.N() * (level + 1)) // of a polynomial
		w.Mul, w.Add, w.Words = w.Mul+more*5*limbs, w.Add+more*3*limbs, w.Words+more*4*limbs
	}
	if more := float64(op.Terms(args) - 1); more > 0 {
		limbs := w.Mul + w.Mac // of two polynomials
		w.Mac += more * limbs
		w.Words += more * 3 * limbs / 2
	}
	return w
}

// WorkOf counts the work of one scheme operation as the encrypted engine does
// it; level as in Profile.Seconds. Words are those of the operands, each read or
// written once: a result that is no argument is read into the caches before it is
// written, and counts twice.
func WorkOf(par *ir.Params, op ir.Op, level int) Work {
	q, np := float64(level+1), float64(len(par.P))
	qp := q + np
	digits := float64(par.Digits(level))
	var w Work            // in limbs; a limb of transforms is that of all stages
	decompose := func() { // coefficients, digits, their transforms
		w.NTT += digits * qp
		w.Prepare += q
		w.Extend += q * (qp - min(np, q))
	}
	gadget := func() { // products of the digits with a key
		w.Mac += 2 * digits * qp
		w.Words += 2 * digits * qp
		w.uniform += digits * qp
	}
	out := q - float64(op.Drops())                    // limbs of a polynomial of the result, modulo Q
	divide := func(polys, sources, targets float64) { // by primes
		w.NTT += polys * (sources + targets)
		w.Prepare += polys * sources
		w.Extend += polys * sources * targets
		w.Mul += polys * targets
	}
	modDown := func(polys float64) { divide(polys, np+q-out, out) } // by P and what is dropped
	switch op {
	case ir.OpHEInput, ir.OpHEPlain, ir.OpHEKey, ir.OpHEOutput:
	case ir.OpHEAdd, ir.OpHESub:
		w.Add, w.Words = 2*q, 7*q // half of them in place
	case ir.OpHEAddPlain:
		w.Mac, w.Add, w.Words = q, q, 7*q
	case ir.OpHEAddConst:
		w.Add, w.Words = 2*q, 6*q
	case ir.OpHEMulPlain:
		w.Mul, w.Words = 2*q, 7*q
	case ir.OpHEMulConst, ir.OpHEMulI:
		w.Mul, w.Words = 2*q, 6*q
	case ir.OpHELift:
		w.Mul, w.Add, w.Words = 2*q, 2*np, 6*q+4*np
	case ir.OpHEMacConst:
		w.Mac, w.Words = 2*q, 6*q
	case ir.OpHEMacPlain:
		w.Mac, w.Words = 2*q, 7*q
	case ir.OpHEMulQP:
		w.Mul, w.Words = 2*qp, 7*qp
	case ir.OpHEMacQP:
		w.Mac, w.Words = 2*qp, 7*qp
	case ir.OpHEAddQP:
		w.Add, w.Words = 2*qp, 6*qp
	case ir.OpHERescale:
		divide(2, 1, out)
		w.Words += 2*q + 4*out
	case ir.OpHEModDown, ir.OpHEModDownRescale:
		modDown(2)
		w.Words += 2*qp + 4*out
	case ir.OpHEDecompose:
		decompose()
		w.Add, w.Words = q, q+2*digits*qp
	case ir.OpHEMul:
		decompose()
		gadget()
		modDown(2)
		w.Mul, w.Add, w.Words = w.Mul+5*q, 2*q, w.Words+8*q
	case ir.OpHEMulRescale, ir.OpHEMacRescale:
		decompose()
		gadget()
		modDown(2)
		// P times the product is added before the division, to limbs modulo Q alone.
		w.Mul, w.Mac, w.Words = w.Mul+5*q, w.Mac+2*q, w.Words+4*q+4*out
		if op == ir.OpHEMacRescale {
			w.Add, w.Words = 2*q, w.Words+2*q
		}
	case ir.OpHERotate:
		decompose()
		gadget()
		modDown(2)
		w.Add, w.Permute, w.Words = q, 2*q, w.Words+6*q
	case ir.OpHERealPart:
		decompose()
		gadget()
		modDown(2)
		w.Add, w.Permute, w.Words = 3*q, 2*q, w.Words+6*q
	case ir.OpHEHoistRot:
		gadget()
		w.Mac, w.Permute, w.Words = w.Mac+q, 2*qp, w.Words+digits*qp+q+4*qp
	case ir.OpHEGiant:
		modDown(1)
		decompose()
		gadget()
		w.Add, w.Permute, w.Words = qp, 2*qp, w.Words+6*qp
	case ir.OpHERaise:
		// The small key switch; the large one needs one transform per limb for all
		// digits, which are equal.
		gadget()
		modDown(2)
		w.NTT, w.Add, w.Words = w.NTT+6+q+qp, 2*q+qp, w.Words+4*q
	default:
		panic("BUG: no cost for " + op.String())
	}
	n := float64(par.N())
	for _, x := range []*float64{&w.Mul, &w.Mac, &w.Add, &w.Permute, &w.Extend, &w.Prepare, &w.Words, &w.uniform} {
		*x *= n
	}
	w.NTT *= n * float64(par.LogN)
	return w
}

// EncodeSeconds predicts the time to encode one plaintext of the given kind.
func (p *Profile) EncodeSeconds(par *ir.Params, k ir.Kind, level int) float64 {
	n, stages := float64(par.N()), float64(par.LogN)
	slabs := float64(par.Slabs(k, level))
	return 1e-9 * n * (stages*(p.Encode+p.NTT*slabs) + p.Reduce*slabs)
}
