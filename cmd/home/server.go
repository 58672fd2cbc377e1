package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

// serverFlags say with what means a plan runs on ciphertexts.
type serverFlags struct {
	tierFlags
	PMem    string `name:"pmem" placeholder:"DIR" help:"Folder of the slow tier, for keys, weights and what does not fit in DRAM: persistent memory (a DAX file system, or a device such as /dev/dax0.0), or files on a disk that stand in for it. Default with --dram: the folder tier beside the keys."`
	Threads int    `short:"t" placeholder:"N" help:"Steps to run at once. Default: one per processor."`
}

// maxThreads is far more than any machine has cores: each thread takes scratch
// memory of its own.
const maxThreads = 1024

func (f *serverFlags) threads() (int, error) {
	if f.Threads < 0 || f.Threads > maxThreads {
		return 0, misuse("--threads must be between 0, one per processor, and %d", maxThreads)
	}
	if f.Threads == 0 {
		return runtime.Threads(), nil
	}
	return f.Threads, nil
}

// keySource offers a key set to the runtime.
type keySource struct{ *lattigo.KeySet }

// ID names the secret key, not the file: a set made again or extended for the
// same secret key is the same to the slow tier.
func (k keySource) ID() string { return k.SecretID() + "/" + lattigo.ParamsFingerprint(k.Params()) }

func (k keySource) Key(rot, level int, dst [][]byte, seed []byte) error {
	return k.Parts(lattigo.KeySpec{Rot: rot, Level: level}, dst, seed)
}

// server runs one plan with one key set. It holds ciphertexts, weights and
// evaluation keys, never a secret key.
type server struct {
	p       *plan.Plan
	print   string
	keys    *lattigo.KeySet
	engine  backend.Engine
	store   *runtime.Store
	durable *runtime.Durable // nil where runs are not saved on their way
	exec    *runtime.Executor
	slow    *store.Throttle // where the slow tier is an imitation
	setup   float64
	closers []func() error
}

// serverOptions are what the verbs that run plans agree on.
type serverOptions struct {
	keys     string
	budget   int64 // of the whole process; 0 means that of the plan, or no bound
	pmem     string
	tier     tierFlags
	threads  int
	profile  *backend.Profile
	insecure bool
	events   runtime.Listener
	held     int64                   // bytes of ciphertexts that wait in memory before and after their run
	reuse    bool                    // several runs: keep in memory between them what fits
	durable  *runtime.DurableOptions // save runs on their way; the server fills in plan and keys
	policy   string
}

// policyMemory holds everything in DRAM and has no slow tier.
const policyMemory = "memory"

// baseline returns the policy of a run that serves to compare with.
func (o *serverOptions) baseline() (passes.Policy, bool) {
	p := passes.Policy(o.policy)
	return p, slices.Contains(passes.Baselines(), p)
}

// fit chooses a budget where the user and the plan give none and the plan does
// not fit in the memory of the machine: three quarters of it.
func (o *serverOptions) fit(e *env, p *plan.Plan) {
	if o.budget == 0 && p.Tier != nil {
		o.budget = p.Tier.Budget
	}
	most := runtime.Memory() / 4 * 3
	if o.budget > 0 || most == 0 || p.Bytes.Footprint+passes.TierReserve(&p.Params, o.threads)+p.PlainBytes() <= most {
		return
	}
	o.budget = most
	e.note("keys and weights of %s do not fit in memory: running within %s, the rest in the slow tier; --dram sets another budget", p.Model, byteSize(most))
}

// newServer opens keys, engine and slow tier, installs what is missing and makes
// an executor.
func newServer(ctx context.Context, p *plan.Plan, o serverOptions) (_ *server, err error) {
	s := &server{p: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := p.CheckSecurity(); err != nil && !o.insecure {
		return nil, err
	}
	if s.print, err = p.Fingerprint(); err != nil {
		return nil, err
	}
	if s.keys, err = openKeys(o.keys); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.keys.Close)
	if err := s.keys.Check(&p.Params, ""); err != nil {
		return nil, err
	}
	if err := missingKeys(p, s.keys, o.keys); err != nil {
		return nil, err
	}
	if s.engine, err = lattigo.Open(&p.Params, append(insecureOption(o.insecure), lattigo.Threads(o.threads))...); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.engine.Close)
	if o.profile, err = o.tier.profile(o.profile); err != nil {
		return nil, err
	}
	if err := s.residency(&o); err != nil {
		return nil, err
	}
	if o.tier.Imitate != "" && o.pmem == "" {
		return nil, misuse("--imitate slows the slow tier down, and this run has none: add --dram or --pmem")
	}
	if d := o.durable; d != nil {
		d.Plan, d.Keys = s.print, keySource{s.keys}.ID()
		if s.durable, err = runtime.OpenDurable(p, s.engine.SlabBytes(), *d); err != nil {
			return nil, err
		}
		s.closers = append(s.closers, s.durable.Close)
	}
	ro := runtime.Options{Threads: o.threads, Keys: keySource{s.keys}, Events: o.events, Reuse: o.reuse}
	_, ro.Synchronous = o.baseline()
	if o.pmem != "" {
		tech, slow, err := o.tier.technology(o.pmem)
		if err != nil {
			return nil, err
		}
		s.slow = slow
		rep, err := runtime.Install(ctx, p, s.engine, keySource{s.keys}, o.pmem, runtime.InstallOptions{
			Threads: o.threads, Budget: p.Tier.Budget, Reserve: p.Tier.Reserve, Technology: tech, Events: o.events,
		})
		if err != nil {
			return nil, err
		}
		s.setup = rep.SetupSeconds
		if s.store, err = runtime.OpenStore(p, s.engine, keySource{s.keys}.ID(), o.pmem, tech); err != nil {
			return nil, err
		}
		s.closers = append(s.closers, s.store.Close)
		ro.Slow, ro.Keys = s.store, nil
		s.closers = append(s.closers, processors(ro.Processors()))
		p.Plains, p.Network = nil, nil // installed: not needed any more
		s.limitHeap(&o)
		debug.FreeOSMemory()
	}
	began := time.Now()
	if s.exec, err = runtime.NewExecutor(ctx, p, s.engine, ro); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.exec.Close)
	s.setup += time.Since(began).Seconds()
	return s, nil
}

// processors gives the Go scheduler at least n processors, unless the user has set
// their number, and returns what undoes it.
func processors(n int) func() error {
	before := goruntime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") != "" || n <= before {
		return func() error { return nil }
	}
	goruntime.GOMAXPROCS(n)
	return func() error { goruntime.GOMAXPROCS(before); return nil }
}

// heldInReserve is how many bytes of waiting ciphertexts the runtime reserve of a
// budget covers.
const heldInReserve = 8 << 20

// residency makes the tier plan again where the budget, the number of threads
// or the cost profile differ from those at compile time, and keeps the Go heap
// to the part of the budget that is set aside for it.
func (s *server) residency(o *serverOptions) error {
	if o.pmem == "" {
		if o.budget == 0 {
			return nil
		}
		o.pmem = filepath.Join(filepath.Dir(o.keys), "tier")
	}
	held := max(0, o.held-heldInReserve)
	budget := o.budget
	if budget > 0 {
		budget = max(1, budget-held)
	}
	err := passes.Retier(s.p, budget, o.profile, o.threads)
	if budgetError(err) && o.threads > 1 {
		o.threads = 1 // each thread wants scratch memory of its own
		err = passes.Retier(s.p, budget, o.profile, o.threads)
	}
	var small *passes.BudgetError
	if held > 0 && errors.As(err, &small) {
		return fmt.Errorf("%w; %s of it for the ciphertexts of all samples: fewer at a time need less",
			&passes.BudgetError{Budget: o.budget, Least: small.Least + held}, byteSize(o.held))
	}
	if err != nil {
		return err
	}
	if policy, ok := o.baseline(); ok {
		forms := s.p.Tier.Forms
		if policy == passes.PolicyMapped {
			forms = plan.Forms{} // what is read in place has to lie there
		}
		t, err := passes.Baseline(s.p, policy, forms, budget, s.p.Tier.Reserve)
		if err != nil {
			return err
		}
		if err := passes.CheckTier(s.p, t); err != nil {
			return fmt.Errorf("BUG: the tier plan fails its check: %w", err)
		}
		s.p.Tier = t
	}
	s.limitHeap(o)
	return nil
}

// limitHeap keeps the Go heap to what a budget sets aside for it.
func (s *server) limitHeap(o *serverOptions) {
	if o.budget > 0 {
		held := max(0, o.held-heldInReserve) + s.p.PlainBytes()
		runtime.LimitHeap(s.p.Tier.Reserve + held + held/3) // of which it takes three quarters
	}
}

// missingKeys refuses a key set that was made for another plan.
func missingKeys(p *plan.Plan, keys *lattigo.KeySet, path string) error {
	missing := 0
	for _, k := range p.Keys() {
		if _, ok := keys.Find(k.Rot, k.Level); !ok {
			missing++
		}
	}
	if missing > 0 {
		return fmt.Errorf("%s lacks %d of the %d keys that %s needs: run keygen --extend with the plan's .hclient", path, missing, len(p.Keys()), p.Model)
	}
	return nil
}

// check refuses ciphertexts that belong to other keys or another plan.
func (s *server) check(ct *lattigo.Ciphertexts) error {
	if err := ct.Check(&s.p.Params, s.print, s.keys.SecretID()); err != nil {
		return err
	}
	if len(s.p.Inputs) != 1 || len(s.p.Outputs) != 1 {
		return fmt.Errorf("BUG: a plan with %d inputs and %d outputs", len(s.p.Inputs), len(s.p.Outputs))
	}
	port := &s.p.Inputs[0]
	g, err := ct.Group(port.Name)
	if err != nil {
		return err
	}
	if g.Level != port.Level || !g.Scale.Equal(port.Scale) {
		return fmt.Errorf("%s: ciphertexts at level %d and scale %s, the plan starts at level %d and scale %s", port.Name, g.Level, g.Scale, port.Level, port.Scale)
	}
	if n := s.runs(ct); ct.Samples < 1 || g.Len() != n*len(port.Objects) {
		return fmt.Errorf("%s: %d ciphertexts for %d samples, want %d", port.Name, g.Len(), ct.Samples, n*len(port.Objects))
	}
	return nil
}

// runs returns how many runs the samples of a file take.
func (s *server) runs(ct *lattigo.Ciphertexts) int {
	batch, _ := portRun(&s.p.Inputs[0])
	return (ct.Samples + batch - 1) / batch
}

// run executes the plan on batch i of the ciphertexts and appends the results.
func (s *server) run(ctx context.Context, ct, reply *lattigo.Ciphertexts, i int) (*runtime.Report, error) {
	in := &s.p.Inputs[0]
	g, err := ct.Group(in.Name)
	if err != nil {
		return nil, err
	}
	at := map[plan.ObjectID]int{}
	for k, id := range in.Objects {
		at[id] = i*len(in.Objects) + k
	}
	load := func(obj plan.ObjectID, dst [][]byte) error { return g.Load(at[obj], dst) }
	var out runtime.Outputs
	var rep runtime.Report
	if s.durable != nil {
		out, rep, err = s.durable.Run(ctx, s.exec, i, load)
	} else {
		out, rep, err = s.exec.Run(ctx, load)
	}
	if err != nil {
		return nil, err
	}
	rep.SetupSeconds, s.setup = s.setup, 0 // reported once
	port := &s.p.Outputs[0]
	for _, id := range port.Objects {
		if err := reply.Append(port.Name, port.Level, port.Scale, out[id]); err != nil {
			return nil, err
		}
	}
	if s.durable != nil && i+1 < s.runs(ct) {
		s.durable.Finished(i+1, reply.Packed(port.Name))
	}
	return &rep, nil
}

// done takes over the results of runs that were finished before the process was
// interrupted, and returns their number.
func (s *server) done(ct, reply *lattigo.Ciphertexts) (int, error) {
	if s.durable == nil {
		return 0, nil
	}
	port := &s.p.Outputs[0]
	size, err := reply.PackedBytes(port.Name)
	if err != nil {
		return 0, err
	}
	n, packed, err := s.durable.Results(size * len(port.Objects))
	if err != nil {
		return 0, err
	}
	if most := s.runs(ct); n > most {
		return 0, fmt.Errorf("checkpoint of %d runs: the inputs take %d", n, most)
	}
	return n, reply.AppendPacked(port.Name, packed)
}

// Close releases everything, last opened first.
func (s *server) Close() error {
	var err error
	for i := len(s.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, s.closers[i]())
	}
	s.closers = nil
	return err
}
