package imclient

// Platform is a normalised device class. Providers' spellings are mapped in
// the providers' packages; what they do not know is PlatformUnknown.
type Platform uint8

// The platforms.
const (
	PlatformUnknown Platform = iota
	PlatformIOS
	PlatformIPad
	PlatformAndroid
	PlatformAndroidPad
	PlatformWeb
	PlatformMiniWeb
	PlatformWindows
	PlatformMacOS
	PlatformLinux
	PlatformHarmony
	PlatformAdmin
	numPlatforms
)

var platformNames = [numPlatforms]string{
	"unknown", "ios", "ipad", "android", "android_pad", "web", "mini_web",
	"windows", "macos", "linux", "harmony", "admin",
}

// String gives the platform as it is stored.
func (p Platform) String() string {
	if int(p) < len(platformNames) {
		return platformNames[p]
	}
	return platformNames[PlatformUnknown]
}

// ParsePlatform reads a platform as String writes it.
func ParsePlatform(s string) (Platform, bool) {
	for i, name := range platformNames {
		if name == s {
			return Platform(i), true
		}
	}
	return PlatformUnknown, false
}
