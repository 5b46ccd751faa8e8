package imsim

import (
	"math"
	"sync/atomic"
	"time"
)

// Rounds is a population for tests: it changes only when told to, and then a
// given share of the users does. In round n a user has changed
// floor(n×share + the user's own phase) times, so that each round changes the
// share asked for, at most once a user, at no cost for the rounds before.
//
// Users that change in their presence change visibly in what both backends
// serve. Use the fields before the first query only.
type Rounds struct {
	Seed uint64
	// PresenceShare and AccountShare are the shares of users, 0 to 1, whose
	// devices and import status differ from one round to the next.
	PresenceShare, AccountShare float64
	// UnknownShare is the share of users who are not imported in round 0.
	UnknownShare float64

	round atomic.Int64
}

// NewRounds makes a population in round 0 with one share for both kinds of
// change and 2 % of the users not imported.
func NewRounds(seed uint64, changeShare float64) *Rounds {
	return &Rounds{Seed: seed, PresenceShare: changeShare, AccountShare: changeShare, UnknownShare: 0.02}
}

// SetRound goes to a round, forward or back. It is safe for concurrent use.
func (r *Rounds) SetRound(n int) { r.round.Store(int64(n)) }

// Round tells the current round.
func (r *Rounds) Round() int { return int(r.round.Load()) }

// The devices that a user of Rounds can have, in groups: whatever a user of one
// group is served as, by either backend, no user of another group is. For that,
// push counts for nothing in telling the first two apart (OpenIM serves it as
// offline), nor does background (Tencent serves it as online).
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
	// A user goes round this cycle; neighbours, the last and first too, differ.
	cycle = [...][][]Device{onMobile, onDesktop, notConnected, onMobile, notConnected}
)

// AppendDevices appends the devices of the user in the current round. The time
// does not matter.
func (r *Rounds) AppendDevices(devices []Device, userID string, _ time.Time) []Device {
	h := hash(r.Seed, userID)
	version := r.version(draw(h, 1), r.PresenceShare)
	group := cycle[(draw(h, 2)%uint64(len(cycle))+uint64(version))%uint64(len(cycle))]
	return append(devices, group[below(draw(h, 16+version), len(group))]...)
}

// Imported reports whether the user is imported in the current round. The time
// does not matter.
func (r *Rounds) Imported(userID string, _ time.Time) bool {
	h := hash(r.Seed, userID)
	unknown := unit(draw(h, 3)) < r.UnknownShare
	changed := r.version(draw(h, 4), r.AccountShare)%2 == 1
	return unknown == changed
}

// version is how often a user has changed by the current round.
func (r *Rounds) version(phase uint64, share float64) int64 {
	n := max(r.round.Load(), 0)
	return int64(math.Floor(float64(n)*share + unit(phase)))
}
