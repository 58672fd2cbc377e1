package main

import (
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/home-fhe/home/backend/clear"
	"github.com/home-fhe/home/runtime"
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
		e.warn("%s: %s values left the range that its polynomial was made for, by up to a factor of %.3g; calibrate with inputs like these",
			x.Value.Name, count(x.Count), x.Worst)
	}
}

// of moves the bar to done of total things; the total may become known late.
func (b *bar) of(done, total int) {
	if b.b != nil {
		b.b.SetTotal(int64(total), false)
		b.b.SetCurrent(int64(done))
	}
}

// watch draws bars for the events of set-up and run.
type watch struct {
	e  *env
	mu sync.Mutex
	b  *bar
}

// watch returns a listener that draws on a terminal and is silent elsewhere.
func (e *env) watch() *watch { return &watch{e: e, b: &bar{}} }

// Event implements runtime.Listener.
func (w *watch) Event(ev runtime.Event) {
	if !w.e.term {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch ev.Kind {
	case runtime.SetupBegin:
		w.b.stop()
		w.b = w.e.bar("setting up "+ev.Label, ev.Total)
	case runtime.RunBegin:
		w.b.stop()
		w.b = w.e.bar("computing", ev.Total)
	case runtime.SetupDone, runtime.StepEnd:
		w.b.of(ev.Done, ev.Total)
	case runtime.SetupEnd, runtime.RunEnd:
		w.b.stop()
	}
}

// stop removes what is drawn.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.stop()
}
