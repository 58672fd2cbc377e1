package runtime

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/home-fhe/home/runtime/store"
)

// ErrNotInstalled says that a slow tier lacks keys or weights of a plan.
// Install adds them.
var ErrNotInstalled = errors.New("not installed")

// segmentBytes is about how much Install writes between two points from which
// it can go on; more where that is less than an object per thread.
const segmentBytes = 64 << 20

// InstallOptions say how to install.
type InstallOptions struct {
	// Threads expand keys and encode weights at once; 0 means 1. A small
	// budget lowers it.
	Threads int
	// Budget bounds the whole process in bytes as in plan.Tier, of which
	// Reserve is left to the runtime; 0 means no bound.
	Budget, Reserve int64
	// Technology of the slow tier; nil means what store.Detect finds.
	Technology store.Technology
	// Events receives progress; may be nil. Start is the zero of its times.
	Events Listener
	Start  time.Time
}

// InstallReport says what an install did.
type InstallReport struct {
	SetupSeconds float64 `json:"setup_seconds"`
	Objects      int     `json:"objects"` // keys and weights of the plan
	Present      int     `json:"present"` // of these, found in the tier
	BytesWritten int64   `json:"bytes_written"`
	Technology   string  `json:"technology"`
	KeyFile      string  `json:"key_file"`
	WeightFile   string  `json:"weight_file"`
}

// place is where an object of a plan lives in the slow tier.
type place struct {
	kind  store.Kind
	addr  store.Addr
	slabs int
}

// compactForm marks the kind of an object that is stored in compact form.
const compactForm = 1 << 31

// compactForms lists, for each object of a plan that the slow tier holds in
// compact form, the slabs that this takes: those objects that the tier plan says,
// where the engine can expand them.
func compactForms(p *plan.Plan, e backend.Engine) ([][]int, error) {
	forms := make([][]int, len(p.Objects))
	c, ok := e.(backend.Compact)
	if !ok || p.Tier == nil {
		return forms, nil
	}
	for i := range p.Objects {
		o := &p.Objects[i]
		if p.Tier.Forms.Of(p, plan.ObjectID(i)) != plan.Compact {
			continue
		}
		stored := p.Tier.Forms.Stored(p, plan.ObjectID(i))
		if forms[i] = c.CompactSlabs(o.Type); len(forms[i]) != stored {
			return nil, fmt.Errorf("%s: the %s engine stores %d slabs, the tier plan %d", describe(p, plan.ObjectID(i)), e.Name(), len(forms[i]), stored)
		}
	}
	return forms, nil
}

// pick returns the slabs of a compact form.
func pick(slabs [][]byte, form []int) [][]byte {
	out := make([][]byte, len(form))
	for i, k := range form {
		out[i] = slabs[k]
	}
	return out
}

// layout names the tier files of a plan and the place of each of its keys and
// weights. Keys belong to the secret key and the parameters, so plans share
// them; weights belong to the plan.
type layout struct {
	header map[store.Kind]store.Header
	path   map[store.Kind]string
	place  []place // per object; slabs 0 where it is not in the slow tier
}

func newLayout(p *plan.Plan, e backend.Engine, keysID, dir string) (*layout, error) {
	print, err := p.Fingerprint()
	if err != nil {
		return nil, err
	}
	params, err := plan.Marshal(p.Params)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(params)
	l := &layout{
		header: map[store.Kind]store.Header{
			store.KeyFile:    {Kind: store.KeyFile, SlabBytes: e.SlabBytes(), ID: fmt.Sprintf("%s keys %s, parameters %s", e.Name(), keysID, hex.EncodeToString(sum[:8]))},
			store.WeightFile: {Kind: store.WeightFile, SlabBytes: e.SlabBytes(), ID: fmt.Sprintf("%s plan %s", e.Name(), print)},
		},
		path:  map[store.Kind]string{},
		place: make([]place, len(p.Objects)),
	}
	for k, h := range l.header {
		id := sha256.Sum256([]byte(h.ID))
		l.path[k] = filepath.Join(dir, fmt.Sprintf("%v-%s.htier", k, hex.EncodeToString(id[:8])))
	}
	compact, err := compactForms(p, e)
	if err != nil {
		return nil, err
	}
	for i := range p.Objects {
		o := &p.Objects[i]
		a := store.Addr{Kind: uint32(o.Type.Kind), Level: uint32(o.Type.Level)}
		switch o.Role {
		case plan.RoleKey:
			a.A = int64(o.Rot)
			l.place[i] = place{store.KeyFile, a, e.Slabs(o.Type)}
		case plan.RolePlain:
			h := fnv.New64a()
			fmt.Fprint(h, o.Type.Scale)
			a.A, a.B = int64(o.Plain), h.Sum64()
			l.place[i] = place{store.WeightFile, a, e.Slabs(o.Type)}
		}
		if compact[i] != nil {
			l.place[i].addr.Kind |= compactForm
			l.place[i].slabs = len(compact[i])
		}
	}
	return l, nil
}

// missing lists the objects of a kind that f lacks, each place once.
func (l *layout) missing(k store.Kind, f *store.TierFile) (need []plan.ObjectID, total int) {
	seen := map[store.Addr]bool{}
	for i, pl := range l.place {
		if pl.slabs == 0 || pl.kind != k || seen[pl.addr] {
			continue
		}
		seen[pl.addr] = true
		total++
		if f == nil || !f.Has(pl.addr, pl.slabs) {
			need = append(need, plan.ObjectID(i))
		}
	}
	return need, total
}

// Install brings the keys and encoded weights of a plan into the slow tier in
// dir, which is made if it is missing. What is there already is not written
// again, so an install that was cut short, even by a crash, goes on where it
// stopped, and plans of one client share their keys. Besides the reserve and the
// plan's slot values it takes at most twice the largest object per thread. An
// error leaves everything valid that was written before.
func Install(ctx context.Context, p *plan.Plan, e backend.Engine, keys KeySource, dir string, o InstallOptions) (rep InstallReport, err error) {
	began := time.Now()
	if o.Start.IsZero() {
		o.Start = began
	}
	if o.Technology == nil {
		if o.Technology, err = store.Detect(dir); err != nil {
			return rep, err
		}
	}
	rep.Technology = o.Technology.Name()
	l, err := newLayout(p, e, keys.ID(), dir)
	if err != nil {
		return rep, err
	}
	rep.KeyFile, rep.WeightFile = l.path[store.KeyFile], l.path[store.WeightFile]
	largest := 0
	for _, pl := range l.place {
		largest = max(largest, pl.slabs)
	}
	threads := max(o.Threads, 1)
	// An object, and what a key source reads and unpacks to make it.
	if one := 2 * int64(largest) * int64(e.SlabBytes()); o.Budget > 0 && one > 0 {
		held := o.Reserve + p.PlainBytes()
		if held+one > o.Budget {
			return rep, &plan.BudgetError{Budget: o.Budget, Least: held + one}
		}
		threads = int(min(int64(threads), (o.Budget-held)/one))
	}
	arena, err := store.NewArena(e.SlabBytes(), max(threads*largest, 1), nil)
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	in := &installer{p: p, e: e, keys: keys, o: o, threads: threads, arena: arena, l: l, rep: &rep}
	for _, k := range []store.Kind{store.KeyFile, store.WeightFile} {
		if err := in.file(ctx, k); err != nil {
			return rep, err
		}
	}
	rep.SetupSeconds = time.Since(began).Seconds()
	return rep, nil
}

type installer struct {
	p       *plan.Plan
	e       backend.Engine
	keys    KeySource
	o       InstallOptions
	threads int
	arena   *store.Arena
	l       *layout
	rep     *InstallReport
}

func (in *installer) emit(e Event) {
	if in.o.Events != nil {
		e.At = time.Since(in.o.Start)
		in.o.Events.Event(e)
	}
}

// file completes one tier file.
func (in *installer) file(ctx context.Context, k store.Kind) (err error) {
	// A complete file is only read, so that others may be using it.
	if f, err := store.Open(in.o.Technology, in.l.path[k], in.l.header[k]); err == nil {
		need, total := in.l.missing(k, f)
		if err := f.Close(); err != nil {
			return err
		}
		if len(need) == 0 {
			in.rep.Objects += total
			in.rep.Present += total
			return nil
		}
	}
	if need, _ := in.l.missing(k, nil); len(need) == 0 {
		return nil // the engine keeps nothing of this kind
	}
	f, err := store.Create(in.o.Technology, in.l.path[k], in.l.header[k])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	need, total := in.l.missing(k, f)
	in.rep.Objects += total
	in.rep.Present += total - len(need)
	in.emit(Event{Kind: SetupBegin, Label: k.String(), Total: len(need)})
	defer func() { in.emit(Event{Kind: SetupEnd, Label: k.String(), Err: err}) }()
	done := 0
	for len(need) > 0 {
		bytes, n := int64(0), 0
		for n < len(need) && (n < in.threads || bytes < segmentBytes) {
			bytes += int64(in.l.place[need[n]].slabs) * int64(in.e.SlabBytes())
			n++
		}
		if err := in.segment(ctx, f, k, need[:n], done, done+len(need)); err != nil {
			return err
		}
		need, done = need[n:], done+n
		in.rep.BytesWritten += bytes
	}
	return nil
}

// segment makes and writes some objects together.
func (in *installer) segment(ctx context.Context, f *store.TierFile, k store.Kind, objs []plan.ObjectID, done, total int) error {
	specs := make([]store.Spec, len(objs))
	for i, o := range objs {
		specs[i] = store.Spec{Addr: in.l.place[o].addr, Slabs: in.l.place[o].slabs}
	}
	seg, err := f.Segment(specs)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	err = parallel(ctx, in.threads, len(objs), func(i int) error {
		block, err := in.arena.Alloc(specs[i].Slabs, store.Scratch, "install")
		if err != nil {
			return err
		}
		defer block.Free()
		if specs[i].Addr.Kind&compactForm != 0 {
			err = makeCompact(in.p, in.e, in.keys, objs[i], block.Slabs)
		} else {
			err = makeObject(in.p, in.e, in.keys, objs[i], block.Slabs)
		}
		if err != nil {
			return err
		}
		if err := seg.Write(i, block.Slabs); err != nil {
			return err
		}
		mu.Lock()
		done++
		n := done
		mu.Unlock()
		in.emit(Event{Kind: SetupDone, Label: k.String(), Obj: objs[i], Done: n, Total: total, Bytes: int64(specs[i].Slabs) * int64(in.e.SlabBytes())})
		return nil
	})
	if err != nil {
		return seg.Abort(err)
	}
	return seg.Commit()
}

// makeObject expands a key or encodes a weight into slabs.
func makeObject(p *plan.Plan, e backend.Engine, keys KeySource, obj plan.ObjectID, slabs [][]byte) error {
	o := &p.Objects[obj]
	if o.Role == plan.RoleKey {
		if keys == nil {
			return fmt.Errorf("the %s engine needs the %s at level %d, and no keys were given", e.Name(), ir.KeyName(o.Rot), o.Type.Level)
		}
		if err := keys.Key(o.Rot, o.Type.Level, slabs); err != nil {
			return fmt.Errorf("%s: %w", describe(p, obj), err)
		}
		return nil
	}
	values, err := slotValues(p, obj)
	if err != nil {
		return err
	}
	op, err := e.Bind(o.Type, slabs)
	if err == nil {
		err = e.Encode(values, op)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", describe(p, obj), err)
	}
	return nil
}

// makeCompact makes the compact form of a key or a weight.
func makeCompact(p *plan.Plan, e backend.Engine, keys KeySource, obj plan.ObjectID, slabs [][]byte) error {
	o := &p.Objects[obj]
	var err error
	if o.Role == plan.RoleKey {
		err = keys.Compact(o.Rot, o.Type.Level, slabs)
	} else if values, bad := slotValues(p, obj); bad != nil {
		return bad
	} else {
		err = e.(backend.Compact).EncodeCompact(values, o.Type, slabs[0])
	}
	if err != nil {
		return fmt.Errorf("%s: %w", describe(p, obj), err)
	}
	return nil
}

// slotValues returns what a weight is encoded from.
func slotValues(p *plan.Plan, obj plan.ObjectID) (*ir.SlotData, error) {
	o := &p.Objects[obj]
	if int(o.Plain) >= len(p.Plains) {
		return nil, fmt.Errorf("%s: the plan was read without its weights", describe(p, obj))
	}
	return &p.Plains[o.Plain], nil
}

// Store is the slow tier of one plan: its installed keys and weights, and room
// for the ciphertexts that its tier plan spills. It implements Slow.
type Store struct {
	l     *layout
	files map[store.Kind]*store.TierFile
	spill *store.Spill
	slabs []int // per object
	about string
}

// OpenStore opens what Install wrote for a plan and the key set keysID. It
// fails with ErrNotInstalled where something is missing. Spill room is made
// where p.Tier wants it. Several processes may have the same tier open.
func OpenStore(p *plan.Plan, e backend.Engine, keysID, dir string, t store.Technology) (_ *Store, err error) {
	if t == nil {
		if t, err = store.Detect(dir); err != nil {
			return nil, err
		}
	}
	l, err := newLayout(p, e, keysID, dir)
	if err != nil {
		return nil, err
	}
	s := &Store{l: l, files: map[store.Kind]*store.TierFile{}, slabs: make([]int, len(p.Objects)), about: t.Name()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for i := range p.Objects {
		s.slabs[i] = e.Slabs(p.Objects[i].Type)
	}
	for _, k := range []store.Kind{store.KeyFile, store.WeightFile} {
		if need, _ := l.missing(k, nil); len(need) == 0 {
			continue
		}
		f, err := store.Open(t, l.path[k], l.header[k])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w: there are no %v of this plan", dir, ErrNotInstalled, k)
		}
		if err != nil {
			return nil, err
		}
		s.files[k] = f
		s.about = f.Describe()
		if need, total := l.missing(k, f); len(need) > 0 {
			return nil, fmt.Errorf("%s: %w: %d of %d %v are missing", l.path[k], ErrNotInstalled, len(need), total, k)
		}
	}
	var spilled []int
	seen := map[plan.ObjectID]bool{}
	if p.Tier != nil {
		for _, a := range p.Tier.Actions {
			if a.Kind == plan.ActSpill && a.Obj >= 0 && int(a.Obj) < len(s.slabs) && !seen[a.Obj] {
				seen[a.Obj] = true
				spilled = append(spilled, s.slabs[a.Obj])
			}
		}
	}
	if len(spilled) > 0 {
		if s.spill, err = store.NewSpill(t, dir, e.SlabBytes(), spilled); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Read implements Slow. Of an object in compact form there are the slabs of that
// form.
func (s *Store) Read(obj plan.ObjectID, first int, dst [][]byte) error {
	if pl := s.l.place[obj]; pl.slabs > 0 {
		return s.files[pl.kind].Read(pl.addr, first, dst)
	}
	return s.spill.Read(int64(obj), first, dst)
}

// Write implements Slow.
func (s *Store) Write(obj plan.ObjectID, first int, src [][]byte) error {
	if s.spill == nil {
		return errors.New("the tier plan writes ciphertexts back, but the slow tier was opened for one that does not")
	}
	return s.spill.Write(int64(obj), s.slabs[obj], first, src)
}

// Technology implements Slow.
func (s *Store) Technology() string { return s.about }

// Close closes the files and gives the spill room back.
func (s *Store) Close() error {
	var errs []error
	for _, k := range []store.Kind{store.KeyFile, store.WeightFile} {
		if f := s.files[k]; f != nil {
			errs = append(errs, f.Close())
		}
	}
	if s.spill != nil {
		errs = append(errs, s.spill.Close())
	}
	return errors.Join(errs...)
}
