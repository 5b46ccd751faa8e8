// Package pgcluster runs throwaway Postgres clusters for tests, the demo and
// benchmarks. It finds or installs the server's programs, starts a server in a
// temporary folder, and removes everything again, even if the process that started it
// is killed (package leash). Package pgtest makes databases for tests on it.
//
// A cluster listens on 127.0.0.1 only and has a random password. For root the server
// runs as another user. It needs a Unix.
package pgcluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"syncer/internal/dev/leash"
)

const (
	// EnvURL is the environment variable with the URL of the server that all tests of
	// a run share, for a user who may create databases. with-postgres sets it, pgtest
	// reads it.
	EnvURL = "SYNCER_TEST_DATABASE_URL"
	// EnvRun is the environment variable that identifies a test run to all its
	// processes: lower-case letters, digits and _. with-postgres sets it, pgtest
	// reads it.
	EnvRun = "SYNCER_TEST_RUN"
)

// superuser is the role of all URLs.
const superuser = "postgres"

// startTimeout bounds Start and StartServer; initdb takes seconds on an idle machine.
const startTimeout = 2 * time.Minute

// Options configures a cluster. The zero value suits tests.
type Options struct {
	// Binaries are the server's programs; if zero, those that Find returns.
	Binaries Binaries
	// Durable keeps fsync and other settings that survive a crash of the machine.
	// Benchmarks need it. Without it the cluster is much faster, and still survives a
	// crash of the server alone.
	Durable bool
	// OnDisk keeps the cluster out of memory; for more than a GiB of data. Durable
	// ones are never in memory.
	OnDisk bool
	// Settings are server settings that override ours. ALTER SYSTEM overrides them.
	// "port" is not permitted.
	Settings map[string]string
	// Env is added to the environment of the server's programs: KEY=value.
	Env []string
}

// settings returns the content of postgresql.conf.
func (o Options) settings() map[string]string {
	s := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "", // paths of temporary folders can be too long for a socket
		"max_connections":         "200",
		"shared_buffers":          "128MB",
		"timezone":                "UTC",
	}
	if !o.Durable {
		s["fsync"] = "off"
		s["synchronous_commit"] = "off"
		s["full_page_writes"] = "off"
		// In the cluster's folder: containers have a small /dev/shm, and a killed
		// server leaves its segments there.
		s["dynamic_shared_memory_type"] = "mmap"
		// Small, because the log may be in memory.
		s["max_wal_size"] = "256MB"
	}
	maps.Copy(s, o.Settings)
	return s
}

// Cluster is a throwaway Postgres cluster and its server. It is safe for concurrent
// use.
type Cluster struct {
	bin      Binaries
	account  account
	env      []string // added to the programs' environment
	inMemory bool     // dir is in memory if there was room
	dir      string   // holds data/ and log
	password string
	port     int

	mu     sync.Mutex
	server *leash.Process // nil until first started
	guard  *leash.Guard   // nil once stopped
}

// Start makes a cluster and starts its server on a free port. It returns when the
// server accepts connections. ctx bounds the start only; the cluster runs until Stop.
// If the start fails, nothing is left behind, and the error contains the end of the
// server's log.
//
// Databases are UTF8 with the "C" collation, which is the same on every system.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Binaries == (Binaries{}) {
		b, err := Find()
		if err != nil {
			return nil, err
		}
		o.Binaries = b
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := newCluster(o.Binaries, !o.Durable && !o.OnDisk)
	if err != nil {
		return nil, fmt.Errorf("making a Postgres cluster: %w", err)
	}
	c.env = o.Env
	if err := c.init(ctx, o.settings()); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	if err := c.startOnFreePort(ctx, freePort); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// removeScript stops a server that still runs and removes the cluster's folder. It
// also runs after Stop, with nothing left to do. It tries several times because an
// interrupted initdb may still be writing.
//
// $1 is the cluster's folder, $2 that of the programs.
const removeScript = `read -r line
"$2/pg_ctl" stop -m immediate -t 10 -D "$1/data" || {
	read -r pid <"$1/data/postmaster.pid"
	case $pid in [1-9]*) kill -KILL "$pid" ;; esac
}
for try in 1 2 3 4 5; do
	rm -rf "$1" && break
	sleep 1
done`

// newCluster makes the cluster's folder and starts the guard that removes it.
func newCluster(bin Binaries, inMemory bool) (*Cluster, error) {
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	dir, err := as.makeDir(inMemory)
	if err != nil {
		return nil, err
	}
	// The guard runs as the server's account, to limit what it can damage, and in its
	// own session, so that Ctrl-C does not end it.
	attr := &syscall.SysProcAttr{Setsid: true, Credential: as.credential}
	guard, err := leash.StartGuard(attr, "syncer-postgres-guard", removeScript, dir, bin.Dir)
	if err != nil {
		_ = os.Remove(dir)
		return nil, err
	}
	return &Cluster{bin: bin, account: as, inMemory: inMemory, dir: dir, password: rand.Text(), guard: guard}, nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// init runs initdb.
func (c *Cluster) init(ctx context.Context, settings map[string]string) error {
	passwordFile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(c.password+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(passwordFile)
	if err := c.account.own(passwordFile); err != nil {
		return err
	}
	cmd := c.command(ctx, "initdb", "--pgdata", c.data(), "--username", superuser,
		"--pwfile", passwordFile, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd.Path, err, lastLines(out))
	}
	return c.configure(settings)
}

// configure appends to postgresql.conf. Unlike arguments of the server, its settings
// can be overridden by ALTER SYSTEM.
func (c *Cluster) configure(settings map[string]string) error {
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		value := strings.ReplaceAll(settings[name], "'", "''")
		if _, err := fmt.Fprintf(f, "%s = '%s'\n", name, value); err != nil {
			return err
		}
	}
	return f.Close()
}

// URL returns the address of a database, for the superuser. It contains the password
// and survives restarts.
func (c *Cluster) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, c.password),
		Host:     c.address(),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Stop stops the server, by force if necessary, and removes all files. A second Stop
// has no effect.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.guard == nil {
		return nil
	}
	c.stopServer(Fast)
	err := errors.Join(os.RemoveAll(c.dir), c.guard.Release())
	c.guard = nil
	if err != nil {
		return fmt.Errorf("removing the Postgres cluster: %w", err)
	}
	return nil
}
