package jobs

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
)

// lane is the work of this process on one app and kind. Each has a queue of its
// own, so that none can starve another.
type lane struct {
	app     *App
	kind    sweepKind
	queue   repo.QueueOf
	breaker *ask.Breaker   // before the API
	opinion *secondOpinion // of a presence lane; if nil, the provider has none
	// announced are the logouts that hooks announced, of a presence lane. If nil, hooks are
	// off.
	announced *announced
	slots     chan struct{} // holds an element for each page that is asked about
	working   atomic.Int64  // jobs that are being worked on
	claims    atomic.Int64  // ranges and plans that were claimed so far
	failing   bool          // an outage is on record; of the keeper
}

func queueName(appID int16, kind imclient.Kind) string {
	return fmt.Sprintf("app%d_%s", appID, kind)
}

func (s *shared) newLane(app *App, kind imclient.Kind) *lane {
	l := &lane{
		app: app, kind: kinds[kind],
		queue:   repo.QueueOf{AppID: app.ID, Kind: kind, Name: queueName(app.ID, kind)},
		breaker: s.newBreaker(app, kind),
	}
	l.slots = make(chan struct{}, ask.PagesAhead(s.config.PageUsers, l.kind.maxBatch(app)))
	if api, ok := app.Presence.(statusAPI); ok && kind == imclient.KindPresence {
		l.opinion = &secondOpinion{api: api}
	}
	return l
}

// lane returns the lane of a run.
func (s *shared) lane(run repo.Run) *lane { return s.lanes[queueName(run.AppID, run.Kind)] }

// quota returns the quota of the API of a kind, nil if it has none.
func (a *App) quota(kind imclient.Kind) *repo.Quota {
	for _, quota := range a.Quotas {
		if quota.Kind() == kind {
			return quota
		}
	}
	return nil
}

// begin counts a job until done is called.
func (l *lane) begin() (done func()) {
	l.working.Add(1)
	return func() { l.working.Add(-1) }
}

// newBreaker returns the breaker of an app's API. What it does is logged and shown
// by metrics; the time of an answer reaches the other processes with the quota's
// next reservation.
func (s *shared) newBreaker(app *App, kind imclient.Kind) *ask.Breaker {
	b := ask.NewBreaker()
	b.Stopping = s.stopping.Done()
	b.Longest = min(ask.LongestOpen, s.config.Outage/5) // no run ends without a few probes
	open := s.config.Metrics.breakerOpen.WithLabelValues(app.Name, string(kind))
	b.Opened = func(err error) {
		open.Set(1)
		// Once for each kind, even if the failure is of the login that both need.
		s.warnings.repeat(warningKey{app.Name, "the API gives no answer; calls are held back", string(kind) + " " + reasonOf(err)}, err, func(event *zerolog.Event) {
			event.Str("kind", string(kind)).Str("class", imclient.ClassOf(err).String()).Str("error", err.Error())
		})
	}
	b.Closed = func(d time.Duration, probes int) {
		open.Set(0)
		s.log.Info().Str("app", app.Name).Str("kind", string(kind)).Dur("dur_ms", d).Int("probes", probes).Msg("the API answers again")
	}
	if quota := app.quota(kind); quota != nil {
		b.Answered = func() { quota.Answered(s.store.Now()) }
	}
	return b
}
