package pgcluster

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// EnvBin is the environment variable that names the folder of the server's programs.
// If set, no other place is searched.
const EnvBin = "SYNCER_PG_BIN"

// minVersion is the oldest major version of Postgres that syncer supports.
const minVersion = 14

// ErrNotFound is wrapped by Find's error if the machine has no usable server, but not
// if EnvBin is wrong.
var ErrNotFound = errors.New("no Postgres server found")

// Binaries is a folder of server programs.
type Binaries struct {
	Dir     string // absolute; holds initdb, postgres and pg_ctl
	Version int    // major version, e.g. 15
}

func (b Binaries) path(program string) string { return filepath.Join(b.Dir, program) }

// binGlobs are folders outside of PATH in which distributions install several major
// versions.
var binGlobs = []string{
	"/usr/lib/postgresql/*/bin",   // Debian, Ubuntu
	"/usr/pgsql-*/bin",            // the Postgres project's own RPMs
	"/usr/libexec/postgresql*",    // Alpine
	"/usr/lib/postgresql*/bin",    // openSUSE
	"/usr/lib64/postgresql-*/bin", // Gentoo
	"/usr/local/pgsql/bin",        // built from source
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// Find returns the server's programs: those in $SYNCER_PG_BIN if it is set, else in
// PATH, else where pg_config says, else the newest in the folders of distributions.
// Versions before 14 are ignored. The error says what was found and how to install a
// server.
func Find() (Binaries, error) {
	if dir := os.Getenv(EnvBin); dir != "" {
		b, err := inspect(dir)
		if err != nil {
			return Binaries{}, fmt.Errorf("%s: %w", EnvBin, err)
		}
		return b, nil
	}
	return search(binGlobs)
}

// search is Find without EnvBin.
func search(globs []string) (Binaries, error) {
	var unusable []error
	for _, dir := range []string{dirInPath(), dirOfPgConfig()} {
		if dir == "" {
			continue
		}
		b, err := inspect(dir)
		if err == nil {
			return b, nil
		}
		unusable = append(unusable, err)
	}
	var found []Binaries
	for _, glob := range globs {
		dirs, _ := filepath.Glob(glob) // fails only for a malformed pattern
		for _, dir := range dirs {
			b, err := inspect(dir)
			if err != nil {
				unusable = append(unusable, err)
				continue
			}
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return Binaries{}, notFound(unusable)
	}
	return slices.MaxFunc(found, func(a, b Binaries) int { return cmp.Compare(a.Version, b.Version) }), nil
}

// notFound returns the error of a search: what was unusable, and what to do.
func notFound(unusable []error) error {
	var text strings.Builder
	for _, err := range unusable {
		fmt.Fprintf(&text, "\n  not usable: %v", err)
	}
	return fmt.Errorf("%w (version %d or newer is needed)%s\n  %s, or set %s to the folder that holds initdb and postgres",
		ErrNotFound, minVersion, text.String(), installAdvice(), EnvBin)
}

// dirInPath returns the folder of the server in PATH, with symbolic links resolved;
// "" if there is none.
func dirInPath() string {
	postgres, err := exec.LookPath("postgres")
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(postgres); err == nil {
		postgres = real
	}
	return filepath.Dir(postgres)
}

// dirOfPgConfig returns the folder that pg_config names. It need not contain a
// server, because pg_config belongs to the client library.
func dirOfPgConfig() string {
	out, err := exec.Command("pg_config", "--bindir").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// versionPattern matches the major version in the output of postgres --version, such
// as "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)" or "… 19beta1".
var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspect returns the server in dir, or why it is unusable.
func inspect(dir string) (Binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Binaries{}, err
	}
	b := Binaries{Dir: dir}
	for _, program := range []string{"initdb", "pg_ctl", "postgres"} {
		if _, err := exec.LookPath(b.path(program)); err != nil {
			return Binaries{}, fmt.Errorf("%s has no %s that can be run", dir, program)
		}
	}
	out, err := exec.Command(b.path("postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("asking %s for its version: %w", b.path("postgres"), err)
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return Binaries{}, fmt.Errorf("%s tells no version: %q", b.path("postgres"), out)
	}
	b.Version, err = strconv.Atoi(string(match[1]))
	if err != nil {
		return Binaries{}, fmt.Errorf("version of %s: %w", b.path("postgres"), err)
	}
	if b.Version < minVersion {
		return Binaries{}, fmt.Errorf("%s holds version %d", dir, b.Version)
	}
	return b, nil
}
