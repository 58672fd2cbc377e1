package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// cgroupRoot is where control groups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// memoryGroup is a control group that bounds the memory of the processes in it, the
// page cache that they fill included. It lies within the group of this process, or
// beside it, so that the bounds of that group hold as well.
type memoryGroup struct {
	dir string
	v2  bool
}

var groupCount atomic.Int64

// newMemoryGroup makes a group with a hard limit in bytes, beyond which the kernel
// may swap or not. The error says what would help.
func newMemoryGroup(limit int64, swap bool) (*memoryGroup, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, groupError(err)
	}
	var last error = errors.New("this process is in no control group for memory")
	for _, parent := range groupParents(cgroupRoot, string(own)) {
		g := &memoryGroup{dir: filepath.Join(parent.dir, fmt.Sprintf("home-%d-%d", os.Getpid(), groupCount.Add(1))), v2: parent.v2}
		if last = os.Mkdir(g.dir, 0o755); last != nil {
			continue
		}
		if last = g.limit(limit, swap); last == nil {
			return g, nil
		}
		last = errors.Join(last, g.remove())
	}
	return nil, groupError(last)
}

func groupError(err error) error {
	return fmt.Errorf("no control group with a memory limit can be made (%w): run this as root, or within systemd-run --user --scope -p Delegate=yes", err)
}

// groupParent is a folder in which a group may be made.
type groupParent struct {
	dir string
	v2  bool
}

// groupParents lists where groups may be made, given /proc/self/cgroup: version 1
// within the own group; version 2 there, or beside it, since there a group with
// processes of its own hands no limits down.
func groupParents(root, own string) []groupParent {
	var all []groupParent
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[1] == "memory":
			all = append(all, groupParent{filepath.Join(root, "memory", f[2]), false})
		case f[0] == "0" && f[1] == "":
			for _, mount := range []string{root, filepath.Join(root, "unified")} {
				dir := filepath.Join(mount, f[2])
				if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err != nil {
					continue
				}
				all = append(all, groupParent{dir, true})
				if f[2] != "/" {
					all = append(all, groupParent{filepath.Dir(dir), true})
				}
			}
		}
	}
	return all
}

func (g *memoryGroup) set(name string, value int64) error {
	return os.WriteFile(filepath.Join(g.dir, name), strconv.AppendInt(nil, value, 10), 0)
}

// limit bounds the group. Without swap the sum of memory and swap is bounded too,
// where the system counts swap.
func (g *memoryGroup) limit(limit int64, swap bool) error {
	name, both := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	total := limit
	if g.v2 {
		name, both, total = "memory.max", "memory.swap.max", 0
	}
	if err := g.set(name, limit); err != nil {
		return err
	}
	if swap {
		return nil
	}
	if err := g.set(both, total); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// wrap returns a command line that enters the group and then runs another: no byte
// is allocated outside.
func (g *memoryGroup) wrap(args []string) []string {
	return append([]string{"/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs")}, args...)
}

// groupUsage is what the kernel counted in a group.
type groupUsage struct {
	Peak  int64 `json:"peak_bytes"` // 0 where it is not counted
	Hits  int64 `json:"limit_hits"` // times that the limit made it reclaim
	Kills int64 `json:"kills"`      // processes killed for want of memory
}

func (g *memoryGroup) usage() (u groupUsage, err error) {
	number := func(name string) (int64, error) {
		b, err := os.ReadFile(filepath.Join(g.dir, name))
		if err != nil {
			return 0, err
		}
		return strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	}
	field := func(name, key string) (int64, error) {
		b, err := os.ReadFile(filepath.Join(g.dir, name))
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == key {
				return strconv.ParseInt(f[1], 10, 64)
			}
		}
		return 0, fmt.Errorf("%s: no %s", name, key)
	}
	var errs [3]error
	if g.v2 {
		if u.Peak, errs[0] = number("memory.peak"); errors.Is(errs[0], os.ErrNotExist) {
			errs[0] = nil // Linux before 5.19
		}
		u.Hits, errs[1] = field("memory.events", "max")
		u.Kills, errs[2] = field("memory.events", "oom_kill")
	} else {
		u.Peak, errs[0] = number("memory.max_usage_in_bytes")
		u.Hits, errs[1] = number("memory.failcnt")
		u.Kills, errs[2] = field("memory.oom_control", "oom_kill")
	}
	return u, errors.Join(errs[:]...)
}

// remove removes the group once its processes are gone, which the kernel notes a
// moment after their end.
func (g *memoryGroup) remove() error {
	for wait := time.Millisecond; ; wait *= 2 {
		err := os.Remove(g.dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if wait > 30*time.Second || !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(wait)
	}
}

// swapBytes returns the swap space that the system has.
func swapBytes() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "SwapTotal:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}
