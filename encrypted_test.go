package home_test

import (
	"context"
	"math"
	"path/filepath"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/backend/lattigo"
	"github.com/home-fhe/home/frontend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
)

// party is client and server in one process.
type party struct {
	plan *plan.Plan
	sk   *lattigo.SecretKey
	keys *lattigo.KeySet
	e    backend.Engine
	exec *runtime.Executor
	opts []lattigo.Option
}

// keySource hands keys of a set to the runtime.
type keySource struct{ *lattigo.KeySet }

func (k keySource) ID() string { return k.SecretID() }

func (k keySource) Key(rot, level int, dst [][]byte, seed []byte) error {
	return k.Parts(lattigo.KeySpec{Rot: rot, Level: level}, dst, seed)
}

// newParty runs a plan with all keys and weights in memory.
func newParty(t testing.TB, p *plan.Plan, threads int, opts ...lattigo.Option) *party {
	t.Helper()
	q := enroll(t, p, opts...)
	q.serve(t, runtime.Options{Threads: threads, Keys: keySource{q.keys}})
	return q
}

// enroll makes a client's keys and opens a server's engine.
func enroll(t testing.TB, p *plan.Plan, opts ...lattigo.Option) *party {
	t.Helper()
	sk, err := lattigo.NewSecretKey(&p.Params, opts...)
	if err != nil {
		t.Fatal(err)
	}
	var specs []lattigo.KeySpec
	for _, k := range p.Keys() {
		specs = append(specs, lattigo.KeySpec{Rot: k.Rot, Level: k.Level})
	}
	path := filepath.Join(t.TempDir(), "eval.hevk")
	if err := lattigo.CreateKeySet(path, sk, &p.Params, specs, nil, opts...); err != nil {
		t.Fatal(err)
	}
	keys, err := lattigo.OpenKeySet(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	e, err := lattigo.Open(&p.Params, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return &party{plan: p, sk: sk, keys: keys, e: e, opts: opts}
}

// serve makes the executor.
func (q *party) serve(t testing.TB, o runtime.Options) {
	t.Helper()
	x, err := runtime.NewExecutor(context.Background(), q.plan, q.e, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	q.exec = x
}

// run encrypts one sample, runs the plan and decrypts its first output.
func (q *party) run(t testing.TB, x *ir.Array) (*ir.Array, runtime.Report) {
	t.Helper()
	all, rep := q.runAll(t, x, 1)
	return all[0], rep
}

// runAll encrypts as many samples as one run takes, runs the plan and decrypts
// every output.
func (q *party) runAll(t testing.TB, x *ir.Array, batch int) ([]*ir.Array, runtime.Report) {
	t.Helper()
	ct, inputs := q.encrypt(t, x, batch)
	res, rep, err := q.exec.Run(context.Background(), inputs)
	if err != nil {
		t.Fatal(err)
	}
	return q.decrypt(t, ct, res, batch), rep
}

// encrypt returns what a client sends and how the executor reads it.
func (q *party) encrypt(t testing.TB, x *ir.Array, batch int) (*lattigo.Ciphertexts, runtime.Inputs) {
	t.Helper()
	in := &q.plan.Inputs[0]
	values, err := runtime.Pack(in, x)
	if err != nil {
		t.Fatal(err)
	}
	ct, err := lattigo.Encrypt(q.sk, &q.plan.Params, "test", batch, []lattigo.PortValues{{Port: in.Name, Level: in.Level, Scale: in.Scale, Values: values}}, q.opts...)
	if err != nil {
		t.Fatal(err)
	}
	group, err := ct.Group(in.Name)
	if err != nil {
		t.Fatal(err)
	}
	return ct, func(obj plan.ObjectID, dst [][]byte) error {
		for i, id := range in.Objects {
			if id == obj {
				return group.Load(i, dst)
			}
		}
		panic("no such input")
	}
}

// decrypt reads every output of a run.
func (q *party) decrypt(t testing.TB, ct *lattigo.Ciphertexts, res runtime.Outputs, batch int) []*ir.Array {
	t.Helper()
	var all []*ir.Array
	for i := range q.plan.Outputs {
		out := &q.plan.Outputs[i]
		reply := ct.Reply()
		for _, id := range out.Objects {
			if err := reply.Append(out.Name, out.Level, out.Scale, res[id]); err != nil {
				t.Fatal(err)
			}
		}
		g, err := reply.Group(out.Name)
		if err != nil {
			t.Fatal(err)
		}
		slots, err := lattigo.Decrypt(q.sk, reply, g)
		if err != nil {
			t.Fatal(err)
		}
		a, err := runtime.Unpack(out, slots, batch)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

func argmax(x []float64) int {
	b := 0
	for i := range x {
		if x[i] > x[b] {
			b = i
		}
	}
	return b
}

// TestEncryptedModels runs trained networks on encrypted images at 128 bits and
// holds them against the approximated network in the clear: the same class on
// every image, and outputs within 1e-3 of the largest.
func TestEncryptedModels(t *testing.T) {
	mnist := func(mean, std float64) func(t testing.TB, shape []int, calib, n int) (a, b []*ir.Array) {
		return func(t testing.TB, shape []int, calib, n int) (a, b []*ir.Array) {
			return images(t, mnistTrain, calib, shape, mean, std),
				images(t, mnistTest, n, shape, mean, std)
		}
	}
	for _, c := range []struct {
		name string
		data func(t testing.TB, shape []int, calib, n int) (a, b []*ir.Array)
	}{
		{"mnist_trained_mlp_square", mnist(0, 1)},
		{"mnist_trained_cryptonet_square", mnist(0, 1)},
		{"wdbc_mlp_sigmoid", func(t testing.TB, _ []int, calib, n int) (a, b []*ir.Array) {
			return wdbcRows(t, 0, min(calib, 400)), wdbcRows(t, 400, n)
		}},
		{"mnist_trained_mlp_relu", mnist(0, 1)},
		{"mnist_heir_mlp", mnist(0.1307, 0.3081)},
		{"mnist_trained_cnn_silu_bn", mnist(0, 1)},
		{"mnist_trained_lenet5_relu_avg", mnist(0, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := frontend.Load(filepath.Join(dataDir(t), "models", c.name+".onnx"), frontend.Options{})
			if err != nil {
				t.Fatal(err)
			}
			const n = 20
			calib, tests := c.data(t, m.Graph.Inputs[0].Type.Shape, 500, n)
			p, err := passes.Compile(passes.Source{Graph: m.Graph, Client: m.Client, Digest: m.Digest}, passes.Options{Calibrate: calib})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Params.CheckSecurity(); err != nil {
				t.Fatal(err)
			}
			q := newParty(t, p, 2)
			worst, sec, cpu := 0.0, 0.0, 0.0
			for i, x := range tests {
				want, _, err := clear.EvalTensor(p.Network, []*ir.Array{x}, clear.Options{Approx: true})
				if err != nil {
					t.Fatal(err)
				}
				got, rep := q.run(t, x)
				sec, cpu = sec+rep.Seconds, cpu+rep.CPUSeconds
				w := want[0].Data
				if argmax(got.Data) != argmax(w) {
					t.Errorf("image %d: class %d encrypted, %d in the clear", i, argmax(got.Data), argmax(w))
				}
				for k := range w {
					e := math.Abs(got.Data[k]-w[k]) / max(1, want[0].MaxAbs())
					worst = max(worst, e)
				}
				if rep.Counts != p.Counts {
					t.Errorf("executed %+v, planned %+v", rep.Counts, p.Counts)
				}
			}
			k := float64(len(tests))
			t.Logf("%s: %d images, %s, largest error %.2g of max(1,|logit|), predicted 2^-%.1f, %.2f s wall, %.2f s CPU each, %d rotations",
				c.name, len(tests), p.Params.Name, worst, p.Predicted.Bits, sec/k, cpu/k, p.Counts.Rotations)
			if worst > 1e-3 {
				t.Errorf("largest error %.3g exceeds 1e-3", worst)
			}
		})
	}
}
