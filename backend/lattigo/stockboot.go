package lattigo

import (
	"math/cmplx"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/tuneinsight/lattigo/v5/core/rlwe"
	"github.com/tuneinsight/lattigo/v5/he/hefloat/bootstrapping"
)

// UnitName and UnitBytes name the unit in which run times compare across machines
// and projects, one bootstrap of stock Lattigo v5 on one thread, and the memory
// that timing it takes.
const (
	UnitName  = "N16QP1546H192H32, 2^15 slots"
	UnitBytes = 12 << 30
)

// Unit is the time of stock bootstraps.
type Unit struct {
	Seconds []float64 // per bootstrap
	CPU     []float64 // the same, by the clock of the processor
	Setup   float64   // seconds to make keys and matrices
	Errors  []float64 // of the last one, by slot, for slots uniform in the square of side 2
}

// StockBootstrap times bootstraps of stock Lattigo with its own parameters and
// code; nothing of the engine takes part. cpu returns the processor time used so far.
func StockBootstrap(runs int, cpu func() float64) (*Unit, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // gigabytes of keys
	began := time.Now()
	chain := StockChains[0]
	chain.below = false
	r := rand.New(rand.NewPCG(1, 2))
	want := make([]complex128, 1<<(chain.LogN-1))
	for i := range want {
		want[i] = complex(2*r.Float64()-1, 2*r.Float64()-1)
	}
	c, err := chain.Bootstrap(want)
	if err != nil {
		return nil, err
	}
	u := &Unit{Setup: time.Since(began).Seconds()}
	for range max(runs, 1) {
		start, used := time.Now(), cpu()
		if err := c.Run(); err != nil {
			return nil, err
		}
		u.Seconds, u.CPU = append(u.Seconds, time.Since(start).Seconds()), append(u.CPU, cpu()-used)
	}
	got, err := c.Slots()
	if err != nil {
		return nil, err
	}
	for i, z := range got {
		u.Errors = append(u.Errors, cmplx.Abs(z-want[i]))
	}
	return u, nil
}

// stockKeys makes the keys of a stock bootstrap, where they differ from what
// Lattigo makes: rotations of the slots-to-coefficients step only as high as
// used, and the key to the ephemeral secret at the lowest level, where it keeps
// 128 bits.
func stockKeys(boot bootstrapping.Parameters, sk *rlwe.SecretKey) (*bootstrapping.EvaluationKeys, error) {
	params := boot.BootstrappingParameters
	kgen := rlwe.NewKeyGenerator(params)
	high := boot.CoeffsToSlotsParameters.GaloisElements(params)
	low := boot.SlotsToCoeffsParameters.LevelStart
	var rotations []*rlwe.GaloisKey
	for _, g := range boot.GaloisElements(params) {
		var at []rlwe.EvaluationKeyParameters
		if !slices.Contains(high, g) && g != params.GaloisElementForComplexConjugation() {
			at = append(at, rlwe.EvaluationKeyParameters{LevelQ: &low})
		}
		rotations = append(rotations, kgen.GenGaloisKeyNew(g, sk, at...))
	}
	few, err := rlwe.NewParametersFromLiteral(rlwe.ParametersLiteral{LogN: params.LogN(), Q: params.Q()[:1], P: params.P()[:1], NTTFlag: true})
	if err != nil {
		return nil, err
	}
	own := rlwe.NewKeyGenerator(few)
	ephemeral := own.GenSecretKeyWithHammingWeightNew(boot.EphemeralSecretWeight)
	view := rlwe.NewSecretKey(few)
	copy(view.Value.Q.Coeffs[0], sk.Value.Q.Coeffs[0])
	copy(view.Value.P.Coeffs[0], sk.Value.P.Coeffs[0])
	return &bootstrapping.EvaluationKeys{
		MemEvaluationKeySet: rlwe.NewMemEvaluationKeySet(kgen.GenRelinearizationKeyNew(sk), rotations...),
		EvkDenseToSparse:    own.GenEvaluationKeyNew(view, ephemeral),
		EvkSparseToDense:    kgen.GenEvaluationKeyNew(ephemeral, sk),
	}, nil
}
