// Package runtime executes plans: it issues the steps of a plan in order to
// worker goroutines, obeys the plan's residency decisions over DRAM and a slow
// tier, and reports what happens as typed events.
package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// EventKind says what happened. Kinds come in pairs of begin and end.
type EventKind uint8

// Kinds of events, with the fields that are set beside Kind and At.
const (
	RunBegin        EventKind = iota // Label: engine; Total: steps
	RunEnd                           // Err
	StepBegin                        // Step, Lead, Op, Layer, Worker
	StepEnd                          // Step, Lead, Op, Layer, Worker, Done, Total, Err
	LayerBegin                       // Layer, Label: name; when its first step begins
	LayerEnd                         // Layer, Label; when its last step has ended
	FetchBegin                       // Step that ordered it, Obj, Worker: I/O worker, Bytes
	FetchEnd                         // the same, Err
	SpillBegin                       // Step, Obj, Worker, Bytes
	SpillEnd                         // the same, Err
	StallBegin                       // no step runs because one waits for the slow tier
	StallEnd                         // Seconds
	SetupBegin                       // Label: "keys" or "weights"; Total: objects
	SetupDone                        // one more object is made: Label, Done, Total, Bytes
	SetupEnd                         // Label, Err
	ExpandBegin                      // a worker expands what was fetched: Step that ordered it, Obj, Worker
	ExpandEnd                        // the same, Err
	CheckpointBegin                  // a snapshot before Step is being written, Bytes
	CheckpointEnd                    // the same, Err; it is durable
	numEventKinds
)

var eventNames = [numEventKinds]string{
	"run begin", "run end", "step begin", "step end", "layer begin", "layer end",
	"fetch begin", "fetch end", "spill begin", "spill end", "stall begin", "stall end",
	"setup begin", "setup progress", "setup end", "expand begin", "expand end",
	"checkpoint begin", "checkpoint end",
}

func (k EventKind) String() string {
	if k < numEventKinds {
		return eventNames[k]
	}
	return fmt.Sprintf("event(%d)", uint8(k))
}

// Event is one thing that happened during set-up or a run. It is passed by
// value and holds no reference to the runtime's memory.
type Event struct {
	Kind    EventKind
	At      time.Duration // since the run or the set-up began
	Worker  int           // worker or I/O worker, from 0
	Step    int32         // index into Plan.Steps
	Lead    int32         // the first of the steps that are done together; it ends last
	Op      ir.Op
	Layer   int32 // index into Plan.Layers, -1 for none
	Obj     plan.ObjectID
	Bytes   int64
	Done    int
	Total   int
	Seconds float64
	Label   string
	Err     error
}

// Listener receives events. Event is called from several goroutines at once,
// sometimes many thousand times a second, and must return quickly.
type Listener interface{ Event(e Event) }

// ListenerFunc makes a function a Listener.
type ListenerFunc func(e Event)

// Event calls the function.
func (f ListenerFunc) Event(e Event) { f(e) }

// Listeners passes every event on to several listeners in order.
type Listeners []Listener

// Event passes the event on.
func (ls Listeners) Event(e Event) {
	for _, l := range ls {
		l.Event(e)
	}
}

// Log returns a listener that writes events to a logger: runs, set-up and
// layers at level info, stalls at debug, steps and transfers only where the
// logger is enabled below debug (level -8). Errors are logged at level error.
func Log(l *slog.Logger) Listener { return logListener{l} }

type logListener struct{ l *slog.Logger }

// LevelTrace is the log level of single steps and transfers.
const LevelTrace = slog.LevelDebug - 4

func (t logListener) Event(e Event) {
	level := LevelTrace
	switch e.Kind {
	case RunBegin, RunEnd, LayerEnd, SetupBegin, SetupEnd:
		level = slog.LevelInfo
	case LayerBegin, StallBegin, StallEnd, CheckpointEnd:
		level = slog.LevelDebug
	}
	if e.Err != nil {
		level = slog.LevelError
	}
	ctx := context.Background()
	if !t.l.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.Duration("at", e.At)}
	if e.Label != "" {
		attrs = append(attrs, slog.String("name", e.Label))
	}
	switch e.Kind {
	case RunBegin, SetupBegin:
		attrs = append(attrs, slog.Int("total", e.Total))
	case StepBegin, StepEnd:
		attrs = append(attrs, slog.Int("step", int(e.Step)), slog.String("op", e.Op.String()), slog.Int("worker", e.Worker))
	case FetchBegin, FetchEnd, SpillBegin, SpillEnd:
		attrs = append(attrs, slog.Int("object", int(e.Obj)), slog.Int64("bytes", e.Bytes))
	case CheckpointBegin, CheckpointEnd:
		attrs = append(attrs, slog.Int("step", int(e.Step)), slog.Int64("bytes", e.Bytes))
	case StallEnd:
		attrs = append(attrs, slog.Float64("seconds", e.Seconds))
	case ExpandBegin, ExpandEnd:
		attrs = append(attrs, slog.Int("object", int(e.Obj)), slog.Int("worker", e.Worker))
	case SetupDone:
		attrs = append(attrs, slog.Int("done", e.Done), slog.Int("total", e.Total))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	t.l.LogAttrs(ctx, level, e.Kind.String(), attrs...)
}
