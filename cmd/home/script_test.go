package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"home": func() { os.Exit(start(os.Args[1:])) }})
}

// fixture is a plan with keys and a ciphertext, made once for all scripts.
var fixture = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "home-test-*")
	if err != nil {
		return "", err
	}
	models, err := filepath.Abs("../../models")
	if err != nil {
		return "", err
	}
	name := filepath.Join(models, "mnist_cryptonet_square")
	for _, args := range [][]string{
		{"compile", filepath.Join(name, "mnist_cryptonet_square.onnx"), "-o", "digit.hplan", "--preprocess", filepath.Join(name, "preprocess.json"), "--calibrate", filepath.Join(models, "digits", "varied-images.gz")},
		{"keygen", "digit.hclient", "-o", "keys"},
		{"keygen", "digit.hclient", "-o", "other"},
		{"encrypt", "digit.hclient", "-k", "keys/secret.hsk", "-i", filepath.Join(models, "digits", "7.png"), "-o", "x.hct"},
		{"run", "digit.hplan", "-k", "keys/eval.hevk", "-i", "x.hct", "-o", "y.hct"},
	} {
		cmd := exec.Command("home", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("home %v: %w\n%s", args, err, out)
		}
	}
	return dir, nil
})

// withFixture are tests that share the fixture.
var withFixture = map[string]func(*testing.T){"claimed precision": testClaimedPrecision}

func TestScripts(t *testing.T) {
	t.Cleanup(func() {
		if dir, _ := fixture(); dir != "" {
			os.RemoveAll(dir)
		}
	})
	models, err := filepath.Abs("../../models")
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range withFixture {
		t.Run(name, f)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			dir, err := fixture()
			if err != nil {
				return err
			}
			e.Setenv("FIX", dir)
			e.Setenv("MODELS", models)
			for name, model := range map[string][]byte{"gru.onnx": tinyModel("GRU"), "ok.onnx": tinyModel("Relu"), "two.onnx": twoModel()} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), model, 0o644); err != nil {
					return err
				}
			}
			// Two labels.
			if err := os.WriteFile(filepath.Join(e.WorkDir, "labels.idx"), []byte{0, 0, 8, 1, 0, 0, 0, 2, 0, 1}, 0o644); err != nil {
				return err
			}
			// Two pictures of 1x4 pixels.
			idx := []byte{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 1, 2, 3, 252, 253, 254, 255}
			return os.WriteFile(filepath.Join(e.WorkDir, "in.idx"), idx, 0o644)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "cut": cutFile, "flip": flipByte, "version": otherVersion, "weaken": weaken, "modulus": otherModulus,
		},
	})
}

// panicked matches what a broken invariant or the Go runtime says in the end.
var panicked = regexp.MustCompile(`goroutine |\bBUG|this is a bug`)

// exits N command...: runs the command and wants exit code N.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil {
		ts.Fatalf("usage: exits code command...")
	}
	got := 0
	var ee *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ee) {
		got = ee.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	if panicked.MatchString(ts.ReadFile("stderr")) {
		ts.Fatalf("it panicked")
	}
}

// cut from to n: copies the first n bytes of a file, or all but n for a
// negative n.
func cutFile(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	if n < 0 {
		n += len(b)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b[:n], 0o644))
}

// flip from to: copies a file with one bit changed in the middle.
func flipByte(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	b[len(b)/2] ^= 0x10
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o644))
}

// version magic to: writes a well-formed file of format version 99.
func otherVersion(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(plan.WriteFile(ts.MkAbs(args[1]), plan.Options{Magic: args[0], Version: 99}, func(w *plan.Writer) error {
		return w.Section("meta", []byte("from the future"))
	}))
}

// weaken from to stamp: replaces the parameters of a client file by ones far
// below 128 bits, with or without the insecure stamp.
func weaken(ts *testscript.TestScript, _ bool, args []string) {
	c, err := plan.LoadClient(ts.MkAbs(args[0]))
	ts.Check(err)
	p := &c.Params
	sizes := make([]int, len(p.Q))
	for i := range sizes {
		sizes[i] = 58
	}
	weak, err := ir.NewParams("innocent", p.LogN, p.Ring, p.Secret, sizes, []int{60, 60}, p.LogScale)
	ts.Check(err)
	weak.Insecure = args[2] == "stamped"
	c.Params = *weak
	ts.Check(c.Save(ts.MkAbs(args[1])))
}

// modulus from to q|logn: copies a plan, or the client's part of one, with q in place
// of its first prime or of another exponent of the ring degree, in a file that is well
// formed otherwise.
func otherModulus(ts *testscript.TestScript, _ bool, args []string) {
	change := func(p *ir.Params) {
		n, err := strconv.ParseUint(args[2], 10, 64)
		ts.Check(err)
		if n < 100 {
			p.LogN = int(n)
		} else {
			p.Q[0] = n
		}
	}
	if strings.HasSuffix(args[0], ".hclient") {
		c, err := plan.LoadClient(ts.MkAbs(args[0]))
		ts.Check(err)
		change(&c.Params)
		ts.Check(c.Save(ts.MkAbs(args[1])))
		return
	}
	p, err := plan.Load(ts.MkAbs(args[0]))
	ts.Check(err)
	change(&p.Params)
	ts.Check(p.Save(ts.MkAbs(args[1])))
}

// tinyModel is an ONNX model of one node with a vector of four in and out.
func tinyModel(op string) []byte {
	return onnxModel([]string{"x"}, []string{"y"}, onnxNode{"the_node", op, []string{"x"}, "y"})
}

// twoModel is an ONNX model with two inputs and two outputs: sum and difference.
func twoModel() []byte {
	in := []string{"a", "b"}
	return onnxModel(in, []string{"sum", "a/b"}, onnxNode{"plus", "Add", in, "sum"}, onnxNode{"minus", "Sub", in, "a/b"})
}

type onnxNode struct {
	name, op string
	in       []string
	out      string
}

// onnxModel writes a model whose inputs and outputs are vectors of four.
func onnxModel(in, out []string, nodes ...onnxNode) []byte {
	msg := func(num protowire.Number, body ...[]byte) []byte {
		var b []byte
		for _, x := range body {
			b = append(b, x...)
		}
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	str := func(num protowire.Number, s string) []byte { return msg(num, []byte(s)) }
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	value := func(name string) []byte {
		shape := msg(2, msg(1, num(1, 1)), msg(1, num(1, 4)))
		return append(str(1, name), msg(2, msg(1, num(1, 1), shape))...)
	}
	graph := [][]byte{str(2, "tiny")}
	for _, n := range nodes {
		var fields [][]byte
		for _, x := range n.in {
			fields = append(fields, str(1, x))
		}
		graph = append(graph, msg(1, append(fields, str(2, n.out), str(3, n.name), str(4, n.op))...))
	}
	for _, x := range in {
		graph = append(graph, msg(11, value(x)))
	}
	for _, x := range out {
		graph = append(graph, msg(12, value(x)))
	}
	model := append(num(1, 8), msg(7, graph...)...)
	return append(model, msg(8, num(2, 13))...)
}

// Ctrl-C while keys are being written: exit code 130, and nothing half done is
// left behind.
func TestInterrupt(t *testing.T) {
	dir := t.TempDir()
	home := func(args ...string) *exec.Cmd {
		cmd := exec.Command("home", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		return cmd
	}
	models, err := filepath.Abs("../../models")
	if err != nil {
		t.Fatal(err)
	}
	lenet := filepath.Join(models, "mnist_lenet5_relu_avg")
	if out, err := home("compile", filepath.Join(lenet, "mnist_lenet5_relu_avg.onnx"), "-o", "l.hplan", "--calibrate", filepath.Join(models, "digits", "varied-images.gz"),
		"--calibrate-limit", "60", "--preprocess", filepath.Join(lenet, "preprocess.json")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, args := range map[string][]string{
		"keygen": {"keygen", "l.hclient", "-o", "."},
		"one go": {"run", "l.hplan", "--mode", "encrypted", "-i", filepath.Join(models, "digits", "1.png")},
		"trial":  {"evaluate", "l.hplan", "--mode", "encrypted", "-i", filepath.Join(models, "digits", "varied-images.gz"), "-l", filepath.Join(models, "digits", "varied-labels.gz")},
	} {
		t.Run(name, func(t *testing.T) {
			var cmd *exec.Cmd
			var msg strings.Builder
			for cmd == nil || cmd.ProcessState.Success() { // again, where it was quicker than the signal
				os.Remove(filepath.Join(dir, secretName))
				os.Remove(filepath.Join(dir, evalName))
				cmd = home(args...)
				cmd.Stderr = &msg
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() {
					cmd.Wait()
					close(ended)
				}()
				waiting := true
				for waiting && len(temporary(t, dir)) == 0 {
					select {
					case <-ended:
						waiting = false
					case <-time.After(5 * time.Millisecond):
					}
				}
				if err := cmd.Process.Signal(syscall.SIGINT); err != nil && waiting && !errors.Is(err, os.ErrProcessDone) {
					t.Error(err)
				}
				<-ended
			}
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
				t.Errorf("exit code %d, want %d\n%s", code, exitInterrupted, msg.String())
			}
			if left := temporary(t, dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := os.Stat(filepath.Join(dir, secretName)); err == nil {
				t.Error("a secret key without evaluation keys was left behind")
			}
		})
	}
}

// temporary lists the temporary files and folders in dir.
func temporary(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{".home-*", "home-*"} {
		m, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m...)
	}
	return out
}
