package jobs

import (
	"sync/atomic"
	"time"

	"syncer/imclient"
)

// hint is what a hook makes of a user: one to look at now.
type hint struct {
	imclient.Hook
	arrived time.Time // the first of those that were coalesced, by the database's clock
	again   bool      // the API has contradicted it once
}

// agrees reports whether a value is what the hint announced. A logout concerns one
// device; the user may be online on others. A hint that announces nothing agrees with
// every value.
func (h *hint) agrees(v imclient.Presence) bool {
	known := h.Platform != imclient.PlatformUnknown && v.Platforms != imclient.Platforms{}
	mode := v.Platforms[h.Platform]
	connected := v.State == imclient.StateOnline && (!known || mode == imclient.ModeOnline || mode == imclient.ModeBackground)
	switch {
	case h.Logout:
		return !connected
	case h.State == imclient.StateOnline:
		return connected
	default:
		return true
	}
}

// announces reports whether the hint says what has become of the user.
func (h *hint) announces() bool { return h.Logout || h.State == imclient.StateOnline }

// repeats reports whether the hint announces what is known already, so that a look would
// bring nothing: OpenIM repeats the state of every connected user every ten minutes. A
// logout of a user who is reachable by push may be the end of that, too.
func (h *hint) repeats(v imclient.Presence) bool {
	return h.announces() && h.agrees(v) && (!h.Logout || v.State != imclient.StatePushOnline)
}

// told returns when the user came to have a value, by the provider; zero if the hint does
// not say.
func (h *hint) told(v imclient.Presence) time.Time {
	if !h.announces() || !h.agrees(v) {
		return time.Time{}
	}
	return h.ToldAt
}

// hints are the users of an app who wait to be looked at, in the order in which they were
// first named. It is not safe for concurrent use.
type hints struct {
	room    *room
	counted int // of size, in room
	waiting map[string]*hint
	order   []string // the keys of waiting
	later   []dueHint
}

// dueHint is a contradicted hint that is to be asked about once more.
type dueHint struct {
	*hint
	due time.Time
}

// room limits the users who wait in a process, of all its apps.
type room struct {
	most  int
	users atomic.Int64
}

func newHints(r *room) *hints { return &hints{room: r, waiting: make(map[string]*hint)} }

func (s *hints) size() int { return len(s.waiting) + len(s.later) }

func (s *hints) isFull() bool { return s.room.users.Load() >= int64(s.room.most) }

// recount tells room how many wait now.
func (s *hints) recount() {
	s.room.users.Add(int64(s.size() - s.counted))
	s.counted = s.size()
}

// add takes a hint. Of two about one user the later event stays, by the provider's time if
// it is known. It reports whether there were two, and whether there was room.
func (s *hints) add(h *hint) (replaced, taken bool) {
	if other, ok := s.waiting[h.UserID]; ok {
		if h.ToldAt.IsZero() || !h.ToldAt.Before(other.ToldAt) {
			h.arrived = other.arrived
			*other = *h
		}
		return true, true
	}
	if s.isFull() {
		return false, false
	}
	s.waiting[h.UserID] = h
	s.order = append(s.order, h.UserID)
	s.recount()
	return false, true
}

// back returns hints that were taken, and not dealt with, to the front. One whose user has
// another by now is left out, as is one for which there is no room. It returns the number
// left out.
func (s *hints) back(all []*hint) (left int) {
	var front []string
	for _, h := range all {
		if _, ok := s.waiting[h.UserID]; ok || s.isFull() {
			left++
			continue
		}
		s.waiting[h.UserID] = h
		s.recount()
		front = append(front, h.UserID)
	}
	s.order = append(front, s.order...)
	return left
}

// putOff keeps a contradicted hint until it is due. All are put off for the same time.
func (s *hints) putOff(h *hint, due time.Time) {
	h.again = true
	s.later = append(s.later, dueHint{h, due})
	s.recount()
}

// ripen lets the hints wait that are due. It returns the number of those whose user has
// another by now.
func (s *hints) ripen(now time.Time) (left int) {
	n := 0
	for n < len(s.later) && !s.later[n].due.After(now) {
		n++
	}
	for _, l := range s.later[:n] {
		if _, ok := s.waiting[l.UserID]; ok {
			left++
			continue
		}
		s.waiting[l.UserID] = l.hint
		s.order = append(s.order, l.UserID)
	}
	if s.later = s.later[n:]; len(s.later) == 0 {
		s.later = nil
	}
	s.recount()
	return left
}

// take removes and returns the first n hints.
func (s *hints) take(n int) []*hint {
	n = min(n, len(s.order))
	taken := make([]*hint, n)
	for i, id := range s.order[:n] {
		taken[i] = s.waiting[id]
		delete(s.waiting, id)
	}
	if s.order = s.order[n:]; len(s.order) == 0 {
		s.waiting, s.order = make(map[string]*hint), nil // a storm's memory is given back
	}
	s.recount()
	return taken
}

// clear drops all that wait, and returns their number.
func (s *hints) clear() int { return len(s.take(len(s.order))) }
