package jobs

import (
	"errors"
	"testing"
	"time"
)

// TestRecentErrors: the newest failure is told until the same thing goes well, or
// nothing was tried for long.
func TestRecentErrors(t *testing.T) {
	t.Parallel()
	var all recentErrors
	if err := all.newest(time.Hour); err != nil {
		t.Errorf("at the start: %v", err)
	}
	full := errors.New("no space left")
	all.note("write a page", full)
	all.note("housekeeping", nil)
	if err := all.newest(time.Hour); !errors.Is(err, ErrTrouble) || !errors.Is(err, full) {
		t.Errorf("after a page: %v", err)
	}
	if err := all.newest(0); err != nil {
		t.Errorf("long after it: %v", err)
	}
	all.note("write a page", nil)
	if err := all.newest(time.Hour); err != nil {
		t.Errorf("after a page that went well: %v", err)
	}
}
