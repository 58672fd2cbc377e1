package passes

import (
	"fmt"
	"sort"
	"strings"
)

// levelsPass counts the levels that the network takes in one go.
func levelsPass(u *unit) error {
	u.straight = assignLevels(u.fused)
	return nil
}

// assignLevels gives every step the lowest level that its users allow (outputs
// end at level 0) and returns the highest one that a ciphertext stands at, while
// it is refreshed included.
func assignLevels(nodes []*fusedNode) int {
	for _, n := range nodes {
		n.level = 0
	}
	depth := 0
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		need, most := n.level+n.depth(), n.level
		if n.kind == fusedRefresh {
			need, most = n.boot.levelsIn(), n.level+n.boot.levelsOver()
		}
		for _, a := range n.args {
			a.level = max(a.level, need)
		}
		depth = max(depth, most)
	}
	return depth
}

// describeDepth says, for a message, where the levels go.
func describeDepth(nodes []*fusedNode) string {
	type part struct {
		name  string
		depth int
	}
	var parts []part
	for _, n := range nodes {
		if n.kind == fusedPoly {
			parts = append(parts, part{n.name, n.depth()})
		}
	}
	sort.SliceStable(parts, func(i, j int) bool { return parts[i].depth > parts[j].depth })
	var s []string
	for i, p := range parts {
		if i == 3 {
			s = append(s, fmt.Sprintf("and %d more activations", len(parts)-3))
			break
		}
		s = append(s, fmt.Sprintf("%s takes %d", p.name, p.depth))
	}
	return strings.Join(s, ", ")
}
