package passes

import (
	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Options steer the compiler. The zero value compiles one sample for latency at
// 128 bits with the shipped cost profile.
type Options struct {
	// Calibrate holds samples in the shape of the network's single input (batch
	// dimension included), from which activation ranges are read and on which
	// the accuracy budget is checked. Without samples, interval bounds are used.
	Calibrate []*ir.Array
	// AccuracyDrop is the accuracy budget: the largest share of calibration
	// samples whose top-1 class may change. 0 means 0.005.
	AccuracyDrop float64
	// Margin widens calibrated ranges: half widths are multiplied by 1+Margin.
	// 0 means 0.25.
	Margin float64
	// InputLo, InputHi bound the inputs where no calibration samples are given.
	InputLo, InputHi float64
	// Throughput asks for the most samples per second instead of the least time
	// for one.
	Throughput bool
	// Batch is the number of samples one run computes; 0 lets the objective
	// decide (1 for latency, a ciphertext's slots for throughput).
	Batch int
	// DRAM is the byte budget of the whole process at run time; 0 is unlimited.
	DRAM int64
	// Profile is the cost model; nil means the shipped one.
	Profile *backend.Profile
	// Params fixes the parameters instead of choosing from the catalogue.
	Params *ir.Params
	// AllowInsecure accepts parameters below 128 bits and stamps the plan.
	AllowInsecure bool
	// Preprocess travels to the client.
	Preprocess *plan.Preprocess
	// Skip names optional passes to leave out.
	Skip []string
	// StopAfter ends the pipeline after the named pass.
	StopAfter string
	// Observe sees the graph after every pass, for --dump-ir.
	Observe func(pass string, g *ir.Graph) error
}

func (o *Options) drop() float64 {
	if o.AccuracyDrop == 0 {
		return 0.005
	}
	return o.AccuracyDrop
}

func (o *Options) margin() float64 {
	if o.Margin == 0 {
		return 0.25
	}
	return o.Margin
}

func (o *Options) profile() *backend.Profile {
	if o.Profile == nil {
		return backend.DefaultProfile()
	}
	return o.Profile
}
