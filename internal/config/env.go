package config

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// envPrefix begins the name of every variable that sets something.
const envPrefix = "SYNCER"

// envName makes the name of a setting's variable: SYNCER_SWEEP_PAGE_USERS,
// SYNCER_APPS_MY_APP_TENCENT_REGION for the app "my-app".
func envName(env, key string) string {
	if env == "" {
		return ""
	}
	return env + "_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

// clusterService matches what Kubernetes sets in every container for a Service
// whose name begins with "syncer".
var clusterService = regexp.MustCompile(`^SYNCER(_\w+)?_SERVICE_(HOST|PORT(_\w+)?)=|^SYNCER(_\w+)?_PORT(_\d+_\w+)?=\w+://|^SYNCER(_\w+)?_PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=`)

// settings picks the variables that must be settings out of an environment of
// NAME=value. SYNCER_CONFIG names the file itself and SYNCER_TEST_… belong to tests.
func settings(environ []string) map[string]string {
	vars := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix+"_") || name == envPrefix+"_CONFIG" ||
			strings.HasPrefix(name, envPrefix+"_TEST_") || clusterService.MatchString(entry) {
			continue
		}
		vars[name] = value
	}
	return vars
}

// envUnder gives a variable that sets something of a section, "" if none does.
func (b *binder) envUnder(env string) string {
	if env != "" {
		for _, name := range slices.Sorted(maps.Keys(b.env)) {
			if strings.HasPrefix(name, env+"_") {
				return name
			}
		}
	}
	return ""
}

// unknownVars reports the variables that no setting took.
func (b *binder) unknownVars() {
	for _, name := range slices.Sorted(maps.Keys(b.env)) {
		text := "is no setting of syncer: unset it, or correct its name"
		if meant := Nearest(name, b.envAll); meant != "" {
			text = fmt.Sprintf("is no setting of syncer; did you mean %s?", meant)
		} else if strings.HasPrefix(name, envPrefix+"_APPS_") || strings.HasPrefix(name, envPrefix+"_JOBS_") {
			text = "is no setting of an app or job that the file names; see [[apps]] and [[jobs]] there"
		}
		b.problems = append(b.problems, Problem{Var: name, Text: text})
	}
}

// secret chooses between a secret and the file that holds it, and reads the
// file. What the environment gives replaces what the file gives, either way.
// It is not ok when a problem was reported.
func (b *binder) secret(f field, plain, n *node, path, env string) (value *node, ok bool) {
	b.noteExposed(f, n, path)
	file := b.given(n, f.key+"_file", envName(env, "file"))
	switch {
	case file == nil, plain != nil && plain.pos.env != "" && file.pos.env == "":
		return b.plainSecret(plain, path)
	case plain != nil && (plain.pos.env == "") == (file.pos.env == ""):
		b.at[path] = plain.pos
		b.problem(path, "both %s and %s_file are given; keep one", f.key, f.key)
		return nil, false
	}
	path += "_file"
	b.at[path] = file.pos
	if !file.isText() {
		b.problem(path, "%s", wrongKind("a file's name in quotes", file))
		return nil, false
	}
	text, problem := b.readSecret(file, f.key)
	if problem != "" {
		b.problem(path, "%s", problem)
		return nil, false
	}
	b.noteOpen(f, text, b.locate(file), strings.TrimSuffix(path, "_file"))
	return &node{kind: kindText, pos: file.pos, text: text}, true
}

// plainSecret returns a secret that is given itself. A line break at the end does not
// count, as in a file.
func (b *binder) plainSecret(plain *node, path string) (value *node, ok bool) {
	if plain == nil || !plain.isText() {
		return plain, true
	}
	trimmed := *plain
	trimmed.text = strings.TrimRight(plain.text, "\r\n")
	if problem := surrounded(trimmed.text); problem != "" {
		b.at[path] = plain.pos
		b.problem(path, "%s", problem)
		return nil, false
	}
	return &trimmed, true
}

// surrounded says what surrounds a secret that does not belong to it, "" if nothing
// does. It shows nothing of the secret.
func surrounded(secret string) string {
	switch {
	case strings.HasPrefix(secret, "\ufeff"):
		return "begins with a byte order mark; save it as UTF-8 without one"
	case !strings.Contains(secret, "\n") && strings.Trim(secret, " \t") != secret: // headers have lines
		return "begins or ends with a blank, which is part of no secret; take it out"
	}
	return ""
}

// mountedSecrets is where what runs containers puts their secrets, by default
// readable by all in a container, in which there is nobody else.
const mountedSecrets = "/run/secrets/"

// noteOpen warns of a secret's file that everybody can read.
func (b *binder) noteOpen(f field, text, file, path string) {
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o004 == 0 || strings.HasPrefix(file, mountedSecrets) || !isSecret(f, text) {
		return
	}
	b.warnings = append(b.warnings, fmt.Sprintf("%s can be read by everybody and holds %s: chmod 600 it", file, path))
}

// isSecret reports whether the text of a setting is a secret: a URL without a
// password is none.
func isSecret(f field, text string) bool {
	switch f.value.Interface().(type) {
	case DatabaseURL:
		return DatabaseURL(text).holdsPassword()
	case ProxyURL:
		return ProxyURL(text).holdsSecret()
	}
	return true
}

// noteExposed remembers that a secret stands in the configuration file, also
// one that the environment replaces.
func (b *binder) noteExposed(f field, n *node, path string) {
	plain := n.get(f.key)
	if plain == nil || plain.text == "" {
		return
	}
	if isSecret(f, plain.text) {
		b.exposed = append(b.exposed, path)
	}
}

// maxSecret bounds what is read of a secret file, in bytes.
const maxSecret = 64 << 10

// locate gives a secret's file: one named in the configuration file is relative
// to that one's folder.
func (b *binder) locate(file *node) string {
	if file.pos.env == "" && !filepath.IsAbs(file.text) {
		return filepath.Join(b.dir, file.text)
	}
	return file.text
}

// readSecret reads a file that holds one secret and, usually, a line break.
func (b *binder) readSecret(file *node, key string) (secret, problem string) {
	name := file.text
	if name == "" {
		return "", "names no file"
	}
	path := b.locate(file)
	data, err := readBounded(path, maxSecret)
	if err != nil {
		if looksSecret(name) {
			return "", fmt.Sprintf("names no file that can be read; if this is the value itself, write it as %s", key)
		}
		return "", fmt.Sprintf("cannot be read: %v", err)
	}
	text := strings.TrimRight(string(data), "\r\n")
	switch {
	case text == "":
		return "", fmt.Sprintf("the file %s is empty", path)
	case strings.ContainsAny(text, "\r\n\x00"):
		return "", fmt.Sprintf("the file %s holds more than one line; it must hold the value alone", path)
	}
	if problem := surrounded(text); problem != "" {
		return "", fmt.Sprintf("the file %s %s", path, problem)
	}
	return text, ""
}

// looksSecret guesses whether a secret was given where a file's name belongs.
func looksSecret(name string) bool {
	const longName = 24
	return strings.Contains(name, "://") || strings.ContainsAny(name, "@=") ||
		len(name) >= longName && !strings.ContainsAny(name, `/\.`)
}

// readBounded reads a whole file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, limit)
	}
	return data, nil
}
