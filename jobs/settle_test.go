package jobs

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
	"syncer/repo/userstable"
)

// TestDecide: what becomes of a range for each kind of error, during an outage and
// without one, at the last attempt and before it.
func TestDecide(t *testing.T) {
	t.Parallel()
	begun := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	api := func(class imclient.Class) error {
		return fmt.Errorf("page 3: %w", &imclient.Error{Class: class, Code: "1"})
	}
	database := errors.New("write a page: connection reset")
	before, within := outage{true, begun.Add(-time.Second)}, outage{true, begun.Add(time.Second)}
	for name, tc := range map[string]struct {
		err       error
		last      bool
		cancelled bool
		outage    outage
		want      action
	}{
		"no error":                         {want: done},
		"no error, cancelled":              {cancelled: true, want: done},
		"the claim is lost":                {err: fmt.Errorf("write: %w", repo.ErrGone), last: true, want: done},
		"the engine stops":                 {err: ask.ErrStopped, last: true, want: giveBack},
		"cancelled":                        {err: context.Canceled, last: true, cancelled: true, want: giveBack},
		"cancelled amid a fatal answer":    {err: api(imclient.ClassFatal), cancelled: true, want: giveBack},
		"throttled":                        {err: api(imclient.ClassThrottled), want: throttled},
		"throttled at the last attempt":    {err: api(imclient.ClassThrottled), last: true, want: throttled},
		"fatal":                            {err: api(imclient.ClassFatal), want: failRun},
		"refused credentials":              {err: api(imclient.ClassUnauthorised), want: failRun},
		"the users table":                  {err: fmt.Errorf("read: %w", &userstable.Error{}), want: failRun},
		"transient":                        {err: api(imclient.ClassTransient), want: retry},
		"transient at the last attempt":    {err: api(imclient.ClassTransient), last: true, want: giveUp},
		"an outage of before the attempt":  {err: api(imclient.ClassTransient), last: true, outage: before, want: waitForAPI},
		"an outage that began within it":   {err: api(imclient.ClassTransient), outage: within, want: retry},
		"such an outage, the last attempt": {err: api(imclient.ClassTransient), last: true, outage: within, want: giveUp},
		"fatal amid an outage":             {err: api(imclient.ClassFatal), outage: before, want: failRun},
		"the database":                     {err: database, want: retry},
		"the database amid an outage":      {err: database, outage: before, want: retry},
		"the database, last attempt":       {err: database, last: true, outage: before, want: giveUp},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(outcome{err: tc.err, last: tc.last, begun: begun}, tc.cancelled, tc.outage); got != tc.want {
				t.Errorf("it is to %s, want %s", got, tc.want)
			}
		})
	}
}
