package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFresh: docs/licences.md lists what the program is made of now.
func TestFresh(t *testing.T) {
	parts, err := find()
	if err != nil {
		t.Fatal(err)
	}
	want, err := table(parts)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/licences.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/licences.md is not fresh; make licences (-want +got):\n%s", diff)
	}
}

// TestKind: licences are distinguished, and an unknown one is an error.
func TestKind(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"broken over lines": {"Permission is hereby\n   granted, free of charge, to any", "MIT"},
		"two of them":       {"Apache License\n Version 2.0 … Permission is hereby granted, free of charge", "Apache-2.0, MIT"},
		"BSD, three":        {"Redistributions in binary form must reproduce … may be used to endorse or promote products derived from", "BSD-3-Clause"},
		"BSD, two":          {"Redistributions in binary form must reproduce", "BSD-2-Clause"},
		"GNU":               {"GNU GENERAL PUBLIC LICENSE Version 3", ""},
		"GNU beside MIT":    {"GNU LESSER GENERAL PUBLIC LICENSE\n Version 2.1 … Permission is hereby granted, free of charge", ""},
		"a clause added":    {"“Commons Clause” License Condition v1.0 … Apache License Version 2.0", ""},
		"MPL names the GNU": {"Mozilla Public License Version 2.0 … means either the GNU General Public License, Version 2.0", "MPL-2.0"},
		"unknown":           {"All rights reserved.", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := kind(part{name: "x", text: tc.text})
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
			if err != nil && !strings.HasPrefix(err.Error(), "x: ") {
				t.Errorf("%v does not name the part", err)
			}
		})
	}
}
