package tencent

// regions lists the data centres and their hosts. An app is in one of them. Sources:
// "Querying Accounts" and its newer copies (Tokyo), read 2026-11.
var regions = []struct{ name, host string }{
	{"china", "console.tim.qq.com"},
	{"singapore", "adminapisgp.im.qcloud.com"},
	{"seoul", "adminapikr.im.qcloud.com"},
	{"tokyo", "adminapijpn.im.qcloud.com"},
	{"frankfurt", "adminapiger.im.qcloud.com"},
	{"silicon_valley", "adminapiusa.im.qcloud.com"},
	{"jakarta", "adminapiidn.im.qcloud.com"},
}

// Regions lists the names that BaseURL accepts.
func Regions() []string {
	names := make([]string, 0, len(regions))
	for _, r := range regions {
		names = append(names, r.name)
	}
	return names
}

// BaseURL returns the address of a region's REST API, e.g. https://console.tim.qq.com.
// It reports false for an unknown region.
func BaseURL(region string) (string, bool) {
	for _, r := range regions {
		if r.name == region {
			return "https://" + r.host, true
		}
	}
	return "", false
}
