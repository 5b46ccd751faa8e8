//go:build long

package e2e

import (
	"fmt"
	"testing"
	"time"
)

// longPatience bounds what a long test waits for.
const longPatience = 5 * time.Minute

// TestLongFleet: whatever the number of processes, the quota is used and never
// exceeded, and each has its share of the work.
func TestLongFleet(t *testing.T) {
	for _, n := range []int{1, 2, 4, 8} {
		t.Run(fmt.Sprintf("processes=%d", n), func(t *testing.T) {
			testFleet(t, n, fleetOptions{limit: 30, rate: 27, page: 100, worldOptions: worldOptions{users: 6000, config: everySecond, patience: longPatience}})
		})
	}
}
