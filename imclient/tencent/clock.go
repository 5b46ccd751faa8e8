package tencent

import (
	"fmt"
	"sync"
	"time"

	"syncer/imclient"
)

// clockWatch compares the provider's clock with ours.
type clockWatch struct {
	mu     sync.Mutex
	skew   time.Duration
	warned time.Time
}

const (
	maxSkew      = time.Minute // more is warned about
	skewWarnings = time.Hour   // at most one warning in
)

// see takes note of an answer's Date; warn says that a warning is due.
func (w *clockWatch) see(r imclient.Reply) (skew time.Duration, warn bool) {
	if r.Date.IsZero() {
		return 0, false
	}
	if r.Date.After(r.AnsweredAt) {
		skew = r.Date.Sub(r.AnsweredAt)
	} else if r.Date.Before(r.AskedAt) {
		skew = r.Date.Sub(r.AskedAt)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skew = skew
	if skew.Abs() <= maxSkew || !w.warned.IsZero() && r.AnsweredAt.Sub(w.warned).Abs() < skewWarnings {
		return skew, false
	}
	w.warned = r.AnsweredAt
	return skew, true
}

// note says how far the clocks are apart, for an error's text; "" when they agree.
func (w *clockWatch) note() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.skew.Abs() <= maxSkew {
		return ""
	}
	return fmt.Sprintf("; the provider's clock differs from ours by %s", w.skew.Round(time.Second))
}
