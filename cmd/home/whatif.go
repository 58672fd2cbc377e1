package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/passes"
)

// whatIfPoint is a machine that inspect predicts a run for.
type whatIfPoint struct {
	dram  byteSize
	tier  *backend.TierProfile // nil: the slow tier of the profile
	cores int
	accel float64
}

// whatIfMost is the most points that one command predicts.
const whatIfMost = 400

// parseWhatIf reads --what-if: budgets such as 512MiB,1GiB, or keys of a machine,
// dram=4GiB,tier=optane-6dimm,cores=32,accel=10, each of which may list values with
// "/" or name a range, 1GiB..16GiB, of doublings. tier=all takes all technologies.
func parseWhatIf(specs []string) ([]whatIfPoint, error) {
	var out []whatIfPoint
	for _, spec := range specs {
		points, err := parseWhatIfSpec(spec)
		if err != nil {
			return nil, misuse("--what-if %s: %v", spec, err)
		}
		if out = append(out, points...); len(out) > whatIfMost {
			return nil, misuse("--what-if: %d machines are more than %d", len(out), whatIfMost)
		}
	}
	return out, nil
}

func parseWhatIfSpec(spec string) ([]whatIfPoint, error) {
	drams, tiers, cores, accels := []byteSize{0}, []*backend.TierProfile{nil}, []int{1}, []float64{1}
	if !strings.Contains(spec, "=") {
		spec = "dram=" + strings.ReplaceAll(spec, ",", "/")
	}
	given := map[string]bool{}
	for part := range strings.SplitSeq(spec, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || value == "" {
			return nil, fmt.Errorf("%q is no KEY=VALUE", part)
		}
		if given[key] {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		given[key] = true
		var err error
		switch key {
		case "dram":
			var sizes []float64
			sizes, err = sweep(value, func(s string) (float64, error) {
				var b byteSize
				err := b.UnmarshalText([]byte(s))
				return float64(b), err
			})
			drams = drams[:0]
			for _, s := range sizes {
				drams = append(drams, byteSize(s))
			}
		case "tier":
			tiers, err = parseTechnologies(value)
		case "cores":
			var numbers []float64
			numbers, err = sweep(value, func(s string) (float64, error) {
				n, err := strconv.Atoi(s)
				if err == nil && (n < 1 || n > 1024) {
					err = errors.New("cores are from 1 to 1024")
				}
				return float64(n), err
			})
			cores = cores[:0]
			for _, n := range numbers {
				cores = append(cores, int(n))
			}
		case "accel":
			accels, err = sweep(value, func(s string) (float64, error) {
				x, err := strconv.ParseFloat(s, 64)
				if err == nil && !(x >= 1 && x <= 1e6) {
					err = errors.New("an accelerator is from 1 to 1000000 times as fast")
				}
				return x, err
			})
		default:
			err = errors.New("there are dram, tier, cores and accel")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if n := len(drams) * len(tiers) * len(cores) * len(accels); n > whatIfMost {
		return nil, fmt.Errorf("%d machines are more than %d", n, whatIfMost)
	}
	var out []whatIfPoint
	for _, t := range tiers {
		for _, c := range cores {
			for _, a := range accels {
				for _, d := range drams {
					out = append(out, whatIfPoint{d, t, c, a})
				}
			}
		}
	}
	return out, nil
}

// sweep reads one value, values between "/", or a range of doublings "a..b", whose
// end is part of it.
func sweep(value string, parse func(string) (float64, error)) ([]float64, error) {
	var out []float64
	for part := range strings.SplitSeq(value, "/") {
		from, to, ranged := strings.Cut(part, "..")
		lo, err := parse(from)
		if err != nil {
			return nil, err
		}
		if !ranged {
			out = append(out, lo)
			continue
		}
		hi, err := parse(to)
		if err != nil {
			return nil, err
		}
		if !(lo > 0) || hi < lo {
			return nil, fmt.Errorf("%s is no range that grows", part)
		}
		for x := lo; x < hi*(1-1e-9); x *= 2 {
			if out = append(out, x); len(out) > whatIfMost {
				return nil, fmt.Errorf("%s has more than %d values", part, whatIfMost)
			}
		}
		out = append(out, hi)
	}
	return out, nil
}

func parseTechnologies(value string) ([]*backend.TierProfile, error) {
	all := backend.Technologies()
	var out []*backend.TierProfile
	for name := range strings.SplitSeq(value, "/") {
		if name == "all" {
			for i := range all {
				out = append(out, &all[i])
			}
			continue
		}
		i := slices.IndexFunc(all, func(t backend.TierProfile) bool { return t.Name == name })
		if i < 0 {
			var names []string
			for _, t := range all {
				names = append(names, t.Name)
			}
			return nil, fmt.Errorf("%q is none of %s, all", name, strings.Join(names, ", "))
		}
		out = append(out, &all[i])
	}
	return out, nil
}

// whatIfs predicts all points, several at once. What the slow tier of a machine
// holds is chosen for the smallest budget that fits, where it matters most, and
// serves the others.
func whatIfs(e *env, p *plan.Plan, points []whatIfPoint, prof *backend.Profile) ([]whatIfReport, error) {
	type machine struct {
		tier  *backend.TierProfile
		cores int
		accel float64
	}
	of := map[machine][]int{}
	var order []machine
	for i, x := range points {
		m := machine{x.tier, x.cores, x.accel}
		if of[m] == nil {
			order = append(order, m)
		}
		of[m] = append(of[m], i)
	}
	bar := e.bar("predicting runs", len(points))
	defer bar.stop()
	out := make([]whatIfReport, len(points))
	errs := make([]error, len(order))
	next := make(chan int, len(order))
	for i := range order {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	for range min(goruntime.NumCPU(), len(order)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := range next {
				ids := of[order[k]]
				slices.SortStableFunc(ids, func(a, b int) int { // from small to large, no bound last
					return cmp.Compare(uint64(points[a].dram)-1, uint64(points[b].dram)-1)
				})
				var forms *plan.Forms
				for _, i := range ids {
					if errs[k] = e.ctx.Err(); errs[k] != nil {
						return
					}
					if out[i], forms, errs[k] = whatIf(p, points[i], prof, forms); errs[k] != nil {
						return
					}
					bar.add(1)
				}
			}
		}()
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

// whatIf plans the tiers for another machine and says what comes of it. It returns
// the forms that the slow tier has.
func whatIf(p *plan.Plan, x whatIfPoint, prof *backend.Profile, forms *plan.Forms) (whatIfReport, *plan.Forms, error) {
	s := passes.Supposed{DRAM: int64(x.dram), Profile: prof, Cores: x.cores, Accelerate: x.accel, Forms: forms}
	if x.tier != nil {
		s.Profile, s.Refit = prof.With(*x.tier), true
	}
	slow := s.Profile.Slow()
	r := whatIfReport{DRAM: int64(x.dram), Tier: slow.Name, Source: slow.Source, Bandwidth: slow.ReadBps, Cores: x.cores, Accelerator: x.accel}
	t, run, err := passes.Suppose(p, s)
	var small *passes.BudgetError
	switch {
	case errors.As(err, &small):
		r.Least = small.Least
		return r, forms, nil
	case err != nil:
		return r, forms, err
	}
	r.Fits, r.Least = true, p.Bytes.DRAMMin
	r.Seconds, r.StallSeconds, r.CPUSeconds = run.Seconds, run.StallSeconds, run.StepSeconds+run.MakeSeconds
	r.MakeSeconds = run.MakeSeconds
	r.BytesRead, r.BytesMapped, r.BytesWritten, r.BytesLower = run.BytesRead+run.BytesMapped, run.BytesMapped, t.BytesWritten, t.BytesBound
	return r, &t.Forms, nil
}

// words describes the outcome in the columns of a table.
func (w *whatIfReport) words() []string {
	dram := "all"
	if w.DRAM > 0 {
		dram = byteSize(w.DRAM).String()
	}
	out := []string{w.Tier, dram, fmt.Sprint(w.Cores), strconv.FormatFloat(w.Accelerator, 'g', 4, 64)}
	if !w.Fits {
		return append(out, "too small", "", "at least "+byteSize(w.Least).String(), "", "")
	}
	return append(out, seconds(w.Seconds), seconds(w.StallSeconds), byteSize(w.BytesRead).String(), byteSize(w.BytesWritten).String(), byteSize(w.BytesLower).String())
}

// whatIfColumns are the columns of words.
var whatIfColumns = []string{"slow tier", "DRAM", "cores", "accel", "time", "waiting", "read", "written", "read at least"}

// speed is how many times faster than one core of the profile a machine computes at
// best.
func (w *whatIfReport) speed() float64 { return float64(w.Cores) * math.Max(1, w.Accelerator) }
