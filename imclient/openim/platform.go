package openim

import (
	"strings"

	"syncer/imclient"
)

// platformNames are OpenIM's platforms by id, with its names in lower case; the
// names alone are sent before v3.8.1. Source: protocol/constant of OpenIM; 11
// came in April 2025, the API document ends at 9.
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

// platformOf maps an id, or a name in any case; ok is false when it is not known.
func platformOf(d device) (p imclient.Platform, ok bool) {
	name := strings.ToLower(d.Platform)
	for _, known := range platformNames {
		if d.PlatformID == known.id || d.PlatformID == "" && name == known.name {
			return known.platform, true
		}
	}
	return imclient.PlatformUnknown, false
}
