package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

// The process stays within --dram as the kernel counts it: install and run, each in
// a control group whose limit is the budget, page cache and the kernel's own memory
// included, succeed with the result of a run without a bound, and nothing is killed.
// That the limit bites shows in a run that holds everything in memory.
func TestBudgetHardLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("takes gigabytes")
	}
	if g, err := newMemoryGroup(1<<30, false); err != nil {
		t.Skipf("NOT CHECKED here, only the peak of the process is, by TestBudget: %v", err)
	} else if err := g.remove(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(limit int64, args ...string) (out []byte, msg string, u groupUsage, err error) {
		t.Helper()
		line := append([]string{"home"}, args...)
		var g *memoryGroup
		if limit > 0 {
			if g, err = newMemoryGroup(limit, false); err != nil {
				t.Fatal(err)
			}
			line = g.wrap(line)
			defer func() {
				if err := g.remove(); err != nil {
					t.Error(err)
				}
			}()
		}
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Dir = dir
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err = cmd.Run()
		if g != nil {
			var bad error
			if u, bad = g.usage(); bad != nil {
				t.Fatal(bad)
			}
		}
		return stdout.Bytes(), stderr.String(), u, err
	}
	// must runs within a limit that the process is told, or none.
	must := func(limit int64, args ...string) []byte {
		t.Helper()
		if limit > 0 {
			args = append(args, "--dram", strconv.FormatInt(limit, 10))
		}
		out, msg, u, err := run(limit, args...)
		if err != nil {
			t.Fatalf("home %v: %v, %d killed\n%s", args, err, u.Kills, msg)
		}
		if limit > 0 {
			t.Logf("%s --dram %d MiB: at most %d MiB, the limit was met %d times", args[0], limit>>20, u.Peak>>20, u.Hits)
		}
		if u.Kills > 0 || u.Peak > limit && limit > 0 {
			t.Errorf("home %v: %d killed, at most %d bytes of %d", args, u.Kills, u.Peak, limit)
		}
		return out
	}
	abs, err := filepath.Abs("../../models")
	if err != nil {
		t.Fatal(err)
	}
	lenet := filepath.Join(abs, "mnist_lenet5_relu_avg")
	must(0, "compile", filepath.Join(lenet, "mnist_lenet5_relu_avg.onnx"), "-o", "l.hplan",
		"--calibrate", filepath.Join(abs, "digits", "varied-images.gz"), "--preprocess", filepath.Join(lenet, "preprocess.json"))
	must(0, "keygen", "l.hclient", "-o", "keys")
	must(0, "encrypt", "l.hclient", "--key", "keys/secret.hsk", "--input", filepath.Join(abs, "digits", "3.png"), "-o", "x.hct")
	var info struct {
		Bytes struct {
			Footprint int64 `json:"footprint"`
		} `json:"bytes"`
	}
	if err := json.Unmarshal(must(0, "inspect", "l.hplan", "--format", "json"), &info); err != nil || info.Bytes.Footprint == 0 {
		t.Fatalf("inspect: %v, footprint %d", err, info.Bytes.Footprint)
	}
	on := func(out string, more ...string) []string {
		return append([]string{"run", "l.hplan", "--keys", "keys/eval.hevk", "--input", "x.hct", "-o", out}, more...)
	}
	_, msg, _, err := run(0, on("y.hct", "--pmem", "none", "--dram", "64MiB")...)
	m := regexp.MustCompile(`--dram (\d+)`).FindStringSubmatch(msg)
	if err == nil || m == nil {
		t.Fatalf("64 MiB: %v\n%s", err, msg)
	}
	least, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, limit := range []int64{info.Bytes.Footprint / 3, info.Bytes.Footprint / 10, least} {
		tier := filepath.Join(dir, "tier")
		must(limit, "install", "l.hplan", "--keys", "keys/eval.hevk", "--pmem", tier)
		must(limit, on("y.hct", "--pmem", tier)...)
		got, err := os.ReadFile(filepath.Join(dir, "y.hct"))
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got
		} else if !bytes.Equal(got, want) {
			t.Errorf("%d bytes of memory change the result", limit)
		}
		if err := os.RemoveAll(tier); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, u, err := run(info.Bytes.Footprint/3, on("z.hct", "--policy", policyMemory)...); err == nil || u.Kills == 0 {
		t.Errorf("a run that holds everything fits into a third of it: %v, %d killed", err, u.Kills)
	}
	if _, err := os.Stat(filepath.Join(dir, "z.hct")); err == nil {
		t.Error("a run that was killed left a result")
	}
}

// Groups are made within the own group of version 1, and within or beside that of
// version 2.
func TestGroupParents(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"user.slice/app", "unified"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "cgroup.controllers"), []byte("memory\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := func(dir string, v2 bool) groupParent { return groupParent{filepath.Join(root, dir), v2} }
	for _, tc := range []struct {
		own  string
		want []groupParent
	}{
		{"4:memory:/a/b\n3:cpu:/\n", []groupParent{at("memory/a/b", false)}},
		{"0::/user.slice/app\n", []groupParent{at("user.slice/app", true), at("user.slice", true)}},
		{"4:memory:/\n0::/\n", []groupParent{at("memory", false), at("unified", true)}},
		{"0::/elsewhere\n", nil},
		{"", nil},
	} {
		if got := groupParents(root, tc.own); !slices.Equal(got, tc.want) {
			t.Errorf("%q: %v, want %v", tc.own, got, tc.want)
		}
	}
}
