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
type Profile struct {
	Schema  int    `json:"schema"`
	Machine string `json:"machine"` // for people
	// Nanoseconds on one core. NTT is per coefficient and per butterfly stage
	// (N*log2 N of them in a limb), all others per coefficient of a limb.
	NTT    float64 `json:"ntt_ns"`
	Mul    float64 `json:"mul_ns"`    // product, modular
	Mac    float64 `json:"mac_ns"`    // product added to an accumulator
	Add    float64 `json:"add_ns"`    // sum, copy or permutation
	Extend float64 `json:"extend_ns"` // basis extension, per source limb and target limb
	Encode float64 `json:"encode_ns"` // embedding of slot values, per coefficient and stage
	// Memory tiers from fast to slow; the last one is the slow tier.
	Tiers []TierProfile `json:"tiers"`
}

// TierProfile describes one memory tier.
type TierProfile struct {
	Name    string  `json:"name"`
	ReadBps float64 `json:"read_bytes_per_second"`
	WritBps float64 `json:"write_bytes_per_second"`
	Latency float64 `json:"latency_seconds"`
	// Addressable says that steps can work on the tier in place.
	Addressable bool `json:"addressable,omitempty"`
	// Depth is the number of transfers in flight at which the bandwidths hold; 0
	// means that one is enough.
	Depth int `json:"depth,omitempty"`
	// Source says where the figures come from: a measurement, or who published
	// them and when.
	Source string `json:"source,omitempty"`
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
	if p.Schema != 1 {
		return nil, fmt.Errorf("schema %d, want 1", p.Schema)
	}
	for _, c := range []float64{p.NTT, p.Mul, p.Mac, p.Add, p.Extend, p.Encode} {
		if !(c > 0) || math.IsInf(c, 0) {
			return nil, fmt.Errorf("a cost of %v nanoseconds; every cost must be positive", c)
		}
	}
	if len(p.Tiers) == 0 {
		return nil, fmt.Errorf("no memory tiers")
	}
	for _, t := range p.Tiers {
		if !(t.ReadBps > 0) || !(t.WritBps > 0) || !(t.Latency >= 0) {
			return nil, fmt.Errorf("tier %q: bandwidths must be positive", t.Name)
		}
	}
	return p, nil
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

// Seconds predicts the time of one scheme operation on one core. level is that
// of the result, except for a rescale, where it is that of the argument.
func (p *Profile) Seconds(par *ir.Params, op ir.Op, level int) float64 {
	n := float64(par.N())
	ntt := p.NTT * n * float64(par.LogN)
	q, np := float64(level+1), float64(len(par.P))
	qp := q + np
	digits := float64(par.Digits(level))
	decompose := q*ntt + digits*qp*ntt - q*ntt + p.Extend*n*q*(qp-np)
	gadget := 2 * digits * qp * n * p.Mac
	modDown := func(polys float64) float64 { return polys * ((np+q)*ntt + p.Extend*n*np*q + p.Mul*n*q) }
	permute := 2 * qp * n * p.Add
	ns := 0.0
	switch op {
	case ir.OpHEInput, ir.OpHEPlain, ir.OpHEKey, ir.OpHEOutput:
	case ir.OpHEAdd, ir.OpHESub:
		ns = 2 * q * n * p.Add
	case ir.OpHEAddPlain, ir.OpHEAddConst:
		ns = q * n * p.Add
	case ir.OpHEMulPlain, ir.OpHEMulConst, ir.OpHELift:
		ns = 2 * q * n * p.Mul
	case ir.OpHEMacConst, ir.OpHEMacPlain:
		ns = 2 * q * n * p.Mac
	case ir.OpHEMul:
		ns = 5*q*n*p.Mul + decompose + gadget + modDown(2) + 2*q*n*p.Add
	case ir.OpHERescale:
		ns = 2 * (q*ntt + q*n*p.Mul)
	case ir.OpHERotate:
		ns = decompose + gadget + modDown(2) + permute
	case ir.OpHEDecompose:
		ns = decompose
	case ir.OpHEHoistRot:
		ns = gadget + permute + q*n*p.Mul
	case ir.OpHEMulQP:
		ns = 2 * qp * n * p.Mul
	case ir.OpHEMacQP:
		ns = 2 * qp * n * p.Mac
	case ir.OpHEGiant:
		ns = modDown(1) + decompose + gadget + permute
	case ir.OpHEAddQP:
		ns = 2 * qp * n * p.Add
	case ir.OpHEModDown:
		ns = modDown(2)
	case ir.OpHERealPart:
		ns = decompose + gadget + modDown(2) + permute + 2*q*n*p.Add
	case ir.OpHEMulI:
		ns = 2 * q * n * p.Mul
	case ir.OpHERaise:
		// The small key switch; the large one needs one transform per limb for all
		// digits, which are equal.
		ns = 6*ntt + (q+qp)*(ntt+p.Extend*n) + gadget + modDown(2)
	default:
		panic("BUG: no cost for " + op.String())
	}
	return ns * 1e-9
}

// EncodeSeconds predicts the time to encode one plaintext of the given kind.
func (p *Profile) EncodeSeconds(par *ir.Params, k ir.Kind, level int) float64 {
	n, stages := float64(par.N()), float64(par.LogN)
	return 1e-9 * n * stages * (p.Encode + p.NTT*float64(par.Slabs(k, level)))
}
