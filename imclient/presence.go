package imclient

import (
	"encoding/json"
	"fmt"
)

// State is a user's login state. The zero value means "not known" and is never
// stored.
type State uint8

// The states. A user is online when any device holds a connection, push_online
// when all are disconnected but one can still be reached by push, else offline.
const (
	StateUnknown State = iota
	StateOnline
	StatePushOnline
	StateOffline
)

// String gives the state as it is stored: online, push_online, offline.
func (s State) String() string {
	switch s {
	case StateOnline:
		return "online"
	case StatePushOnline:
		return "push_online"
	case StateOffline:
		return "offline"
	default:
		return "unknown"
	}
}

// ParseState reads a state as String writes it.
func ParseState(s string) (State, error) {
	switch s {
	case "online":
		return StateOnline, nil
	case "push_online":
		return StatePushOnline, nil
	case "offline":
		return StateOffline, nil
	default:
		return StateUnknown, fmt.Errorf("unknown presence state %q", s)
	}
}

// Mode is how a user is reachable on one platform.
type Mode uint8

// The modes, from least to most connected. ModeNone means that the user has no
// such device and is left out of what is stored.
const (
	ModeNone Mode = iota
	ModePushOnline
	ModeBackground // connected, not in the foreground (OpenIM's isBackground)
	ModeOnline
)

var modeNames = [...]string{ModePushOnline: "push_online", ModeBackground: "background", ModeOnline: "online"}

// Platforms says for each platform how the user is reachable there. It is a
// plain array so that two of them compare with ==.
type Platforms [numPlatforms]Mode

// Add notes a device. Of several devices on one platform the most connected
// one counts.
func (p *Platforms) Add(platform Platform, mode Mode) {
	if int(platform) < len(p) && mode > p[platform] {
		p[platform] = mode
	}
}

// SameDevices reports whether the user is reachable on the same platforms, be it
// in another mode.
func (p Platforms) SameDevices(q Platforms) bool {
	for platform := range p {
		if (p[platform] == ModeNone) != (q[platform] == ModeNone) {
			return false
		}
	}
	return true
}

// AppendJSON appends the stored form: {"ios":"online","web":"push_online"},
// always in the same order; {} when there is none.
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

// String is AppendJSON as a string.
func (p Platforms) String() string {
	if p == (Platforms{}) {
		return "{}"
	}
	return string(p.AppendJSON(nil))
}

// ParsePlatforms reads what AppendJSON wrote. A platform or mode that this
// version does not know is an error: it was written by a newer one.
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
		platform, ok := ParsePlatform(name)
		if !ok {
			return p, fmt.Errorf("read stored platforms: unknown platform %q", name)
		}
		mode := ModeNone
		for m, n := range modeNames {
			if n != "" && n == modeName {
				mode = Mode(m)
			}
		}
		if mode == ModeNone {
			return p, fmt.Errorf("read stored platforms: unknown mode %q", modeName)
		}
		p[platform] = mode
	}
	return p, nil
}

// Presence is what one answer says about one user. Two of them compare with ==.
type Presence struct {
	State     State
	Platforms Platforms
}
