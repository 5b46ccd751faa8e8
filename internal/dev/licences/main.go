// Command licences lists the modules of the program with their licences, as
// docs/licences.md. With -texts it prints the licences, which must accompany a
// binary.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:generate go run . -o ../../../docs/licences.md

// program is what is distributed; modules that only tests and tools use are not.
const program = "syncer/cmd/syncer"

func main() {
	texts := flag.Bool("texts", false, "print the licences' texts")
	output := flag.String("o", "", "write the list to `FILE`")
	flag.Parse()
	if err := run(os.Stdout, *texts, *output); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, texts bool, output string) error {
	parts, err := find()
	if err != nil {
		return err
	}
	if texts {
		for _, p := range parts {
			fmt.Fprintf(w, "==== %s %s\n\n%s\n", p.name, p.version, p.text)
		}
		return nil
	}
	list, err := table(parts)
	if err != nil {
		return err
	}
	if output == "" {
		_, err = io.WriteString(w, list)
		return err
	}
	return os.WriteFile(output, []byte(list), 0o644)
}

// part is a component of the program.
type part struct {
	name, version string
	text          string // licence, and notice if it has one
	notice        bool
}

// listed is go list's output for a package.
type listed struct {
	Standard bool
	Module   *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// find returns the components of the program for all platforms, sorted by name.
func find() ([]part, error) {
	goRoot, err := output("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	// Without a version: the toolchain is that of the build.
	goPart, err := read("Go's standard library", "", strings.TrimSpace(goRoot))
	if err != nil {
		return nil, err
	}
	moduleDir, err := output("go", "list", "-m", "-f", "{{.Dir}}", "syncer")
	if err != nil {
		return nil, err
	}
	parts := []part{goPart}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(moduleDir), "internal/report/assets/uPlot.LICENSE"))
	if err != nil {
		return nil, err
	}
	parts = append(parts, part{name: "uPlot (in the page of reports)", text: string(text)})
	packages, err := output("go", "list", "-deps", "-json=Standard,Module", program)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for decoder := json.NewDecoder(strings.NewReader(packages)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if p.Standard || p.Module == nil || p.Module.Main || known[p.Module.Path] {
			continue
		}
		known[p.Module.Path] = true
		found, err := read(p.Module.Path, p.Module.Version, p.Module.Dir)
		if err != nil {
			return nil, err
		}
		parts = append(parts, found)
	}
	slices.SortFunc(parts[2:], func(a, b part) int { return strings.Compare(a.name, b.name) })
	return parts, nil
}

// output returns the output of a command.
func output(name string, args ...string) (string, error) {
	command := exec.Command(name, args...)
	command.Stderr = os.Stderr
	// One platform, so that the list is the same everywhere.
	command.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	text, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(text), nil
}

// read returns the licence and notice in a module's folder.
func read(name, version, dir string) (part, error) {
	p := part{name: name, version: version}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return p, err
	}
	for _, entry := range entries {
		base := strings.ToUpper(strings.TrimSuffix(strings.TrimSuffix(entry.Name(), ".md"), ".txt"))
		notice := base == "NOTICE"
		if entry.IsDir() || !notice && base != "LICENSE" && base != "LICENCE" && base != "COPYING" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return p, err
		}
		p.text += string(text) + "\n"
		p.notice = p.notice || notice
	}
	if p.text == "" {
		return p, fmt.Errorf("%s: no licence in %s", name, dir)
	}
	return p, nil
}

// kinds maps characteristic words to licences. A licence whose words include those of
// another precedes it.
var kinds = []struct{ name, words string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License Version 2.0"},
	{"MIT", "Permission is hereby granted, free of charge"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose"},
	{"BSD-3-Clause", "may be used to endorse or promote products derived from"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce"},
}

// refused are words of the titles of licences that would restrict the choice of the
// program's own licence, or its use. MPL-2.0, which names the GNU licences, has a comma
// before their versions.
var refused = []string{
	"GNU General Public License version ", "GNU Lesser General Public License version ", "GNU Library General Public License version ",
	"GNU Affero General Public License version ", "Server Side Public License", "Business Source License", "European Union Public Licence",
	"Eclipse Public License", "Common Development and Distribution License", "Attribution-NonCommercial", "Attribution-ShareAlike",
	"Commons Clause", "Elastic License", "PolyForm",
}

// kind returns the names of the licences in a text. A refused or unknown licence is an
// error, so that it gets reviewed.
func kind(p part) (string, error) {
	text := strings.ToLower(strings.Join(strings.Fields(p.text), " "))
	for _, words := range refused {
		if strings.Contains(text, strings.ToLower(words)) {
			return "", fmt.Errorf("%s: its licence (%s) restricts the licence or the use of the program", p.name, strings.TrimSpace(words))
		}
	}
	var found []string
	for _, k := range kinds {
		if strings.Contains(text, strings.ToLower(k.words)) {
			if k.name == "BSD-2-Clause" && slices.Contains(found, "BSD-3-Clause") {
				continue
			}
			found = append(found, k.name)
		}
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%s: a licence that is not known: %.200s", p.name, text)
	}
	return strings.Join(found, ", "), nil
}

const head = `# Licences

What the program is made of, and under which licence; written by ` + "`make licences`" + `, and a test holds it fresh. All of them want
their text to go along with a binary: ` + "`go run ./internal/dev/licences -texts`" + ` prints them, and the container image holds them as ` + "`/LICENCES`" + `.
All permit any licence of the program as a whole; ` + "`make licences`" + ` and the test refuse one that does not (GPL, AGPL, LGPL, SSPL, BUSL and their like).
MPL-2.0 also wants those who get a binary to be told where the source is: the modules are used as they are published, at the versions below.

| part | version | licence |
|---|---|---|
`

// table returns docs/licences.md.
func table(parts []part) (string, error) {
	var b strings.Builder
	b.WriteString(head)
	var errs []error
	for _, p := range parts {
		name, err := kind(p)
		errs = append(errs, err)
		if p.notice {
			name += ", with a notice"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", p.name, p.version, name)
	}
	return b.String(), errors.Join(errs...)
}
