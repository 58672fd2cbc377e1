// Package plan holds the compiled form of a network: parameters, objects,
// steps in their order of execution, layouts, the tier plan, and the file
// formats .hplan (server) and .hclient (client).
package plan

import "github.com/home-fhe/home/ir"

// ObjectID names an object of a plan. IDs are dense, 0..len(Objects)-1.
type ObjectID = int32

// NoObject marks an absent operand.
const NoObject ObjectID = -1

// Role says where an object comes from and how long it lives.
type Role uint8

// Roles of objects.
const (
	RoleInput  Role = iota // ciphertext from the client
	RoleKey                // evaluation key, read-only, from the client's key set
	RolePlain              // encoded weights, read-only, made by install
	RoleTemp               // result of a step
	RoleOutput             // result of a step that the client decrypts
)

// Object is one thing a step can touch: its type gives its size in slabs.
type Object struct {
	Role  Role    `cbor:"r"`
	Type  ir.Type `cbor:"t"`
	Rot   int     `cbor:"k,omitempty"` // keys: slots rotated to the left, or ir.KeyRelin and the like
	Plain int32   `cbor:"p,omitempty"` // plaintexts: index into Plan.Plains
	Layer int32   `cbor:"l"`           // index into Plan.Layers, -1 for none
}

// Step is one scheme operation. Out is a fresh object except for the ops that add to
// their first argument (see InPlace), where Out may equal Args[0]: then the step updates
// in place.
type Step struct {
	Op    ir.Op      `cbor:"o"`
	Args  []ObjectID `cbor:"a"`
	Out   ObjectID   `cbor:"d"`
	Rot   int        `cbor:"k,omitempty"`
	Const float64    `cbor:"c,omitempty"` // of ops with attribute "c"
	Scale ir.Scale   `cbor:"s"`           // scale at which Const is encoded, where it does not follow from the types
	Twice bool       `cbor:"w,omitempty"` // the product counts twice: of ops with attribute "twice"
	Layer int32      `cbor:"l"`
}

// Port is an input or output of the network: where its elements sit in which
// ciphertexts.
type Port struct {
	Name    string     `cbor:"name"`
	Shape   []int      `cbor:"shape"`
	Layout  *ir.Layout `cbor:"layout"`
	Objects []ObjectID `cbor:"objects"` // one per ciphertext of the layout
	Level   int        `cbor:"level"`
	Scale   ir.Scale   `cbor:"scale"`
	// Slots hold (x-Center)/Norm, per element or, with one entry, for all.
	Center []float64 `cbor:"center"`
	Norm   []float64 `cbor:"norm"`
	// Limit bounds the magnitude of what an input slot may hold; the client
	// refuses inputs beyond it.
	Limit float64 `cbor:"limit"`
}

// Normalise maps an element of the tensor to what its slot holds.
func (p *Port) Normalise(i int, x float64) float64 {
	return (x - pick(p.Center, i, 0)) / pick(p.Norm, i, 1)
}

// Restore is the inverse of Normalise.
func (p *Port) Restore(i int, u float64) float64 {
	return u*pick(p.Norm, i, 1) + pick(p.Center, i, 0)
}

func pick(v []float64, i int, def float64) float64 {
	switch len(v) {
	case 0:
		return def
	case 1:
		return v[0]
	}
	return v[i]
}

// ClientOp is a tensor op that was moved behind decryption.
type ClientOp struct {
	Op    string `cbor:"op"` // ONNX name: Softmax, LogSoftmax, ArgMax
	Node  string `cbor:"node"`
	Axis  int    `cbor:"axis"`
	Keep  bool   `cbor:"keep"`        // ArgMax keepdims
	Last  bool   `cbor:"last"`        // ArgMax select_last_index
	Flat  bool   `cbor:"flat"`        // Softmax before opset 13: flattened from Axis on
	Shape []int  `cbor:"shape"`       // shape of the result
	Input []int  `cbor:"input_shape"` // shape of the operand
}

// LayerRefresh is the kind of the layers that bootstrap.
const LayerRefresh = "refresh"

// Layer is a row of the report: a piece of the network as a person knows it.
type Layer struct {
	Name       string  `cbor:"name"`  // ONNX node names, joined
	Kind       string  `cbor:"kind"`  // linear, poly, mul, ..., or LayerRefresh
	Level      int     `cbor:"level"` // of its result
	Rotations  int     `cbor:"rotations"`
	KeySwitch  int     `cbor:"key_switches"`
	CtMults    int     `cbor:"ct_mults"`
	Diagonals  int     `cbor:"diagonals"`
	Steps      int     `cbor:"steps"`
	WeightByte int64   `cbor:"weight_bytes"`
	Degree     int     `cbor:"degree,omitempty"`
	Bound      float64 `cbor:"bound,omitempty"`    // half width of the activation's range
	Center     float64 `cbor:"center,omitempty"`   // its centre
	PolyErr    float64 `cbor:"poly_err,omitempty"` // largest error of the polynomial on the range
	Seconds    float64 `cbor:"seconds"`            // predicted
	Cts        int     `cbor:"cts"`                // ciphertexts of its result
	Shape      []int   `cbor:"shape"`
}

// Counts are the operation counts of a plan, taken from its steps.
type Counts struct {
	Bootstraps  int `cbor:"bootstraps" json:"bootstraps"`     // modulus raises
	Rotations   int `cbor:"rotations" json:"rotations"`       // outside bootstrapping
	KeySwitches int `cbor:"key_switches" json:"key_switches"` // all
	GaloisKeys  int `cbor:"galois_keys" json:"galois_keys"`   // rotations and conjugation
	CtMults     int `cbor:"ct_mults" json:"ct_mults"`
	Diagonals   int `cbor:"diagonals" json:"diagonals"`
}

// CountStep adds one step to the counts, all but the keys.
func (p *Plan) CountStep(c *Counts, step int) {
	s := &p.Steps[step]
	switch s.Op {
	case ir.OpHERotate, ir.OpHEHoistRot, ir.OpHEGiant:
		c.KeySwitches++
		if s.Layer < 0 || int(s.Layer) >= len(p.Layers) || p.Layers[s.Layer].Kind != LayerRefresh {
			c.Rotations++
		}
	case ir.OpHERealPart:
		c.KeySwitches++
	case ir.OpHERaise:
		c.Bootstraps++
		c.KeySwitches += 2
	case ir.OpHEMul, ir.OpHEMulRescale, ir.OpHEMacRescale:
		c.CtMults += s.Op.Products(len(s.Args))
		c.KeySwitches++
	case ir.OpHEMulPlain, ir.OpHEMacPlain, ir.OpHEMulQP, ir.OpHEMacQP:
		c.Diagonals += s.Op.Terms(len(s.Args))
	}
}

// Count counts operations as the field reports them, over the steps that
// include picks; nil picks all.
func (p *Plan) Count(include func(step int) bool) Counts {
	var c Counts
	keys := map[int]bool{}
	for i := range p.Steps {
		if include != nil && !include(i) {
			continue
		}
		p.CountStep(&c, i)
		for _, a := range p.Steps[i].Args {
			if o := &p.Objects[a]; o.Role == RoleKey && (o.Rot > 0 || o.Rot == ir.KeyConj) {
				keys[o.Rot] = true
			}
		}
	}
	c.GaloisKeys = len(keys)
	return c
}

// Bytes are the sizes of a plan's objects.
type Bytes struct {
	Keys            int64 `cbor:"keys" json:"keys"`
	Weights         int64 `cbor:"weights" json:"weights"`
	Matrices        int64 `cbor:"matrices" json:"matrices"` // generated diagonals: those of bootstrapping
	CiphertextsPeak int64 `cbor:"ciphertexts_peak" json:"ciphertexts_peak"`
	Footprint       int64 `cbor:"footprint" json:"footprint"`
	DRAMMin         int64 `cbor:"dram_min" json:"dram_min"`
}

// Predicted is what the cost model says of a plan on one core.
type Predicted struct {
	CPUSeconds float64 `cbor:"cpu_seconds" json:"cpu_seconds"`
	Seconds    float64 `cbor:"seconds" json:"seconds"`
	Bits       float64 `cbor:"bits" json:"bits"` // -log2 of the expected output error relative to the largest output
}

// Plan is everything the server needs to run a network on ciphertexts.
type Plan struct {
	Model         string
	ModelDigest   string // sha256 of the ONNX file
	ProfileDigest string
	Warnings      []string
	Notes         []string
	Params        ir.Params
	Batch         int       // samples per run
	Depth         int       // levels the program consumes
	Network       *ir.Graph // tensor vocabulary, activations with their Approx; defines clear mode
	Inputs        []Port
	Outputs       []Port
	ClientOps     []ClientOp
	Preprocess    *Preprocess
	Layers        []Layer
	Objects       []Object
	Steps         []Step
	Plains        []ir.SlotData
	Counts        Counts
	Bytes         Bytes
	Predicted     Predicted
	OutputBits    float64 // predicted absolute precision of the outputs in bits, worst case
	Tier          *Tier

	print string // fingerprint, once known; a plan does not change after that
}

// plainsInReserve is how much memory for slot values the runtime reserve of a
// budget covers.
const plainsInReserve = 16 << 20

// PlainBytes returns the memory that the plan's slot values take beyond what the
// runtime reserve of a budget covers, while there is need for them. Reading them
// from a file takes half as much again for a moment, and one and a half times as
// much where they are packed.
func (p *Plan) PlainBytes() int64 {
	n := int64(0)
	for i := range p.Plains {
		d := &p.Plains[i]
		n += (int64(len(d.Index))*4 + int64(len(d.Value))*8) * 3 / 2
		if d.Packed != nil {
			n += (int64(len(d.Packed.Table))*8 + int64(len(d.Packed.Code))) * 5 / 2
		}
	}
	return max(0, n-plainsInReserve)
}

// Preprocess turns a picture or raw data-set bytes into the network's input. It
// never applies to float .npy inputs.
type Preprocess struct {
	Resize   int       `cbor:"resize,omitempty" json:"resize,omitempty"` // short side in pixels, bilinear; 0 keeps
	Crop     []int     `cbor:"crop,omitempty" json:"crop,omitempty"`     // centre crop height, width
	Pad      []int     `cbor:"pad,omitempty" json:"pad,omitempty"`       // zero border top, left, bottom, right, after normalisation
	Channels string    `cbor:"channels" json:"channels"`                 // gray, rgb or bgr
	Order    string    `cbor:"order" json:"order"`                       // nchw or nhwc
	Scale    float64   `cbor:"scale" json:"scale"`                       // pixel (0..255) is multiplied by this first
	Mean     []float64 `cbor:"mean,omitempty" json:"mean,omitempty"`     // then this is subtracted, per channel or one
	Std      []float64 `cbor:"std,omitempty" json:"std,omitempty"`       // then divided by this
	Labels   []string  `cbor:"labels,omitempty" json:"labels,omitempty"` // names of the classes
	Invert   bool      `cbor:"invert,omitempty" json:"invert,omitempty"` // pictures only: dark on light becomes light on dark
}
