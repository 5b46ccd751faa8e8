package config

import "testing"

func TestTenant(t *testing.T) {
	if got := (App{Tencent: &Tencent{SDKAppID: 1400000000, BaseURL: "https://console.tim.qq.com"}}).Tenant(); got != "1400000000" {
		t.Errorf("a Tencent app is tenant %q", got)
	}
	for address, want := range map[string]string{
		"https://im.example":             "https://im.example",
		"HTTPS://IM.Example":             "https://im.example",
		"https://im.example.":            "https://im.example",
		"https://im.example/":            "https://im.example",
		"https://im.example:443":         "https://im.example",
		"https://im.example:80":          "https://im.example:80",
		"http://im.example:80/":          "http://im.example",
		"http://im.example:10002":        "http://im.example:10002",
		"http://im.example:10002/api/":   "http://im.example:10002/api",
		"http://im.example/api/v3/..//":  "http://im.example/api",
		"http://im.example/API":          "http://im.example/API",
		"http://[::1]:80":                "http://[::1]",
		"http://[2001:DB8::1]:10002/":    "http://[2001:db8::1]:10002",
		"http://user:secret@im.example/": "http://im.example",
		"http://im.example/?token=x#y":   "http://im.example",
	} {
		if got := (App{OpenIM: &OpenIM{BaseURL: address}}).Tenant(); got != want {
			t.Errorf("%s is tenant %q, want %q", address, got, want)
		}
	}
}
