package main

import (
	"fmt"
	"time"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/runtime/store"
)

// tierFlags say what the slow tier is and how fast it seems.
type tierFlags struct {
	Technology string `enum:"auto,file,dax,devdax,mmap" default:"auto" placeholder:"NAME" help:"How the slow tier is reached: file (direct I/O), dax (a file system on persistent memory, mapped), devdax (a device such as /dev/dax0.0 in place of the folder), mmap (page faults and the page cache: a baseline for comparisons). Default: devdax and dax where that is so, else file."`
	Imitate    string `placeholder:"SPEC" help:"Slow the slow tier down to the figures of another technology, for experiments: read=500MB/s,write=200MB/s,latency=300us,depth=4. Reports call it an imitation."`
}

// technology returns the technology for a folder, and the imitation if there is one.
func (f *tierFlags) technology(dir string) (store.Technology, *store.Throttle, error) {
	i, err := f.imitation()
	if err != nil {
		return nil, nil, err
	}
	t, err := store.Named(f.Technology, dir)
	if err != nil || i == nil {
		return t, nil, err
	}
	slow := store.NewThrottle(t, *i)
	return slow, slow, nil
}

// imitation reads --imitate; nil where it is not given.
func (f *tierFlags) imitation() (*store.Imitation, error) {
	if f.Imitate == "" {
		return nil, nil
	}
	i, err := store.ParseImitation(f.Imitate, imitations())
	if err != nil {
		return nil, misuse("--imitate: %v", err)
	}
	return &i, nil
}

// imitations are the technologies that --imitate knows by name.
func imitations() map[string]store.Imitation {
	named := map[string]store.Imitation{}
	for _, t := range backend.Technologies() {
		named[t.Name] = imitationOf(t)
	}
	return named
}

// imitationOf makes an imitation out of what a profile says of a tier.
func imitationOf(t backend.TierProfile) store.Imitation {
	return store.Imitation{Name: t.Name, ReadBps: t.ReadBps, WriteBps: t.WritBps, Latency: time.Duration(t.Latency * 1e9), Depth: t.Depth}
}

// profile returns a cost profile for planning, in which the slow tier is as fast as
// the imitation makes it: p, or the default where p is nil.
func (f *tierFlags) profile(p *backend.Profile) (*backend.Profile, error) {
	i, err := f.imitation()
	if err != nil || i == nil {
		return p, err
	}
	if p == nil {
		p = backend.DefaultProfile()
	}
	own := *p
	slow := p.Slow()
	if slow.Name, slow.Source, slow.Addressable = "imitation", i.String(), false; i.ReadBps > 0 {
		slow.ReadBps = i.ReadBps
	}
	if i.WriteBps > 0 {
		slow.WritBps = i.WriteBps
	}
	if i.Latency > 0 {
		slow.Latency = i.Latency.Seconds()
	}
	if i.Depth > 0 {
		slow.Depth = i.Depth
	}
	own.Tiers = append(append([]backend.TierProfile(nil), p.Tiers[:len(p.Tiers)-1]...), slow)
	return &own, nil
}

// sayImitation says that figures are those of an imitation, terminal or not, and
// where what it is made of was too slow.
func sayImitation(e *env, t *store.Throttle) {
	if t == nil {
		return
	}
	fmt.Fprintf(e.err, "the slow tier is an %s\n", t.Imitation())
	if late, all := t.Behind(); late > all/20 {
		fmt.Fprintf(e.err, "the technology below was too slow for %d of its %d transfers: times are in part its own\n", late, all)
	}
}
