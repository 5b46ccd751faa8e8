package tencent

import (
	"strings"

	"syncer/imclient"
)

// platforms maps Tencent's names, in lower case first. The documented device list has
// iPhone, Android, Web, PC, iPad and Mac; the other names are those of the same devices
// in the webhooks and the SDKs.
var platforms = map[string]imclient.Platform{
	"iphone":      imclient.PlatformIOS,
	"ios":         imclient.PlatformIOS,
	"ipad":        imclient.PlatformIPad,
	"android":     imclient.PlatformAndroid,
	"apad":        imclient.PlatformAndroidPad,
	"androidpad":  imclient.PlatformAndroidPad,
	"android_pad": imclient.PlatformAndroidPad,
	"web":         imclient.PlatformWeb,
	"miniprogram": imclient.PlatformMiniWeb,
	"miniweb":     imclient.PlatformMiniWeb,
	"pc":          imclient.PlatformWindows,
	"windows":     imclient.PlatformWindows,
	"mac":         imclient.PlatformMacOS,
	"macos":       imclient.PlatformMacOS,
	"linux":       imclient.PlatformLinux,
	"harmony":     imclient.PlatformHarmony,
	"harmonyos":   imclient.PlatformHarmony,

	// As the answers spell them, to avoid ToLower.
	"iPhone":  imclient.PlatformIOS,
	"iPad":    imclient.PlatformIPad,
	"Android": imclient.PlatformAndroid,
	"Web":     imclient.PlatformWeb,
	"PC":      imclient.PlatformWindows,
	"Mac":     imclient.PlatformMacOS,
}

// platformOf maps a name in any case. It reports false for an unknown one.
func platformOf(name string) (p imclient.Platform, ok bool) {
	if p, ok = platforms[name]; !ok {
		p, ok = platforms[strings.ToLower(name)]
	}
	return p, ok
}
