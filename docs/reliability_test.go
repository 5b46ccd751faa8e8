package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	named   = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*(…?)`)
	defined = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
)

// TestReliability: reliability.md names tests that exist, so that a test that is
// renamed or removed is not claimed any more.
func TestReliability(t *testing.T) {
	exists := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, found := range defined.FindAllStringSubmatch(string(source), -1) {
			exists[found[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := named.FindAllStringSubmatch(string(text), -1)
	if len(tests) < 50 {
		t.Errorf("reliability.md names only %d tests", len(tests))
	}
	for _, found := range tests {
		if found[1] == "" && !exists[found[0]] && found[0] != "TestX" {
			t.Errorf("there is no test %s", found[0])
		}
	}
}
