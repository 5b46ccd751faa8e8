package tencent

import (
	"strings"

	"syncer/imclient"
)

// platforms maps Tencent's names, in lower case first. Documented for the device list
// are iPhone, Android, Web, PC, iPad and Mac; the others come from the webhooks'
// vocabulary and the SDKs', where the same devices have other names.
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

	// As the answers spell them, which spares the lowering.
	"iPhone":  imclient.PlatformIOS,
	"iPad":    imclient.PlatformIPad,
	"Android": imclient.PlatformAndroid,
	"Web":     imclient.PlatformWeb,
	"PC":      imclient.PlatformWindows,
	"Mac":     imclient.PlatformMacOS,
}

// platformOf maps a name in any case; ok is false when it is not known.
func platformOf(name string) (p imclient.Platform, ok bool) {
	if p, ok = platforms[name]; !ok {
		p, ok = platforms[strings.ToLower(name)]
	}
	return p, ok
}
