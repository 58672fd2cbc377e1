package ir

import (
	"fmt"
	"slices"
)

// Vocab is the vocabulary a value belongs to. A pass declares which
// vocabularies it reads and writes; the verifier rejects strays.
type Vocab uint8

// The three vocabularies, in the order the pipeline visits them.
const (
	Tensor Vocab = iota // what the model means: arrays of reals
	Packed              // where the numbers sit: slots of ciphertexts
	Scheme              // what CKKS does: ciphertexts, levels, scales
)

func (v Vocab) String() string {
	switch v {
	case Tensor:
		return "tensor"
	case Packed:
		return "packed"
	case Scheme:
		return "scheme"
	}
	return fmt.Sprintf("vocab(%d)", uint8(v))
}

// Kind says what sort of thing a value is.
type Kind uint8

// Kinds of values. TensorKind belongs to the tensor vocabulary, SlotsKind to
// the packed one, all others to the scheme vocabulary.
const (
	TensorKind    Kind = iota // an array of reals with a shape
	SlotsKind                 // a tensor laid out over slots, Type.Layout says where
	CipherKind                // RLWE ciphertext of degree 1 modulo Q_level
	CipherQPKind              // the same modulo Q_level * P, before ModDown
	DigitsKind                // gadget decomposition of c1 of a ciphertext, modulo Q_level * P
	PlainKind                 // encoded plaintext modulo Q_level
	PlainQPKind               // encoded plaintext modulo Q_level * P
	KeyKind                   // evaluation key modulo Q_level * P; see KeyRelin
	SparseKeyKind             // key to the ephemeral secret of bootstrapping, modulo q_0 * p_0 only
)

var kindNames = [...]string{"tensor", "slots", "ct", "ctqp", "digits", "pt", "ptqp", "key", "sparsekey"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Vocab returns the vocabulary the kind belongs to.
func (k Kind) Vocab() Vocab {
	switch k {
	case TensorKind:
		return Tensor
	case SlotsKind:
		return Packed
	}
	return Scheme
}

// DType is the element type of a tensor constant as the model declared it.
// Encrypted values are always Real; Int and Bool occur only in the constants
// that compute shapes.
type DType uint8

// Element types.
const (
	Real DType = iota
	Int
	Bool
)

func (d DType) String() string { return [...]string{"f", "i", "b"}[d] }

// Type is the complete static description of a value. Two values may be
// combined only if the relevant parts agree; Level, Scale, Layout and gap state
// are parts of the type, so a mismatch is a type error and never a wrong
// answer.
type Type struct {
	Kind      Kind
	Encrypted bool    // a property of the value, weights included, not of the op
	DType     DType   // tensor kind only
	Shape     []int   // logical shape; tensor and slots kinds
	Layout    *Layout // slots kind only
	Level     int     // scheme kinds: index of the last prime of Q in use
	Scale     Scale   // scheme kinds except digits and keys
	// Complex says that slots may hold complex numbers (standard ring only): the
	// inside of a bootstrap. Without it only real parts count.
	Complex bool `cbor:",omitempty"`
}

// Elems returns the number of elements of the logical shape; 1 for a scalar.
func (t Type) Elems() int { return NumElems(t.Shape) }

// NumElems returns the product of the dimensions; 1 for an empty shape.
func NumElems(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// Equal reports whether two types are identical.
func (t Type) Equal(u Type) bool {
	if t.Kind != u.Kind || t.Encrypted != u.Encrypted || t.DType != u.DType || t.Complex != u.Complex ||
		t.Level != u.Level || !slices.Equal(t.Shape, u.Shape) || !t.Scale.Equal(u.Scale) {
		return false
	}
	if (t.Layout == nil) != (u.Layout == nil) {
		return false
	}
	return t.Layout == nil || t.Layout.Equal(u.Layout)
}

// TensorType returns the type of an encrypted real tensor of the given shape.
func TensorType(shape ...int) Type {
	return Type{Kind: TensorKind, Encrypted: true, Shape: shape}
}
