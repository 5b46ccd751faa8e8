package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// searched are the locations of the file if none is named.
var searched = []string{"./config.toml", "/etc/syncer/config.toml"}

// Find returns the configuration file to load: path if it is not "", else the first
// existing one of ./config.toml and /etc/syncer/config.toml.
func Find(path string) (string, error) {
	if path != "" {
		return path, nil
	}
	for _, p := range searched {
		// A file that exists but cannot be read is chosen, too; Load reports why.
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			return p, nil
		}
	}
	return "", fmt.Errorf("no configuration file: neither %s is there; write one or name it with --config",
		strings.Join(searched, " nor "))
}

// maxFile bounds the configuration file, in bytes. A larger file is a mistake.
const maxFile = 1 << 20

// Load reads the file at path and the SYNCER_ variables of environ, which has the
// form of os.Environ. If anything is wrong it returns no configuration; the error is
// then Problems, unless the file cannot be read.
func Load(path string, environ []string) (*Config, error) {
	data, err := readBounded(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	b, c, err := bind(path, data, environ)
	if err != nil {
		return nil, err
	}
	if exposed := b.exposed; len(exposed) > 0 {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o004 != 0 {
			c.Warnings = append(c.Warnings, fmt.Sprintf(
				"%s can be read by everybody and holds %s: chmod 600 it, or move secrets to files of their own (…_file)",
				path, strings.Join(exposed, ", ")))
		}
	}
	c.Warnings = append(c.Warnings, b.warnings...)
	return c, nil
}

// newBinder returns a binder for the content of a file, and the file's tree.
func newBinder(path string, data []byte, environ []string) (*binder, *node, error) {
	doc := readDocument(path, data)
	if doc.root == nil {
		return nil, nil, doc.problems
	}
	return &binder{
		file: path, dir: filepath.Dir(path), env: settings(environ), at: map[string]pos{}, bad: map[string]bool{}, problems: doc.problems,
	}, doc.root, nil
}

// bind is Load for the content of a file.
func bind(path string, data []byte, environ []string) (*binder, *Config, error) {
	b, root, err := newBinder(path, data, environ)
	if err != nil {
		return nil, nil, err
	}
	addDefaultJobs(root)
	c := &Config{}
	b.section(reflect.ValueOf(c).Elem(), root, "", envPrefix)
	b.unknownVars()
	v := validator{binder: b, c: c}
	v.completeUsers()
	v.validate()
	if len(b.problems) > 0 {
		b.problems.sort()
		return nil, nil, b.problems
	}
	return b, c, nil
}

// addDefaultJobs adds the default jobs if the file has no "jobs", by name, so that
// the environment can change them. "jobs = []" means no jobs.
func addDefaultJobs(root *node) {
	if root.get("jobs") != nil {
		return
	}
	jobs := &node{kind: kindList}
	root.put("jobs", jobs)
	for _, job := range []struct{ kind, schedule string }{
		{"presence", "@every 1m"},
		{"accounts", "@daily"},
	} {
		n := newSection(0, originHeader)
		n.put("name", &node{kind: kindString, text: job.kind})
		n.put("kind", &node{kind: kindString, text: job.kind})
		n.put("schedule", &node{kind: kindString, text: job.schedule})
		jobs.add(n)
	}
}
