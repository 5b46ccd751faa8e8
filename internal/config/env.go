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

// envPrefix is the prefix of all variables.
const envPrefix = "SYNCER"

// envName returns the name of a setting's variable: SYNCER_SWEEP_PAGE_USERS,
// SYNCER_APPS_MY_APP_TENCENT_REGION for the app "my-app".
func envName(env, key string) string {
	if env == "" {
		return ""
	}
	return env + "_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

// clusterService matches variables that Kubernetes sets in every container for a
// Service whose name begins with "syncer".
var clusterService = regexp.MustCompile(`^SYNCER(_\w+)?_SERVICE_(HOST|PORT(_\w+)?)=|^SYNCER(_\w+)?_PORT(_\d+_\w+)?=\w+://|^SYNCER(_\w+)?_PORT_\d+_(TCP|UDP|SCTP)_(PROTO|PORT|ADDR)=`)

// settings returns the variables in environ, NAME=value, that must be settings.
// SYNCER_CONFIG names the file itself; SYNCER_TEST_… belong to tests.
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

// envUnder returns a variable that sets part of a section, "" if there is none.
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

// secret returns a secret's value: from the key itself or from the file that
// <key>_file names. Either form in the environment overrides both forms in the file.
// ok is false if a problem was reported.
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

// plainSecret returns a secret that is given directly, without line breaks at its
// end.
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

// surrounded returns a problem of characters around a secret that are not part of it,
// "" if there are none. The text reveals nothing of the secret.
func surrounded(secret string) string {
	switch {
	case strings.HasPrefix(secret, "\ufeff"):
		return "begins with a byte order mark; save it as UTF-8 without one"
	case !strings.Contains(secret, "\n") && strings.Trim(secret, " \t") != secret: // traces.headers has several lines
		return "begins or ends with a blank, which is part of no secret; take it out"
	}
	return ""
}

// mountedSecrets is where container runtimes mount secrets. By default they are
// world-readable, in a container that has no other users.
const mountedSecrets = "/run/secrets/"

// noteOpen warns of a world-readable secret file.
func (b *binder) noteOpen(f field, text, file, path string) {
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o004 == 0 || strings.HasPrefix(file, mountedSecrets) || !isSecret(f, text) {
		return
	}
	b.warnings = append(b.warnings, fmt.Sprintf("%s can be read by everybody and holds %s: chmod 600 it", file, path))
}

// isSecret reports whether the text of a setting is a secret. A URL without a
// password is not.
func isSecret(f field, text string) bool {
	switch f.value.Interface().(type) {
	case DatabaseURL:
		return DatabaseURL(text).holdsPassword()
	case ProxyURL:
		return ProxyURL(text).holdsSecret()
	}
	return true
}

// noteExposed records that the configuration file contains a secret, even one that
// the environment overrides.
func (b *binder) noteExposed(f field, n *node, path string) {
	plain := n.get(f.key)
	if plain == nil || plain.text == "" {
		return
	}
	if isSecret(f, plain.text) {
		b.exposed = append(b.exposed, path)
	}
}

// maxSecret bounds the size of a secret file, in bytes.
const maxSecret = 64 << 10

// locate returns the path of a secret file. A name from the configuration file is
// relative to that file's folder.
func (b *binder) locate(file *node) string {
	if file.pos.env == "" && !filepath.IsAbs(file.text) {
		return filepath.Join(b.dir, file.text)
	}
	return file.text
}

// readSecret reads a file with one secret and, usually, a line break.
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

// looksSecret guesses whether a file name is in fact the secret itself.
func looksSecret(name string) bool {
	const longName = 24
	return strings.Contains(name, "://") || strings.ContainsAny(name, "@=") ||
		len(name) >= longName && !strings.ContainsAny(name, `/\.`)
}

// readBounded reads a file of at most limit bytes.
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
