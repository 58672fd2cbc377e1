package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime"
	"github.com/home-fhe/home/runtime/dataset"
)

type runCmd struct {
	Model  string   `arg:"" help:"Plan (.hplan), or ONNX model to be compiled in memory."`
	Mode   string   `enum:",clear,simulate,encrypted" default:"" placeholder:"MODE" help:"All roles in one process, for trying out: clear, simulate or encrypted."`
	Keys   string   `short:"k" placeholder:"FILE" help:"Evaluation keys (eval.hevk), for a run on ciphertexts."`
	Trace  string   `placeholder:"FILE" help:"Write a trace of the run that opens in Perfetto (JSON)."`
	Log    string   `enum:",info,debug,trace" default:"" placeholder:"LEVEL" help:"Write what happens in a run on ciphertexts to standard error instead of progress bars: info (layers), debug (stalls as well) or trace (every step and transfer)."`
	Input  []string `required:"" short:"i" sep:"none" placeholder:"FILE" help:"Ciphertexts (.hct); with --mode .npy, picture, idx or CIFAR .bin. '-' is standard input. NAME=FILE for each input where a model has several."`
	Output string   `short:"o" placeholder:"FILE" help:"Write the results here (.hct; with --mode .npy). '-' is standard output."`
	Limit  int      `placeholder:"N" help:"Use only the first N samples."`
	Exact  bool     `help:"In clear mode: exact activations instead of the plan's polynomials."`
	Raw    bool     `help:"Leave out the operators that the client applies (Softmax and the like)."`
	Expect string   `placeholder:"FILE" help:"Compare the outputs with this .npy; exit code 2 where they differ."`
	Atol   float64  `default:"1e-4" placeholder:"T" help:"Largest absolute difference that --expect allows. Default: ${default}."`
	Top    int      `default:"3" placeholder:"K" help:"Classes to print for every sample. Default: ${default}."`
	Policy string   `enum:"planned,memory,layers,lru,demand,mapped" default:"planned" placeholder:"NAME" help:"Who decides what is in DRAM: planned, or to compare with: memory (everything, all the time), layers (load a layer, use it, drop it), lru (least recently used), demand (Belady's rule without prefetching), mapped (read in place)."`
	JSON   bool     `help:"Print JSON."`

	checkpointFlags
	serverFlags
	compileFlags
}

func (*runCmd) Help() string {
	return `On ciphertexts, the server's role: computes on what it cannot read and writes encrypted results. Keys and
weights are set up first, in memory or, with --pmem, in the slow tier, where they stay for the next run.

  home run model.hplan --keys keys/eval.hevk --input x.hct -o y.hct --dram 2GiB --pmem /mnt/pmem

With --checkpoint it is saved on its way, in a folder beside the output. After a crash, a power failure or Ctrl-C the
same command with --resume goes on from there, with the same result bit for bit; --dram, --pmem and --threads may
change. A checkpoint is taken where few ciphertexts are alive, while computing goes on, and not so often that it takes
more than a hundredth of the time. One that cannot be written is a warning, and the one before stays. All of them are
removed when the result is written.

  home run model.hplan --keys keys/eval.hevk --input x.hct -o y.hct --dram 2GiB --pmem /mnt/pmem --resume

With --mode everything happens in one process: the input is a .npy, a picture, an idx file or a CIFAR .bin,
with any number of samples along its first axis, and the output is what the client would see. The times of simulate are predictions.

  home run model.onnx --mode clear --input x.npy --expect y.npy --atol 1e-4
  home run model.hplan --mode simulate --input digit.png

A model with several inputs or outputs runs in clear mode. The first output goes to the file of -o, the others
beside it, y.NAME.npy by y.npy, and --expect looks for them there.

  home run model.onnx --mode clear --input a=a.npy --input b=b.npy -o y.npy`
}

type runReport struct {
	Schema          int                       `json:"schema"`
	Model           string                    `json:"model"`
	Mode            string                    `json:"mode"`
	Samples         int                       `json:"samples"`
	Runs            int                       `json:"runs"`
	Outputs         []string                  `json:"outputs,omitempty"` // names, where a model has several inputs or outputs
	MaxAbsError     *float64                  `json:"max_abs_error,omitempty"`
	RangeViolations *int                      `json:"range_violations,omitempty"` // an encrypted run cannot see them
	Kernels         string                    `json:"kernels,omitempty"`          // arithmetic of an encrypted run
	Checkpoint      *runtime.CheckpointReport `json:"checkpoint,omitempty"`
	Policy          string                    `json:"policy,omitempty"`
	Planned         *planned                  `json:"planned,omitempty"` // of one run, where there is a slow tier
	runtime.Report
}

// planned is what a tier plan says of one run, and the lower bounds on what it can
// read.
type planned struct {
	DRAM         int64   `json:"dram_bytes"` // 0 for no bound
	Reserve      int64   `json:"reserve_bytes"`
	Arena        int64   `json:"arena_bytes"`
	BytesRead    int64   `json:"bytes_read"`
	BytesWritten int64   `json:"bytes_written"`
	BytesBound   int64   `json:"bytes_bound"`     // keys and weights, as if they had the arena to themselves
	BytesAll     int64   `json:"bytes_bound_all"` // all that is read, ciphertexts that come back included
	Seconds      float64 `json:"seconds,omitempty"`
	StallSeconds float64 `json:"stall_seconds,omitempty"`
	MakeSeconds  float64 `json:"make_seconds,omitempty"`         // CPU time
	InputSeconds float64 `json:"input_seconds,omitempty"`        // that steps lose to what is read beside them
	BytesBought  int64   `json:"bytes_bought,omitempty"`         // of those that are read, what a plan was found to do without,
	Bought       float64 `json:"bytes_bought_seconds,omitempty"` // and the predicted time that they save
	CostBound    float64 `json:"cost_bound_seconds,omitempty"`   // least that making and input can cost together, whatever the plan
}

func plannedBy(p *plan.Plan) (*planned, error) {
	t := p.Tier
	bound, err := passes.TierBound(p, t)
	if err != nil {
		return nil, err
	}
	return &planned{
		DRAM: t.Budget, Reserve: t.Reserve, Arena: int64(t.ArenaSlabs) * int64(p.Params.SlabBytes()),
		BytesRead: t.BytesRead, BytesWritten: t.BytesWritten, BytesBound: bound.Belady, BytesAll: bound.All,
		Seconds: t.Seconds, StallSeconds: t.StallSeconds, MakeSeconds: t.MakeSeconds,
		InputSeconds: t.InputSeconds, BytesBought: t.BytesBought, Bought: t.BoughtSeconds, CostBound: t.CostBound,
	}, nil
}

func (c *runCmd) Run(e *env) error {
	switch {
	case c.Mode == "" && c.Keys == "":
		return misuse("give --keys for a run on ciphertexts, or --mode clear, simulate or encrypted")
	case c.Mode == "":
		return c.serve(e)
	case c.Keys != "" || c.Trace != "" || c.Log != "" || c.Policy != string(passes.PolicyPlanned):
		return misuse("--keys, --trace, --log and --policy are for runs on ciphertexts; --mode makes keys of its own")
	case c.checkpointFlags.given():
		return misuse("--checkpoint and --resume are for runs on ciphertexts: the keys of --mode do not outlive it")
	}
	if c.JSON && c.Output == "-" {
		return misuse("--json and --output - both want standard output")
	}
	if c.Exact && c.Mode != modeClear {
		return misuse("--exact is for --mode clear: encrypted activations are polynomials")
	}
	if err := errors.Join(positive("--limit", c.Limit, true), positive("--top", c.Top, false), tolerance(c.Atol), c.outputs()); err != nil {
		return err
	}
	s, err := c.open(e, c.Model, c.Mode)
	if err != nil {
		return err
	}
	if s.several() {
		return c.runSeveral(e, s)
	}
	if len(c.Input) != 1 {
		return misuse("--input is given %d times, and %s has one input", len(c.Input), c.Model)
	}
	if err := expectPlain(c.Input[0]); err != nil {
		return err
	}
	n, err := c.network(e, s, c.Mode, c.Exact, &c.serverFlags)
	if err != nil {
		return err
	}
	return errors.Join(c.run(e, s, n), n.Close())
}

// outputs refuses files that cannot be written, before any work is done.
func (c *runCmd) outputs() error {
	if c.Trace != "" && c.Trace == c.Output {
		return misuse("--output and --trace name the same file")
	}
	inputs := append([]string{c.Model, c.Keys, c.Expect}, c.Input...)
	return errors.Join(writable(c.Output, inputs...), writable(c.Trace, inputs...))
}

func (c *runCmd) run(e *env, s *subject, n *network) error {
	in, err := dataset.Open(c.Input[0], dataset.Options{Limit: c.Limit, Shape: n.sample, Preprocess: n.pre})
	if err != nil {
		return err
	}
	defer in.Close()
	bar := e.bar("samples", in.Len())
	defer bar.stop()
	var all gather
	rep := runReport{Schema: 1, Mode: c.Mode, Report: runtime.Report{Tiers: []runtime.TierReport{}}}
	if c.Mode == modeEncrypted {
		rep.Kernels = kernelsInUse()
	}
	var violations violationCount
	began := time.Now()
	err = n.feed(e.ctx, in, func(k chunk) error {
		out := k.out
		if !c.Raw {
			if out, err = n.finish(out); err != nil {
				return err
			}
		}
		rep.Runs++
		rep.add(k.result.report)
		violations.Merge(k.result.stats)
		bar.add(k.in.Shape[0])
		return all.add(out)
	})
	bar.stop()
	if err != nil {
		return err
	}
	out := all.array()
	rep.Model, rep.Samples = s.name(), all.n
	if c.Mode == modeClear {
		rep.Seconds = time.Since(began).Seconds()
	}
	if c.Mode != modeEncrypted {
		n := violations.Total()
		rep.RangeViolations = &n
	}
	violations.warn(e)
	if c.Output != "" {
		if err := dataset.WriteNpy(c.Output, out); err != nil {
			return err
		}
	}
	var differ error
	if c.Expect != "" {
		worst, err := c.compare(out)
		if err != nil {
			return err
		}
		rep.MaxAbsError = &worst
		if !(worst <= c.Atol) {
			differ = fmt.Errorf("%w from %s by up to %.3g, more than %.3g", errMismatch, c.Expect, worst, c.Atol)
		}
	}
	switch {
	case c.JSON:
		err = e.printJSON(rep)
	case c.Output != "-":
		err = c.print(e.out, n, out, &rep)
	}
	return errors.Join(err, differ)
}

// compare returns the largest difference from the expected outputs. Samples
// beyond --limit are not compared.
func (c *runCmd) compare(out *ir.Array) (float64, error) {
	want, err := dataset.ReadNpy(c.Expect)
	if err != nil {
		return 0, fmt.Errorf("--expect: %w", err)
	}
	if c.Limit > 0 && len(want.Shape) > 0 && want.Shape[0] > out.Shape[0] {
		rows := want.Shape[0]
		want = ir.ArrayOf(want.Data[:len(want.Data)/rows*out.Shape[0]], append([]int{out.Shape[0]}, want.Shape[1:]...)...)
	}
	if len(want.Data) != len(out.Data) {
		return 0, fmt.Errorf("--expect: %s has shape %v, the outputs have %v", c.Expect, want.Shape, out.Shape)
	}
	return maxDiff(out.Data, want.Data), nil
}

// maxDiff returns the largest absolute difference; NaN where either holds one.
func maxDiff(a, b []float64) float64 {
	worst := 0.0
	for i := range a {
		if d := math.Abs(a[i] - b[i]); d > worst || math.IsNaN(d) {
			worst = d
		}
		if math.IsNaN(worst) {
			break
		}
	}
	return worst
}

// print writes the predictions, one line per sample, or says where the outputs
// went.
func (c *runCmd) print(w io.Writer, n *network, out *ir.Array, rep *runReport) error {
	if c.Output == "" {
		if err := printTop(w, n, out, c.Top, n.precision()); err != nil {
			return err
		}
	}
	if rep.MaxAbsError != nil {
		fmt.Fprintf(w, "largest difference from %s: %.3g (allowed %.3g)\n", c.Expect, *rep.MaxAbsError, c.Atol)
	}
	switch {
	case c.Mode == modeSimulate:
		fmt.Fprintf(w, "%s predicted for %d run%s on one core\n", seconds(rep.Seconds), rep.Runs, plural(rep.Runs))
	case c.Mode == modeEncrypted:
		fmt.Fprintf(w, "%s for %d run%s, set-up %s, peak memory %s\n", seconds(rep.Seconds), rep.Runs, plural(rep.Runs), seconds(rep.SetupSeconds), byteSize(rep.PeakRSSBytes))
	}
	return nil
}

// printTop writes the k best classes of every sample, rounded to a precision in
// bits, or the numbers themselves where they are no scores.
func printTop(w io.Writer, n *network, out *ir.Array, k int, bits float64) error {
	var labels []string
	if n.pre != nil {
		labels = n.pre.Labels
	}
	t := newTable(0)
	count := out.Shape[0]
	width := len(out.Data) / max(1, count)
	for i := range count {
		row := out.Data[i*width : (i+1)*width]
		cells := []string{fmt.Sprintf("sample %d:", i)}
		if n.picks() {
			for _, v := range row {
				cells = append(cells, className(int(v), labels))
			}
		} else {
			for _, top := range runtime.Top(row, labels, k) {
				cells = append(cells, className(top.Index, labels)+"  "+score(runtime.Round(top.Score, bits), bits))
			}
		}
		t.row(cells...)
	}
	return t.write(w, "")
}

func className(i int, labels []string) string {
	if i >= 0 && i < len(labels) {
		return labels[i]
	}
	return fmt.Sprintf("class %d", i)
}

// score writes a number with as many decimals as its precision in bits carries.
func score(v, bits float64) string {
	decimals := 4
	if !math.IsInf(bits, 0) {
		decimals = max(0, min(6, int(math.Ceil(bits*math.Log10(2)))))
	}
	return fmt.Sprintf("%.*f", decimals, v)
}

// name is the model's name for reports.
func (s *subject) name() string {
	if s.plan != nil {
		return s.plan.Model
	}
	return s.model.Graph.Name
}

// add sums the report of one run into that of all.
func (r *runReport) add(one *runtime.Report) {
	if one == nil {
		return
	}
	r.SetupSeconds += one.SetupSeconds
	r.Seconds += one.Seconds
	r.CPUSeconds += one.CPUSeconds
	r.PeakRSSBytes = max(r.PeakRSSBytes, one.PeakRSSBytes)
	r.ArenaPeak = max(r.ArenaPeak, one.ArenaPeak)
	r.ArenaHuge = max(r.ArenaHuge, one.ArenaHuge)
	r.Counts = one.Counts
	for i, t := range one.Tiers {
		if i == len(r.Tiers) {
			r.Tiers = append(r.Tiers, runtime.TierReport{Name: t.Name, Technology: t.Technology})
		}
		r.Tiers[i].BytesRead += t.BytesRead
		r.Tiers[i].BytesWritten += t.BytesWritten
		r.Tiers[i].BytesMapped += t.BytesMapped
		r.Tiers[i].StallSeconds += t.StallSeconds
		r.Tiers[i].Expanded += t.Expanded
		r.Tiers[i].ExpandSeconds += t.ExpandSeconds
	}
}

// precision is how many bits of the outputs are meant, all of them where
// nothing was encrypted.
func (n *network) precision() float64 {
	if n.bits == 0 {
		return math.Inf(1)
	}
	return n.bits
}
