package runtime

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/home-fhe/home/ir/plan"
)

// Trace is a listener that writes the Chrome trace event format, which opens
// in Perfetto: one track per worker with the steps, one per I/O worker with
// the transfers, one with the stalls and one with the layers. Times are
// microseconds since the run began. Call Close when the run has ended.
type Trace struct {
	mu    sync.Mutex
	w     *bufio.Writer
	plan  *plan.Plan
	first bool
	named map[int]bool
	open  map[spanKey]Event
	with  map[int32][]int32 // by the first of steps that are done together, those that have ended
	err   error
}

type spanKey struct {
	track int
	id    int32
}

// Tracks of the trace; workers and I/O workers are numbered from these on.
const (
	trackStall  = 1
	trackSave   = 3
	trackSetup  = 2
	trackWorker = 100
	trackIO     = 10000
)

// NewTrace starts a trace of a run of p on w.
func NewTrace(w io.Writer, p *plan.Plan) *Trace {
	t := &Trace{w: bufio.NewWriter(w), plan: p, first: true, named: map[int]bool{}, open: map[spanKey]Event{}, with: map[int32][]int32{}}
	t.raw(`{"displayTimeUnit":"ms","traceEvents":[`)
	return t
}

func (t *Trace) raw(s string) {
	if _, err := t.w.WriteString(s); err != nil && t.err == nil {
		t.err = err
	}
}

// traceEvent is one record of the Chrome format.
type traceEvent struct {
	Name string         `json:"name"`
	Cat  string         `json:"cat,omitempty"`
	Ph   string         `json:"ph"`
	TS   float64        `json:"ts"`
	Dur  float64        `json:"dur,omitempty"`
	Pid  int            `json:"pid"`
	Tid  int            `json:"tid"`
	ID   string         `json:"id,omitempty"`
	Args map[string]any `json:"args,omitempty"`
}

func (t *Trace) put(e traceEvent) {
	e.Pid = 1
	b, err := json.Marshal(e)
	if err != nil {
		if t.err == nil {
			t.err = err
		}
		return
	}
	if !t.first {
		t.raw(",\n")
	}
	t.first = false
	t.raw(string(b))
}

func (t *Trace) name(track int, name string) int {
	if !t.named[track] {
		t.named[track] = true
		t.put(traceEvent{Name: "thread_name", Ph: "M", Tid: track, Args: map[string]any{"name": name}})
		t.put(traceEvent{Name: "thread_sort_index", Ph: "M", Tid: track, Args: map[string]any{"sort_index": track}})
	}
	return track
}

// Event records a begin, or writes the span that an end completes.
func (t *Trace) Event(e Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Kind {
	case StepBegin:
		t.begin(trackWorker+e.Worker, e.Step, e)
	case StepEnd:
		if e.Lead != e.Step { // one span for all that are done together
			delete(t.open, spanKey{trackWorker + e.Worker, e.Step})
			t.with[e.Lead] = append(t.with[e.Lead], e.Step)
			return
		}
		args, name := map[string]any{"step": e.Step}, e.Op.String()
		if l := t.layer(e.Layer); l != "" {
			args["layer"] = l
		}
		if with := t.with[e.Step]; len(with) > 0 {
			delete(t.with, e.Step)
			slices.Sort(with)
			args["with_steps"] = with
			name = fmt.Sprintf("%s and %d more", name, len(with))
		}
		t.end(t.name(trackWorker+e.Worker, fmt.Sprintf("worker %d", e.Worker)), e.Step, e, name, "step", args)
	case ExpandBegin:
		t.begin(trackWorker+e.Worker, -1, e)
	case ExpandEnd:
		t.end(t.name(trackWorker+e.Worker, fmt.Sprintf("worker %d", e.Worker)), -1, e, "expand "+t.object(e.Obj), "expand",
			map[string]any{"object": e.Obj, "for_step": e.Step})
	case FetchBegin, SpillBegin:
		t.begin(trackIO+e.Worker, e.Obj, e)
	case FetchEnd, SpillEnd:
		name := "fetch "
		if e.Kind == SpillEnd {
			name = "spill "
		}
		t.end(t.name(trackIO+e.Worker, fmt.Sprintf("slow tier %d", e.Worker)), e.Obj, e, name+t.object(e.Obj), "io",
			map[string]any{"object": e.Obj, "bytes": e.Bytes, "for_step": e.Step})
	case CheckpointBegin:
		t.begin(trackSave, 0, e)
	case CheckpointEnd:
		t.end(t.name(trackSave, "checkpoints"), 0, e, "checkpoint", "io", map[string]any{"bytes": e.Bytes, "before_step": e.Step})
	case StallBegin:
		t.begin(trackStall, 0, e)
	case StallEnd:
		t.end(t.name(trackStall, "stalls"), 0, e, "waiting for the slow tier", "stall", nil)
	case SetupBegin:
		t.begin(trackSetup, 0, e)
	case SetupEnd:
		t.end(t.name(trackSetup, "set-up"), 0, e, e.Label, "setup", nil)
	case LayerBegin:
		t.put(traceEvent{Name: e.Label, Cat: "layer", Ph: "b", TS: micros(e), ID: strconv.Itoa(int(e.Layer)), Tid: 1})
	case LayerEnd:
		t.put(traceEvent{Name: e.Label, Cat: "layer", Ph: "e", TS: micros(e), ID: strconv.Itoa(int(e.Layer)), Tid: 1})
	}
}

func micros(e Event) float64 { return float64(e.At.Nanoseconds()) / 1e3 }

func (t *Trace) begin(track int, id int32, e Event) { t.open[spanKey{track, id}] = e }

func (t *Trace) end(track int, id int32, e Event, name, cat string, args map[string]any) {
	b, ok := t.open[spanKey{track, id}]
	if !ok {
		return
	}
	delete(t.open, spanKey{track, id})
	if e.Err != nil {
		if args == nil {
			args = map[string]any{}
		}
		args["error"] = e.Err.Error()
	}
	t.put(traceEvent{Name: name, Cat: cat, Ph: "X", TS: micros(b), Dur: micros(e) - micros(b), Tid: track, Args: args})
}

func (t *Trace) layer(i int32) string {
	if i < 0 || int(i) >= len(t.plan.Layers) {
		return ""
	}
	return t.plan.Layers[i].Name
}

// object describes an object for people.
func (t *Trace) object(id plan.ObjectID) string { return describe(t.plan, id) }

// Close ends the trace. It does not close the writer underneath.
func (t *Trace) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.raw("]}\n")
	if err := t.w.Flush(); err != nil && t.err == nil {
		t.err = err
	}
	return t.err
}
