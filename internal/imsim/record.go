package imsim

import (
	"slices"
	"sync"
	"time"
)

// Kind is what a provider is asked about users.
type Kind uint8

// The kinds. Both Tencent names of the presence API are one kind.
const (
	TencentPresence Kind = iota + 1
	TencentAccounts
	OpenIMPresence
	OpenIMAccounts
)

// Value is a sequence of equal answers about one user.
type Value struct {
	// State is online, push_online or offline; imported or not_imported.
	State string `json:"state"`
	// Platforms is a JSON object, {"ios":"online","web":"push_online"}, with the
	// names of Platform and Mode. Of several devices of a platform the most connected
	// counts. It is {} if the answer named no devices, and empty for accounts.
	Platforms string `json:"platforms,omitempty"`
	// FirstAsked and FirstServed enclose the instant of the first of these answers;
	// LastServed is when the last one was sent.
	FirstAsked  time.Time `json:"first_asked"`
	FirstServed time.Time `json:"first_served"`
	LastServed  time.Time `json:"last_served"`
	// Times is the number of answers.
	Times int `json:"times"`
}

// String returns the value alone: "online {"web":"online"}", "imported".
func (v Value) String() string {
	if v.Platforms == "" {
		return v.State
	}
	return v.State + " " + v.Platforms
}

// servedValue is what one answer said about one user, comparable with ==.
type servedValue struct {
	state     servedState
	platforms [numPlatforms]Mode
}

type servedState uint8

const (
	servedOffline servedState = iota
	servedPushOnline
	servedOnline
	servedImported
	servedNotImported
)

var servedStateNames = [...]string{"offline", "push_online", "online", "imported", "not_imported"}

// add records a device in the answer.
func (v *servedValue) add(p Platform, m Mode) { v.platforms[p] = max(v.platforms[p], m) }

func (v servedValue) platformsJSON() string {
	if v.state >= servedImported {
		return ""
	}
	b := []byte{'{'}
	for p, m := range v.platforms {
		if m == 0 {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, platformNames[p]...)
		b = append(b, `":"`...)
		b = append(b, modeNames[m]...)
		b = append(b, '"')
	}
	return string(append(b, '}'))
}

// servedUser is one entry of an answer, until the answer is sent.
type servedUser struct {
	userID string
	value  servedValue
}

// record stores the distinct values served for each user, in order.
type record struct {
	mu    sync.Mutex
	users map[recordKey][]stretch
}

type recordKey struct {
	kind   Kind
	userID string
}

type stretch struct {
	value                               servedValue
	firstAsked, firstServed, lastServed time.Time
	times                               int
}

func newRecord() *record { return &record{users: make(map[recordKey][]stretch)} }

func (r *record) add(kind Kind, users []servedUser, asked, served time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range users {
		key := recordKey{kind, u.userID}
		stretches := r.users[key]
		if n := len(stretches); n > 0 && stretches[n-1].value == u.value {
			stretches[n-1].lastServed = served
			stretches[n-1].times++
			continue
		}
		r.users[key] = append(stretches, stretch{u.value, asked, served, served, 1})
	}
}

func (r *record) of(kind Kind, userID string) []Value {
	r.mu.Lock()
	stretches := slices.Clone(r.users[recordKey{kind, userID}])
	r.mu.Unlock()
	values := make([]Value, len(stretches))
	for i, s := range stretches {
		values[i] = Value{
			State:       servedStateNames[s.value.state],
			Platforms:   s.value.platformsJSON(),
			FirstAsked:  s.firstAsked,
			FirstServed: s.firstServed,
			LastServed:  s.lastServed,
			Times:       s.times,
		}
	}
	return values
}

func (r *record) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.users)
}
