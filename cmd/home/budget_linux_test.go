package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// peakKiB returns the largest resident set that a process has had, while it runs.
func peakKiB(pid int) (kib int64, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	_, rest, ok := bytes.Cut(b, []byte("\nVmHWM:"))
	if !ok {
		return 0, false // it has ended
	}
	_, err = fmt.Sscan(string(rest), &kib)
	return kib, err == nil
}

// The budget is kept: a LeNet run with a third of the memory its plan needs, and
// one with the least that works, give bit for bit the result of a run without a
// bound, and the operating system never sees the process above --dram.
func TestBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("takes gigabytes")
	}
	dir := t.TempDir()
	run := func(args ...string) (stdout []byte, stderr string, code int, maxRSS int64) {
		t.Helper()
		cmd := exec.Command("home", args...)
		cmd.Dir = dir
		var out, msg bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &msg
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The peak of the address space, seen from outside. The maximum of wait4 would
		// not do: it inherits the memory of the process that called exec, this test.
		ended := make(chan struct{})
		var watch sync.WaitGroup
		watch.Go(func() {
			for {
				if kib, ok := peakKiB(cmd.Process.Pid); ok {
					maxRSS = max(maxRSS, kib<<10)
				}
				select {
				case <-ended:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
		_ = cmd.Wait() // the exit code says it
		close(ended)
		watch.Wait()
		return out.Bytes(), msg.String(), cmd.ProcessState.ExitCode(), maxRSS
	}
	must := func(args ...string) []byte {
		t.Helper()
		out, msg, code, _ := run(args...)
		if code != 0 {
			t.Fatalf("home %v: exit code %d\n%s", args, code, msg)
		}
		return out
	}
	models, err := filepath.Abs("../../models")
	if err != nil {
		t.Fatal(err)
	}
	lenet := filepath.Join(models, "mnist_lenet5_relu_avg")
	must("compile", filepath.Join(lenet, "mnist_lenet5_relu_avg.onnx"), "-o", "l.hplan",
		"--calibrate", filepath.Join(models, "digits", "varied-images.gz"), "--preprocess", filepath.Join(lenet, "preprocess.json"))
	must("keygen", "l.hclient", "-o", "keys")
	must("encrypt", "l.hclient", "--key", "keys/secret.hsk", "--input", filepath.Join(models, "digits", "3.png"), "-o", "x.hct")
	must("install", "l.hplan", "--keys", "keys/eval.hevk", "--pmem", "tier")

	var info struct {
		Bytes struct {
			Footprint int64 `json:"footprint"`
		} `json:"bytes"`
	}
	if err := json.Unmarshal(must("inspect", "l.hplan", "--format", "json"), &info); err != nil || info.Bytes.Footprint == 0 {
		t.Fatalf("inspect: %v, footprint %d", err, info.Bytes.Footprint)
	}
	type report struct {
		PeakRSS int64 `json:"peak_rss_bytes"`
		Tiers   []struct {
			BytesRead int64 `json:"bytes_read"`
		} `json:"tiers"`
	}
	encrypted := func(name string, dram int64) []byte {
		t.Helper()
		args := []string{"run", "l.hplan", "--keys", "keys/eval.hevk", "--input", "x.hct", "-o", name, "--pmem", "tier", "--json"}
		if dram > 0 {
			args = append(args, "--dram", strconv.FormatInt(dram, 10))
		}
		out, msg, code, rss := run(args...)
		if code != 0 {
			t.Fatalf("home %v: exit code %d\n%s", args, code, msg)
		}
		var r report
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatal(err)
		}
		read := int64(0)
		for _, x := range r.Tiers {
			read += x.BytesRead
		}
		rss = max(rss, r.PeakRSS)
		t.Logf("--dram %d MiB: peak %d MiB, %d MiB read", dram>>20, rss>>20, read>>20)
		if dram > 0 && rss > dram {
			t.Errorf("peak of %d bytes exceeds --dram %d", rss, dram)
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := encrypted("all.hct", 0)
	if got := encrypted("third.hct", info.Bytes.Footprint/3); !bytes.Equal(got, want) {
		t.Error("a third of the memory changes the result")
	}
	_, msg, code, _ := run("run", "l.hplan", "--keys", "keys/eval.hevk", "--input", "x.hct", "-o", "y.hct", "--pmem", "tier", "--dram", "64MiB")
	m := regexp.MustCompile(`--dram (\d+)`).FindStringSubmatch(msg)
	if code != exitBudget || m == nil {
		t.Fatalf("64 MiB: exit code %d, want %d with the least budget that works\n%s", code, exitBudget, msg)
	}
	least, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if got := encrypted("least.hct", least); !bytes.Equal(got, want) {
		t.Error("the least memory changes the result")
	}
	if _, msg, code, _ := run("run", "l.hplan", "--keys", "keys/eval.hevk", "--input", "x.hct", "-o", "y.hct", "--pmem", "tier", "--dram", fmt.Sprint(least-1<<20)); code != exitBudget {
		t.Errorf("less than the least: exit code %d, want %d\n%s", code, exitBudget, msg)
	}
}
