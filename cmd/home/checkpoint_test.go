package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/home-fhe/home/ir/plan"
)

// saver is a folder with a plan, keys and ciphertexts of several samples, and what a
// run without checkpoints gives.
type saver struct {
	t     *testing.T
	dir   string
	steps int // of the plan
	want  []byte
	took  time.Duration
}

func newSaver(t *testing.T) *saver {
	t.Helper()
	s := &saver{t: t, dir: t.TempDir()}
	models, err := filepath.Abs("../../models")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(models, "mnist_mlp_square")
	images := filepath.Join(models, "digits", "varied-images.gz")
	for _, args := range [][]string{
		{"compile", filepath.Join(name, "mnist_mlp_square.onnx"), "-o", "m.hplan", "--preprocess", filepath.Join(name, "preprocess.json"), "--calibrate", images},
		{"keygen", "m.hclient", "-o", "keys"},
		{"encrypt", "m.hclient", "-k", "keys/secret.hsk", "-i", images, "--limit", "12", "-o", "x.hct"},
		{"encrypt", "m.hclient", "-k", "keys/secret.hsk", "-i", images, "--limit", "12", "-o", "other.hct"},
		{"run", "m.hplan", "-k", "keys/eval.hevk", "-i", "x.hct", "-o", "want.hct", "--dram", "128MiB", "--pmem", "tier"},
	} {
		began := time.Now()
		if out, err := s.home(args...).CombinedOutput(); err != nil {
			t.Fatalf("home %v: %v\n%s", args, err, out)
		}
		s.took = time.Since(began)
	}
	if s.want, err = os.ReadFile(filepath.Join(s.dir, "want.hct")); err != nil {
		t.Fatal(err)
	}
	p, err := plan.Load(filepath.Join(s.dir, "m.hplan"))
	if err != nil {
		t.Fatal(err)
	}
	s.steps = len(p.Steps)
	return s
}

func (s *saver) home(args ...string) *exec.Cmd {
	cmd := exec.Command("home", args...)
	cmd.Dir = s.dir
	return cmd
}

// run is a run that is saved as often as that is possible.
func (s *saver) run(more ...string) *exec.Cmd {
	return s.home(append([]string{"run", "m.hplan", "-k", "keys/eval.hevk", "-i", "x.hct", "-o", "y.hct", "--checkpoint-share", "100%"}, more...)...)
}

// start starts a run. What it says may be read once ended is closed, when the
// process has ended.
func (s *saver) start(t *testing.T, more ...string) (cmd *exec.Cmd, msg *bytes.Buffer, ended <-chan error) {
	t.Helper()
	cmd, msg = s.run(more...), new(bytes.Buffer)
	cmd.Stderr = msg
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := make(chan error)
	go func() {
		cmd.Wait()
		close(end)
	}()
	return cmd, msg, end
}

// appears waits until a file is in the folder of checkpoints that was not there
// before, and returns false where the process ends first.
func (s *saver) appears(kind func(name string) bool, ended <-chan error) bool {
	names := func() []string {
		m, _ := filepath.Glob(filepath.Join(s.dir, "y.hct.checkpoint", "*"))
		return m
	}
	for before := names(); ; {
		select {
		case <-ended:
			return false
		case <-time.After(200 * time.Microsecond):
			for _, name := range names() {
				if kind(name) && !slices.Contains(before, name) {
					return true
				}
			}
		}
	}
}

// Kinds of files in that folder: one that is being written, a checkpoint, and one
// inside a run.
func unfinished(name string) bool { return strings.HasSuffix(name, ".tmp") }
func anywhere(name string) bool   { return strings.HasSuffix(name, ".hsnap") }
func (s *saver) inside(name string) bool {
	return anywhere(name) && !strings.HasSuffix(name, fmt.Sprintf("-%010d.hsnap", s.steps))
}

// finished verifies the result of a run that came to its end, and that it leaves
// nothing behind.
func (s *saver) finished() {
	s.t.Helper()
	got, err := os.ReadFile(filepath.Join(s.dir, "y.hct"))
	if err != nil || !bytes.Equal(got, s.want) {
		s.t.Fatalf("another result, or %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "y.hct.checkpoint")); !os.IsNotExist(err) {
		s.t.Errorf("the folder of checkpoints stays: %v", err)
	}
	if err := os.Remove(filepath.Join(s.dir, "y.hct")); err != nil {
		s.t.Fatal(err)
	}
}

// A process that is killed again and again, at any moment or in the middle of
// writing a checkpoint, comes to its end with the result of one that was not, bit
// for bit, although budget, threads and slow tier change on the way.
func TestKilledRunGoesOn(t *testing.T) {
	s := newSaver(t)
	kills := 20
	if os.Getenv("HOME_LONG") != "" {
		kills = 300
	}
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 9))
	ways := [][]string{{}, {"--dram", "128MiB", "--pmem", "tier"}, {"--dram", "200MiB", "--pmem", "tier", "--threads", "2"}, {"--threads", "1"}, {"--dram", "112MiB", "--pmem", "tier2", "--threads", "1"}}
	killed, ends, done, inside := 0, 0, 0, 0
	for ends == 0 || killed < kills || (done == 0 || inside == 0) && killed < 20*kills { // more where chance wants it
		way := ways[rng.IntN(len(ways))]
		cmd, msg, ended := s.start(t, append([]string{"--resume"}, way...)...)
		if killed < kills {
			delay := rng.Float64() * 1.2 * float64(s.took)
			switch rng.IntN(3) {
			case 1:
				s.appears(unfinished, ended)
				delay = rng.Float64() * 5e6
			case 2:
				s.appears(s.inside, ended)
				delay = 0
			}
			select {
			case <-ended:
			case <-time.After(time.Duration(delay)):
				cmd.Process.Kill()
			}
		}
		<-ended
		if strings.Contains(msg.String(), "were finished before") {
			done++
		}
		if strings.Contains(msg.String(), "goes on from step") {
			inside++
		}
		if cmd.ProcessState.Success() {
			s.finished()
			ends++
		} else if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
			t.Fatalf("seed %d: home run ended with %v\n%s", seed, cmd.ProcessState, msg.String())
		} else {
			killed++
		}
	}
	t.Logf("%d kills, %d ends; %d went on behind finished runs, %d inside a run", killed, ends, done, inside)
	if done == 0 || inside == 0 {
		t.Errorf("seed %d: of %d runs %d went on behind finished ones and %d inside one", seed, killed+ends, done, inside)
	}
}

// What a user sees: Ctrl-C says how to go on, checkpoints are not overwritten for
// want of --resume, nor taken for those of other ciphertexts, and --json tells.
func TestCheckpointCommand(t *testing.T) {
	s := newSaver(t)
	interrupted := false
	for range 10 {
		cmd, msg, ended := s.start(t, "--resume")
		if s.appears(anywhere, ended) {
			cmd.Process.Signal(os.Interrupt)
		}
		<-ended
		if cmd.ProcessState.Success() { // it was quicker
			s.finished()
			continue
		}
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(msg.String(), "--resume goes on from the last checkpoint, in y.hct.checkpoint") {
			t.Fatalf("exit code %d\n%s", code, msg.String())
		}
		interrupted = true
		break
	}
	if !interrupted {
		t.Skip("the machine is too quick, or too busy, to interrupt a run behind its first checkpoint")
	}
	refused := func(want string, cmd *exec.Cmd) {
		t.Helper()
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != exitFailure || !strings.Contains(string(out), want) {
			t.Errorf("got %v, want %q\n%s", err, want, out)
		}
	}
	refused("go on with --resume, or delete them", s.run("--checkpoint"))
	refused("it belongs to another input", s.home("run", "m.hplan", "-k", "keys/eval.hevk", "-i", "other.hct", "-o", "z.hct", "--resume", "--checkpoint-dir", "y.hct.checkpoint"))
	out, err := s.run("--resume", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var rep struct {
		Checkpoint *struct {
			Written, Failed int
			Bytes           int64
			Seconds         float64
			RunsDone        int  `json:"runs_done"`
			ResumedFrom     *int `json:"resumed_from"`
		}
	}
	if err := json.Unmarshal(out, &rep); err != nil {
		t.Fatal(err)
	}
	if c := rep.Checkpoint; c == nil || c.Failed > 0 || c.RunsDone == 0 && c.ResumedFrom == nil {
		t.Errorf("%s", out)
	}
	s.finished()
	// A folder that cannot be written is refused; one that the user named stays.
	if err := os.WriteFile(filepath.Join(s.dir, "taken"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	refused("taken", s.run("--checkpoint-dir", "taken", "--checkpoint"))
	if out, err := s.run("--checkpoint-dir", "mine", "--checkpoint").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, "mine")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
