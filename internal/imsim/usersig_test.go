package imsim

import (
	"testing"
	"time"
)

// Made-up vectors of TLSSigAPIv2, one at zlib's default level, one stored.
const vectorKey = "8eed0c4fbf66bd6eb93ea3d93bfd1a1248c541f8e69a045033dc6d48585c727e"

var sigVectors = []struct {
	name, sig, identifier string
	app                   uint64
	time, expire          int64
}{
	{"compressed", "eJyrVgrxCdYrSy1SslIy0jNQ0gHzM1NS80oy0zLBwokpuZl5mcUlRYkl*UVQBcUp2YkFBZkpSlaGJgZQAJFJrSjILEpVsrIwM4EJlWTmAgUMzVEVFmemAw0vDCsw1M8o9U128s7xLCrNTE41Tq5yrfL3K7M0M3DMKfMoCs0yNNWvSjcptlWqBQDRgzRv",
		"administrator", 1400000000, 1700000000, 86400},
	{"stored", "eAEBqABX-3siVExTLnZlciI6IjIuMCIsIlRMUy5pZGVudGlmaWVyIjoiYWRtaW4iLCJUTFMuc2RrYXBwaWQiOjQyOTQ5NjcyOTUsIlRMUy5leHBpcmUiOjUxODQwMDAsIlRMUy50aW1lIjoyMTQ3NDgzNjQ4LCJUTFMuc2lnIjoiK1JMNG1HSjhyZUtpWU45Qmp5dndEUm9oMFpVUWgrOVZrNElzUzFZbDdrcz0ifQBHMSI_",
		"admin", 4294967295, 2147483648, 5184000},
}

func TestUserSig(t *testing.T) {
	for _, v := range sigVectors {
		t.Run(v.name, func(t *testing.T) {
			sig, err := parseUserSig(v.sig)
			if err != nil {
				t.Fatal(err)
			}
			if *sig.Identifier != v.identifier || *sig.SDKAppID != v.app || *sig.Time != v.time || *sig.Expire != v.expire {
				t.Errorf("parsed %q %d %d %d", *sig.Identifier, *sig.SDKAppID, *sig.Time, *sig.Expire)
			}
			if !sig.signedBy(vectorKey) {
				t.Error("refused with the right key")
			}
			if sig.signedBy(vectorKey + "x") {
				t.Error("accepted with a wrong key")
			}
			end := v.time + v.expire
			if sig.expired(time.Unix(end, 0)) || !sig.expired(time.Unix(end+1, 0)) {
				t.Error("does not expire right after time+expire")
			}
			changed := sig
			longer := v.expire + 1
			changed.Expire = &longer
			if changed.signedBy(vectorKey) {
				t.Error("accepted with a changed field")
			}
		})
	}
}
