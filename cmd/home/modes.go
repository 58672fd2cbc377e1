package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/backend/sim"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

// simNetwork runs a plan on the simulated engine: levels, scales and noise as
// they will be, without encryption. Equal inputs give equal results.
func simNetwork(p *plan.Plan, pre *plan.Preprocess, prof *backend.Profile, threads int) (*network, error) {
	c, err := p.Client()
	if err != nil {
		return nil, err
	}
	if err := onePort(c); err != nil {
		return nil, err
	}
	engine, err := sim.New(&p.Params, prof, 1)
	if err != nil {
		return nil, err
	}
	in, out := &p.Inputs[0], &p.Outputs[0]
	batch, sample := portRun(in)
	own, _ := splitBatch(in.Shape)
	return &network{
		batch: batch, own: own, sample: sample, client: p.ClientOps, pre: pre, parallel: threads, close: engine.Close,
		run: func(_ context.Context, a *ir.Array) (result, error) {
			packed, err := runtime.Pack(in, a)
			if err != nil {
				return result{}, err
			}
			results := make([][]float64, len(out.Objects))
			err = backend.Interpret(p, engine,
				func(id plan.ObjectID, o backend.Operand) error {
					return engine.Encrypt(packed[slices.Index(in.Objects, id)], o)
				}, nil,
				func(id plan.ObjectID, o backend.Operand) error {
					z, ok := clear.Slots(o)
					if i := slices.Index(out.Objects, id); i >= 0 && ok {
						results[i] = slices.Clone(z)
					}
					return nil
				})
			if err != nil {
				return result{}, err
			}
			y, err := runtime.Unpack(out, results, a.Shape[0]/own)
			if err != nil {
				return result{}, err
			}
			_, stats, err := clearRows(p.Network, a, own, true)
			if err != nil {
				return result{}, err
			}
			rep := &runtime.Report{Seconds: p.Predicted.Seconds, CPUSeconds: p.Predicted.CPUSeconds, Counts: p.Counts}
			return result{out: y, stats: stats, report: rep}, nil
		},
	}, nil
}

// encryptedNetwork plays all roles: it makes keys in a folder that disappears,
// encrypts, runs and decrypts.
func encryptedNetwork(e *env, p *plan.Plan, pre *plan.Preprocess, o serverOptions) (_ *network, err error) {
	c, err := p.Client()
	if err != nil {
		return nil, err
	}
	if err := onePort(c); err != nil {
		return nil, err
	}
	opts := insecureOption(o.insecure)
	var undo []func() error
	closeAll := func() error {
		var err error
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	dir, release, err := plan.MkdirTemp("", "home-keys-*")
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() error { release(); return os.RemoveAll(dir) })
	sk, err := lattigo.NewSecretKey(&p.Params, opts...)
	if err != nil {
		return nil, err
	}
	o.keys = filepath.Join(dir, evalName)
	bar := e.bar("evaluation keys", len(c.Keys))
	err = lattigo.CreateKeySet(o.keys, sk, &p.Params, keySpecs(c), bar.of, opts...)
	bar.stop()
	if err != nil {
		return nil, err
	}
	o.fit(e, p)
	if store.IsDevice(o.pmem) {
		return nil, misuse("--pmem: keys that are made for this run go into a folder that is removed afterwards; %s is a device", o.pmem)
	}
	if o.pmem != "" || o.budget > 0 { // keys of one run must not stay behind
		if o.pmem != "" {
			if err := os.MkdirAll(o.pmem, 0o755); err != nil {
				return nil, err
			}
		}
		tier, release, err := plan.MkdirTemp(o.pmem, "home-tier-*")
		if err != nil {
			return nil, err
		}
		o.pmem = tier
		undo = append(undo, func() error { release(); return os.RemoveAll(tier) })
	}
	watch := e.watch()
	o.events = watch
	batch, sample := portRun(&p.Inputs[0])
	own, _ := splitBatch(p.Inputs[0].Shape)
	preds := c.OutputBits
	s, err := newServer(e.ctx, p, o)
	if err != nil {
		return nil, err
	}
	undo = append(undo, s.Close, func() error { watch.stop(); sayImitation(e, s.slow); return nil })
	return &network{
		batch: batch, own: own, sample: sample, client: c.ClientOps, pre: pre, parallel: 1, close: closeAll, bits: preds,
		run: func(ctx context.Context, a *ir.Array) (result, error) {
			slots, err := runtime.Pack(&c.Inputs[0], a)
			if err != nil {
				return result{}, err
			}
			port := &c.Inputs[0]
			ct, err := lattigo.Encrypt(sk, &c.Params, c.Plan, a.Shape[0], []lattigo.PortValues{{Port: port.Name, Level: port.Level, Scale: port.Scale, Values: slots}}, opts...)
			if err != nil {
				return result{}, err
			}
			reply := ct.Reply()
			rep, err := s.run(ctx, ct, reply, 0)
			if err != nil {
				return result{}, err
			}
			out, _, err := decryptAll(c, sk, reply, false)
			if err != nil {
				return result{}, err
			}
			return result{out: out, report: rep}, nil
		},
	}, nil
}

// keySpecs lists the keys that a client has to make.
func keySpecs(c *plan.Client) []lattigo.KeySpec {
	var specs []lattigo.KeySpec
	for _, k := range c.Keys {
		specs = append(specs, lattigo.KeySpec{Rot: k.Rot, Level: k.Level})
	}
	return specs
}

// serve runs a plan on a file of ciphertexts: the server's role.
func (c *runCmd) serve(e *env) error {
	switch {
	case c.Output == "":
		return misuse("missing -o FILE: where to write the results (.hct)")
	case c.Expect != "" || c.Exact || c.Raw:
		return misuse("--expect, --exact and --raw are for --mode: the server sees ciphertexts only")
	case c.JSON && c.Output == "-":
		return misuse("--json and --output - both want standard output")
	case len(c.Input) != 1:
		return misuse("--input is given %d times: one file holds the ciphertexts", len(c.Input))
	case c.Policy == policyMemory && (c.DRAM > 0 || c.PMem != ""):
		return misuse("--policy %s holds everything in DRAM: without --dram and --pmem", c.Policy)
	}
	if err := c.outputs(); err != nil {
		return err
	}
	boundHeap(c.DRAM)
	s, err := c.open(e, c.Model, modeEncrypted)
	if err != nil {
		return err
	}
	ct, err := loadCiphertexts(c.Input[0])
	if err != nil {
		return err
	}
	threads, err := c.threads()
	if err != nil {
		return err
	}
	prof, err := c.profile()
	if err != nil {
		return err
	}
	watch := e.watch()
	defer watch.stop()
	events, finish, err := c.listen(e, watch, s.plan)
	if err != nil {
		return err
	}
	if len(s.plan.Inputs) == 0 {
		return fmt.Errorf("%s has no inputs", s.plan.Model)
	}
	batch, _ := portRun(&s.plan.Inputs[0])
	reply, held, err := makeReply(s.plan, ct)
	if err != nil {
		return errors.Join(err, finish())
	}
	o := serverOptions{
		keys: c.Keys, budget: int64(c.DRAM), pmem: c.PMem, tier: c.tierFlags, threads: threads, profile: prof, insecure: c.Insecure, events: events,
		reuse: ct.Samples > batch && c.Policy == string(passes.PolicyPlanned), held: held, policy: c.Policy,
	}
	if c.Policy != policyMemory {
		o.fit(e, s.plan)
	}
	if o.durable, err = c.durable(e, c.Output, ct); err != nil {
		return errors.Join(err, finish())
	}
	srv, err := newServer(e.ctx, s.plan, o)
	if err != nil {
		return errors.Join(err, finish())
	}
	e.onInterrupt(c.saved)
	rep := runReport{Schema: 1, Model: s.plan.Model, Mode: modeEncrypted, Samples: ct.Samples, Kernels: kernelsInUse(), Policy: c.Policy, Report: runtime.Report{Tiers: []runtime.TierReport{}}}
	if srv.store != nil && c.JSON {
		if rep.Planned, err = plannedBy(s.plan); err != nil {
			return errors.Join(err, finish(), srv.Close())
		}
	}
	if err = srv.check(ct); err != nil {
		err = fmt.Errorf("%s: %w", c.Input[0], err)
	}
	first := 0
	if err == nil {
		first, err = srv.done(ct, reply)
	}
	if first > 0 {
		fmt.Fprintf(e.err, "home: %s of %s runs were finished before\n", count(first), count(srv.runs(ct)))
	}
	for i := first; err == nil && i < srv.runs(ct); i++ {
		var one *runtime.Report
		if one, err = srv.run(e.ctx, ct, reply, i); err == nil {
			rep.Runs++
			rep.add(one)
		}
	}
	watch.stop()
	sayImitation(e, srv.slow)
	if err = errors.Join(err, finish()); err == nil {
		err = reply.Save(c.Output)
	}
	if srv.durable != nil {
		saved := srv.durable.Report()
		rep.Checkpoint = &saved
		if err == nil {
			err = srv.durable.Clear()
		}
	}
	if err = errors.Join(err, srv.Close()); err != nil {
		return c.hint(err)
	}
	c.tidy()
	switch {
	case c.JSON:
		return e.printJSON(rep)
	case c.Output == "-":
		return nil
	}
	_, err = fmt.Fprintf(e.out, "%s: %s for %d sample%s, set-up %s, peak memory %s; result in %s\n",
		rep.Model, seconds(rep.Seconds), rep.Samples, plural(rep.Samples), seconds(rep.SetupSeconds), byteSize(rep.PeakRSSBytes), c.Output)
	return err
}

// makeReply makes room for the results and returns the memory that inputs and
// results take beside what the plan counts.
func makeReply(p *plan.Plan, ct *lattigo.Ciphertexts) (*lattigo.Ciphertexts, int64, error) {
	reply := ct.Reply()
	for i := range p.Outputs {
		out, runs := &p.Outputs[i], 0
		if g, err := ct.Group(p.Inputs[0].Name); err == nil { // a file without them is refused later
			runs = g.Len() / max(1, len(p.Inputs[0].Objects))
		}
		if err := reply.Grow(out.Name, out.Level, out.Scale, runs*len(out.Objects)); err != nil {
			return nil, 0, err
		}
	}
	return reply, ct.Bytes() + reply.Bytes(), nil
}

// listen chooses who hears of the events of a run: the progress bars or a log,
// and beside them the trace. finish completes the trace.
func (c *runCmd) listen(e *env, w *watch, p *plan.Plan) (runtime.Listener, func() error, error) {
	var l runtime.Listener = w
	if c.Log != "" {
		level := map[string]slog.Level{"info": slog.LevelInfo, "debug": slog.LevelDebug, "trace": runtime.LevelTrace}[c.Log]
		l = runtime.Log(slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{
			Level: level,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.LevelKey && a.Value.Any() == runtime.LevelTrace {
					a.Value = slog.StringValue("TRACE")
				}
				return a
			},
		})))
	}
	if c.Trace == "" {
		return l, func() error { return nil }, nil
	}
	f, release, err := plan.CreateTemp(filepath.Dir(c.Trace), ".home-*.tmp")
	if err != nil {
		return nil, nil, err
	}
	t := runtime.NewTrace(f, p)
	return runtime.Listeners{l, t}, func() error {
		defer release()
		err := errors.Join(t.Close(), f.Chmod(0o644), f.Close())
		if err == nil {
			err = os.Rename(f.Name(), c.Trace)
		}
		if err != nil {
			os.Remove(f.Name())
			return fmt.Errorf("--trace: %w", err)
		}
		return nil
	}, nil
}
