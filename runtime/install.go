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
	"slices"
	"strings"
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
	form  plan.Form
	slabs int
}

// The form that an object is stored in is part of its address.
const (
	compactForm = 1 << 31
	bothForms   = 1 << 30
)

// in returns the place of the same object in another form.
func (pl place) in(p *plan.Plan, obj plan.ObjectID, form plan.Form) place {
	n := p.Slabs(obj)
	pl.addr.Kind &^= compactForm | bothForms
	switch pl.form = form; form {
	case plan.Compact:
		pl.addr.Kind |= compactForm
		if pl.slabs = 1; p.Objects[obj].Role == plan.RoleKey {
			pl.slabs += n / 2
		}
	case plan.Both:
		pl.addr.Kind |= bothForms
		pl.slabs = n + 1
	default:
		pl.slabs = n
	}
	return pl
}

// layout names the tier files of a plan and the place of each of its keys and
// weights. Keys belong to the secret key and the parameters, so plans share
// them; weights belong to the plan.
type layout struct {
	header map[store.Kind]store.Header
	path   map[store.Kind]string
	place  []place // per object; slabs 0 where it is not in the slow tier
	e      backend.Engine
}

// idOfKeys begins the identity of what an engine makes of a key set, idOfWeights is
// that of the weights of the plan with a fingerprint.
func idOfKeys(engine, keysID string) string   { return fmt.Sprintf("%s keys %s,", engine, keysID) }
func idOfWeights(engine, print string) string { return fmt.Sprintf("%s plan %s", engine, print) }

// tierName names the file of a header in its folder.
func tierName(h store.Header) string {
	id := sha256.Sum256([]byte(h.ID))
	return fmt.Sprintf("%v-%s%s", h.Kind, hex.EncodeToString(id[:8]), store.Suffix)
}

// Needs is what a slow tier is kept for. Where it names no plan, the weights of all
// plans are; where it names no key set, all keys are.
type Needs struct {
	Engine string   // whose form they have: backend.Engine's Name
	Plans  []string // fingerprints
	Keys   []string // ids of key sets, as KeySource has them
}

// Prune finds the tier files in a folder, and removes those that nothing needs and no
// process has open if remove says so. See store.Prune.
func Prune(ctx context.Context, dir string, n Needs, remove bool) ([]store.Found, error) {
	return store.Prune(ctx, dir, tierName, func(h store.Header) bool {
		switch h.Kind {
		case store.KeyFile:
			return len(n.Keys) == 0 || slices.ContainsFunc(n.Keys, func(id string) bool { return strings.HasPrefix(h.ID, idOfKeys(n.Engine, id)) })
		case store.WeightFile:
			return len(n.Plans) == 0 || slices.ContainsFunc(n.Plans, func(print string) bool { return h.ID == idOfWeights(n.Engine, print) })
		}
		return true
	}, remove)
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
			store.KeyFile:    {Kind: store.KeyFile, SlabBytes: e.SlabBytes(), ID: fmt.Sprintf("%s parameters %s", idOfKeys(e.Name(), keysID), hex.EncodeToString(sum[:8]))},
			store.WeightFile: {Kind: store.WeightFile, SlabBytes: e.SlabBytes(), ID: idOfWeights(e.Name(), print)},
		},
		path:  map[store.Kind]string{},
		place: make([]place, len(p.Objects)),
		e:     e,
	}
	for k, h := range l.header {
		l.path[k] = filepath.Join(dir, tierName(h))
	}
	_, compact := e.(backend.Compact)
	for i := range p.Objects {
		o := &p.Objects[i]
		a := store.Addr{Kind: uint32(o.Type.Kind), Level: uint32(o.Type.Level)}
		switch o.Role {
		case plan.RoleKey:
			a.A = int64(o.Rot)
			l.place[i] = place{store.KeyFile, a, plan.Whole, e.Slabs(o.Type)}
		case plan.RolePlain:
			h := fnv.New64a()
			fmt.Fprint(h, o.Type.Scale)
			a.A, a.B = int64(o.Plain), h.Sum64()
			l.place[i] = place{store.WeightFile, a, plan.Whole, e.Slabs(o.Type)}
		}
		if l.place[i].slabs == 0 || p.Tier == nil {
			continue
		}
		form := p.Tier.Forms.Of(p, plan.ObjectID(i))
		switch {
		case form == plan.Absent || form == plan.Whole:
			continue
		case !compact:
			return nil, fmt.Errorf("%s: the tier plan computes it from less, which the %s engine cannot: make one for it that does not", describe(p, plan.ObjectID(i)), e.Name())
		case l.place[i].slabs != p.Slabs(plan.ObjectID(i)):
			return nil, fmt.Errorf("%s: the %s engine stores %d slabs, the tier plan %d", describe(p, plan.ObjectID(i)), e.Name(), l.place[i].slabs, p.Slabs(plan.ObjectID(i)))
		}
		l.place[i] = l.place[i].in(p, plan.ObjectID(i), form)
	}
	return l, nil
}

// find returns where f holds an object: in the form that the plan wants, or in one
// that offers as much.
func (l *layout) find(p *plan.Plan, obj plan.ObjectID, f *store.TierFile) (place, bool) {
	pl := l.place[obj]
	if f.Has(pl.addr, pl.slabs) {
		return pl, true
	}
	if _, ok := l.e.(backend.Compact); ok && pl.form != plan.Both && p.Slabs(obj) == l.e.Slabs(p.Objects[obj].Type) {
		if both := pl.in(p, obj, plan.Both); f.Has(both.addr, both.slabs) {
			return both, true
		}
	}
	return pl, false
}

// missing lists the objects of a kind that f lacks, each place once.
func (l *layout) missing(p *plan.Plan, k store.Kind, f *store.TierFile) (need []plan.ObjectID, total int) {
	seen := map[store.Addr]bool{}
	for i, pl := range l.place {
		if pl.slabs == 0 || pl.kind != k || seen[pl.addr] {
			continue
		}
		seen[pl.addr] = true
		total++
		if f != nil {
			if _, ok := l.find(p, plan.ObjectID(i), f); ok {
				continue
			}
		}
		need = append(need, plan.ObjectID(i))
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
	largest, twice := 0, 0
	for _, pl := range l.place {
		largest = max(largest, pl.slabs)
		if pl.form == plan.Both {
			pl.slabs-- // the source is made of what the rest is made of
		}
		twice = max(twice, 2*pl.slabs)
	}
	threads := max(o.Threads, 1)
	// An object, and what a key source reads and unpacks to make it.
	if one := int64(twice) * int64(e.SlabBytes()); o.Budget > 0 && one > 0 {
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
		need, total := in.l.missing(in.p, k, f)
		if err := f.Close(); err != nil {
			return err
		}
		if len(need) == 0 {
			in.rep.Objects += total
			in.rep.Present += total
			return nil
		}
	}
	if need, _ := in.l.missing(in.p, k, nil); len(need) == 0 {
		return nil // the engine keeps nothing of this kind
	}
	f, err := store.Create(in.o.Technology, in.l.path[k], in.l.header[k])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	need, total := in.l.missing(in.p, k, f)
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
		if err := makeForm(in.p, in.e, in.keys, objs[i], in.l.place[objs[i]].form, block.Slabs); err != nil {
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
	return makeForm(p, e, keys, obj, plan.Whole, slabs)
}

// makeForm makes what the slow tier holds of an object.
func makeForm(p *plan.Plan, e backend.Engine, keys KeySource, obj plan.ObjectID, form plan.Form, slabs [][]byte) error {
	o := &p.Objects[obj]
	if o.Role == plan.RoleKey {
		if keys == nil {
			return fmt.Errorf("the %s engine needs the %s at level %d, and no keys were given", e.Name(), ir.KeyName(o.Rot), o.Type.Level)
		}
		var seed []byte
		if form != plan.Whole {
			seed = slabs[len(slabs)-1]
			clear(seed)
			seed, slabs = seed[:e.(backend.Compact).SeedBytes()], slabs[:len(slabs)-1]
		}
		if form == plan.Compact {
			all := make([][]byte, p.Slabs(obj))
			for i := range all {
				if !p.Uniform(obj, i) {
					all[i], slabs = slabs[0], slabs[1:]
				}
			}
			slabs = all
		}
		if err := keys.Key(o.Rot, o.Type.Level, slabs, seed); err != nil {
			return fmt.Errorf("%s: %w", describe(p, obj), err)
		}
		return nil
	}
	values, err := slotValues(p, obj)
	if err != nil {
		return err
	}
	if form != plan.Whole {
		last := len(slabs) - 1
		if err := e.(backend.Compact).EncodeCompact(values, o.Type, slabs[last]); err != nil {
			return fmt.Errorf("%s: %w", describe(p, obj), err)
		}
		slabs = slabs[:last]
	}
	if form != plan.Compact {
		op, err := e.Bind(o.Type, slabs)
		if err == nil {
			err = e.Encode(values, op)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", describe(p, obj), err)
		}
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
	p     *plan.Plan
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
	s := &Store{p: p, l: l, files: map[store.Kind]*store.TierFile{}, slabs: make([]int, len(p.Objects)), about: t.Name()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	for i := range p.Objects {
		s.slabs[i] = e.Slabs(p.Objects[i].Type)
	}
	for _, k := range []store.Kind{store.KeyFile, store.WeightFile} {
		if need, _ := l.missing(p, k, nil); len(need) == 0 {
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
		if need, total := l.missing(p, k, f); len(need) > 0 {
			return nil, fmt.Errorf("%s: %w: %d of %d %v are missing", l.path[k], ErrNotInstalled, len(need), total, k)
		}
		for i, pl := range l.place {
			if pl.slabs > 0 && pl.kind == k {
				l.place[i], _ = l.find(p, plan.ObjectID(i), f)
			}
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

// Read implements Slow.
func (s *Store) Read(obj plan.ObjectID, first int, dst [][]byte) error {
	pl := s.l.place[obj]
	if pl.slabs == 0 {
		return s.spill.Read(int64(obj), first, dst)
	}
	for len(dst) > 0 {
		at, n, err := s.stretch(obj, first, len(dst))
		if err != nil {
			return err
		}
		if err := s.files[pl.kind].Read(pl.addr, at, dst[:n]); err != nil {
			return err
		}
		first, dst = first+n, dst[n:]
	}
	return nil
}

// stretch returns where in its place a slab of an object lies, and how many of the
// count slabs from there on follow it.
func (s *Store) stretch(obj plan.ObjectID, first, count int) (at, n int, err error) {
	if s.l.place[obj].form != plan.Compact {
		return first, count, nil
	}
	for n = range count {
		k, ok := s.p.Tier.Forms.StoredAt(s.p, obj, first+n)
		switch {
		case !ok:
			return 0, 0, fmt.Errorf("%s: slab %d is not stored", describe(s.p, obj), first+n)
		case n == 0:
			at = k
		case k != at+n:
			return at, n, nil
		}
	}
	return at, count, nil
}

// Addressable implements Mapper.
func (s *Store) Addressable() bool {
	for _, f := range s.files {
		if !f.Addressable() {
			return false
		}
	}
	return len(s.files) > 0
}

// Map implements Mapper.
func (s *Store) Map(obj plan.ObjectID, first, count int) (slabs [][]byte, check func() error, err error) {
	pl := s.l.place[obj]
	if pl.slabs == 0 {
		return nil, nil, fmt.Errorf("%s is not installed", describe(s.p, obj))
	}
	for len(slabs) < count {
		at, n, err := s.stretch(obj, first+len(slabs), count-len(slabs))
		if err != nil {
			return nil, nil, err
		}
		some, more, err := s.files[pl.kind].Map(pl.addr, at, n)
		if err != nil {
			return nil, nil, err
		}
		slabs = append(slabs, some...)
		switch before := check; {
		case before == nil:
			check = more
		case more != nil:
			check = func() error { return errors.Join(before(), more()) }
		}
	}
	return slabs, check, nil
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
