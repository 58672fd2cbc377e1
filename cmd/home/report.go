package main

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
)

// planReport is what inspect shows, in the form that its JSON promises. Fields
// may be added, never renamed.
type planReport struct {
	Schema      int              `json:"schema"`
	Model       string           `json:"model"`
	ModelSHA256 string           `json:"model_sha256"`
	Params      paramsReport     `json:"params"`
	Counts      plan.Counts      `json:"counts"`
	Refreshes   int              `json:"refreshes"` // layers that bootstrap
	Bytes       plan.Bytes       `json:"bytes"`
	Depth       int              `json:"depth"`
	Levels      int              `json:"levels"`
	Batch       int              `json:"batch"`
	Steps       int              `json:"steps"`
	Predicted   plan.Predicted   `json:"predicted"`
	OutputBits  float64          `json:"output_bits"`
	Inputs      []portReport     `json:"inputs"`
	Outputs     []portReport     `json:"outputs"`
	ClientOps   []clientOpReport `json:"client_ops"`
	Layers      []layerReport    `json:"layers"`
	Keys        []keyReport      `json:"keys"`
	Tier        *tierReport      `json:"tier,omitempty"`
	Preprocess  *plan.Preprocess `json:"preprocess,omitempty"`
	Profile     string           `json:"profile"`
	Warnings    []string         `json:"warnings"`
	Notes       []string         `json:"notes"`
	WhatIf      []whatIfReport   `json:"what_if,omitempty"`
	Trace       *passes.Trace    `json:"trace,omitempty"`
}

// whatIfReport is the prediction for another machine.
type whatIfReport struct {
	DRAM         int64   `json:"dram"` // 0: no bound
	Tier         string  `json:"tier"` // the slow tier
	Source       string  `json:"source"`
	Bandwidth    float64 `json:"read_bytes_per_second"`
	Cores        int     `json:"cores"`
	Accelerator  float64 `json:"accelerator"`
	Fits         bool    `json:"fits"`
	Least        int64   `json:"least"`   // smallest budget that works
	Seconds      float64 `json:"seconds"` // predicted, as all that follows
	StallSeconds float64 `json:"stall_seconds"`
	CPUSeconds   float64 `json:"cpu_seconds"` // of steps and makes, all cores together
	MakeSeconds  float64 `json:"make_seconds"`
	BytesRead    int64   `json:"bytes_read"` // fetched, and read in place
	BytesMapped  int64   `json:"bytes_mapped"`
	BytesWritten int64   `json:"bytes_written"`
	BytesLower   int64   `json:"bytes_lower"`
}

type paramsReport struct {
	Name         string `json:"name"`
	Ring         string `json:"ring"`
	LogN         int    `json:"log_n"`
	LogQP        int    `json:"log_qp"`
	LogQPBound   int    `json:"log_qp_bound"` // the most that 128 bits allow; 0 where no bound is known
	LogScale     int    `json:"log_scale"`
	QPrimes      int    `json:"q_primes"`
	PPrimes      int    `json:"p_primes"`
	Slots        int    `json:"slots"`
	Secret       string `json:"secret"`
	SecurityBits int    `json:"security_bits"` // 128, or 0 where that is not reached
	Insecure     bool   `json:"insecure"`
}

type portReport struct {
	Name        string `json:"name"`
	Shape       []int  `json:"shape"`
	Level       int    `json:"level"`
	Ciphertexts int    `json:"ciphertexts"`
	Lanes       int    `json:"lanes"`
}

type layerReport struct {
	Name        string  `json:"name"`
	Kind        string  `json:"kind"`
	Shape       []int   `json:"shape"`
	Ciphertexts int     `json:"ciphertexts"`
	Level       int     `json:"level"`
	Rotations   int     `json:"rotations"`
	KeySwitches int     `json:"key_switches"`
	CtMults     int     `json:"ct_mults"`
	Diagonals   int     `json:"diagonals"`
	Steps       int     `json:"steps"`
	WeightBytes int64   `json:"weight_bytes"`
	Seconds     float64 `json:"seconds"`
	Degree      int     `json:"degree,omitempty"`
	Bound       float64 `json:"bound,omitempty"`
	Center      float64 `json:"center,omitempty"`
	PolyErr     float64 `json:"poly_err,omitempty"`
}

// keyReport is one evaluation key, cut to the highest level it is used at.
type keyReport struct {
	Kind     string `json:"kind"` // see keyKind
	Rotation int    `json:"rotation"`
	Level    int    `json:"level"`
	Bytes    int64  `json:"bytes"`
	Uses     int    `json:"uses"` // steps that read it
}

type tierReport struct {
	Budget       int64     `json:"budget"`
	Reserve      int64     `json:"reserve"`
	Arena        int64     `json:"arena"`
	Peak         int64     `json:"peak"` // of the arena, what objects take at most
	Seconds      float64   `json:"seconds"`
	StallSeconds float64   `json:"stall_seconds"`
	BytesRead    int64     `json:"bytes_read"`
	BytesWritten int64     `json:"bytes_written"`
	BytesLower   int64     `json:"bytes_lower"`                    // keys and weights, as if they had the arena to themselves
	BytesAll     int64     `json:"bytes_lower_all,omitempty"`      // with what is made and all ciphertexts in it
	MakeSeconds  float64   `json:"make_seconds,omitempty"`         // CPU time
	InputSeconds float64   `json:"input_seconds,omitempty"`        // that steps lose to what is read beside them
	BytesBought  int64     `json:"bytes_bought,omitempty"`         // of those that are read, what a plan was found to do without,
	Bought       float64   `json:"bytes_bought_seconds,omitempty"` // and the predicted time that they save
	CostBound    float64   `json:"cost_bound_seconds,omitempty"`   // least that making and input can cost together, whatever the plan
	Fetches      int       `json:"fetches"`
	Spills       int       `json:"spills"`
	Transforms   int       `json:"transforms"`      // fetches that end with computing: transforms of coefficients, halves of keys from seeds
	Keys         keyForm   `json:"keys,omitempty"`  // where the uniform halves of keys come from
	Fused        fusedForm `json:"fused,omitempty"` // plaintexts that steps make from coefficients
}

// keyForm says where a run has the uniform halves of evaluation keys from; "" where
// there are no keys.
type keyForm string

const (
	keysWhole    keyForm = "whole"    // the slow tier
	keysMade     keyForm = "made"     // seeds, before the steps that use them
	keysEither   keyForm = "either"   // one or the other
	keysStreamed keyForm = "streamed" // seeds, in the steps
)

func keyFormOf(p *plan.Plan, f *plan.Forms) keyForm {
	switch {
	case !slices.ContainsFunc(p.Objects, func(o plan.Object) bool { return o.Type.Kind == ir.KeyKind }):
		return ""
	case f.Streams:
		return keysStreamed
	case f.Seeds && f.Twice == plan.TwiceNone:
		return keysMade
	case f.Seeds:
		return keysEither
	}
	return keysWhole
}

// fusedForm says which plaintexts steps make themselves; "" where none.
type fusedForm string

const (
	fusedWeights fusedForm = "weights" // those outside bootstraps
	fusedAll     fusedForm = "all"
)

func fusedFormOf(f *plan.Forms) fusedForm {
	switch f.Fused {
	case plan.FusedOnce:
		return fusedWeights
	case plan.FusedAll:
		return fusedAll
	}
	return ""
}

// text says it in words.
func (f fusedForm) text() string {
	switch f {
	case fusedWeights:
		return "steps make weights from coefficients as they multiply with them, those of bootstraps apart"
	case fusedAll:
		return "steps make weights and matrices of bootstraps from coefficients as they multiply with them"
	}
	return ""
}

// text says it in words.
func (k keyForm) text() string {
	switch k {
	case keysStreamed:
		return "steps make the uniform halves of keys from seeds as they multiply with them: these are neither read nor kept in DRAM"
	case keysMade:
		return "the uniform halves of keys are not read but made from seeds, ahead of the steps that use them"
	case keysEither:
		return "the uniform halves of keys are read or made from seeds, as costs less"
	case keysWhole:
		return "both halves of keys are read"
	}
	return ""
}

func reportPlan(p *plan.Plan) *planReport {
	r := &planReport{
		Schema: 1, Model: p.Model, ModelSHA256: p.ModelDigest, Params: reportParams(p), Counts: p.Counts, Bytes: p.Bytes,
		Depth: p.Depth, Levels: p.Params.MaxLevel(), Batch: p.Batch, Steps: len(p.Steps), Predicted: p.Predicted,
		OutputBits: p.OutputBits, ClientOps: clientOps(p.ClientOps), Preprocess: p.Preprocess, Profile: p.ProfileDigest,
		Inputs: reportPorts(p.Inputs), Outputs: reportPorts(p.Outputs), Layers: []layerReport{}, Keys: reportKeys(p),
		Warnings: slices.Concat([]string{}, p.Warnings), Notes: slices.Concat([]string{}, p.Notes),
	}
	for _, l := range p.Layers {
		r.Refreshes += one(l.Kind == plan.LayerRefresh)
		r.Layers = append(r.Layers, layerReport{
			Name: l.Name, Kind: l.Kind, Shape: l.Shape, Ciphertexts: l.Cts, Level: l.Level, Rotations: l.Rotations,
			KeySwitches: l.KeySwitch, CtMults: l.CtMults, Diagonals: l.Diagonals, Steps: l.Steps, WeightBytes: l.WeightByte,
			Seconds: l.Seconds, Degree: l.Degree, Bound: l.Bound, Center: l.Center, PolyErr: l.PolyErr,
		})
	}
	if t := p.Tier; t != nil {
		tr := &tierReport{
			Budget: t.Budget, Reserve: t.Reserve, Arena: int64(t.ArenaSlabs) * int64(p.Params.SlabBytes()), Peak: int64(t.PeakSlabs) * int64(p.Params.SlabBytes()), Seconds: t.Seconds,
			StallSeconds: t.StallSeconds, BytesRead: t.BytesRead, BytesWritten: t.BytesWritten, BytesLower: t.BytesBound,
			MakeSeconds: t.MakeSeconds, InputSeconds: t.InputSeconds, BytesBought: t.BytesBought, Bought: t.BoughtSeconds, CostBound: t.CostBound, Keys: keyFormOf(p, &t.Forms), Fused: fusedFormOf(&t.Forms),
		}
		if b, err := passes.TierBound(p, t); err == nil {
			tr.BytesAll = b.All
		}
		for _, a := range t.Actions {
			switch a.Kind {
			case plan.ActFetch:
				tr.Fetches++
				tr.Transforms += one(t.Forms.Of(p, a.Obj) == plan.Compact && !t.Forms.InSteps(p, a.Obj))
			case plan.ActSpill:
				tr.Spills++
			}
		}
		r.Tier = tr
	}
	return r
}

func reportParams(of *plan.Plan) paramsReport {
	p := &of.Params
	r := paramsReport{
		Name: p.Name, Ring: string(p.Ring), LogN: p.LogN, LogQP: p.LogQP(), LogScale: p.LogScale,
		QPrimes: len(p.Q), PPrimes: len(p.P), Slots: p.Slots(), Secret: string(p.Secret), Insecure: p.Insecure,
	}
	r.LogQPBound, _ = ir.SecurityBound(p.Secret, p.LogN)
	if of.CheckSecurity() == nil {
		r.SecurityBits = 128
	} else {
		r.Insecure = true
	}
	return r
}

func reportPorts(ports []plan.Port) []portReport {
	out := []portReport{}
	for _, p := range ports {
		r := portReport{Name: p.Name, Shape: p.Shape, Level: p.Level, Ciphertexts: len(p.Objects), Lanes: 1}
		if p.Layout != nil {
			r.Lanes = p.Layout.Lanes
		}
		out = append(out, r)
	}
	return out
}

// reportKeys lists the keys of a plan: those that are none of rotations first.
func reportKeys(p *plan.Plan) []keyReport {
	uses := map[plan.ObjectID]int{}
	for i := range p.Steps {
		for _, a := range p.Steps[i].Args {
			if p.Objects[a].Role == plan.RoleKey {
				uses[a]++
			}
		}
	}
	out := []keyReport{}
	for i := range p.Objects {
		o := &p.Objects[i]
		if o.Role != plan.RoleKey {
			continue
		}
		k := keyReport{
			Kind: keyKind(o.Rot), Rotation: max(0, o.Rot), Level: o.Type.Level, Uses: uses[plan.ObjectID(i)],
			Bytes: int64(p.Params.Slabs(o.Type.Kind, o.Type.Level)) * int64(p.Params.SlabBytes()),
		}
		out = append(out, k)
	}
	slices.SortStableFunc(out, func(a, b keyReport) int {
		return cmp.Or(cmp.Compare(a.Rotation, b.Rotation), cmp.Compare(b.Kind, a.Kind), cmp.Compare(b.Level, a.Level))
	})
	return out
}

// keyKind names what a key is for in one word or two.
func keyKind(rot int) string {
	switch rot {
	case ir.KeyRelin:
		return "relinearisation"
	case ir.KeyConj:
		return "conjugation"
	case ir.KeyDense:
		return "from ephemeral"
	case ir.KeySparse:
		return "to ephemeral"
	}
	return "rotation"
}

// costText says what residency costs the cores, and what bytes buy; "" where that is
// nothing.
func (t *tierReport) costText() string {
	if t.MakeSeconds == 0 && t.InputSeconds == 0 {
		return ""
	}
	text := fmt.Sprintf("making slabs takes %s of it, steps lose %s to reading beside them", seconds(t.MakeSeconds), seconds(t.InputSeconds))
	if t.CostBound > 0 {
		text += fmt.Sprintf(", together %s at least", seconds(t.CostBound))
	}
	if t.BytesBought > 0 {
		text += fmt.Sprintf("; %s are read to save %s of making", byteSize(t.BytesBought), seconds(t.Bought))
	}
	return text
}
