package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
	"github.com/home-fhe/home/runtime/store"
)

// validateFlags are those of characterize --validate.
type validateFlags struct {
	Validate  string     `placeholder:"PLAN" help:"Compare predictions with runs of this plan (.hplan) instead."`
	Profile   string     `placeholder:"FILE" help:"With --validate: the profile that predicts. Default: the one shipped."`
	Keys      string     `short:"k" placeholder:"FILE" help:"With --validate: evaluation keys (eval.hevk)."`
	Input     string     `short:"i" placeholder:"FILE" help:"With --validate: ciphertexts (.hct) of one run."`
	DRAM      []byteSize `name:"dram" sep:"," placeholder:"SIZE,.." help:"With --validate: budgets."`
	Bandwidth []string   `sep:"," default:"read=300MB/s,read=600MB/s,read=1200MB/s" placeholder:"SPEC,.." help:"With --validate: bandwidths that the slow tier imitates; none for its own. Default: ${default}."`
	Threads   int        `short:"t" default:"1" placeholder:"N" help:"With --validate: cores. Default: ${default}."`
	Runs      int        `default:"3" placeholder:"N" help:"With --validate: runs of each, in turn. Default: ${default}."`
	JSON      bool       `help:"With --validate: print JSON."`
}

// validateRow is one bandwidth with one budget.
type validateRow struct {
	Tier      string    `json:"tier"`
	DRAM      int64     `json:"dram"`
	Predicted float64   `json:"predicted_seconds"`
	Stall     float64   `json:"predicted_stall_seconds"`
	Read      int64     `json:"predicted_bytes_read"`
	Median    float64   `json:"median_seconds"`
	Seconds   []float64 `json:"seconds"`
	StallSeen float64   `json:"stall_seconds"` // median
	BytesRead int64     `json:"bytes_read"`
	Error     float64   `json:"error"` // predicted over median, less one
	// The time of the reference steps around these runs over what the profile says, the
	// prediction for a core of that speed, and its error.
	Core        float64   `json:"core_time"`
	CoreSeconds []float64 `json:"reference_seconds"` // around each run
	AtSpeed     float64   `json:"predicted_at_speed_seconds"`
	ErrorAt     float64   `json:"error_at_speed"`

	profile *backend.Profile
}

type validateReport struct {
	Schema  int           `json:"schema"`
	Model   string        `json:"model"`
	Machine string        `json:"machine"`
	Profile string        `json:"profile"`
	Kernels string        `json:"kernels"`
	Threads int           `json:"threads"`
	Rows    []validateRow `json:"rows"`
	Median  float64       `json:"median_error"` // of the magnitudes
	Worst   float64       `json:"worst_error"`
	// The same for the speed that the core had meanwhile.
	MedianAt  float64 `json:"median_error_at_speed"`
	WorstAt   float64 `json:"worst_error_at_speed"`
	Reference float64 `json:"profile_reference_seconds"` // what the profile says of the reference steps
	Core      float64 `json:"core_time"`                 // median of the rows
}

// validate runs a plan under every bandwidth and budget, in turn, and compares
// times with what the profile predicts. Each run is a process of its own. Before and
// after each, reference steps tell how fast a core is at that time: a machine that is
// slower than its profile is one thing, a prediction that is wrong another.
func (c *characterizeCmd) validate(e *env) error {
	if c.Keys == "" || c.Input == "" || c.PMem == "" || len(c.DRAM) == 0 || c.Runs < 1 || c.Threads < 1 {
		return misuse("--validate wants --keys, --input, --pmem and --dram, and --runs and --threads that are positive")
	}
	prof := backend.DefaultProfile()
	if c.Profile != "" {
		var err error
		if prof, err = backend.LoadProfile(c.Profile); err != nil {
			return err
		}
	}
	p, err := plan.Load(c.Validate)
	if err != nil {
		return err
	}
	r := validateReport{Schema: 1, Model: p.Model, Machine: machine(), Profile: prof.Digest(), Kernels: kernelsInUse(), Threads: c.Threads}
	imitate := []string{}
	for _, spec := range c.Bandwidth {
		flags := tierFlags{Imitate: spec}
		if spec == "none" {
			flags.Imitate = ""
		}
		with, err := flags.profile(prof)
		if err != nil {
			return err
		}
		for _, dram := range c.DRAM {
			other := *p
			if err := passes.Retier(&other, int64(dram), with, c.Threads); err != nil {
				return fmt.Errorf("--dram %s: %w", dram, err)
			}
			t := other.Tier
			r.Rows = append(r.Rows, validateRow{Tier: with.Slow().Name, DRAM: int64(dram), Predicted: t.Seconds, Stall: t.StallSeconds, Read: t.BytesRead, profile: with})
			if spec != "none" {
				i, err := store.ParseImitation(spec, imitations())
				if err != nil {
					return misuse("--bandwidth %s: %v", spec, err)
				}
				r.Rows[len(r.Rows)-1].Tier = i.String()
			}
			imitate = append(imitate, flags.Imitate)
		}
	}
	*p = plan.Plan{} // the runs need the memory
	if err := c.measure(e, &r, imitate, prof); err != nil {
		return err
	}
	if p, err = plan.Load(c.Validate); err != nil {
		return err
	}
	var all, at []float64
	var cores []float64
	for i := range r.Rows {
		x := &r.Rows[i]
		other := *p
		if err := passes.Retier(&other, x.DRAM, x.profile, c.Threads); err != nil {
			return err
		}
		x.AtSpeed = passes.PredictAt(&other, other.Tier, x.profile, c.Threads, 1/x.Core).Seconds
		x.Error, x.ErrorAt = x.Predicted/x.Median-1, x.AtSpeed/x.Median-1
		all, at, cores = append(all, math.Abs(x.Error)), append(at, math.Abs(x.ErrorAt)), append(cores, x.Core)
	}
	r.Median, r.Worst, r.MedianAt, r.WorstAt, r.Core = middle(all), slices.Max(all), middle(at), slices.Max(at), middle(cores)
	if c.JSON {
		return e.printJSON(r)
	}
	return r.write(e.out)
}

// write prints the report as a table.
func (r *validateReport) write(w io.Writer) error {
	t := newTable(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
	t.row("slow tier", "DRAM", "predicted", "measured", "spread", "error", "core", "predicted so", "error so", "stalls predicted", "seen", "read")
	for _, x := range r.Rows {
		t.row(x.Tier, byteSize(x.DRAM).String(), seconds(x.Predicted), seconds(x.Median), fmt.Sprintf("%s to %s", seconds(slices.Min(x.Seconds)), seconds(slices.Max(x.Seconds))),
			fmt.Sprintf("%+.1f %%", 100*x.Error), fmt.Sprintf("x%.2f", x.Core), seconds(x.AtSpeed), fmt.Sprintf("%+.1f %%", 100*x.ErrorAt),
			seconds(x.Stall), seconds(x.StallSeen), byteSize(x.BytesRead).String())
	}
	if err := t.write(w, ""); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `
error of the prediction: %.1f %% in the median, %.1f %% at worst
core: reference steps took %.2f times what the profile says (%s), median of the rows
error for a core of the speed that it had: %.1f %% in the median, %.1f %% at worst
`, 100*r.Median, 100*r.Worst, r.Core, seconds(r.Reference), 100*r.MedianAt, 100*r.WorstAt)
	return err
}

// measure runs all rows by turns, with the reference steps before and after each.
func (c *characterizeCmd) measure(e *env, r *validateReport, imitate []string, prof *backend.Profile) (err error) {
	dir, err := os.MkdirTemp("", "home-validate-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	steps, err := newReferenceSteps()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, steps.close()) }()
	r.Reference = steps.predict(prof)
	bar := e.bar("runs", c.Runs*len(r.Rows))
	defer bar.stop()
	stalls := make([][]float64, len(r.Rows))
	before, err := steps.time()
	if err != nil {
		return err
	}
	for range c.Runs {
		for i := range r.Rows {
			x := &r.Rows[i]
			s, stall, read, err := c.runOnce(e, x.DRAM, imitate[i], filepath.Join(dir, "y.hct"))
			if err != nil {
				return fmt.Errorf("%s, %s: %w", x.Tier, byteSize(x.DRAM), err)
			}
			after, err := steps.time()
			if err != nil {
				return err
			}
			x.Seconds, x.BytesRead, x.CoreSeconds = append(x.Seconds, s), read, append(x.CoreSeconds, (before+after)/2)
			stalls[i], before = append(stalls[i], stall), after
			bar.add(1)
		}
	}
	for i := range r.Rows {
		x := &r.Rows[i]
		x.Median, x.StallSeen, x.Core = middle(x.Seconds), middle(stalls[i]), middle(x.CoreSeconds)/r.Reference
	}
	return nil
}

// middle is the median.
func middle(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// runOnce runs the plan in a process of its own.
func (c *characterizeCmd) runOnce(e *env, dram int64, imitate, out string) (seconds, stall float64, read int64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, 0, err
	}
	args := []string{"run", c.Validate, "--keys", c.Keys, "--input", c.Input, "-o", out, "--pmem", c.PMem, "--dram", fmt.Sprint(dram), "--threads", fmt.Sprint(c.Threads), "--json"}
	if imitate != "" {
		args = append(args, "--imitate", imitate)
	}
	if c.Profile != "" {
		args = append(args, "--profile", c.Profile)
	}
	cmd := exec.CommandContext(e.ctx, self, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	b, err := cmd.Output()
	if err != nil {
		if e.ctx.Err() != nil {
			return 0, 0, 0, e.ctx.Err()
		}
		return 0, 0, 0, fmt.Errorf("home %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	var got struct {
		Seconds float64 `json:"seconds"`
		Tiers   []struct {
			Read  int64   `json:"bytes_read"`
			Stall float64 `json:"stall_seconds"`
		} `json:"tiers"`
	}
	if err := json.Unmarshal(b, &got); err != nil || !(got.Seconds > 0) {
		return 0, 0, 0, errors.Join(errors.New("home run gave no report"), err)
	}
	for _, t := range got.Tiers {
		read, stall = read+t.Read, stall+t.Stall
	}
	return got.Seconds, stall, read, nil
}
