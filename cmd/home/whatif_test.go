package main

import (
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/passes"
)

func TestParseWhatIf(t *testing.T) {
	for spec, want := range map[string]int{
		"512MiB,1GiB,2GiB":                     3,
		"1GiB":                                 1,
		"dram=1GiB..16GiB":                     5,
		"dram=1GiB..3GiB":                      3, // 1, 2 and the end
		"dram=1GiB/4GiB,tier=optane-6dimm/cxl": 4,
		"tier=all":                             8,
		"dram=4GiB,tier=optane-6dimm,cores=32,accel=10": 1,
		"cores=1..32,accel=1/10":                        12,
	} {
		points, err := parseWhatIf([]string{spec})
		if err != nil || len(points) != want {
			t.Errorf("%s: %d machines (%v), want %d", spec, len(points), err, want)
		}
	}
	for _, spec := range []string{"", "dram", "dram=", "dram=x", "dram=4GiB..1GiB", "tier=tape", "cores=0", "cores=1.5", "accel=0.5", "accel=nan", "ram=1GiB", "dram=1GiB,dram=2GiB", "tier=all/all/all/all,cores=1..1024,accel=1..1000"} {
		if points, err := parseWhatIf([]string{spec}); err == nil {
			t.Errorf("%q is accepted: %d machines", spec, len(points))
		}
	}
	points, err := parseWhatIf([]string{"512MiB", "dram=4GiB,tier=nvme,cores=2,accel=3"})
	if err != nil {
		t.Fatal(err)
	}
	if p := points[0]; p.dram != 512<<20 || p.tier != nil || p.cores != 1 || p.accel != 1 {
		t.Errorf("512MiB is %+v", p)
	}
	if p := points[1]; p.dram != 4<<30 || p.tier == nil || p.tier.Name != "nvme" || p.cores != 2 || p.accel != 3 {
		t.Errorf("the second machine is %+v", p)
	}
}

// The fit finds the constants that timings were made with, although some of these
// were disturbed.
func TestFitProfile(t *testing.T) {
	all, err := passes.BootCatalogue()
	if err != nil {
		t.Fatal(err)
	}
	truth := backend.DefaultProfile()
	var timings []timing
	for _, level := range []int{2, 5, 9, 14, 20, 26} {
		for i := range measured {
			x := timing{all[0], measured[i].op, measured[i].out, level, 0, measured[i].streams}
			x.seconds = x.predict(truth)
			if (i+level)%9 == 0 {
				x.seconds *= 2.5
			}
			timings = append(timings, x)
		}
	}
	got := new(backend.Profile)
	fitProfile(got, timings)
	for i := range timings {
		x := &timings[i]
		if r := x.predict(got) / x.predict(truth); r < 0.93 || r > 1.07 {
			t.Errorf("%s at level %d: the fit predicts %.2f times what is right", x.op, x.level, r)
		}
	}
}
