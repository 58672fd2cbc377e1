package ir

import (
	"errors"
	"fmt"
)

// The scheme vocabulary says what CKKS does. A binary op may be given
// arguments above its result's level: they are read only up to that level,
// which drops the others without a copy. Scales must agree exactly.
var (
	levelAttr = AttrSpec{"level", AttrInt, false}
	needLevel = AttrSpec{"level", AttrInt, true}
	scaleAttr = AttrSpec{"scale", AttrString, true}
	rotAttr   = AttrSpec{"rot", AttrInt, true}
	constAttr = AttrSpec{"c", AttrFloat, true}
	addAttr   = AttrSpec{"c", AttrFloat, false} // added before a division
	twiceAttr = AttrSpec{"twice", AttrInt, false}
)

var _ = register([]Info{
	{Op: OpHEInput, Name: "he.input", Vocab: Scheme, Result: CipherKind,
		Attrs: []AttrSpec{needLevel, scaleAttr}, Doc: "ciphertext from the client",
		Infer: func(v *Value) (Type, error) { return attrType(v, CipherKind) }},
	{Op: OpHEPlain, Name: "he.plain", Vocab: Scheme, Result: PlainKind,
		Attrs: []AttrSpec{needLevel, scaleAttr, {"qp", AttrInt, true}}, Doc: "encoded plaintext, read-only",
		Infer: func(v *Value) (Type, error) {
			if v.Slots == nil {
				return Type{}, errors.New("no slot values")
			}
			k := PlainKind
			if v.Attrs.Int("qp", 0) != 0 {
				k = PlainQPKind
			}
			t, err := attrType(v, k)
			t.Encrypted, t.Complex = false, v.Slots.Complex()
			return t, err
		}},
	{Op: OpHEKey, Name: "he.key", Vocab: Scheme, Result: KeyKind,
		Attrs: []AttrSpec{needLevel, rotAttr}, Doc: "evaluation key, read-only; rot is a rotation or names another key",
		Infer: func(v *Value) (Type, error) {
			l, rot := v.Attrs.Int("level", 0), v.Attrs.Int("rot", 0)
			switch {
			case l < 0 || l > maxLevel:
				return Type{}, fmt.Errorf("level %d", l)
			case rot < KeySparse:
				return Type{}, fmt.Errorf("there is no key %d", rot)
			case rot == KeySparse && l != 0:
				return Type{}, fmt.Errorf("the key to the ephemeral secret may exist at level 0 only, not at %d", l)
			case rot == KeySparse:
				return Type{Kind: SparseKeyKind}, nil
			}
			return Type{Kind: KeyKind, Level: l}, nil
		}},
	{Op: OpHEAdd, Name: "he.add", Vocab: Scheme, MinArgs: 2, MaxArgs: 2, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "sum of two ciphertexts", Infer: inferSum(CipherKind, CipherKind)},
	{Op: OpHESub, Name: "he.sub", Vocab: Scheme, MinArgs: 2, MaxArgs: 2, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "difference of two ciphertexts", Infer: inferSum(CipherKind, CipherKind)},
	{Op: OpHEAddPlain, Name: "he.addplain", Vocab: Scheme, MinArgs: 2, MaxArgs: 2, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "ciphertext plus plaintext", Infer: inferSum(CipherKind, PlainKind)},
	{Op: OpHEMulPlain, Name: "he.mulplain", Vocab: Scheme, MinArgs: 2, MaxArgs: 2 * MostTerms, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "sum of ciphertexts times plaintexts; the scales multiply", Infer: inferProducts(CipherKind, PlainKind)},
	{Op: OpHEAddConst, Name: "he.addconst", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Result: CipherKind,
		Attrs: []AttrSpec{constAttr, levelAttr}, Doc: "adds a constant in every slot",
		Infer: func(v *Value) (Type, error) { return sameAs(v, 0, CipherKind) }},
	{Op: OpHEMulConst, Name: "he.mulconst", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Result: CipherKind,
		Attrs: []AttrSpec{constAttr, scaleAttr, levelAttr}, Doc: "times a constant encoded at the given scale",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			if err != nil {
				return t, err
			}
			s, err := ParseScale(v.Attrs.Str("scale", ""))
			t.Scale = t.Scale.Mul(s)
			return t, err
		}},
	{Op: OpHEMacConst, Name: "he.macconst", Vocab: Scheme, MinArgs: 2, MaxArgs: 2, Result: CipherKind,
		Attrs: []AttrSpec{constAttr, scaleAttr, levelAttr}, Doc: "accumulates a ciphertext times a constant",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			if err != nil {
				return t, err
			}
			u, err := sameAs(v, 1, CipherKind)
			if err != nil {
				return t, err
			}
			s, err := ParseScale(v.Attrs.Str("scale", ""))
			t.Complex = t.Complex || u.Complex
			if err == nil && !u.Scale.Mul(s).Equal(t.Scale) {
				err = fmt.Errorf("scale %s times %s added to scale %s", u.Scale, s, t.Scale)
			}
			return t, err
		}},
	{Op: OpHEMul, Name: "he.mul", Vocab: Scheme, MinArgs: 3, MaxArgs: 3, Depth: 1, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "product of two ciphertexts, relinearised",
		Infer: func(v *Value) (Type, error) {
			t, err := inferProduct(CipherKind, CipherKind)(v)
			if err == nil {
				err = keyFits(v, 2, 0, t.Level)
			}
			return t, err
		}},
	{Op: OpHERescale, Name: "he.rescale", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Drops: 1, Result: CipherKind,
		Doc: "divides by the last prime in use",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			if err != nil {
				return t, err
			}
			return drop(v, t)
		}},
	{Op: OpHEModDownRescale, Name: "he.moddownrescale", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Drops: 1, Result: CipherKind,
		Doc: "divides by P and by the last prime in use, rounding once",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherQPKind)
			if err != nil {
				return t, err
			}
			t.Kind = CipherKind
			return drop(v, t)
		}},
	{Op: OpHEMulRescale, Name: "he.mulrescale", Vocab: Scheme, MinArgs: 3, MaxArgs: 1 + 2*MostProducts, Depth: 1, Drops: 1, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr, twiceAttr, addAttr}, Doc: "sum of products of two ciphertexts, or twice that, plus a constant in every slot; relinearised and divided by the last prime, rounding once",
		Infer: inferRescaled(0)},
	{Op: OpHEMacRescale, Name: "he.macrescale", Vocab: Scheme, MinArgs: 4, MaxArgs: 2 + 2*MostProducts, Depth: 1, Drops: 1, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr, twiceAttr, addAttr}, Doc: "he.mulrescale of products that are added to the first argument",
		Infer: inferRescaled(1)},
	{Op: OpHERotate, Name: "he.rotate", Vocab: Scheme, MinArgs: 2, MaxArgs: 2, Result: CipherKind,
		Attrs: []AttrSpec{rotAttr, levelAttr}, Doc: "rotates the slots to the left",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			if err == nil {
				err = keyFits(v, 1, v.Attrs.Int("rot", 0), t.Level)
			}
			return t, err
		}},
	{Op: OpHEDecompose, Name: "he.decompose", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Result: DigitsKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "gadget decomposition for hoisted rotations",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			t.Kind, t.Scale, t.Complex = DigitsKind, Scale{}, false
			return t, err
		}},
	{Op: OpHEHoistRot, Name: "he.hoistrot", Vocab: Scheme, MinArgs: 3, MaxArgs: 3, Result: CipherQPKind,
		Attrs: []AttrSpec{rotAttr}, Doc: "hoisted rotation that stays modulo QP",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			if err != nil {
				return t, err
			}
			d := v.Args[1].Type
			if d.Kind != DigitsKind || d.Level > t.Level {
				return t, fmt.Errorf("digits of kind %s at level %d for level %d", d.Kind, d.Level, t.Level)
			}
			t.Kind, t.Level = CipherQPKind, d.Level
			return t, keyFits(v, 2, v.Attrs.Int("rot", 0), t.Level)
		}},
	{Op: OpHELift, Name: "he.lift", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Result: CipherQPKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "ciphertext times P, modulo QP",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			t.Kind = CipherQPKind
			return t, err
		}},
	{Op: OpHEMulQP, Name: "he.mulqp", Vocab: Scheme, MinArgs: 2, MaxArgs: 2 * MostTerms, Result: CipherQPKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "sum of products with plaintexts modulo QP", Infer: inferProducts(CipherQPKind, PlainQPKind)},
	{Op: OpHEMacQP, Name: "he.macqp", Vocab: Scheme, MinArgs: 3, MaxArgs: 1 + 2*MostTerms, Result: CipherQPKind,
		Doc: "accumulates products with plaintexts modulo QP", Infer: inferMac(CipherQPKind, PlainQPKind)},
	{Op: OpHEMacPlain, Name: "he.macplain", Vocab: Scheme, MinArgs: 3, MaxArgs: 1 + 2*MostTerms, Result: CipherKind,
		Doc: "accumulates products with plaintexts", Infer: inferMac(CipherKind, PlainKind)},
	{Op: OpHEGiant, Name: "he.giant", Vocab: Scheme, MinArgs: 2, MaxArgs: 2, Result: CipherQPKind,
		Attrs: []AttrSpec{rotAttr}, Doc: "giant step: rotation of a sum modulo QP",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherQPKind)
			if err == nil {
				err = keyFits(v, 1, v.Attrs.Int("rot", 0), t.Level)
			}
			return t, err
		}},
	{Op: OpHEAddQP, Name: "he.addqp", Vocab: Scheme, MinArgs: 2, MaxArgs: 2, Result: CipherQPKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "sum modulo QP", Infer: inferSum(CipherQPKind, CipherQPKind)},
	{Op: OpHEModDown, Name: "he.moddown", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Result: CipherKind,
		Doc: "divides by P",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherQPKind)
			t.Kind = CipherKind
			return t, err
		}},
	{Op: OpHERaise, Name: "he.raise", Vocab: Scheme, MinArgs: 3, MaxArgs: 3, Result: CipherKind,
		Attrs: []AttrSpec{needLevel}, Doc: "raises a ciphertext of level 0; its coefficients gain multiples of q_0",
		Infer: func(v *Value) (Type, error) {
			t, l := v.Args[0].Type, v.Attrs.Int("level", 0)
			switch k := v.Args[1]; {
			case t.Kind != CipherKind:
				return t, fmt.Errorf("argument 0 is of kind %s, want %s", t.Kind, CipherKind)
			case t.Level != 0:
				return t, fmt.Errorf("raises a ciphertext at level %d, want 0", t.Level)
			case l < 1 || l > maxLevel:
				return t, fmt.Errorf("raises to level %d", l)
			case k.Op != OpHEKey || k.Type.Kind != SparseKeyKind:
				return t, errors.New("argument 1 is no key to the ephemeral secret")
			}
			t.Level, t.Complex = l, true
			return t, keyFits(v, 2, KeyDense, l)
		}},
	{Op: OpHERealPart, Name: "he.realpart", Vocab: Scheme, MinArgs: 2, MaxArgs: 2, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "sum with the complex conjugate: twice the real parts",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			if err == nil {
				err = keyFits(v, 1, KeyConj, t.Level)
			}
			t.Complex = false
			return t, err
		}},
	{Op: OpHEMulI, Name: "he.muli", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Result: CipherKind,
		Attrs: []AttrSpec{levelAttr}, Doc: "times the imaginary unit",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			t.Complex = true
			return t, err
		}},
	{Op: OpHEOutput, Name: "he.output", Vocab: Scheme, MinArgs: 1, MaxArgs: 1, Result: CipherKind,
		Doc: "ciphertext for the client",
		Infer: func(v *Value) (Type, error) {
			t, err := sameAs(v, 0, CipherKind)
			if err == nil && t.Complex {
				err = errors.New("the client reads real slots only")
			}
			return t, err
		}},
})

// MostTerms is the number of products with plaintexts that one step adds up at
// most. Its ciphertexts and plaintexts alternate after the accumulator, where there
// is one: acc, ct, pt, ct, pt, ... Each is read once and the accumulator once for all,
// and the order of the terms does not matter: sums are exact.
const MostTerms = 8

// Accumulates reports whether an op adds up products with plaintexts, and whether to
// its first argument.
func (o Op) Accumulates() (sum, acc bool) {
	switch o {
	case OpHEMulPlain, OpHEMulQP:
		return true, false
	case OpHEMacPlain, OpHEMacQP:
		return true, true
	}
	return false, false
}

// MostProducts is the number of products of ciphertexts that one step adds up at most,
// whose sum is then relinearised at once. The factors stand side by side, between the
// accumulator, where there is one, and the key.
const MostProducts = 4

// Products returns how many products of ciphertexts an op of so many arguments adds up
// before it relinearises; 0 where it makes none.
func (o Op) Products(args int) int {
	switch o {
	case OpHEMul, OpHEMulRescale, OpHEMacRescale:
		return (args - 1) / 2 // beside an accumulator and the key
	}
	return 0
}

// Terms returns how many products with plaintexts an op of so many arguments adds up;
// 0 where it does not.
func (o Op) Terms(args int) int {
	if sum, _ := o.Accumulates(); sum {
		return args / 2 // beside an accumulator
	}
	return 0
}

// An evaluation key is known by the rotation it serves, or by one of these
// numbers.
const (
	KeyRelin  = 0  // products
	KeyConj   = -1 // complex conjugation
	KeyDense  = -2 // from the ephemeral secret of bootstrapping to the main one
	KeySparse = -3 // from the main secret to the ephemeral one
)

// KeyName says for people what an evaluation key does.
func KeyName(rot int) string {
	switch rot {
	case KeyRelin:
		return "relinearisation key"
	case KeyConj:
		return "conjugation key"
	case KeyDense:
		return "key back from the ephemeral secret"
	case KeySparse:
		return "key to the ephemeral secret"
	}
	return fmt.Sprintf("key for rotation by %d", rot)
}

// maxLevel is far above the longest chain, and keeps mutated text from asking
// for scales over millions of primes.
const maxLevel = 255

func attrType(v *Value, k Kind) (Type, error) {
	s, err := ParseScale(v.Attrs.Str("scale", ""))
	l := v.Attrs.Int("level", 0)
	if err == nil && (l < 0 || l > maxLevel) {
		err = fmt.Errorf("level %d", l)
	}
	return Type{Kind: k, Encrypted: true, Level: l, Scale: s}, err
}

// sameAs returns the type of argument i, of kind k, lowered to attribute level.
func sameAs(v *Value, i int, k Kind) (Type, error) {
	t := v.Args[i].Type
	if t.Kind != k {
		return t, fmt.Errorf("argument %d is of kind %s, want %s", i, t.Kind, k)
	}
	l := v.Attrs.Int("level", t.Level)
	if l < 0 || l > t.Level {
		return t, fmt.Errorf("needs level %d, argument %d is at %d", l, i, t.Level)
	}
	t.Level = l
	return t, nil
}

// lower returns the common level of arguments 0 and 1.
func lower(v *Value, ka, kb Kind) (a, b Type, level int, err error) {
	a, b = v.Args[0].Type, v.Args[1].Type
	if a.Kind != ka || b.Kind != kb {
		return a, b, 0, fmt.Errorf("arguments of kinds %s and %s, want %s and %s", a.Kind, b.Kind, ka, kb)
	}
	top := min(a.Level, b.Level)
	level = v.Attrs.Int("level", top)
	if level < 0 || level > top {
		return a, b, level, fmt.Errorf("result at level %d of arguments at %d and %d", level, a.Level, b.Level)
	}
	return a, b, level, nil
}

func inferSum(ka, kb Kind) func(*Value) (Type, error) {
	return func(v *Value) (Type, error) {
		a, b, level, err := lower(v, ka, kb)
		if err != nil {
			return a, err
		}
		if !a.Scale.Equal(b.Scale) {
			return a, fmt.Errorf("sum of scales %s and %s", a.Scale, b.Scale)
		}
		a.Level, a.Complex = level, a.Complex || b.Complex
		return a, nil
	}
}

func inferProduct(ka, kb Kind) func(*Value) (Type, error) {
	return func(v *Value) (Type, error) {
		a, b, level, err := lower(v, ka, kb)
		if err != nil {
			return a, err
		}
		a.Level, a.Scale, a.Complex = level, a.Scale.Mul(b.Scale), a.Complex || b.Complex
		return a, nil
	}
}

// drop types a result that a step divides by the last primes in use.
func drop(v *Value, t Type) (Type, error) {
	for range v.Op.Drops() {
		if t.Level < 1 {
			return t, errors.New("no level remains")
		}
		t.Scale = t.Scale.Div(ScalePrime(t.Level))
		t.Level--
	}
	return t, nil
}

// inferRescaled types a sum of products of ciphertexts that is divided by the last prime,
// and before that added to as many arguments as stand before the factors.
func inferRescaled(before int) func(*Value) (Type, error) {
	return func(v *Value) (Type, error) {
		last := len(v.Args) - 1
		if (last-before)%2 != 0 {
			return Type{}, errors.New("the last ciphertext has none to be multiplied with")
		}
		a, b := v.Args[before].Type, v.Args[before+1].Type
		top := a.Level
		for i, x := range v.Args[:last] {
			if x.Type.Kind != CipherKind {
				return a, fmt.Errorf("argument %d is of kind %s, want %s", i, x.Type.Kind, CipherKind)
			}
			top = min(top, x.Type.Level)
		}
		t := Type{Kind: CipherKind, Encrypted: true, Scale: a.Scale.Mul(b.Scale)}
		t.Level = v.Attrs.Int("level", top-v.Op.Drops()) + v.Op.Drops()
		if t.Level < 0 || t.Level > top {
			return t, fmt.Errorf("computes at level %d on arguments at %d and above", t.Level, top)
		}
		for i, x := range v.Args[:last] {
			t.Complex = t.Complex || x.Type.Complex
			switch s := x.Type.Scale; {
			case i < before && !s.Equal(t.Scale):
				return t, fmt.Errorf("scale %s times %s added to scale %s", a.Scale, b.Scale, s)
			case i >= before && (i-before)%2 == 0 && !s.Mul(v.Args[i+1].Type.Scale).Equal(t.Scale):
				return t, fmt.Errorf("scale %s times %s added to scale %s", s, v.Args[i+1].Type.Scale, t.Scale)
			}
		}
		if n := v.Attrs.Int("twice", 0); n != 0 && n != 1 {
			return t, fmt.Errorf("twice is %d, want 0 or 1", n)
		}
		if err := keyFits(v, last, KeyRelin, t.Level); err != nil {
			return t, err
		}
		return drop(v, t)
	}
}

// inferProducts types a sum of products.
func inferProducts(cipher, plain Kind) func(*Value) (Type, error) {
	return func(v *Value) (Type, error) {
		t, err := inferProduct(cipher, plain)(v)
		if err != nil {
			return t, err
		}
		if _, ok := v.Attrs["level"]; !ok {
			for _, a := range v.Args {
				t.Level = min(t.Level, a.Type.Level)
			}
		}
		return addProducts(t, v.Args[2:], cipher, plain)
	}
}

// addProducts types a sum plus products of pairs of arguments, at the level of the sum.
func addProducts(t Type, pairs []*Value, cipher, plain Kind) (Type, error) {
	if len(pairs)%2 != 0 {
		return t, errors.New("the last ciphertext has no plaintext to be multiplied with")
	}
	for i := 0; i < len(pairs); i += 2 {
		a, b := pairs[i].Type, pairs[i+1].Type
		switch {
		case a.Kind != cipher || b.Kind != plain:
			return t, fmt.Errorf("product of kinds %s and %s", a.Kind, b.Kind)
		case a.Level < t.Level || b.Level < t.Level:
			return t, fmt.Errorf("levels %d and %d below %d", a.Level, b.Level, t.Level)
		case !a.Scale.Mul(b.Scale).Equal(t.Scale):
			return t, fmt.Errorf("scale %s times %s added to scale %s", a.Scale, b.Scale, t.Scale)
		}
		t.Complex = t.Complex || a.Complex || b.Complex
	}
	return t, nil
}

// inferMac types an accumulator plus products, at the accumulator's level.
func inferMac(acc, plain Kind) func(*Value) (Type, error) {
	return func(v *Value) (Type, error) {
		t, err := sameAs(v, 0, acc)
		if err != nil {
			return t, err
		}
		return addProducts(t, v.Args[1:], acc, plain)
	}
}

func keyFits(v *Value, i, rot, level int) error {
	k := v.Args[i]
	if k.Type.Kind != KeyKind || k.Op != OpHEKey {
		return fmt.Errorf("argument %d is no key", i)
	}
	if r := k.Attrs.Int("rot", 0); r != rot {
		return fmt.Errorf("%s used for %s", KeyName(r), KeyName(rot))
	}
	if k.Type.Level < level {
		return fmt.Errorf("key at level %d used at %d", k.Type.Level, level)
	}
	return nil
}
