package imsim

import "time"

// pushKept is how long a disconnected mobile device stays reachable by push.
// Source: Tencent Chat "Querying Account Online Status", note on PushOnline.
const pushKept = 7 * 24 * time.Hour

// Shares of all users in a Daily population.
const (
	shareNeverActive   = 0.15 // known, but never logs in
	shareNeverImported = 0.02
	shareLate          = 0.10 // imported some time within Daily.ImportSpan
)

// Daily is a population with a daily rhythm: users live in several time zones, are
// active on some days, have sessions of minutes to hours on one to three devices, and
// stay reachable by push for seven days on mobile ones. It has no state: everything
// follows from seed, user id and time.
type Daily struct {
	Seed uint64
	// Start is when the first of the late users is imported.
	Start time.Time
	// ImportSpan is how long after Start the last of them is.
	ImportSpan time.Duration
}

// NewDaily returns a population whose late users are imported within 30 days of
// start.
func NewDaily(seed uint64, start time.Time) *Daily {
	return &Daily{Seed: seed, Start: start, ImportSpan: 30 * 24 * time.Hour}
}

// Numbers of the draws of a user. The days of a device are drawn after it.
const (
	drawImport int64 = iota + 1
	drawImportAt
	drawActive
	drawZone
	drawMobile
	drawDesktop
	drawTablet
)

// Imported reports whether the user is known: most always, some from a later time on,
// a few never.
func (d *Daily) Imported(userID string, at time.Time) bool {
	return d.imported(hash(d.Seed, userID), at)
}

func (d *Daily) imported(h uint64, at time.Time) bool {
	share := unit(draw(h, drawImport))
	switch {
	case share < shareNeverImported:
		return false
	case share < shareNeverImported+shareLate:
		after := time.Duration(unit(draw(h, drawImportAt)) * float64(d.ImportSpan))
		return !at.Before(d.Start.Add(after))
	default:
		return true
	}
}

// AppendDevices appends the user's devices. It costs a few hashes, and a few dozen
// for a user who was inactive for days.
func (d *Daily) AppendDevices(devices []Device, userID string, at time.Time) []Device {
	h := hash(d.Seed, userID)
	activity := unit(draw(h, drawActive))
	if activity < shareNeverActive || !d.imported(h, at) {
		return devices
	}
	local := at.Unix() + zone(draw(h, drawZone))
	owned := 0
	if p, ok := mobile(draw(h, drawMobile)); ok {
		devices = appendDevice(devices, p, draw(h, drawMobile), activity, local)
		owned++
	}
	if p, ok := desktop(draw(h, drawDesktop)); ok || owned == 0 {
		devices = appendDevice(devices, p, draw(h, drawDesktop), activity, local)
	}
	if below(draw(h, drawTablet), 100) < 12 {
		devices = appendDevice(devices, IPad, draw(h, drawTablet), activity/2, local)
	}
	return devices
}

// zone returns a user's offset from UTC in seconds: most live around UTC+8, some in
// Europe and America, none exactly on the hour.
func zone(h uint64) int64 {
	hours := int64(8)
	switch n := below(h, 100); {
	case n < 10:
		hours = -5
	case n < 30:
		hours = 1
	}
	return hours*3600 + int64(h%7200) - 3600
}

func mobile(h uint64) (Platform, bool) {
	n := below(h, 100)
	if n < 45 {
		return Android, true
	}
	return IOS, n < 85
}

func desktop(h uint64) (Platform, bool) {
	switch n := below(h, 100); {
	case n < 15:
		return Windows, true
	case n < 25:
		return MacOS, true
	case n < 28:
		return Linux, true
	default:
		return Web, n < 55
	}
}

// appendDevice appends a device if the user is reachable on it at the local time, in
// seconds.
func appendDevice(devices []Device, p Platform, h uint64, activity float64, local int64) []Device {
	mobile := p == IOS || p == Android || p == IPad
	kept := int64(0)
	if mobile {
		kept = int64(pushKept / time.Second)
	}
	s, ok := lastSession(h, activity, local, kept)
	switch {
	case !ok:
		return devices
	case local >= s.end && (!mobile || s.logout):
		return devices
	case local >= s.end:
		return append(devices, Device{p, Push})
	case mobile && local >= s.end-(s.end-s.start)/5: // the app is put away before the connection goes
		return append(devices, Device{p, Background})
	default:
		return append(devices, Device{p, Online})
	}
}

// A day is divided into slots, each with at most one session of a device.
const (
	day   = 24 * 3600
	slot  = 2 * 3600
	slots = day / slot
)

// busy is how likely the most active user has a session in each slot.
var busy = [slots]float64{0.15, 0.05, 0.04, 0.25, 0.5, 0.55, 0.6, 0.5, 0.55, 0.7, 0.8, 0.45}

// session is one stay online of a device, in local seconds: [start, end).
type session struct {
	start, end int64
	logout     bool // ended by logging out, not by losing the connection
}

// lastSession returns the device's newest session that began by the local time,
// unless it ended kept seconds ago or earlier.
func lastSession(h uint64, activity float64, local, kept int64) (session, bool) {
	first := local - kept
	for today := floor(local, day); today+day > first; today -= day {
		ofDay := draw(h, today)
		if unit(ofDay) >= 0.25+activity*0.7 {
			continue // a day off
		}
		n := min((local-today)/slot, slots-1)
		for ; n >= 0 && today+(n+1)*slot > first; n-- {
			s, ok := sessionIn(draw(ofDay, n), busy[n]*(0.3+0.7*activity), today+n*slot)
			if ok && s.start <= local {
				return s, s.end > first
			}
		}
	}
	return session{}, false
}

// sessionIn draws the session of a slot. A third fill the slot, so that neighbours
// join into sessions of hours; the others last from three minutes to the end of the
// slot, short ones being more frequent.
func sessionIn(h uint64, likely float64, slotStart int64) (session, bool) {
	if unit(h) >= likely {
		return session{}, false
	}
	s := session{start: slotStart, end: slotStart + slot, logout: draw(h, 1)%8 == 0}
	if draw(h, 2)%3 != 0 {
		s.start += int64(below(draw(h, 3), slot*3/4))
		r := unit(draw(h, 4))
		s.end = min(s.end, s.start+180+int64(r*r*slot))
	}
	return s, true
}

// floor rounds down to a multiple of step, also below zero.
func floor(n, step int64) int64 {
	r := n % step
	if r < 0 {
		r += step
	}
	return n - r
}
