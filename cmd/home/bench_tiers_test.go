package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/home-fhe/home/passes"
)

func init() { withFixture["tiers compared"] = testBenchTiers }

// testBenchTiers compares policies on a small network: each run moves what its plan
// says and gives the same result, what cannot run is named, and one that fails does
// not end the rest. No time is judged.
func testBenchTiers(t *testing.T) {
	fix, err := fixture()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	home := func(args ...string) (out []byte, msg string, code int) {
		t.Helper()
		cmd := exec.Command("home", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return stdout.Bytes(), stderr.String(), cmd.ProcessState.ExitCode()
	}
	plan := filepath.Join(fix, "digit.hplan")
	with := []string{"--keys", filepath.Join(fix, "keys", "eval.hevk"), "--input", filepath.Join(fix, "x.hct"), "--json"}
	bench := func(code int, more ...string) (*tierBenchReport, string) {
		t.Helper()
		out, msg, got := home(append(append([]string{"bench", "--tiers", plan}, with...), more...)...)
		if got != code {
			t.Fatalf("home bench --tiers %s: exit code %d, want %d\n%s", strings.Join(more, " "), got, code, msg)
		}
		var rep tierBenchReport
		dec := json.NewDecoder(bytes.NewReader(out))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&rep); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 1 || len(left) == 1 && left[0].Name() != "tier" {
			t.Errorf("%v is left behind, %v", left, err)
		}
		return &rep, msg
	}
	// ran says whether a row has as many runs as it should, with figures that agree.
	ran := func(r *tierBenchRow, runs int) bool {
		t.Helper()
		if r.note() != "" {
			if len(r.Seconds) > 0 {
				t.Errorf("%s, %s: %q, and yet %d runs", r.Policy, r.Budget, r.note(), len(r.Seconds))
			}
			return false
		}
		if len(r.Seconds) != runs || len(r.Setup) != runs || r.Median <= 0 || r.Slowdown <= 0 || r.Above <= 0 || r.PeakRSS <= 0 {
			t.Errorf("%+v", r)
		}
		return true
	}

	rep, _ := bench(0, "--runs", "2", "--dram", "50%,120MiB", "--pmem", "tier", "--policies", "planned,layers,lru,demand")
	if rep.Schema != 1 || rep.Threads != 1 || rep.Model != "mnist_cryptonet_square" || rep.Footprint <= 0 || rep.Machine == "" || rep.Kernels == "" ||
		!strings.Contains(rep.Technology, "file") || rep.Imitation != "" || len(rep.ReadBps) != 2 || rep.Reference != policyMemory || !rep.Same {
		t.Errorf("%+v", rep)
	}
	var got []string
	for _, r := range rep.Rows {
		got = append(got, r.Policy+" "+r.Budget)
		if !ran(r, 2) {
			t.Errorf("%s, %s: %s", r.Policy, r.Budget, r.note())
			continue
		}
		if r.Policy == policyMemory {
			if r.BytesRead != 0 || r.BytesWritten != 0 || r.DRAM != 0 {
				t.Errorf("%+v", r)
			}
			continue
		}
		// The same once more, by itself.
		args := append(append([]string{"run", plan}, with...), "-o", "y.hct", "--pmem", "tier", "--threads", "1", "--policy", r.Policy)
		if r.DRAM > 0 {
			args = append(args, "--dram", fmt.Sprint(r.DRAM))
		}
		out, msg, code := home(args...)
		var alone runReport
		if err := json.Unmarshal(out, &alone); err != nil || code != 0 || alone.Planned == nil {
			t.Fatalf("home %v: %v, exit code %d\n%s", args, err, code, msg)
		}
		want := alone.Planned
		if r.BytesRead != want.BytesRead || r.BytesWritten != want.BytesWritten || r.BytesMapped != 0 || r.Made != alone.Tiers[1].Expanded {
			t.Errorf("%s, %s: %d bytes read, %d written, %d slabs made; its plan says %d, %d, %d", r.Policy, r.Budget, r.BytesRead, r.BytesWritten, r.Made, want.BytesRead, want.BytesWritten, alone.Tiers[1].Expanded)
		}
		if r.DRAM > 0 && r.PeakRSS > r.DRAM {
			t.Errorf("%s, %s: the process took %d bytes of %d", r.Policy, r.Budget, r.PeakRSS, r.DRAM)
		}
		if r.BytesBound <= 0 || r.BytesBound > r.BytesRead || r.OverBound != float64(r.BytesRead)/float64(r.BytesBound) {
			t.Errorf("%s, %s: %d bytes read, at least %d, %v times that", r.Policy, r.Budget, r.BytesRead, r.BytesBound, r.OverBound)
		}
		if (r.Predicted > 0) != (r.Policy == string(passes.PolicyPlanned)) {
			t.Errorf("%s, %s: predicted %v s", r.Policy, r.Budget, r.Predicted)
		}
		if err := os.Remove(filepath.Join(dir, "y.hct")); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"memory all", "planned largest"}
	for _, budget := range []string{"50 %", "120 MiB"} {
		for _, policy := range []string{"planned", "layers", "lru", "demand"} {
			want = append(want, policy+" "+budget)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("rows %v, want %v", got, want)
	}

	// Nothing can be used in place in files, which is a finding at the end.
	rep, msg := bench(exitFailure, "--runs", "1", "--dram", "120MiB", "--pmem", "tier", "--policies", "mapped,planned")
	if bad, next := rep.Rows[2], rep.Rows[3]; !regexp.MustCompile(`(?m)^home: mapped, 120 MiB: .*byte-addressable`).MatchString(msg) || !strings.Contains(bad.Failed, "byte-addressable") || ran(bad, 1) || !ran(next, 1) {
		t.Errorf("%+v, %+v\n%s", bad, next, msg)
	}

	// A budget that is too small ends its row only.
	rep, _ = bench(0, "--runs", "1", "--dram", "20MiB,120MiB", "--pmem", "tier", "--policies", "planned", "--imitate", "read=2GB/s")
	if bad, next := rep.Rows[2], rep.Rows[3]; ran(bad, 1) || bad.Stopped != "the budget is too small for it" || !ran(next, 1) {
		t.Errorf("%+v, %+v", bad, next)
	}
	if !strings.Contains(rep.Technology, "imitation") || rep.Imitation == "" {
		t.Errorf("technology %q", rep.Technology)
	}

	// The policies of the operating system run or say why not.
	rep, msg = bench(0, "--runs", "1", "--dram", "150MiB", "--policies", "planned,mmap,swap", "--patience", "2m")
	for _, r := range rep.Rows[3:] {
		switch {
		case r.Policy == string(passes.PolicyPlanned):
			if !ran(r, 1) {
				t.Errorf("%+v", r)
			}
		case r.Skipped != "":
			t.Logf("NOT TESTED: %s, %s: %s", r.Policy, r.Budget, r.Skipped)
			if !strings.Contains(msg, fmt.Sprintf("%s, %s: skipped: %s", r.Policy, r.Budget, r.Skipped)) {
				t.Errorf("%s is skipped in silence\n%s", r.Policy, msg)
			}
		case ran(r, 1) && r.Group == nil || r.Failed != "":
			t.Errorf("%+v", r)
		}
	}
	if !rep.Same {
		t.Error("the results differ")
	}
}
