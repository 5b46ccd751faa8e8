package docs_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

var (
	codeBlock = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	heading   = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	linkText  = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestLinks checks that the files and headings exist to which the documents link.
func TestLinks(t *testing.T) {
	t.Parallel()
	root := os.DirFS("..")
	pages := map[string]string{} // without blocks of code
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		names, err := fs.Glob(root, pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := fs.ReadFile(root, name)
			if err != nil {
				t.Fatal(err)
			}
			pages[name] = codeBlock.ReplaceAllString(string(text), "")
		}
	}
	anchors := map[string]bool{} // page#heading
	for name, text := range pages {
		for _, found := range heading.FindAllStringSubmatch(text, -1) {
			anchors[name+"#"+slug(found[1])] = true
		}
	}
	checked := 0
	for name, text := range pages {
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			checked++
			target, anchor, hasAnchor := strings.Cut(found[1], "#")
			page := name
			if target != "" {
				page = path.Join(path.Dir(name), target)
			}
			if _, err := fs.Stat(root, page); err != nil {
				t.Errorf("%s links to %s: %v", name, found[1], err)
			} else if hasAnchor && !anchors[page+"#"+anchor] {
				t.Errorf("%s links to %s: %s has no such heading", name, found[1], page)
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d links were found", checked)
	}
}

// slug returns the anchor that a renderer of Markdown makes of a heading.
func slug(heading string) string {
	heading = linkText.ReplaceAllString(heading, "$1")
	return strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), ""), " ", "-")
}
