package openim

import (
	"strings"

	"syncer/imclient"
)

// platformNames lists OpenIM's platforms by id, with the names in lower case that are
// sent before v3.8.1. Source: protocol/constant of OpenIM; the API document ends at 9, and
// 11 came in April 2025.
var platformNames = []struct {
	id, name string
	platform imclient.Platform
}{
	{"1", "ios", imclient.PlatformIOS},
	{"2", "android", imclient.PlatformAndroid},
	{"3", "windows", imclient.PlatformWindows},
	{"4", "osx", imclient.PlatformMacOS},
	{"5", "web", imclient.PlatformWeb},
	{"6", "miniweb", imclient.PlatformMiniWeb},
	{"7", "linux", imclient.PlatformLinux},
	{"8", "apad", imclient.PlatformAndroidPad},
	{"9", "ipad", imclient.PlatformIPad},
	{"10", "admin", imclient.PlatformAdmin},
	{"11", "harmonyos", imclient.PlatformHarmony},
}

// platformOf maps an id, or a name in any case. It reports false for an unknown one.
func platformOf(d device) (p imclient.Platform, ok bool) {
	name := strings.ToLower(d.Platform)
	for _, known := range platformNames {
		if d.PlatformID == known.id || d.PlatformID == "" && name == known.name {
			return known.platform, true
		}
	}
	return imclient.PlatformUnknown, false
}
