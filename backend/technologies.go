package backend

import (
	_ "embed"
	"encoding/json"
)

//go:embed technologies.json
var technologies []byte

// Technologies returns memory technologies by their published figures, from fast
// to slow. What is predicted with them is a prediction: Source says who measured
// the figures, and what was assumed.
func Technologies() []TierProfile {
	var out []TierProfile
	if err := json.Unmarshal(technologies, &out); err != nil {
		panic("BUG: shipped technologies: " + err.Error())
	}
	for i := range out {
		if err := out[i].Check(); err != nil || out[i].Source == "" {
			panic("BUG: shipped technologies: " + out[i].Name)
		}
	}
	return out
}

// With returns the profile with another slow tier. What input costs the steps beside
// it is taken to be as it was, unless slow says otherwise: it is DRAM that they share.
func (p *Profile) With(slow TierProfile) *Profile {
	own := *p
	if slow.Beside == 0 {
		slow.Beside = p.Slow().Beside
	}
	own.Tiers = append(append([]TierProfile(nil), p.Tiers[:max(1, len(p.Tiers)-1)]...), slow)
	return &own
}

// Cores returns the number of cores that the bandwidths of DRAM were measured with.
func (p *Profile) Cores() int {
	cores := 1
	for _, x := range p.Tiers[0].Table {
		cores = max(cores, x.Threads)
	}
	return cores
}
