package imclient

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPlatforms_roundTrip(t *testing.T) {
	for _, tc := range []struct {
		devices map[Platform]Mode
		want    string
	}{
		{nil, `{}`},
		{map[Platform]Mode{PlatformWeb: ModePushOnline, PlatformIOS: ModeOnline}, `{"ios":"online","web":"push_online"}`},
		{map[Platform]Mode{PlatformUnknown: ModeBackground, PlatformAdmin: ModeOnline}, `{"unknown":"background","admin":"online"}`},
	} {
		var p Platforms
		for platform, mode := range tc.devices {
			p.Add(platform, mode)
		}
		if got := p.String(); got != tc.want {
			t.Errorf("stored as %s, want %s", got, tc.want)
		}
		back, err := ParsePlatforms([]byte(tc.want))
		if err != nil || back != p {
			t.Errorf("%s read back as %s, %v", tc.want, back, err)
		}
		// Postgres writes jsonb with spaces and in an order of its own.
		spaced := strings.NewReplacer(":", ": ", ",", ", ").Replace(tc.want)
		if back, err := ParsePlatforms([]byte(spaced)); err != nil || back != p {
			t.Errorf("%s read back as %s, %v", spaced, back, err)
		}
	}
}

func TestPlatforms_allModesOnAllPlatforms(t *testing.T) {
	for platform := range numPlatforms {
		for _, mode := range []Mode{ModePushOnline, ModeBackground, ModeOnline} {
			var p Platforms
			p.Add(platform, mode)
			stored := p.AppendJSON([]byte("x"))[1:]
			if !json.Valid(stored) {
				t.Fatalf("not JSON: %s", stored)
			}
			if back, err := ParsePlatforms(stored); err != nil || back != p {
				t.Errorf("%s read back as %s, %v", stored, back, err)
			}
		}
	}
}

func TestPlatforms_Add(t *testing.T) {
	var p Platforms
	p.Add(PlatformWeb, ModePushOnline)
	p.Add(PlatformWeb, ModeOnline)
	p.Add(PlatformWeb, ModeBackground)
	p.Add(PlatformIOS, ModeNone)
	p.Add(numPlatforms+5, ModeOnline)
	if got, want := p.String(), `{"web":"online"}`; got != want {
		t.Errorf("got %s, want %s: the most connected device counts", got, want)
	}
}

func TestPlatforms_SameDevices(t *testing.T) {
	parse := func(stored string) Platforms {
		p, err := ParsePlatforms([]byte(stored))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{`{}`, `{}`, true},
		{`{"ios":"online","web":"online"}`, `{"ios":"background","web":"push_online"}`, true},
		{`{"ios":"online","web":"online"}`, `{"ios":"online"}`, false},
		{`{"ios":"online"}`, `{"web":"online"}`, false},
		{`{}`, `{"admin":"online"}`, false},
	} {
		if a, b := parse(tc.a), parse(tc.b); a.SameDevices(b) != tc.want || b.SameDevices(a) != tc.want {
			t.Errorf("%s and %s: same devices %t, want %t", tc.a, tc.b, a.SameDevices(b), tc.want)
		}
	}
}

func TestParsePlatforms_refuses(t *testing.T) {
	for stored, want := range map[string]string{
		`{"fridge":"online"}`: `unknown platform "fridge"`,
		`{"web":"asleep"}`:    `unknown mode "asleep"`,
		`{"web":""}`:          `unknown mode ""`,
		`["web"]`:             "read stored platforms",
		``:                    "read stored platforms",
	} {
		if _, err := ParsePlatforms([]byte(stored)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", stored, err, want)
		}
	}
}

func TestNames_roundTrip(t *testing.T) {
	for p := range numPlatforms {
		if back, ok := valueOf[Platform](platformNames[:], p.String()); !ok || back != p {
			t.Errorf("platform %d reads back as %d, %v", p, back, ok)
		}
	}
	for _, s := range []State{StateOnline, StatePushOnline, StateOffline} {
		if back, err := ParseState(s.String()); err != nil || back != s {
			t.Errorf("state %s reads back as %s, %v", s, back, err)
		}
	}
	for _, s := range []AccountStatus{StatusImported, StatusNotImported} {
		if back, err := ParseAccountStatus(s.String()); err != nil || back != s {
			t.Errorf("status %s reads back as %s, %v", s, back, err)
		}
	}
	for _, k := range Kinds() {
		if back, err := ParseKind(string(k)); err != nil || back != k {
			t.Errorf("kind %s reads back as %s, %v", k, back, err)
		}
	}
}

func TestNames_unknown(t *testing.T) {
	// The zero values mean "not known" and must not be read from anywhere.
	for _, name := range []string{"unknown", "", "Online"} {
		if s, err := ParseState(name); err == nil {
			t.Errorf("state %q is taken for %s", name, s)
		}
		if s, err := ParseAccountStatus(name); err == nil {
			t.Errorf("status %q is taken for %s", name, s)
		}
		if k, err := ParseKind(name); err == nil {
			t.Errorf("kind %q is taken for %s", name, k)
		}
	}
	if p, ok := valueOf[Platform](platformNames[:], "fridge"); ok || p != PlatformUnknown {
		t.Errorf("platform fridge is taken for %s", p)
	}
	if State(9).String() != "unknown" || AccountStatus(9).String() != "unknown" || (numPlatforms+1).String() != "unknown" {
		t.Error("values out of range must be called unknown")
	}
}
