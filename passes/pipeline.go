// Package passes turns a network into a plan: it approximates activations,
// packs tensors into slots, chooses parameters, lowers to CKKS operations,
// schedules them and plans where every byte lives.
//
// The pipeline is the literal list Passes, read top to bottom; Order says why
// one pass must come before another. Each pass is a function in a file of its
// own name.
package passes

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Pass is a row of the pipeline.
type Pass struct {
	Name     string
	Doc      string
	Reads    ir.Vocab // vocabulary of the graph it reads
	Writes   ir.Vocab // vocabulary of the graph it leaves
	Optional bool     // may be left out: it only makes the result faster
	run      func(*unit) error
}

// Passes is the pipeline in order.
var Passes = []Pass{
	{"fold", "evaluate what is constant and drop what is unused", ir.Tensor, ir.Tensor, false, fold},
	{"unbatch", "turn a network of several samples at once into one of a single sample", ir.Tensor, ir.Tensor, true, unbatch},
	{"maxima", "turn maxima into rounds of pairs", ir.Tensor, ir.Tensor, false, maxima},
	{"activations", "choose a range and a polynomial for every activation, within the accuracy budget", ir.Tensor, ir.Tensor, false, activations},
	{"activation-trim", "lower the degrees of single activations while the budget still holds (part of activations)", ir.Tensor, ir.Tensor, true, nil},
	{"fuse", "turn everything between two nonlinear steps into one sparse matrix", ir.Tensor, ir.Tensor, false, fusePass},
	{"levels", "count the levels that the network takes in one go", ir.Tensor, ir.Tensor, false, levelsPass},
	{"parameters", "take the cheapest parameters that are deep enough, or else deep enough with bootstrapping, and reach 128 bits", ir.Tensor, ir.Tensor, false, parameters},
	{"placement", "refresh values where it costs least, and give every step the lowest level that its users allow", ir.Tensor, ir.Tensor, false, placementPass},
	{"packing", "place every tensor in slots, by cost", ir.Tensor, ir.Packed, false, packPass},
	{"lowering", "write CKKS operations: diagonals by baby and giant steps, polynomials, exact scales, keys at the level of use", ir.Packed, ir.Scheme, false, lowerPass},
	{"sums", "add up several products with plaintexts in one step, as far as it needs no more memory than another", ir.Scheme, ir.Scheme, true, sums},
	{"divisions", "divide by special primes and the last prime in one step, with the sums between", ir.Scheme, ir.Scheme, true, divisions},
	{"schedule", "number the objects and order the steps", ir.Scheme, ir.Scheme, false, schedule},
	{"precision", "simulate the noise; go back to parameters where it is too large", ir.Scheme, ir.Scheme, false, precision},
	{"tiering", "plan residency and prefetch under the byte budget, and check the plan", ir.Scheme, ir.Scheme, false, tieringPass},
}

// Order lists pairs of passes and the reason why the first comes before the
// second; a test holds the list of passes against it.
var Order = [][3]string{
	{"fold", "activations", "constants must not count as activations"},
	{"fold", "unbatch", "constants must be known to treat samples alike"},
	{"unbatch", "maxima", "the rounds of a maximum mix the samples of a batch"},
	{"fold", "maxima", "a maximum of constants needs no rounds"},
	{"maxima", "activations", "rounds of pairs are activations, with ranges and polynomials of their own"},
	{"activations", "fuse", "the range of an activation is folded into the matrix before it"},
	{"activations", "activation-trim", "degrees are lowered from ones that meet the budget"},
	{"fuse", "levels", "levels are consumed by fused steps"},
	{"levels", "parameters", "the chain must have as many levels as the network is deep"},
	{"parameters", "placement", "parameters decide how many levels a refresh brings, and what it costs"},
	{"placement", "packing", "a layer costs what its level says, and a refreshed value keeps its slots"},
	{"parameters", "packing", "the number of slots comes from the ring degree"},
	{"packing", "lowering", "diagonals follow from the layouts"},
	{"lowering", "sums", "products with plaintexts are scheme operations"},
	{"sums", "schedule", "what is joined is one step"},
	{"lowering", "divisions", "rescales are scheme operations"},
	{"divisions", "schedule", "what is joined is one step"},
	{"lowering", "schedule", "steps are scheme operations"},
	{"schedule", "precision", "the simulator runs the steps"},
	{"precision", "tiering", "residency is planned for the parameters that are kept"},
}

// Source is a network as the front end delivers it.
type Source struct {
	Graph  *ir.Graph // tensor vocabulary, one sample (or the model's own fixed batch)
	Client []plan.ClientOp
	Digest string // of the model file
	// Outputs names the outputs as the model does; nil names them after the nodes
	// that compute them.
	Outputs []string
}

// unit is the state of one compilation.
type unit struct {
	opt     *Options
	graph   *ir.Graph // tensor vocabulary
	client  []plan.ClientOp
	outputs []string // names, where the model gives them

	ranges      map[*ir.Value]Range
	inputRanges []Range // per element of the input, or one for all
	multiplied  map[*ir.Value]bool
	// levelCost prices the network by the levels of its activations, in the order
	// of the graph.
	levelCost func(depths []int) float64

	fused    []*fusedNode // without refreshes
	straight int          // levels it takes in one go

	par      *ir.Params
	placer   *networkPlacer // nil where nothing is refreshed
	placed   *placed
	next     int // entry of the catalogues to try next
	attempt  int
	lastMiss error

	nodes []*fusedNode // with refreshes
	depth int          // highest level of a ciphertext

	state  *packState
	packed *ir.Graph
	lw     *lowering
	scheme *ir.Graph

	plan     *plan.Plan
	notes    []string
	warnings []string
}

func (u *unit) warn(format string, args ...any) {
	u.warnings = append(u.warnings, fmt.Sprintf(format, args...))
}

func (u *unit) note(format string, args ...any) {
	u.notes = append(u.notes, fmt.Sprintf(format, args...))
}

func (u *unit) skip(pass string) bool { return slices.Contains(u.opt.Skip, pass) }

// errImprecise sends the pipeline back to the choice of parameters.
var errImprecise = errors.New("parameters are not precise enough")

// Compile runs the pipeline on a copy of the source's graph. Errors wrap ir.ErrUnsupported where the model
// cannot be run on ciphertexts, and *BudgetError where it does not fit.
func Compile(src Source, opt Options) (*plan.Plan, error) {
	if err := checkSkips(opt.Skip, opt.StopAfter); err != nil {
		return nil, err
	}
	if n := len(src.Graph.Inputs); n > 1 {
		in := src.Graph.Inputs[1]
		return nil, &ir.NodeError{Node: in.Name, Op: in.Op.String(), Err: fmt.Errorf("the network has %d inputs, encrypted runs take one", n), Hint: "join them into one input, or run it with --mode clear"}
	} else if n == 0 {
		return nil, &ir.NodeError{Node: src.Graph.Name, Op: "network", Err: errors.New("the network has no input"), Hint: "its outputs are constants"}
	}
	u := &unit{opt: &opt, graph: src.Graph.Clone(), client: src.Client, outputs: src.Outputs}
	restart := slices.IndexFunc(Passes, func(p Pass) bool { return p.Name == "parameters" })
	notes, warnings := 0, 0 // from before parameters were chosen
	for i := 0; i < len(Passes); i++ {
		p := &Passes[i]
		if p.run == nil || u.skip(p.Name) {
			continue
		}
		switch p.Name {
		case "parameters":
			if u.attempt == 0 {
				notes, warnings = len(u.notes), len(u.warnings)
			}
			u.notes, u.warnings = u.notes[:notes], u.warnings[:warnings]
		case "packing":
			u.plan = u.newPlan(src.Digest)
		}
		err := p.run(u)
		if errors.Is(err, errImprecise) {
			u.attempt++
			u.lastMiss = err
			u.packed, u.scheme = nil, nil
			i = restart - 1
			continue
		}
		if err != nil {
			return nil, err
		}
		if g := u.current(); g != nil {
			if err := ir.Verify(g, p.Writes, ir.Tensor); err != nil {
				return nil, fmt.Errorf("BUG: after pass %s: %w", p.Name, err)
			}
			if opt.Observe != nil {
				if err := opt.Observe(p.Name, g); err != nil {
					return nil, err
				}
			}
		}
		if p.Name == opt.StopAfter {
			break
		}
	}
	if u.plan != nil {
		u.plan.Warnings = u.warnings
		u.plan.Notes = u.notes
	}
	return u.plan, nil
}

// newPlan returns a plan without steps yet.
func (u *unit) newPlan(digest string) *plan.Plan {
	return &plan.Plan{Model: u.graph.Name, ModelDigest: digest, ProfileDigest: u.opt.profile().Digest(),
		Params: *u.par, Depth: u.depth, Network: u.graph, ClientOps: u.client, Preprocess: u.opt.Preprocess, Batch: 1}
}

func checkSkips(skip []string, stop string) error {
	find := func(name string) *Pass {
		for i := range Passes {
			if Passes[i].Name == name {
				return &Passes[i]
			}
		}
		return nil
	}
	for _, s := range skip {
		p := find(s)
		if p == nil {
			return fmt.Errorf("there is no pass %q; --passes help lists them", s)
		}
		if !p.Optional {
			return fmt.Errorf("pass %q is required for a correct result and cannot be left out", s)
		}
	}
	if stop != "" && find(stop) == nil {
		return fmt.Errorf("there is no pass %q; --passes help lists them", stop)
	}
	return nil
}

// current is the graph in its newest vocabulary.
func (u *unit) current() *ir.Graph {
	switch {
	case u.scheme != nil:
		return u.scheme
	case u.packed != nil:
		return u.packed
	}
	return u.graph
}

// fold evaluates values whose arguments are constant and drops unused ones.
func fold(u *unit) error {
	for _, v := range u.graph.Values {
		if v.Op == ir.OpConst || v.Op == ir.OpInput || v.Type.Encrypted {
			continue
		}
		a, ok, err := ir.Fold(v)
		if err != nil {
			return &ir.NodeError{Node: v.Name, Op: v.Op.String(), Err: err}
		}
		if ok {
			t := v.Type
			*v = ir.Value{ID: v.ID, Op: ir.OpConst, Name: v.Name, Array: a, Type: t}
			if t.DType != ir.Real {
				v.Attrs = ir.Attrs{"dtype": t.DType.String()}
			}
		}
	}
	u.graph.Prune()
	return nil
}

func fusePass(u *unit) error {
	nodes, err := fuse(u.graph, u.ranges, u.inputNorm)
	u.fused = nodes
	return err
}

// inputNorm chooses how the client scales an input: one number for all elements
// where they share a range (pictures), else one for each element (features of
// different units).
func (u *unit) inputNorm(v *ir.Value) (center, norm []float64) {
	r := u.inputRanges
	lo, hi := r[0].Lo, r[0].Hi
	least, most := math.Inf(1), 0.0
	for _, x := range r {
		lo, hi = min(lo, x.Lo), max(hi, x.Hi)
		if w := x.Hi - x.Lo; w > 0 {
			least, most = min(least, w), max(most, w)
		}
	}
	// Few elements: features. Many: a picture, whose borders are often constant.
	if len(r) > 1 && len(r) <= 256 && most > 16*least {
		for _, x := range r {
			c, h := (x.Lo+x.Hi)/2, (x.Hi-x.Lo)/2
			if h <= 1e-12*max(1, math.Abs(c)) {
				h = max(1e-6, math.Abs(c))
			}
			center, norm = append(center, c), append(norm, h)
		}
		return center, norm
	}
	m := max(math.Abs(lo), math.Abs(hi))
	if m == 0 {
		m = 1
	}
	return nil, []float64{m}
}

func packPass(u *unit) error {
	st, err := u.choosePacking()
	if err != nil {
		return err
	}
	u.state = st
	u.packed, err = packedGraph(u.graph.Name, u.nodes, st)
	u.scheme = nil
	return err
}

// choosePacking takes the packing that is cheapest for the number of samples that
// come together: one sample a run, some side by side, or as many as there are slots
// (batch-axis packing).
func (u *unit) choosePacking() (*packState, error) {
	batch, slots, prof := u.opt.Batch, u.par.Slots(), u.opt.profile()
	if batch == 0 {
		batch = 1
		if u.opt.Throughput {
			batch = slots
		}
	}
	single, err := packing(u.nodes, u.par, prof, 0)
	if batch == 1 {
		return single, err
	}
	total := func(st *packState) float64 { // seconds for all samples
		runs := (batch-1)>>st.logLanes + 1
		return float64(runs) * st.cost
	}
	var tried []*packState
	if err == nil {
		tried = append(tried, single)
	}
	if st := u.sideBySide(batch, total); st != nil {
		tried = append(tried, st)
	}
	tried = append(tried, laneState(u.nodes, u.par, prof))
	best := slices.MinFunc(tried, func(a, b *packState) int { return cmp.Compare(total(a), total(b)) })
	u.plan.Batch = 1 << best.logLanes
	var others []string
	for _, st := range tried {
		if st != best {
			others = append(others, fmt.Sprintf("%s would take %.3g s", st.lanesText(slots), total(st)))
		}
	}
	text := fmt.Sprintf("packing: %s, %.3g s predicted for %d samples", best.lanesText(slots), total(best), batch)
	if len(others) > 0 {
		text += "; " + strings.Join(others, ", ")
	}
	u.note("%s", text)
	return best, nil
}

func (s *packState) lanesText(slots int) string {
	switch lanes := 1 << s.logLanes; lanes {
	case 1:
		return "one sample a run"
	case slots:
		return fmt.Sprintf("batch-axis, up to %d samples a run,", lanes)
	default:
		return fmt.Sprintf("%d samples side by side", lanes)
	}
}

// How far sideBySide goes.
const (
	// mostSplit is the number of ciphertexts that the largest tensor is cut into at
	// most: beyond, fewer runs take as much longer each.
	mostSplit = 8
	// quickSearch is the number of weights up to which a packing is found in no time.
	quickSearch = 1 << 22
)

// sideBySide returns the packing of several samples in spare slots that takes the
// least in total for a batch, or nil where there is none. Where a search takes
// long there is one, for as many samples as come together, or as leave room for a
// whole channel in every ciphertext.
func (u *unit) sideBySide(batch int, total func(*packState) float64) *packState {
	widest, channel, weights := 1, 1, 0
	for _, n := range u.nodes {
		widest = max(widest, nextPow2(n.elems()))
		if _, _, h, w, ok := spatial(n.shape); ok {
			channel = max(channel, nextPow2(h*w))
		}
		for _, m := range n.mats {
			weights += m.NNZ()
		}
	}
	slots := u.par.Slots()
	most := min(nextPow2(batch), slots/2, mostSplit*slots/widest)
	if weights > quickSearch {
		most = min(most, slots/channel)
	}
	var best *packState
	for log := bits.Len(uint(most)) - 1; log > 0; log-- {
		st, err := packing(u.nodes, u.par, u.opt.profile(), log)
		if err == nil && (best == nil || total(st) <= total(best)) {
			best = st
		}
		if weights > quickSearch && best != nil {
			break
		}
	}
	return best
}

func lowerPass(u *unit) error {
	u.lw = lowerScheme(u.graph.Name, u.nodes, u.state, u.par, u.opt.profile())
	u.scheme = u.lw.b.g
	return nil
}

// preprocessRange is the range of the network's input when pixels are 0..255.
func preprocessRange(p *plan.Preprocess) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	n := max(1, len(p.Mean), len(p.Std))
	for i := range n {
		mean, std := 0.0, 1.0
		if len(p.Mean) > 0 {
			mean = p.Mean[i%len(p.Mean)]
		}
		if len(p.Std) > 0 {
			std = p.Std[i%len(p.Std)]
		}
		for _, px := range []float64{0, 255} {
			x := (px*p.Scale - mean) / std
			lo, hi = min(lo, x), max(hi, x)
		}
	}
	if len(p.Pad) > 0 {
		lo, hi = min(lo, 0), max(hi, 0)
	}
	return lo, hi
}
