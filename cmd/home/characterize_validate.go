package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
}

// validate runs a plan under every bandwidth and budget, in turn, and compares
// times with what the profile predicts. Each run is a process of its own.
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
			r.Rows = append(r.Rows, validateRow{Tier: with.Slow().Name, DRAM: int64(dram), Predicted: t.Seconds, Stall: t.StallSeconds, Read: t.BytesRead})
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
	dir, err := os.MkdirTemp("", "home-validate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bar := e.bar("runs", c.Runs*len(r.Rows))
	defer bar.stop()
	stalls := make([][]float64, len(r.Rows))
	for range c.Runs {
		for i := range r.Rows {
			x := &r.Rows[i]
			seconds, stall, read, err := c.runOnce(e, x.DRAM, imitate[i], filepath.Join(dir, "y.hct"))
			if err != nil {
				return fmt.Errorf("%s, %s: %w", x.Tier, byteSize(x.DRAM), err)
			}
			x.Seconds, x.BytesRead = append(x.Seconds, seconds), read
			stalls[i] = append(stalls[i], stall)
			bar.add(1)
		}
	}
	bar.stop()
	var all []float64
	for i := range r.Rows {
		x := &r.Rows[i]
		x.Median, x.StallSeen = middle(x.Seconds), middle(stalls[i])
		x.Error = x.Predicted/x.Median - 1
		all = append(all, math.Abs(x.Error))
	}
	r.Median, r.Worst = middle(all), slices.Max(all)
	if c.JSON {
		return e.printJSON(r)
	}
	t := newTable(1, 2, 3, 4, 5, 6, 7, 8)
	t.row("slow tier", "DRAM", "predicted", "measured", "spread", "error", "stalls predicted", "seen", "read")
	for _, x := range r.Rows {
		t.row(x.Tier, byteSize(x.DRAM).String(), seconds(x.Predicted), seconds(x.Median), fmt.Sprintf("%s to %s", seconds(slices.Min(x.Seconds)), seconds(slices.Max(x.Seconds))),
			fmt.Sprintf("%+.1f %%", 100*x.Error), seconds(x.Stall), seconds(x.StallSeen), byteSize(x.BytesRead).String())
	}
	if err := t.write(e.out, ""); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "\nerror of the prediction: %.1f %% in the median, %.1f %% at worst\n", 100*r.Median, 100*r.Worst)
	return err
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
