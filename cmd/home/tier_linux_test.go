package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() { withFixture["slow tier in trouble"] = testTierTrouble }

// testTierTrouble runs the command on slow tiers that are full, read-only, damaged, in
// use or cut short: the error says what to do, or the run recovers, and the result is
// never another.
func testTierTrouble(t *testing.T) {
	fix, err := fixture()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(fix, "y.hct"))
	if err != nil {
		t.Fatal(err)
	}
	plan, keys := filepath.Join(fix, "digit.hplan"), filepath.Join(fix, "keys", "eval.hevk")
	install := func(dir string) []string { return []string{"install", plan, "-k", keys, "--pmem", dir} }
	home := func(t *testing.T, code int, say string, args ...string) {
		t.Helper()
		cmd := exec.Command("home", args...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != code || !regexp.MustCompile(say).Match(out) || bytes.Contains(out, []byte("goroutine ")) {
			t.Fatalf("home %s: exit code %d, want %d and %q\n%s", strings.Join(args, " "), got, code, say, out)
		}
	}
	// run wants the right result, or an exit code and a message and no result.
	run := func(t *testing.T, dir string, code int, say string) {
		t.Helper()
		y := filepath.Join(t.TempDir(), "y.hct")
		home(t, code, say, "run", plan, "-k", keys, "-i", filepath.Join(fix, "x.hct"), "-o", y, "--dram", "120MiB", "--pmem", dir)
		got, err := os.ReadFile(y)
		if code == 0 && (err != nil || !bytes.Equal(got, want)) {
			t.Fatalf("another result, or %v", err)
		}
		if code != 0 && err == nil {
			t.Fatal("a failed run wrote a result")
		}
	}
	small := func(t *testing.T, size string) string {
		t.Helper()
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			t.Skipf("cannot mount a small file system: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	files := func(t *testing.T, dir string) []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "*.htier"))
		if err != nil || len(names) != 2 {
			t.Fatalf("tier files %v, %v", names, err)
		}
		return names
	}
	good := filepath.Join(t.TempDir(), "tier")
	run(t, good, 0, "")
	// fresh copies the good tier.
	fresh := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		for _, f := range files(t, good) {
			b, err := os.ReadFile(f)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}

	t.Run("full", func(t *testing.T) {
		dir := small(t, "4m")
		home(t, 1, "no space left on device: [0-9]+ more bytes are needed; free some and install again, it goes on from here", install(dir)...)
		run(t, dir, 1, "no space left on device")
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=200m"); err != nil {
			t.Fatal(err)
		}
		home(t, 0, "keys and weights", install(dir)...)
		run(t, dir, 0, "")
	})
	t.Run("read-only", func(t *testing.T) {
		dir := small(t, "200m")
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Skipf("cannot make a file system read-only: %v", err)
		}
		home(t, 1, "read-only file system", install(dir)...)
		run(t, dir, 1, "read-only file system")
	})
	t.Run("damaged", func(t *testing.T) {
		for i := range 2 {
			dir := fresh(t)
			path := files(t, dir)[i]
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			// Objects, not the header that describes them: a segment whose header is
			// damaged is installed again.
			for at := len(b)/2&^4095 + 5; at < len(b); at += 4096 {
				b[at] ^= 4
			}
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			run(t, dir, 1, "damaged: checksum of slab .*; delete it and install again")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			run(t, dir, 0, "")
		}
	})
	t.Run("cut", func(t *testing.T) {
		for i := range 2 {
			dir := fresh(t)
			path := files(t, dir)[i]
			fi, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int64{fi.Size() - 1, fi.Size() / 2, 4096, 100, 0} {
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
				run(t, dir, 0, "") // what is missing is installed again
			}
		}
	})
	t.Run("foreign", func(t *testing.T) {
		dir := fresh(t)
		names := files(t, dir)
		b, err := os.ReadFile(names[0])
		if err == nil {
			err = os.WriteFile(names[1], b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		run(t, dir, 1, "foreign file: it holds keys of .*use another directory or delete it")
		if err := os.WriteFile(names[1], bytes.Repeat([]byte("letter to a friend "), 1000), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, dir, 1, "no valid header; delete it and install again")
	})
	t.Run("in use", func(t *testing.T) {
		dir := fresh(t)
		f, err := os.Open(files(t, dir)[0])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
			t.Fatal(err)
		}
		run(t, dir, 0, "") // beside another run
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		run(t, dir, 1, "in use by another process") // beside an install
		home(t, 1, "in use by another process", install(dir)...)
	})
	t.Run("two at once", func(t *testing.T) {
		dir := t.TempDir()
		var cmds []*exec.Cmd
		for range 2 {
			cmd := exec.Command("home", install(dir)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
		}
		done := 0
		for _, c := range cmds {
			if c.Wait() == nil {
				done++
			}
		}
		if done == 0 {
			t.Error("neither of two installs got to its end")
		}
		run(t, dir, 0, "")
	})
	t.Run("killed", func(t *testing.T) {
		dir := t.TempDir()
		killed := 0
		for i := range 6 {
			cmd := exec.Command("home", install(dir)...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(time.Duration(60+60*i)*time.Millisecond, func() { _ = cmd.Process.Kill() })
			if cmd.Wait() != nil {
				killed++
			}
			timer.Stop()
		}
		t.Logf("killed %d of 6 installs", killed)
		run(t, dir, 0, "")
	})
	t.Run("file size limit", func(t *testing.T) { // a full disk where nothing can be mounted
		dir := t.TempDir()
		args := append([]string{"-c", `ulimit -f 4096 && exec home "$@"`, "sh"}, install(dir)...)
		out, err := exec.Command("sh", args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "file too large") || strings.Contains(string(out), "goroutine ") {
			t.Fatalf("%v\n%s", err, out)
		}
		run(t, dir, 0, "")
	})
}
