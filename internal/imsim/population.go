package imsim

import (
	"fmt"
	"math/bits"
	"time"
)

// Platform is a class of device.
type Platform uint8

// The platforms. tencentPlatforms and openIMPlatforms have their names on the wire.
const (
	IOS Platform = iota
	IPad
	Android
	AndroidPad
	Web
	MiniWeb
	Windows
	MacOS
	Linux
	Harmony
	numPlatforms
)

// platformNames are the names in recorded values and under /_sim/.
var platformNames = [numPlatforms]string{
	IOS: "ios", IPad: "ipad", Android: "android", AndroidPad: "android_pad", Web: "web", MiniWeb: "mini_web",
	Windows: "windows", MacOS: "macos", Linux: "linux", Harmony: "harmony",
}

// String returns the platform's name, such as "ios".
func (p Platform) String() string {
	if p < numPlatforms {
		return platformNames[p]
	}
	return fmt.Sprintf("Platform(%d)", uint8(p))
}

// MarshalText returns the platform's name.
func (p Platform) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText parses a platform's name.
func (p *Platform) UnmarshalText(text []byte) error {
	for i, name := range platformNames {
		if name == string(text) {
			*p = Platform(i)
			return nil
		}
	}
	return fmt.Errorf("unknown platform %q; allowed: %q", text, platformNames)
}

// Mode is how a user is reachable on a device. A device on which the user logged out
// does not exist.
type Mode uint8

// The modes, from least to most connected. OpenIM has no Push and serves such a
// device as offline; Tencent has no Background and serves it as online.
const (
	Push       Mode = iota + 1 // disconnected, reachable by push
	Background                 // connected, not in the foreground
	Online
)

var modeNames = [...]string{Push: "push_online", Background: "background", Online: "online"}

// String returns the mode's name, such as "push_online".
func (m Mode) String() string {
	if m > 0 && int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// MarshalText returns the mode's name.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText parses a mode's name.
func (m *Mode) UnmarshalText(text []byte) error {
	for i, name := range modeNames {
		if name != "" && name == string(text) {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("unknown mode %q; allowed: %q", text, modeNames[1:])
}

// Device is one device on which a user is reachable.
type Device struct {
	Platform Platform `json:"platform"`
	Mode     Mode     `json:"mode"`
}

// Population is a set of users and their state. Its methods are called concurrently
// and return the same for the same arguments.
type Population interface {
	// AppendDevices appends the devices on which the user is reachable at an instant;
	// none if the user is offline.
	AppendDevices(devices []Device, userID string, at time.Time) []Device
	// Imported reports whether the provider knows the user at an instant.
	Imported(userID string, at time.Time) bool
}

// hash maps a user id to 64 well-mixed bits (FNV-1a, then mix) without allocating.
// All draws of a user derive from it.
func hash(seed uint64, userID string) uint64 {
	h := uint64(14695981039346656037) ^ seed
	for i := range len(userID) {
		h = (h ^ uint64(userID[i])) * 1099511628211
	}
	return mix(h)
}

// mix is a bijection of 64 bits with unrelated results for neighbouring numbers (the
// finaliser of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// draw returns the n-th of a user's independent random numbers.
func draw(h uint64, n int64) uint64 { return mix(h ^ uint64(n)*0xd1342543de82ef95) }

// unit maps 64 random bits into [0,1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }

// below maps 64 random bits into [0,n).
func below(h uint64, n int) int {
	high, _ := bits.Mul64(h, uint64(n))
	return int(high)
}
