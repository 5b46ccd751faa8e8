package imsim

import (
	"math"
	"sync/atomic"
	"time"
)

// Rounds is a population for tests: it changes only with SetRound, and then a given
// share of the users does. In round n a user has changed floor(n×share + the user's
// phase) times, so each round changes the requested share, at most once per user, at
// no cost for earlier rounds.
//
// A change of presence is visible in what both providers serve. Set fields only
// before the first query.
type Rounds struct {
	Seed uint64
	// PresenceShare and AccountShare are the shares of users, 0 to 1, whose devices
	// and import status change from round to round.
	PresenceShare, AccountShare float64
	// UnknownShare is the share of users who are not imported in round 0.
	UnknownShare float64

	round atomic.Int64
}

// NewRounds returns a population in round 0 with one share for both kinds of change
// and 2 % of the users not imported.
func NewRounds(seed uint64, changeShare float64) *Rounds {
	return &Rounds{Seed: seed, PresenceShare: changeShare, AccountShare: changeShare, UnknownShare: 0.02}
}

// SetRound moves to a round, forward or back. It is safe for concurrent use.
func (r *Rounds) SetRound(n int) { r.round.Store(int64(n)) }

// Round returns the current round.
func (r *Rounds) Round() int { return int(r.round.Load()) }

// The devices of users of Rounds, in groups. No user of one group is served, by
// either provider, like a user of another group. So onMobile and onDesktop differ
// apart from push (OpenIM serves it as offline) and background (Tencent serves it as
// online).
var (
	onMobile = [][]Device{
		{{IOS, Online}},
		{{IOS, Background}},
		{{Android, Online}},
		{{IOS, Online}, {IPad, Online}},
		{{IOS, Online}, {MacOS, Online}},
		{{Android, Online}, {Web, Online}},
		{{Android, Background}, {Windows, Online}},
		{{Android, Online}, {Android, Online}, {IPad, Push}},
	}
	onDesktop = [][]Device{
		{{Web, Online}},
		{{Web, Online}, {Web, Online}},
		{{Windows, Online}},
		{{MacOS, Online}},
		{{Linux, Online}},
		{{IOS, Push}, {Web, Online}},
		{{Android, Push}, {Windows, Online}},
		{{IPad, Push}, {Windows, Online}, {Web, Online}},
	}
	notConnected = [][]Device{
		{},
		{},
		{},
		{{IOS, Push}},
		{{Android, Push}},
		{{Android, Push}, {IPad, Push}},
	}
	// Users move through this cycle; neighbours, including last and first, differ.
	cycle = [...][][]Device{onMobile, onDesktop, notConnected, onMobile, notConnected}
)

// AppendDevices appends the user's devices in the current round, at any time.
func (r *Rounds) AppendDevices(devices []Device, userID string, _ time.Time) []Device {
	h := hash(r.Seed, userID)
	version := r.version(draw(h, 1), r.PresenceShare)
	group := cycle[(draw(h, 2)%uint64(len(cycle))+uint64(version))%uint64(len(cycle))]
	return append(devices, group[below(draw(h, 16+version), len(group))]...)
}

// Imported reports whether the user is imported in the current round, at any time.
func (r *Rounds) Imported(userID string, _ time.Time) bool {
	h := hash(r.Seed, userID)
	unknown := unit(draw(h, 3)) < r.UnknownShare
	changed := r.version(draw(h, 4), r.AccountShare)%2 == 1
	return unknown == changed
}

// version returns how often a user has changed by the current round.
func (r *Rounds) version(phase uint64, share float64) int64 {
	n := max(r.round.Load(), 0)
	return int64(math.Floor(float64(n)*share + unit(phase)))
}
