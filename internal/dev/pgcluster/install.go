package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packageManager is one way to install a Postgres server.
type packageManager struct {
	command string
	steps   [][]string // arguments of each call
	// rootless managers refuse root; the others need it.
	rootless bool
	// before runs ahead of the steps, and the function that it returns after them.
	before func() (undo func(), err error)
}

// The contrib extensions (tests need postgres_fdw) come with the server or in a
// package of their own.
var packageManagers = []packageManager{
	{
		command: "apt-get",
		steps: [][]string{
			{"update"},
			{"install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "postgresql"},
		},
		before: withoutMainCluster,
	},
	{command: "dnf", steps: [][]string{{"install", "-y", "postgresql-server", "postgresql-contrib"}}},
	{command: "zypper", steps: [][]string{{"--non-interactive", "install", "postgresql-server", "postgresql-contrib"}}},
	{command: "pacman", steps: [][]string{{"-Sy", "--noconfirm", "postgresql"}}},
	{command: "apk", steps: [][]string{{"add", "postgresql", "postgresql-contrib"}}},
	{command: "brew", steps: [][]string{{"install", "postgresql@17"}}, rootless: true},
}

// FindOrInstall is Find, but installs a missing server with the system's package
// manager if the current user may: root, or any user with Homebrew. It asks no
// question and starts no system service. The commands and their output go to out.
func FindOrInstall(ctx context.Context, out io.Writer) (Binaries, error) {
	b, err := Find()
	if !errors.Is(err, ErrNotFound) {
		return b, err
	}
	m, ok := findPackageManager()
	if !ok || !m.permitted() {
		return Binaries{}, err
	}
	if err := m.install(ctx, out); err != nil {
		return Binaries{}, fmt.Errorf("installing a Postgres server: %w", err)
	}
	return Find()
}

// installAdvice returns how to install a server on this machine.
func installAdvice() string {
	m, ok := findPackageManager()
	if !ok {
		return "install the Postgres server with your system's package manager"
	}
	install := append([]string{m.command}, m.steps[len(m.steps)-1]...)
	if !m.rootless && os.Geteuid() != 0 {
		install = append([]string{"sudo"}, install...)
	}
	return "install it with: " + strings.Join(install, " ")
}

func findPackageManager() (packageManager, bool) {
	for _, m := range packageManagers {
		if _, err := exec.LookPath(m.command); err == nil {
			return m, true
		}
	}
	return packageManager{}, false
}

// permitted reports whether the current user can install with m.
func (m packageManager) permitted() bool {
	return m.rootless != (os.Geteuid() == 0)
}

func (m packageManager) install(ctx context.Context, out io.Writer) error {
	if m.before != nil {
		undo, err := m.before()
		if err != nil {
			return err
		}
		defer undo()
	}
	for _, step := range m.steps {
		fmt.Fprintf(out, "installing a Postgres server: %s %s\n", m.command, strings.Join(step, " "))
		cmd := exec.CommandContext(ctx, m.command, step...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = out, out
		// A package manager that is killed leaves a broken state.
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s %s: %w", m.command, strings.Join(step, " "), err)
		}
	}
	return nil
}

// noMainCluster is read by Debian's postgresql-common.
const noMainCluster = "/etc/postgresql-common/createcluster.d/syncer-install.conf"

// withoutMainCluster keeps Debian's package from creating a cluster on port 5432. The
// setting lasts for the installation.
func withoutMainCluster() (undo func(), err error) {
	dir := filepath.Dir(noMainCluster)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(noMainCluster, []byte("create_main_cluster = false\n"), 0o644); err != nil {
		return nil, err
	}
	return func() {
		_ = os.Remove(noMainCluster)
		_ = os.Remove(dir) // fails if other files are in it
	}, nil
}
