package jobs

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrTrouble says that the database answers, and yet does not let the engine do
// its work: no space is left, for instance.
var ErrTrouble = errors.New("the database does not let the work go on")

// troubles knows what of the engine's own work with the database failed the last
// time it was tried. Safe for concurrent use.
type troubles struct {
	mu   sync.Mutex
	last map[string]trouble // by what was tried
}

type trouble struct {
	err error
	at  time.Time
}

// note takes note of how something ended.
func (t *troubles) note(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		delete(t.last, what)
		return
	}
	if t.last == nil {
		t.last = make(map[string]trouble)
	}
	t.last[what] = trouble{err, time.Now()}
}

// newest gives what failed last, unless that is so long ago that it may not be
// tried again for long.
func (t *troubles) newest(within time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var what string
	var newest trouble
	for w, last := range t.last {
		if last.at.After(newest.at) {
			what, newest = w, last
		}
	}
	if newest.err == nil || time.Since(newest.at) > within {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", ErrTrouble, what, newest.err)
}

// Trouble returns ErrTrouble, and why, if the last attempt to write a page, to start
// the run of a tick or to keep house failed for the database, and ErrStalled if work is
// due that is not taken up. It returns nil if all went well, or nothing was tried for as
// long as it takes to take over lost ranges.
func (e *Engine) Trouble() error {
	if err := e.troubles.newest(e.config.RescueAfter); err != nil {
		return err
	}
	if stalled := e.stalls.found.Load(); stalled != nil {
		return *stalled
	}
	return nil
}
