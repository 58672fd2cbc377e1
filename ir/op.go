package ir

import "fmt"

// Op identifies an operation. Everything known about it stands in its row of
// the op table; Info returns the row.
type Op uint16

// Operations. A new op is a constant here, a row in the table of its
// vocabulary (ops_tensor.go, ops_packed.go, ops_scheme.go), its importer and
// its lowering.
const (
	OpInvalid Op = iota

	// Tensor vocabulary: what the model means.
	OpInput      // graph input
	OpConst      // constant, Value.Array
	OpConv       // convolution over any number of spatial axes
	OpMatMul     // matrix product with numpy batch rules
	OpAdd        // elementwise, numpy broadcasting
	OpSub        //
	OpMul        //
	OpDiv        //
	OpPow        // x^k, k a constant
	OpAvgPool    // window mean
	OpMaxPool    // window maximum
	OpReduceMean // mean over axes
	OpReduceSum  // sum over axes
	OpReduceMax  // maximum over axes
	OpPad        // constant, reflect or edge padding, also negative
	OpReshape    // also Flatten, Squeeze, Unsqueeze
	OpTranspose  //
	OpConcat     //
	OpSlice      // any step
	OpGather     // constant indices
	OpExpand     // broadcast to a shape
	OpAct        // elementwise real function, Attrs "fn"; Value.Approx once approximated
	OpSoftmax    // client only
	OpLogSoftmax // client only
	OpArgMax     // client only

	// Packed vocabulary: where the numbers sit.
	OpPackInput  // encrypted input in a layout
	OpPackLinear // sum of sparse matrices times arguments, plus bias; Value.Linear
	OpPackPoly   // one polynomial in every slot; Value.Approx
	OpPackMul    // slotwise product of two values in one layout
	OpPackView   // the same slots read as another tensor
	OpPackOutput // what the client decrypts

	// Scheme vocabulary: what CKKS does.
	OpHEInput     // ciphertext from the client
	OpHEPlain     // encoded plaintext, Value.Slots
	OpHEKey       // evaluation key, Attrs "rot" (0 is relinearisation)
	OpHEAdd       // ct + ct
	OpHESub       // ct - ct
	OpHEAddPlain  // ct + pt
	OpHEMulPlain  // ct * pt + ..., see MostTerms
	OpHEAddConst  // ct + c in every slot
	OpHEMulConst  // ct * c, c encoded at the quotient of the scales
	OpHEMacConst  // acc + ct * c
	OpHEMul       // ct * ct, relinearised; args a, b, key
	OpHERescale   // divide by the last prime
	OpHERotate    // rotate slots to the left; args ct, key
	OpHEDecompose // gadget decomposition of c1 for hoisted rotations
	OpHEHoistRot  // hoisted rotation, stays modulo QP; args ct, digits, key
	OpHELift      // ct times P, modulo QP: the unrotated baby step
	OpHEMulQP     // ctqp * ptqp + ..., see MostTerms
	OpHEMacQP     // acc + ctqp * ptqp + ..., see MostTerms
	OpHEGiant     // rotate a ctqp: ModDown of c1, key switch, stays modulo QP; args ctqp, key
	OpHEAddQP     // ctqp + ctqp
	OpHEModDown   // divide a ctqp by P
	OpHERaise     // level 0 to a higher one, adding multiples of q_0 to the coefficients; args ct, sparse key, dense key
	OpHERealPart  // ct + its complex conjugate: twice the real parts; args ct, key
	OpHEMulI      // ct times the imaginary unit
	OpHEMacPlain  // acc + ct * pt + ..., see MostTerms
	OpHEOutput    // ciphertext for the client

	// Plan files hold the numbers of scheme operations: what is new comes last.
	OpPackRefresh      // packed vocabulary: the same slots after bootstrapping
	OpHEModDownRescale // divide a ctqp by P and by the last prime, rounding once
	OpHEMulRescale     // ct * ct + ..., relinearised and rescaled, rounding once; args a, b, ..., key; see MostProducts
	OpHEMacRescale     // the same of acc + ct * ct + ...; args acc, a, b, ..., key

	numOps
)

// AttrKind is the type of an attribute.
type AttrKind uint8

// Attribute kinds.
const (
	AttrInt AttrKind = iota
	AttrInts
	AttrFloat
	AttrString
)

// AttrSpec describes one attribute of an op.
type AttrSpec struct {
	Name     string
	Kind     AttrKind
	Required bool
}

// Info is a row of the op table.
type Info struct {
	Op      Op
	Name    string // canonical name in text form
	Vocab   Vocab
	MinArgs int
	MaxArgs int // -1: any number
	Attrs   []AttrSpec
	Depth   int // multiplicative levels one application costs, where fixed
	Drops   int // levels by which a scheme op's result lies below that at which it computes
	Result  Kind
	Doc     string // one line for people

	// Infer computes the result type from arguments and attributes, or says
	// why they do not fit. It is the type rule and the verifier's rule.
	Infer func(v *Value) (Type, error)

	// Eval is the clear semantics in float64, tensor vocabulary only. Scheme
	// ops get theirs from backend/clear.
	Eval func(v *Value, args []*Array) (*Array, error)

	// Linear yields the affine map of a tensor op that is linear in its
	// encrypted arguments: emit(out, arg, in, coef) adds coef*args[arg][in] to
	// element out, and bias(out, c) adds a constant. nil where the op is not
	// linear; an error where this use of it is not.
	Linear func(v *Value, emit func(out, arg, in int, coef float64), bias func(out int, c float64)) error
}

var table [numOps]Info

func register(rows []Info) bool {
	for _, r := range rows {
		if table[r.Op].Op != OpInvalid {
			panic("BUG: op registered twice: " + r.Name)
		}
		table[r.Op] = r
	}
	return true
}

var byName = map[string]Op{}

func init() {
	for i := range table {
		if table[i].Name != "" {
			byName[table[i].Name] = Op(i)
		}
	}
}

// Info returns the row of the op table.
func (o Op) Info() *Info {
	if int(o) >= len(table) || table[o].Op == OpInvalid {
		panic(fmt.Sprintf("BUG: op %d has no row", o))
	}
	return &table[o]
}

func (o Op) String() string {
	if int(o) < len(table) && table[o].Name != "" {
		return table[o].Name
	}
	return fmt.Sprintf("op(%d)", uint16(o))
}

// OpByName finds an op by its canonical name.
func OpByName(name string) (Op, bool) {
	o, ok := byName[name]
	return o, ok
}

// Steps reports whether plans have steps of an op: those of the scheme vocabulary that
// compute something. The op may be any number.
func (o Op) Steps() bool {
	return int(o) < len(table) && table[o].Vocab == Scheme && table[o].MinArgs > 0 && o != OpHEOutput
}

// Drops returns the levels by which the result of an op of the scheme vocabulary lies
// below the level at which it computes, and at which it reads its arguments.
func (o Op) Drops() int { return o.Info().Drops }

// Ops returns all ops that have a row, in table order.
func Ops() []Op {
	var ops []Op
	for i := range table {
		if table[i].Op != OpInvalid {
			ops = append(ops, Op(i))
		}
	}
	return ops
}
