package main

import (
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/home-fhe/home/backend/clear"
)

// bar is a progress bar on a terminal, and nothing anywhere else.
type bar struct {
	pool *mpb.Progress
	b    *mpb.Bar
}

// bar starts a progress bar for total things.
func (e *env) bar(what string, total int) *bar {
	if !e.term || total < 2 {
		return &bar{}
	}
	pool := mpb.New(mpb.WithOutput(e.err), mpb.WithWidth(min(e.wide-4, 60)))
	style := mpb.BarStyle().Lbound("").Filler("━").Tip("━").Padding("─").Rbound("")
	b := pool.New(int64(total), style,
		mpb.PrependDecorators(decor.Name(what, decor.WC{W: 20, C: decor.DindentRight})),
		mpb.AppendDecorators(decor.CountersNoUnit(" %d/%d"), decor.OnComplete(decor.AverageETA(decor.ET_STYLE_GO, decor.WC{W: 8}), "")),
		mpb.BarRemoveOnComplete(),
	)
	return &bar{pool, b}
}

func (b *bar) add(n int) {
	if b.b != nil {
		b.b.IncrBy(n)
	}
}

// set moves the bar to n.
func (b *bar) set(n int) {
	if b.b != nil {
		b.b.SetCurrent(int64(n))
	}
}

// stop removes the bar. It may be called twice.
func (b *bar) stop() {
	if b.b == nil {
		return
	}
	b.b.Abort(true)
	b.pool.Wait()
	b.b = nil
}

// violationCount collects the activations that left their range.
type violationCount struct{ clear.Stats }

// warn names them: outputs beyond the range are no longer what the accuracy
// budget promised.
func (v *violationCount) warn(e *env) {
	for _, x := range v.Violations {
		e.warn("%s: %s values left the range that its polynomial was made for, by up to a factor of %.2f; calibrate with inputs like these",
			x.Value.Name, count(x.Count), x.Worst)
	}
}
