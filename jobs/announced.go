package jobs

import (
	"sync"
	"time"
)

// announcedFor is how long the logout that a hook announced is remembered, to twice as
// long.
const announcedFor = 5 * time.Minute

// announced remembers the users whose own hook announced a logout: that they are offline
// then is no sign of a backend that fails. It keeps at most about so many users as it is
// made for; the oldest are forgotten. It is safe for concurrent use.
type announced struct {
	most int

	mu          sync.Mutex
	now, before map[string]struct{}
	began       time.Time // of now
}

func newAnnounced(most int) *announced { return &announced{most: most} }

// turn begins another stretch if the present one is over or full.
func (a *announced) turn(at time.Time) {
	switch {
	case at.Sub(a.began) >= 2*announcedFor:
		a.now, a.before, a.began = nil, nil, at
	case at.Sub(a.began) >= announcedFor || len(a.now) >= (a.most+1)/2:
		a.now, a.before, a.began = nil, a.now, at
	}
	if a.now == nil {
		a.now = make(map[string]struct{})
	}
}

// note records that a hook announced a user's logout, or anything else.
func (a *announced) note(userID string, logout bool, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(at)
	if logout {
		a.now[userID] = struct{}{}
		return
	}
	delete(a.now, userID)
	delete(a.before, userID)
}

// logout reports whether the newest hook about a user announced a logout, not long ago. A
// nil announced knows of none.
func (a *announced) logout(userID string, at time.Time) bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(at)
	_, now := a.now[userID]
	_, before := a.before[userID]
	return now || before
}
