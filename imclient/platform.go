package imclient

// Platform is a normalised device class. The providers' packages map their names to it, and
// unknown ones to PlatformUnknown.
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

// String returns the platform as it is stored.
func (p Platform) String() string { return nameOf(platformNames[:], p) }
