package pgcluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeServer makes a folder with programs that claim to be a version of Postgres.
func fakeServer(t *testing.T, dir, version string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho 'postgres (PostgreSQL) %s'\n", version)
	for _, program := range []string{"initdb", "pg_ctl", "postgres"} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// resolved returns dir without symbolic links: temporary folders may be behind one.
func resolved(t *testing.T, dir string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFind(t *testing.T) {
	b, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	if b.Version < minVersion {
		t.Errorf("found version %d in %s", b.Version, b.Dir)
	}
}

func TestFind_environment(t *testing.T) {
	dir := fakeServer(t, t.TempDir(), "16.2 (Debian 16.2-1)")
	t.Setenv(EnvBin, dir)
	if b, err := Find(); err != nil || b != (Binaries{Dir: dir, Version: 16}) {
		t.Errorf("found %+v, %v; want version 16 in %s", b, err, dir)
	}
	t.Setenv(EnvBin, t.TempDir())
	if b, err := Find(); err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), EnvBin) {
		t.Errorf("found %+v, %v; want an error about %s, and nothing installed for it", b, err, EnvBin)
	}
}

func TestSearch(t *testing.T) {
	root := resolved(t, t.TempDir())
	for _, version := range []string{"9.6.24", "13.4", "15.18", "19beta1"} {
		fakeServer(t, filepath.Join(root, "lib", version), version)
	}
	if err := os.Mkdir(filepath.Join(root, "lib", "20"), 0o755); err != nil { // the client programs only, say
		t.Fatal(err)
	}
	t.Run("newest of the folders", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		want := Binaries{Dir: filepath.Join(root, "lib", "19beta1"), Version: 19}
		if b, err := search([]string{filepath.Join(root, "lib", "*")}); err != nil || b != want {
			t.Errorf("found %+v, %v; want %+v", b, err, want)
		}
	})
	t.Run("PATH first, through links", func(t *testing.T) {
		path := t.TempDir()
		want := Binaries{Dir: filepath.Join(root, "lib", "15.18"), Version: 15}
		if err := os.Symlink(filepath.Join(want.Dir, "postgres"), filepath.Join(path, "postgres")); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", path)
		if b, err := search([]string{filepath.Join(root, "lib", "*")}); err != nil || b != want {
			t.Errorf("found %+v, %v; want %+v", b, err, want)
		}
	})
	t.Run("pg_config", func(t *testing.T) {
		path := t.TempDir()
		want := Binaries{Dir: filepath.Join(root, "lib", "15.18"), Version: 15}
		script := "#!/bin/sh\necho " + want.Dir + "\n"
		if err := os.WriteFile(filepath.Join(path, "pg_config"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", path)
		if b, err := search(nil); err != nil || b != want {
			t.Errorf("found %+v, %v; want %+v", b, err, want)
		}
	})
	t.Run("too old in PATH", func(t *testing.T) {
		t.Setenv("PATH", filepath.Join(root, "lib", "13.4"))
		b, err := search(nil)
		if !errors.Is(err, ErrNotFound) {
			t.Fatalf("found %+v, %v; want ErrNotFound", b, err)
		}
		for _, want := range []string{"13.4 holds version 13", "install", EnvBin} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error does not say %q: %v", want, err)
			}
		}
	})
}

func TestInstall(t *testing.T) {
	var events []string
	m := packageManager{
		command: "sh",
		steps:   [][]string{{"-c", "echo step one"}, {"-c", "echo step two, $DEBIAN_FRONTEND"}},
		before: func() (func(), error) {
			events = append(events, "before")
			return func() { events = append(events, "undone") }, nil
		},
	}
	var out bytes.Buffer
	if err := m.install(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sh -c echo step one\nstep one\n", "\nstep two, noninteractive\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	m.steps = [][]string{{"-c", "exit 100"}, {"-c", "echo not reached"}}
	out.Reset()
	if err := m.install(t.Context(), &out); err == nil || !strings.Contains(err.Error(), "exit 100") {
		t.Errorf("error %v; want the step that failed", err)
	}
	if strings.Contains(out.String(), "\nnot reached") {
		t.Error("the installation went on after a step that failed")
	}
	if got := strings.Join(events, " "); got != "before undone before undone" {
		t.Errorf("events: %s", got)
	}
}

func TestInstallAdvice(t *testing.T) {
	path := t.TempDir()
	t.Setenv("PATH", path)
	if got := installAdvice(); !strings.Contains(got, "package manager") {
		t.Errorf("advice without a known package manager: %s", got)
	}
	if err := os.WriteFile(filepath.Join(path, "apk"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := installAdvice(); !strings.HasSuffix(got, "apk add postgresql postgresql-contrib") {
		t.Errorf("advice with apk: %s", got)
	}
}
