package lattigo

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"

	"github.com/home-fhe/home/ir"
	"github.com/tuneinsight/lattigo/v5/core/rlwe"
	"github.com/tuneinsight/lattigo/v5/he/hefloat"
	"github.com/tuneinsight/lattigo/v5/he/hefloat/bootstrapping"
	"github.com/tuneinsight/lattigo/v5/ring"
	"github.com/tuneinsight/lattigo/v5/utils/bignum"
)

// StockCircuit is a circuit of stock Lattigo with its keys and an encrypted
// argument. Nothing of the engine takes part in it.
type StockCircuit struct {
	Way     string // what had to be chosen, for people
	eval    func() (*rlwe.Ciphertext, error)
	read    func(*rlwe.Ciphertext, []complex128) error
	slots   int
	results *rlwe.Ciphertext
}

// Run evaluates the circuit once.
func (c *StockCircuit) Run() (err error) {
	c.results, err = c.eval()
	return err
}

// Slots decrypts what the last run returned.
func (c *StockCircuit) Slots() ([]complex128, error) {
	if c.results == nil {
		return nil, errors.New("the circuit has not run")
	}
	z := make([]complex128, c.slots)
	return z, c.read(c.results, z)
}

// Stock makes circuits of stock Lattigo under given parameters, with a secret key
// of its own.
type Stock struct {
	params  hefloat.Parameters
	sk      *rlwe.SecretKey
	keys    *rlwe.KeyGenerator
	encoder *hefloat.Encoder
}

// NewStock makes a secret key. It says nothing of security.
func NewStock(p *ir.Params) (*Stock, error) {
	params, err := hefloat.NewParametersFromLiteral(hefloat.ParametersLiteral{LogN: p.LogN, Q: p.Q, P: p.P, RingType: ringType(p.Ring), LogDefaultScale: p.LogScale})
	if err != nil {
		return nil, err
	}
	keys := rlwe.NewKeyGenerator(params)
	return &Stock{params, keys.GenSecretKeyNew(), keys, hefloat.NewEncoder(params)}, nil
}

// encrypt returns a ciphertext of real slots at a level.
func (s *Stock) encrypt(x []float64, level int) (*rlwe.Ciphertext, error) {
	plain := hefloat.NewPlaintext(s.params, level)
	if err := s.encoder.Encode(x, plain); err != nil {
		return nil, err
	}
	return rlwe.NewEncryptor(s.params, s.sk).EncryptNew(plain)
}

func (s *Stock) circuit(eval func() (*rlwe.Ciphertext, error)) *StockCircuit {
	decryptor := rlwe.NewDecryptor(s.params, s.sk)
	return &StockCircuit{eval: eval, slots: s.params.MaxSlots(), read: func(ct *rlwe.Ciphertext, z []complex128) error {
		return s.encoder.Decode(decryptor.DecryptNew(ct), z)
	}}
}

// Linear returns the product of a matrix, by diagonals, with a vector at a level,
// rescaled. Of the ratios of baby steps to giant steps that Lattigo offers it takes
// the one that clock says is the fastest.
func (s *Stock) Linear(diagonals map[int][]float64, x []float64, level int, clock func() float64) (*StockCircuit, error) {
	in, err := s.encrypt(x, level)
	if err != nil {
		return nil, err
	}
	list := hefloat.Diagonals[float64](diagonals).DiagonalsIndexList()
	made := map[uint64]*rlwe.GaloisKey{}
	prepare := func(log int) (hefloat.LinearTransformation, *hefloat.Evaluator) {
		p := hefloat.LinearTransformationParameters{DiagonalsIndexList: list, Level: level, Scale: rlwe.NewScale(s.params.Q()[level]), LogDimensions: s.params.LogMaxDimensions(), LogBabyStepGianStepRatio: log}
		set := rlwe.NewMemEvaluationKeySet(nil)
		for _, g := range hefloat.GaloisElementsForLinearTransformation(s.params, p) {
			if made[g] == nil {
				made[g] = s.keys.GenGaloisKeyNew(g, s.sk, rlwe.EvaluationKeyParameters{LevelQ: &level})
			}
			set.GaloisKeys[g] = made[g]
		}
		return hefloat.NewLinearTransformation(s.params, p), hefloat.NewEvaluator(s.params, set)
	}
	run := func(m hefloat.LinearTransformation, eval *hefloat.Evaluator) func() (*rlwe.Ciphertext, error) {
		linear := hefloat.NewLinearTransformationEvaluator(eval)
		return func() (*rlwe.Ciphertext, error) {
			y, err := linear.EvaluateNew(in, m)
			if err != nil {
				return nil, err
			}
			return y, eval.Rescale(y, y)
		}
	}
	best, least := 0, math.Inf(1)
	for log := range stockRatios { // on matrices of zeros, which take as long
		f := run(prepare(log))
		began := clock()
		if _, err := f(); err != nil {
			return nil, err
		}
		if t := clock() - began; t < least {
			best, least = log, t
		}
		debug.FreeOSMemory()
	}
	m, eval := prepare(best)
	if err := hefloat.EncodeLinearTransformation(s.encoder, hefloat.Diagonals[float64](diagonals), m); err != nil {
		return nil, err
	}
	c := s.circuit(run(m, eval))
	c.Way = []string{"as many baby as giant steps", "twice as many baby as giant steps", "four times as many baby as giant steps"}[best]
	return c, nil
}

// stockRatios is the number of ratios of baby steps to giant steps that are tried:
// powers of two from one on.
const stockRatios = 3

// Chebyshev returns sum c[k]*T_k of every slot of a vector at a level.
func (s *Stock) Chebyshev(c []float64, x []float64, level int) (*StockCircuit, error) {
	in, err := s.encrypt(x, level)
	if err != nil {
		return nil, err
	}
	eval := hefloat.NewEvaluator(s.params, rlwe.NewMemEvaluationKeySet(s.keys.GenRelinearizationKeyNew(s.sk, rlwe.EvaluationKeyParameters{LevelQ: &level})))
	poly := hefloat.NewPolynomialEvaluator(s.params, eval)
	coef := bignum.NewPolynomial(bignum.Chebyshev, c, [2]float64{-1, 1})
	return s.circuit(func() (*rlwe.Ciphertext, error) { return poly.Evaluate(in, coef, s.params.DefaultScale()) }), nil
}

// StockChain is a chain of primes on which stock Lattigo bootstraps.
type StockChain struct {
	Name      string
	LogN      int // ring degree, with which the primes change
	PrimeBits int // size of the largest
	residual  hefloat.ParametersLiteral
	circuit   bootstrapping.ParametersLiteral
	// below takes special primes of 61 bits, where Lattigo's lie on both sides of 2^61:
	// the engine has no kernels for the larger ones.
	below bool
}

// StockChains are the chains on which bootstraps are compared: Lattigo's own, and one
// with the same number of levels all of whose primes the 52-bit multiply-add holds.
var StockChains = []StockChain{
	{"N16QP1546H192H32", 16, 61, bootstrapping.N16QP1546H192H32.SchemeParams, bootstrapping.N16QP1546H192H32.BootstrappingParams, true},
	{"primes to 49 bits", 16, 49, hefloat.ParametersLiteral{LogQ: slices.Concat([]int{49}, same(40, 9)), LogP: same(49, 5), Xs: ring.Ternary{H: 192}, LogDefaultScale: 40},
		bootstrapping.ParametersLiteral{
			SlotsToCoeffsFactorizationDepthAndLogScales: [][]int{{39}, {39}, {39}},
			CoeffsToSlotsFactorizationDepthAndLogScales: [][]int{{49}, {49}, {49}, {49}},
			EvalModLogScale: pointer(49), LogP: same(49, 5), Xs: ring.Ternary{H: 192},
		}, false},
}

func pointer[T any](x T) *T { return &x }

func same(bits, n int) []int { return slices.Repeat([]int{bits}, n) }

func (c *StockChain) parameters() (residual hefloat.Parameters, boot bootstrapping.Parameters, err error) {
	low, circuit := c.residual, c.circuit
	low.LogN, circuit.LogN = c.LogN, &c.LogN
	if residual, err = hefloat.NewParametersFromLiteral(low); err == nil {
		boot, err = bootstrapping.NewParametersFromLiteral(residual, circuit)
	}
	if err != nil || !c.below {
		return residual, boot, err
	}
	p := boot.BootstrappingParameters
	primes := ring.NewNTTFriendlyPrimesGenerator(61, uint64(2*p.N()))
	special, err := primes.NextDownstreamPrimes(p.PCount())
	if err == nil {
		boot.BootstrappingParameters, err = hefloat.NewParametersFromLiteral(hefloat.ParametersLiteral{LogN: p.LogN(), Q: p.Q(), P: special, LogDefaultScale: p.LogDefaultScale(), Xs: p.Xs(), Xe: p.Xe()})
	}
	return residual, boot, err
}

// Params returns the chain, the primes of the circuit included. They follow from the
// sizes alone.
func (c *StockChain) Params() (*ir.Params, error) {
	_, boot, err := c.parameters()
	if err != nil {
		return nil, err
	}
	p := boot.BootstrappingParameters
	return &ir.Params{Name: c.Name, LogN: p.LogN(), Ring: ir.RingStandard, Secret: ir.SecretH192, Q: p.Q(), P: p.P(), LogScale: p.LogDefaultScale()}, nil
}

// Bootstrap returns the bootstrap of a vector of complex slots from level 0 to
// Levels. The evaluator overwrites its input and, from Bootstrap, returns nonsense for
// sparse slots, so each run takes a copy, full slots, and Evaluate.
func (c *StockChain) Bootstrap(x []complex128) (*StockCircuit, error) {
	residual, boot, err := c.parameters()
	if err != nil {
		return nil, err
	}
	params := boot.BootstrappingParameters
	sk := rlwe.NewKeyGenerator(params).GenSecretKeyNew()
	keys, err := stockKeys(boot, sk)
	if err != nil {
		return nil, err
	}
	eval, err := bootstrapping.NewEvaluator(boot, keys)
	if err != nil {
		return nil, err
	}
	encoder, plain := hefloat.NewEncoder(params), hefloat.NewPlaintext(params, 0)
	plain.Scale = residual.DefaultScale()
	if err := encoder.Encode(x, plain); err != nil {
		return nil, err
	}
	low, err := rlwe.NewEncryptor(params, sk).EncryptNew(plain)
	if err != nil {
		return nil, err
	}
	return &StockCircuit{
		eval:  func() (*rlwe.Ciphertext, error) { return eval.Evaluate(low.CopyNew()) },
		slots: params.MaxSlots(),
		read: func(ct *rlwe.Ciphertext, z []complex128) error {
			return encoder.Decode(rlwe.NewDecryptor(params, sk).DecryptNew(ct), z)
		},
	}, nil
}

// Uniform returns n numbers drawn from -1 to 1, the same for every seed.
func Uniform(n int, seed uint64) []float64 {
	r := rand.New(rand.NewPCG(1, seed))
	x := make([]float64, n)
	for i := range x {
		x[i] = 2*r.Float64() - 1
	}
	return x
}
