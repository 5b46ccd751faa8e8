package imsim

import (
	"sync"
	"sync/atomic"
	"time"
)

// Fixed is a population of individually set users on top of another population. It is
// safe for concurrent use.
type Fixed struct {
	base Population

	mu    sync.RWMutex
	users map[string]fixedUser
	count atomic.Int64 // len(users), to avoid the lock while it is 0
}

type fixedUser struct {
	devices  []Device
	imported bool
}

// NewFixed returns an overlay. Users that are not set are those of base; if base is
// nil they are not imported.
func NewFixed(base Population) *Fixed {
	return &Fixed{base: base, users: make(map[string]fixedUser)}
}

// Set makes the user known and reachable on exactly these devices; without any the
// user is offline. A push device does not expire.
func (f *Fixed) Set(userID string, devices ...Device) {
	f.set(userID, fixedUser{devices: append([]Device(nil), devices...), imported: true})
}

// SetNotImported makes the user unknown to the provider.
func (f *Fixed) SetNotImported(userID string) { f.set(userID, fixedUser{}) }

func (f *Fixed) set(userID string, u fixedUser) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users[userID] = u
	f.count.Store(int64(len(f.users)))
}

// Unset returns the user to the base population.
func (f *Fixed) Unset(userID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.users, userID)
	f.count.Store(int64(len(f.users)))
}

func (f *Fixed) find(userID string) (fixedUser, bool) {
	if f.count.Load() == 0 {
		return fixedUser{}, false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	u, ok := f.users[userID]
	return u, ok
}

// AppendDevices appends the devices of the user.
func (f *Fixed) AppendDevices(devices []Device, userID string, at time.Time) []Device {
	if u, ok := f.find(userID); ok {
		return append(devices, u.devices...)
	}
	if f.base == nil {
		return devices
	}
	return f.base.AppendDevices(devices, userID, at)
}

// Imported reports whether the user is known.
func (f *Fixed) Imported(userID string, at time.Time) bool {
	if u, ok := f.find(userID); ok {
		return u.imported
	}
	return f.base != nil && f.base.Imported(userID, at)
}
