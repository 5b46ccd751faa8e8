package tencent

import (
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"syncer/imclient"
)

// clockWatch compares the provider's clock with ours, because signatures are dated.
type clockWatch struct {
	log zerolog.Logger

	mu     sync.Mutex
	skew   time.Duration
	warned time.Time
}

const (
	maxSkew      = time.Minute // more is logged
	skewWarnings = time.Hour   // shortest time between two warnings
)

// see takes the clock of an answer and warns if it differs by more than maxSkew.
func (w *clockWatch) see(api string, r imclient.Reply) {
	if r.Date.IsZero() {
		return
	}
	var skew time.Duration
	if r.Date.After(r.AnsweredAt) {
		skew = r.Date.Sub(r.AnsweredAt)
	} else if r.Date.Before(r.AskedAt) {
		skew = r.Date.Sub(r.AskedAt)
	}
	if w.set(skew, r.AnsweredAt) {
		w.log.Warn().Str("api", api).Dur("skew", skew).
			Msg("the provider's clock differs from ours; signatures may be refused: check the database's clock")
	}
}

// set stores the skew and reports whether a warning is due.
func (w *clockWatch) set(skew time.Duration, now time.Time) (warn bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skew = skew
	if skew.Abs() <= maxSkew || !w.warned.IsZero() && now.Sub(w.warned).Abs() < skewWarnings {
		return false
	}
	w.warned = now
	return true
}

// note returns the skew as the end of an error's text, "" if the clocks agree.
func (w *clockWatch) note() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.skew.Abs() <= maxSkew {
		return ""
	}
	return fmt.Sprintf("; the provider's clock differs from ours by %s", w.skew.Round(time.Second))
}
