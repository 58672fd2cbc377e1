package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/models"
	"github.com/home-fhe/home/models/digits"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/store"
)

// compareFlags say what bench --tiers compares.
type compareFlags struct {
	Tiers    bool          `help:"Compare budgets and policies of the slow tier instead, for one reference network or plan."`
	Keys     string        `short:"k" placeholder:"FILE" help:"With --tiers and a plan: its evaluation keys (eval.hevk)."`
	Input    string        `short:"i" placeholder:"FILE" help:"With --tiers and a plan: ciphertexts for it (.hct), of one run."`
	PMem     string        `name:"pmem" placeholder:"DIR" help:"With --tiers: folder of the slow tier. Keys and weights of a plan stay there; default: a temporary folder."`
	DRAM     []budgetSize  `name:"dram" default:"33%,15%,10%" placeholder:"SIZE,..." help:"With --tiers: budgets, as sizes or shares of the plan's footprint. Default: ${default}."`
	Policies []tierPolicy  `default:"planned,layers,lru,demand,mmap,swap" placeholder:"NAME,..." help:"With --tiers: planned, layers, lru, demand, mapped (in place), mmap (through the page cache, under a memory limit), swap (all in memory, under a memory limit). Default: ${default}."`
	Largest  byteSize      `placeholder:"SIZE" help:"With --tiers: the largest budget, which others are measured against where not everything fits in DRAM. Default: three quarters of the memory."`
	Profile  string        `placeholder:"FILE" help:"With --tiers: the cost profile to plan with. Default: the one shipped."`
	Imitate  string        `placeholder:"SPEC" help:"With --tiers: slow the slow tier down to the figures of another technology, as for run."`
	Patience time.Duration `default:"15m" placeholder:"TIME" help:"With --tiers: stop a baseline after this time, set-up included, and say so. Default: ${default}."`
}

// tierPolicy is what decides residency: a policy of run, or the operating system.
type tierPolicy string

// Policies of the operating system.
const (
	policyMmap tierPolicy = "mmap" // read-only data mapped from files, the page cache under a limit
	policySwap tierPolicy = "swap" // everything in memory, swapped under a limit
)

// UnmarshalText refuses what is no policy.
func (p *tierPolicy) UnmarshalText(text []byte) error {
	all := []tierPolicy{tierPolicy(passes.PolicyPlanned), policyMmap, policySwap}
	for _, b := range passes.Baselines() {
		all = append(all, tierPolicy(b))
	}
	if *p = tierPolicy(text); !slices.Contains(all, *p) {
		return fmt.Errorf("%q is no policy: choose from %v", text, all)
	}
	return nil
}

// budgetSize is a budget in bytes, or as a share of a plan's footprint.
type budgetSize struct {
	share float64
	bytes byteSize
}

// UnmarshalText parses a size, or a share with its sign.
func (b *budgetSize) UnmarshalText(text []byte) error {
	if !bytes.HasSuffix(text, []byte("%")) {
		return b.bytes.UnmarshalText(text)
	}
	var p percent
	if err := p.UnmarshalText(text); err != nil {
		return err
	}
	if b.share = float64(p); b.share <= 0 {
		return fmt.Errorf("%q is no budget", text)
	}
	return nil
}

func (b budgetSize) of(footprint int64) int64 {
	if b.share > 0 {
		return int64(b.share * float64(footprint))
	}
	return int64(b.bytes)
}

func (b budgetSize) String() string {
	if b.share > 0 {
		return strconv.FormatFloat(b.share*100, 'f', -1, 64) + " %"
	}
	return b.bytes.String()
}

// tierBenchRow is one policy under one budget.
type tierBenchRow struct {
	Policy  string  `json:"policy"`
	Budget  string  `json:"budget"`          // as asked for
	Share   float64 `json:"share,omitempty"` // of the footprint
	DRAM    int64   `json:"dram_bytes"`      // 0 for no bound
	Skipped string  `json:"skipped,omitempty"`
	Stopped string  `json:"stopped,omitempty"`
	Failed  string  `json:"failed,omitempty"`

	Median   float64   `json:"median_seconds"`
	Seconds  []float64 `json:"seconds"`
	CPU      float64   `json:"cpu_seconds"`       // median
	Stall    float64   `json:"stall_seconds"`     // median
	Setup    []float64 `json:"setup_seconds"`     // of each run
	Slowdown float64   `json:"slowdown"`          // against the reference
	Floor    float64   `json:"floor_seconds"`     // the reference, or the bound at the bandwidth of the tier, whichever is longer
	Above    float64   `json:"above_floor_ratio"` // median over floor

	BytesRead    int64   `json:"bytes_read"`
	BytesMapped  int64   `json:"bytes_mapped"` // touched where they lie
	BytesWritten int64   `json:"bytes_written"`
	BytesBound   int64   `json:"bytes_bound"` // least that the plan could read at this budget
	OverBound    float64 `json:"read_over_bound"`
	Made         int     `json:"slabs_made"`
	MakeSeconds  float64 `json:"make_seconds"` // of all workers
	PeakRSS      int64   `json:"peak_rss_bytes"`

	Group     *groupUsage `json:"memory_group,omitempty"`
	Predicted float64     `json:"predicted_seconds,omitempty"`

	cpu, stall []float64
	args       []string
	limit      int64 // of a memory group; 0 for none
	swap       bool
}

type tierBenchReport struct {
	Schema     int             `json:"schema"`
	Machine    string          `json:"machine"`
	Threads    int             `json:"threads"`
	Kernels    string          `json:"kernels"`
	Model      string          `json:"model"`
	Footprint  int64           `json:"footprint_bytes"`
	Technology string          `json:"technology"`
	Imitation  string          `json:"imitation,omitempty"`
	ReadBps    []float64       `json:"read_bytes_per_second"` // of the slow tier, measured before and after the runs
	Reference  string          `json:"reference"`
	Same       bool            `json:"same_results"` // bit for bit
	Rows       []*tierBenchRow `json:"rows"`
}

// tierBench is one comparison.
type tierBench struct {
	c    *benchCmd
	e    *env
	self string // path of this program
	dir  string // temporary
	plan string
	keys string
	in   string
	pmem string
	rep  tierBenchReport
	sum  []byte // the result of the first run
}

// tiers compares policies and budgets. Each run is a process of its own, as a
// server's would be: its memory is fresh, its peak is its own, and it can be put
// under a limit. Runs of all policies take turns, so that what changes on the
// machine concerns all of them.
func (c *benchCmd) tiers(e *env) (err error) {
	if len(c.Models) > 1 {
		return misuse("--tiers takes one network or plan")
	}
	b := &tierBench{c: c, e: e}
	b.rep = tierBenchReport{Schema: 1, Machine: machine(), Threads: c.Threads, Kernels: kernelsInUse(), Imitation: c.Imitate, Same: true}
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if c.PMem != "" {
		if err := os.MkdirAll(c.PMem, 0o755); err != nil {
			return err
		}
	}
	dir, release, err := plan.MkdirTemp(c.PMem, "home-bench-*")
	if err != nil {
		return err
	}
	defer func() { release(); err = errors.Join(err, os.RemoveAll(dir)) }()
	b.dir, b.pmem = dir, cmp.Or(c.PMem, filepath.Join(dir, "tier"))
	if err := b.prepare(); err != nil {
		return err
	}
	if err := b.rows(); err != nil {
		return err
	}
	if err := os.MkdirAll(b.pmem, 0o755); err != nil {
		return err
	}
	if err := b.bandwidth(); err != nil {
		return err
	}
	if err := b.runs(); err != nil {
		return err
	}
	if err := b.bandwidth(); err != nil {
		return err
	}
	b.judge()
	if c.JSON {
		err = e.printJSON(b.rep)
	} else {
		err = b.rep.write(e.out)
	}
	if !b.rep.Same {
		err = errors.Join(err, errors.New("BUG: the results of these runs differ"))
	}
	for _, r := range b.rep.Rows {
		if r.Failed != "" {
			err = errors.Join(err, fmt.Errorf("%s, %s: %s", r.Policy, r.Budget, r.Failed))
		}
	}
	return err
}

// prepare finds or makes plan, keys and ciphertexts, and brings keys and weights
// into the slow tier.
func (b *tierBench) prepare() error {
	name := "mnist_lenet5_relu_avg"
	if len(b.c.Models) == 1 {
		name = b.c.Models[0]
	}
	ctx := b.e.ctx
	if strings.HasSuffix(name, ".hplan") {
		if b.c.Keys == "" || b.c.Input == "" {
			return misuse("--tiers with a plan needs --keys and --input")
		}
		b.plan, b.keys, b.in = name, b.c.Keys, b.c.Input
	} else {
		m, err := models.Find(name)
		if err != nil {
			return fmt.Errorf("%w; home bench --list names them", err)
		}
		if !drawn(m) {
			return fmt.Errorf("%s takes no digits: compile it, and give plan, --keys and --input", name)
		}
		at := func(f string) string { return filepath.Join(b.dir, f) }
		onnx, err1 := m.ONNX()
		pre, err2 := m.Preprocessing()
		varied, err3 := digits.File(digits.VariedImages)
		three, err4 := digits.File("3.png")
		preJSON, err5 := json.Marshal(pre)
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			return err
		}
		for f, data := range map[string][]byte{m.Name + ".onnx": onnx, "preprocess.json": preJSON, digits.VariedImages: varied, "3.png": three} {
			if err := os.WriteFile(at(f), data, 0o600); err != nil {
				return err
			}
		}
		b.plan, b.keys, b.in = at(m.Name+".hplan"), at("keys/eval.hevk"), at("x.hct")
		client := plan.ClientPath(b.plan)
		for _, args := range [][]string{
			{"compile", at(m.Name + ".onnx"), "-o", b.plan, "--calibrate", at(digits.VariedImages), "--preprocess", at("preprocess.json")},
			{"keygen", client, "-o", at("keys")},
			{"encrypt", client, "--key", at("keys/secret.hsk"), "--input", at("3.png"), "-o", b.in},
		} {
			b.e.note("%s", args[0])
			if _, err := b.child(ctx, args, nil); err != nil {
				return err
			}
		}
	}
	out, err := b.child(ctx, []string{"inspect", b.plan, "--format", "json"}, nil)
	if err != nil {
		return err
	}
	var info struct {
		Model string `json:"model"`
		Bytes struct {
			Footprint int64 `json:"footprint"`
		} `json:"bytes"`
	}
	if err := json.Unmarshal(out, &info); err != nil || info.Bytes.Footprint <= 0 {
		return fmt.Errorf("BUG: inspect gives a footprint of %d (%v)", info.Bytes.Footprint, err)
	}
	b.rep.Model, b.rep.Footprint = info.Model, info.Bytes.Footprint
	b.e.note("install")
	_, err = b.child(ctx, []string{"install", b.plan, "--keys", b.keys, "--pmem", b.pmem}, nil)
	return err
}

// rows lists what is compared: the reference, the largest budget, and each policy
// under each budget.
func (b *tierBench) rows() error {
	most := runtime.Memory() / 4 * 3
	largest := cmp.Or(int64(b.c.Largest), most)
	run := func(policy string, more ...string) []string {
		if b.c.Profile != "" {
			more = append(more, "--profile", b.c.Profile)
		}
		return append([]string{"run", b.plan, "--keys", b.keys, "--input", b.in, "-o", filepath.Join(b.dir, "y.hct"), "--json",
			"--threads", strconv.Itoa(b.c.Threads), "--policy", policy}, more...)
	}
	tier := []string{"--pmem", b.pmem}
	if b.c.Imitate != "" {
		tier = append(tier, "--imitate", b.c.Imitate)
	}
	all := &tierBenchRow{Policy: policyMemory, Budget: "all", args: run(policyMemory)}
	if b.rep.Footprint > largest {
		all.Skipped = fmt.Sprintf("%s do not fit in %s", byteSize(b.rep.Footprint), byteSize(largest))
	}
	top := &tierBenchRow{Policy: string(passes.PolicyPlanned), Budget: "largest", args: run(string(passes.PolicyPlanned), tier...)}
	if b.rep.Footprint > largest {
		top.DRAM = largest
		top.args = append(top.args, "--dram", strconv.FormatInt(largest, 10))
	}
	b.rep.Rows = append(b.rep.Rows, all, top)
	for _, budget := range b.c.DRAM {
		dram := budget.of(b.rep.Footprint)
		if dram <= 0 {
			return misuse("--dram %s of a footprint of %s is nothing", budget, byteSize(b.rep.Footprint))
		}
		for _, policy := range b.c.Policies {
			r := &tierBenchRow{Policy: string(policy), Budget: budget.String(), DRAM: dram, Share: float64(dram) / float64(b.rep.Footprint)}
			size := []string{"--dram", strconv.FormatInt(dram, 10)}
			switch policy {
			case policyMmap:
				r.args, r.limit = run(string(passes.PolicyMapped), append(size, "--pmem", filepath.Join(b.dir, "mapped"), "--technology", "mmap")...), dram
			case policySwap:
				r.args, r.limit, r.swap = run(policyMemory), dram, true
			default:
				r.args = run(string(policy), append(size, tier...)...)
			}
			r.Skipped = b.refusal(r)
			b.rep.Rows = append(b.rep.Rows, r)
		}
	}
	return nil
}

// refusal says why the system cannot run a row; "" where it can.
func (b *tierBench) refusal(r *tierBenchRow) string {
	if r.limit == 0 {
		return ""
	}
	if r.swap {
		if need := b.rep.Footprint - r.limit; swapBytes() < need {
			return fmt.Sprintf("there are %s of swap space and it takes about %s: add some (mkswap and swapon of a file, as root)", byteSize(swapBytes()), byteSize(need))
		}
	}
	g, err := newMemoryGroup(r.limit, r.swap)
	if err != nil {
		return err.Error()
	}
	if err := g.remove(); err != nil {
		return err.Error()
	}
	return ""
}

// runs runs all rows by turns.
func (b *tierBench) runs() error {
	for _, r := range b.rep.Rows {
		if r.Skipped != "" {
			b.e.warn("%s, %s: skipped: %s", r.Policy, r.Budget, r.Skipped)
		}
	}
	for i := range b.c.Runs {
		for _, r := range b.rep.Rows {
			if r.note() != "" {
				continue
			}
			if err := b.run(r); err != nil {
				return err
			}
			if n := len(r.Seconds); n > 0 && r.note() == "" {
				b.e.note("%d of %d: %s, %s: %s", i+1, b.c.Runs, r.Policy, r.Budget, seconds(r.Seconds[n-1]))
			}
		}
	}
	return nil
}

// note says why a row has not run, or not all its times; "" where it has.
func (r *tierBenchRow) note() string { return cmp.Or(r.Skipped, r.Stopped, r.Failed) }

// run runs one row once. That a policy fails is a finding like others: the rest goes
// on.
func (b *tierBench) run(r *tierBenchRow) (err error) {
	ctx := b.e.ctx
	var group *memoryGroup
	if r.limit > 0 {
		if err := uncache(filepath.Join(b.dir, "mapped")); err != nil {
			return err
		}
		if group, err = newMemoryGroup(r.limit, r.swap); err != nil {
			return err
		}
		release := atEnd(func() { group.remove() })
		defer func() { err = errors.Join(err, group.remove()); release() }()
	}
	planned := r.Policy == string(passes.PolicyPlanned)
	if !planned {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.c.Patience)
		defer cancel()
	}
	out, err := b.child(ctx, r.args, group)
	if group != nil {
		u, uerr := group.usage()
		if uerr != nil {
			return uerr
		}
		if r.Group == nil {
			r.Group = new(groupUsage)
		}
		r.Group.Peak, r.Group.Hits, r.Group.Kills = max(r.Group.Peak, u.Peak), r.Group.Hits+u.Hits, r.Group.Kills+u.Kills
		if u.Kills > 0 {
			r.Stopped = "killed for want of memory"
			return nil
		}
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.Stopped = fmt.Sprintf("stopped after %s, set-up included", b.c.Patience)
		return nil
	case errors.As(err, &exit) && exit.ExitCode() == exitBudget:
		r.Stopped = "the budget is too small for it"
		return nil
	case errors.As(err, &exit) && b.e.ctx.Err() == nil:
		_, said, _ := strings.Cut(err.Error(), "\n")
		r.Failed = cmp.Or(strings.TrimPrefix(said, "home: "), err.Error())
		b.e.warn("%s, %s: %s", r.Policy, r.Budget, r.Failed)
		return nil
	case err != nil:
		return err
	}
	var rep runReport
	if err := json.Unmarshal(out, &rep); err != nil {
		return fmt.Errorf("BUG: the report of run: %w", err)
	}
	if rep.Runs != 1 {
		return fmt.Errorf("%s holds inputs for %d runs: give those of one", b.in, rep.Runs)
	}
	sum, err := os.ReadFile(filepath.Join(b.dir, "y.hct"))
	if err != nil {
		return err
	}
	if b.sum == nil {
		b.sum = sum
	}
	b.rep.Same = b.rep.Same && bytes.Equal(b.sum, sum)
	r.add(&rep)
	if len(rep.Tiers) > 1 && planned {
		b.rep.Technology = rep.Tiers[1].Technology
	}
	return nil
}

// add notes one run.
func (r *tierBenchRow) add(rep *runReport) {
	r.Seconds = append(r.Seconds, rep.Seconds)
	r.Setup = append(r.Setup, rep.SetupSeconds)
	r.cpu = append(r.cpu, rep.CPUSeconds)
	r.PeakRSS = max(r.PeakRSS, rep.PeakRSSBytes)
	stall := 0.0
	if len(rep.Tiers) > 1 {
		t := &rep.Tiers[1]
		stall = t.StallSeconds
		r.BytesRead, r.BytesMapped, r.BytesWritten, r.Made, r.MakeSeconds = t.BytesRead, t.BytesMapped, t.BytesWritten, t.Expanded, t.ExpandSeconds
	}
	r.stall = append(r.stall, stall)
	if rep.Planned != nil {
		r.BytesBound, r.Predicted = rep.Planned.BytesAll, rep.Planned.Seconds
	}
}

// judge computes what the rows mean together.
func (b *tierBench) judge() {
	var ref *tierBenchRow
	bounds := map[int64]int64{} // of the plan, by budget
	for _, r := range b.rep.Rows {
		if len(r.Seconds) == 0 {
			continue
		}
		r.Median, r.CPU, r.Stall = median(r.Seconds), median(r.cpu), median(r.stall)
		if ref == nil {
			ref = r
		}
		if r.Policy == string(passes.PolicyPlanned) {
			bounds[r.DRAM] = r.BytesBound
		}
	}
	if ref == nil {
		return
	}
	b.rep.Reference = ref.Policy
	if ref.DRAM > 0 {
		b.rep.Reference += ", " + byteSize(ref.DRAM).String()
	}
	bps := 0.0
	for _, x := range b.rep.ReadBps {
		bps += x / float64(len(b.rep.ReadBps))
	}
	for _, r := range b.rep.Rows {
		if bound, ok := bounds[r.DRAM]; ok && r.Policy != policyMemory {
			r.BytesBound = bound
		}
		if len(r.Seconds) == 0 {
			continue
		}
		r.Slowdown = r.Median / ref.Median
		r.Floor = ref.Median
		if bps > 0 {
			r.Floor = max(r.Floor, float64(r.BytesBound)/bps)
		}
		r.Above = r.Median / r.Floor
		if r.BytesBound > 0 {
			r.OverBound = float64(r.BytesRead) / float64(r.BytesBound)
		}
	}
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// bandwidth measures reading what is installed, as runs read it: pieces of 2 MiB,
// several at once, checksums apart. Of large files it reads pieces at equal
// distances, 4 GiB in all.
func (b *tierBench) bandwidth() (err error) {
	const most = 4 << 30
	tech, _, err := (&tierFlags{Technology: "auto", Imitate: b.c.Imitate}).technology(b.pmem)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(b.pmem, "*.htier"))
	if err != nil {
		return err
	}
	type piece struct {
		m   store.Medium
		off int64
	}
	var pieces []piece
	for _, path := range paths {
		m, err := tech.Open(path, false)
		if err != nil {
			return err
		}
		defer m.Close()
		size, err := m.Size()
		if err != nil {
			return err
		}
		for off := int64(0); off+tierPiece <= size; off += tierPiece {
			pieces = append(pieces, piece{m, off})
		}
	}
	if len(pieces) == 0 {
		return fmt.Errorf("%s holds nothing to read: the bandwidth of the slow tier cannot be measured", b.pmem)
	}
	n := min(len(pieces), most/tierPiece)
	arena, err := store.NewArena(tierPiece, 0, nil)
	if err != nil {
		return err
	}
	block, err := arena.Alloc(tierDepth, store.Scratch, "bench")
	if err != nil {
		return errors.Join(err, arena.Close())
	}
	defer func() {
		block.Free()
		err = errors.Join(err, arena.Close())
	}()
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, tierDepth)
	began := time.Now()
	for k := range tierDepth {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for errs[k] == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				p := pieces[i*len(pieces)/n]
				errs[k] = p.m.ReadAt(block.Slabs[k:k+1], p.off)
			}
		}()
	}
	wg.Wait()
	b.rep.ReadBps = append(b.rep.ReadBps, math.Round(float64(n)*tierPiece/time.Since(began).Seconds()))
	return errors.Join(errs...)
}

// child runs this program with other arguments, within a group where one is given,
// and returns what it prints. It ends with this process.
func (b *tierBench) child(ctx context.Context, args []string, group *memoryGroup) ([]byte, error) {
	line := append([]string{b.self}, args...)
	if group != nil {
		line = group.wrap(line)
	}
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	goruntime.LockOSThread() // whose end would end the child
	defer goruntime.UnlockOSThread()
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var once sync.Once
	ended := make(chan struct{})
	release := atEnd(func() {
		cmd.Process.Kill()
		once.Do(func() { <-ended })
	})
	err := cmd.Wait()
	close(ended)
	release()
	if err != nil {
		return nil, fmt.Errorf("home %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(msg.String()))
	}
	return out.Bytes(), nil
}

func (r *tierBenchReport) write(w io.Writer) error {
	cores := "one thread"
	if r.Threads > 1 {
		cores = fmt.Sprintf("%d threads", r.Threads)
	}
	fmt.Fprintf(w, "%s on %s of: %s, %s arithmetic\n", r.Model, cores, strings.TrimPrefix(r.Machine, "one core of "), r.Kernels)
	fmt.Fprintf(w, "footprint %s; slow tier: %s", byteSize(r.Footprint), r.Technology)
	for i, x := range r.ReadBps {
		fmt.Fprintf(w, ", %s/s %s", byteSize(x), []string{"before", "after"}[min(i, 1)])
	}
	fmt.Fprintf(w, "\nslowdown against %s; floor: that time, or the lower bound on bytes at the bandwidth of the tier\n\n", r.Reference)
	t := newTable(1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
	t.row("policy", "DRAM", "wall", "spread", "CPU", "stall", "slowdown", "over floor", "read", "mapped", "over bound", "written", "made in", "peak RSS")
	ratio := func(v float64) string {
		if v == 0 {
			return "-"
		}
		return fmt.Sprintf("x%.3f", v)
	}
	moved := func(v int64) string {
		if v == 0 {
			return "-"
		}
		return byteSize(v).String()
	}
	var notes []string
	for _, x := range r.Rows {
		if note := x.note(); note != "" {
			notes = append(notes, fmt.Sprintf("%s, %s: %s", x.Policy, x.Budget, note))
		}
		dram := x.Budget
		if x.DRAM > 0 && x.Share > 0 {
			dram = fmt.Sprintf("%s, %.0f %%", byteSize(x.DRAM), 100*x.Share)
		} else if x.DRAM > 0 {
			dram = byteSize(x.DRAM).String()
		}
		if len(x.Seconds) == 0 {
			t.row(x.Policy, dram, "-", "see below")
			continue
		}
		t.row(x.Policy, dram, seconds(x.Median), fmt.Sprintf("%s to %s", seconds(slices.Min(x.Seconds)), seconds(slices.Max(x.Seconds))),
			seconds(x.CPU), seconds(x.Stall), ratio(x.Slowdown), ratio(x.Above), moved(x.BytesRead), moved(x.BytesMapped), ratio(x.OverBound), moved(x.BytesWritten),
			seconds(x.MakeSeconds), byteSize(x.PeakRSS).String())
	}
	if err := t.write(w, ""); err != nil {
		return err
	}
	for i, note := range notes {
		if i == 0 {
			fmt.Fprintln(w)
		}
		if _, err := fmt.Fprintln(w, note); err != nil {
			return err
		}
	}
	return nil
}
