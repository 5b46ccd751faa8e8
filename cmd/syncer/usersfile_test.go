package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUsersFile_ofWindows: what editors there put into a file is of no id.
func TestUsersFile_ofWindows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ids.txt")
	if err := os.WriteFile(path, []byte("\xef\xbb\xbfalice\r\n\r\nbob\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readUsersFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]bool{"alice": true, "bob": true}, got); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
}
