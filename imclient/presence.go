package imclient

import (
	"encoding/json"
	"fmt"
)

// State is a user's login state. The zero value is unknown and never stored.
type State uint8

// The login states. A user is online if any device has a connection, push_online if none
// has but one can be reached by push, and offline otherwise.
const (
	StateUnknown State = iota
	StateOnline
	StatePushOnline
	StateOffline
)

var stateNames = []string{"unknown", "online", "push_online", "offline"}

// String returns the state as it is stored: online, push_online, offline.
func (s State) String() string { return nameOf(stateNames, s) }

// ParseState parses what String returns.
func ParseState(name string) (State, error) {
	s, ok := valueOf[State](stateNames, name)
	if !ok || s == StateUnknown {
		return StateUnknown, fmt.Errorf("unknown presence state %q", name)
	}
	return s, nil
}

// Mode is how a user is reachable on one platform.
type Mode uint8

// The modes, from least to most connected. ModeNone, no device, is not stored.
const (
	ModeNone Mode = iota
	ModePushOnline
	ModeBackground // connected, not in the foreground (OpenIM's isBackground)
	ModeOnline
)

var modeNames = []string{ModePushOnline: "push_online", ModeBackground: "background", ModeOnline: "online"}

// Platforms is how a user is reachable on each platform. It is comparable.
type Platforms [numPlatforms]Mode

// Add adds a device. The most connected of several devices of a platform counts.
func (p *Platforms) Add(platform Platform, mode Mode) {
	if int(platform) < len(p) && mode > p[platform] {
		p[platform] = mode
	}
}

// SameDevices reports whether both have the same platforms, in whatever mode.
func (p Platforms) SameDevices(q Platforms) bool {
	for platform := range p {
		if (p[platform] == ModeNone) != (q[platform] == ModeNone) {
			return false
		}
	}
	return true
}

// AppendJSON appends the stored form, {"ios":"online","web":"push_online"}, in a fixed
// order; {} if there is no device.
func (p *Platforms) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	first := true
	for platform, mode := range p {
		if mode == ModeNone {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, '"')
		b = append(b, platformNames[platform]...)
		b = append(b, `":"`...)
		b = append(b, modeNames[mode]...)
		b = append(b, '"')
	}
	return append(b, '}')
}

// String returns what AppendJSON appends.
func (p Platforms) String() string {
	if p == (Platforms{}) {
		return "{}"
	}
	return string(p.AppendJSON(nil))
}

// ParsePlatforms parses what AppendJSON appends. An unknown platform or mode, which a newer
// version may have written, is an error.
func ParsePlatforms(stored []byte) (Platforms, error) {
	var p Platforms
	if string(stored) == "{}" { // the most frequent by far
		return p, nil
	}
	var named map[string]string
	if err := json.Unmarshal(stored, &named); err != nil {
		return p, fmt.Errorf("read stored platforms: %w", err)
	}
	for name, modeName := range named {
		platform, ok := valueOf[Platform](platformNames[:], name)
		if !ok {
			return p, fmt.Errorf("read stored platforms: unknown platform %q", name)
		}
		mode, ok := valueOf[Mode](modeNames, modeName)
		if !ok {
			return p, fmt.Errorf("read stored platforms: unknown mode %q", modeName)
		}
		p[platform] = mode
	}
	return p, nil
}

// Presence is one user's login state and devices. It is comparable.
type Presence struct {
	State     State
	Platforms Platforms
}
