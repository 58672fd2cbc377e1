//go:build race

package runtime

// raceEnabled: the race detector keeps shadows of all memory, so that no bound
// on the process holds.
const raceEnabled = true
