package passes

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/sim"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// wantBits is the output precision parameters must reach in simulation: errors
// below 2^-wantBits of the largest output. One bit more than the 1e-3 that
// encrypted runs are held to.
const wantBits = 11.0

// precisionSamples is how many inputs the prediction simulates.
const precisionSamples = 4

// precision simulates the plan with noise and compares it with the approximated
// network in the clear.
func precision(u *unit) error {
	samples := u.opt.Calibrate
	if len(samples) > precisionSamples {
		samples = samples[:precisionSamples]
	}
	if len(samples) == 0 {
		r := rand.New(rand.NewPCG(1, 2))
		in := ir.NewArray(u.graph.Inputs[0].Type.Shape...)
		for i := range in.Data {
			x := u.inputRanges[0]
			if len(u.inputRanges) > 1 {
				x = u.inputRanges[i]
			}
			in.Data[i] = x.Lo + (x.Hi-x.Lo)*r.Float64()
		}
		samples = []*ir.Array{in}
	}
	open := sim.New
	if u.plan.Batch == u.par.Slots() { // no rotations: a few slots tell all
		open = sim.NewLane
	}
	e, err := open(u.par, u.opt.profile(), 1)
	if err != nil {
		return err
	}
	defer e.Close()
	worsts, largests := make([]float64, len(samples)), make([]float64, len(samples))
	squares, counts := make([]float64, len(samples)), make([]int, len(samples))
	err = backend.Each(len(samples), func(k int) error {
		want, _, err := clear.EvalTensor(u.graph, []*ir.Array{samples[k]}, clear.Options{Approx: true})
		if err != nil {
			return err
		}
		got, err := Simulate(u.plan, e, samples[k])
		if errors.Is(err, sim.ErrOverflow) {
			return fmt.Errorf("%w: %q: %w", errImprecise, u.par.Name, err)
		}
		if err != nil {
			return err
		}
		for o := range want {
			for i, w := range want[o].Data {
				d := math.Abs(got[o].Data[i] - w)
				if !(d <= worsts[k]) {
					worsts[k] = d
				}
				largests[k] = max(largests[k], math.Abs(w))
				squares[k], counts[k] = squares[k]+d*d, counts[k]+1
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	worst, largest := slices.Max(worsts), slices.Max(largests)
	if largest == 0 {
		largest = 1
	}
	u.plan.Predicted.Bits = -math.Log2(max(worst, 1e-300) / max(1, largest))
	// A few samples: one bit of care, and no less than three standard deviations
	// where outputs are too few to show the largest error.
	square, count := 0.0, 0
	for k := range squares {
		square, count = square+squares[k], count+counts[k]
	}
	spread := 3 * math.Sqrt(square/float64(max(1, count)))
	u.plan.OutputBits = -math.Log2(max(worst, spread, 1e-300)) - 1
	if !(u.plan.Predicted.Bits >= wantBits) {
		return fmt.Errorf("%w: %q reaches %.1f bits of the outputs, %.0f are wanted", errImprecise, u.par.Name, u.plan.Predicted.Bits, wantBits)
	}
	return nil
}

// Simulate runs a plan on the simulated engine for one sample and returns the
// outputs as tensors.
func Simulate(p *plan.Plan, e *sim.Engine, x *ir.Array) ([]*ir.Array, error) {
	if len(p.Inputs) != 1 {
		return nil, fmt.Errorf("%d inputs", len(p.Inputs))
	}
	in := &p.Inputs[0]
	u := make([]float64, len(x.Data))
	for i, v := range x.Data {
		u[i] = in.Normalise(i, v)
	}
	packed := in.Layout.Pack(u)
	slots := map[plan.ObjectID][]float64{}
	for c, id := range in.Objects {
		slots[id] = packed[c]
	}
	results := map[plan.ObjectID][]float64{}
	err := backend.Interpret(p, e,
		func(id plan.ObjectID, o backend.Operand) error { return e.Encrypt(slots[id], o) }, nil,
		func(id plan.ObjectID, o backend.Operand) error {
			z, _ := clear.Slots(o)
			results[id] = append([]float64{}, z...)
			return nil
		})
	if err != nil {
		return nil, err
	}
	var out []*ir.Array
	for i := range p.Outputs {
		port := &p.Outputs[i]
		var cts [][]float64
		for _, id := range port.Objects {
			cts = append(cts, results[id])
		}
		a := ir.ArrayOf(port.Layout.Unpack(cts, 0, ir.NumElems(port.Shape)), port.Shape...)
		for k, v := range a.Data {
			a.Data[k] = port.Restore(k, v)
		}
		out = append(out, a)
	}
	return out, nil
}

// tieringPass plans residency for the budget and has the plan checked.
func tieringPass(u *unit) error {
	return Retier(u.plan, u.opt.DRAM, u.opt.profile(), 1)
}

// Retier makes the tier plan again for a budget (0: no bound), a profile and a
// number of threads, and checks it. The error is a *BudgetError where the budget
// is too small to run, or to install what the run needs.
func Retier(p *plan.Plan, dram int64, prof *backend.Profile, threads int) error {
	reserve := TierReserve(&p.Params, threads)
	if least := leastBudget(p, reserve); dram > 0 && dram < least {
		return &BudgetError{Budget: dram, Least: least}
	}
	t, err := Tiering(p, TierOptions{DRAM: dram, Reserve: reserve, Profile: prof.Digest(), Machine: MachineOf(p, prof, threads)})
	if err != nil {
		return err
	}
	run := PredictAt(p, t, prof, threads, 1)
	t.Seconds, t.StallSeconds, t.MakeSeconds, t.InputSeconds = run.Seconds, run.StallSeconds, run.MakeSeconds, run.InputSeconds
	if err := CheckTier(p, t); err != nil {
		return fmt.Errorf("BUG: the tier plan fails its check: %w", err)
	}
	p.Tier = t
	p.Bytes.DRAMMin = leastBudget(p, reserve) // with the forms that were chosen
	return nil
}

// MachineOf returns the machine that a profile describes, with some of its cores.
func MachineOf(p *plan.Plan, prof *backend.Profile, cores int) Machine {
	uniform := prof.UniformSeconds(&p.Params)
	input := prof.Slow().Beside
	if cores >= prof.Cores() { // no core is left for the transfers
		input += prof.Slow().CPU
	}
	return Machine{
		Cores:       cores,
		StepSeconds: func(i int, f *plan.Forms) float64 { return StepSeconds(p, prof, i, f) },
		MakeSeconds: func(obj plan.ObjectID) float64 {
			if p.Objects[obj].Role == plan.RoleKey {
				return uniform
			}
			return prof.ExpandSeconds(&p.Params, points(p, obj), false)
		},
		Tier:      prof.Slow(),
		Input:     input,
		MemoryBps: memoryBps(prof),
	}
}

// memoryBps is the bandwidth of DRAM that a profile gives one core; 0 where it does
// not say.
func memoryBps(prof *backend.Profile) float64 {
	if prof.Memory == 0 {
		return 0
	}
	return 8e9 / prof.Memory
}

// InstallLeast is the least budget that keys and weights can be installed with:
// beside the reserve, room for the plan's slot values, for the largest object and
// for what it is made from.
func InstallLeast(p *plan.Plan, reserve int64) int64 {
	largest := 0
	for _, o := range p.Objects {
		if o.Role == plan.RoleKey || o.Role == plan.RolePlain {
			largest = max(largest, p.Params.Slabs(o.Type.Kind, o.Type.Level))
		}
	}
	return reserve + p.PlainBytes() + 2*int64(largest)*int64(p.Params.SlabBytes())
}
