// Package pgcluster runs throwaway Postgres clusters for tests, the demo and
// benchmarks: it finds (or installs) the server's programs, starts a server with
// an empty cluster in a temporary folder, and removes all of it again.
//
// A cluster listens on 127.0.0.1 only and asks for a password of its own, so
// that other users of the machine cannot get in. It works for root too, for whom
// the server runs as another user. Nothing is left behind even when the process
// that started it is killed: a leash.Guard notices and cleans up.
//
// It needs a Unix.
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
	// EnvURL names the environment variable with the URL of the database server
	// that tests share: a user who may create databases, in a database that is
	// always there. with-postgres sets it, pgtest reads it.
	EnvURL = "SYNCER_TEST_DATABASE_URL"
	// EnvRun names the environment variable that is the same for all processes
	// of one test run and different for every run: small letters, digits and _.
	// with-postgres sets it; see pgtest for its use.
	EnvRun = "SYNCER_TEST_RUN"
)

// superuser is the role that initdb makes; the URLs are for it.
const superuser = "postgres"

// startTimeout bounds Start and StartServer; initdb takes a second or two on an
// idle machine.
const startTimeout = 2 * time.Minute

// Options says what kind of cluster Start makes. The zero value is good for
// tests.
type Options struct {
	// Binaries are the server's programs; zero means those that Find finds.
	Binaries Binaries
	// Durable keeps what Postgres does by default to survive a crash of the
	// machine (fsync and its kin). Without it the cluster is much faster, and
	// loses nothing when only the server crashes. Benchmarks want it.
	Durable bool
	// OnDisk keeps the cluster out of memory, where all but Durable ones are put
	// if there is room; for more than a GiB of data.
	OnDisk bool
	// Settings are server settings, by name, that go before ours. Later ALTER
	// SYSTEM statements go before these. "port" is not one of them.
	Settings map[string]string
	// Env is more of the environment of the server's programs: KEY=value.
	Env []string
}

// settings returns what goes into postgresql.conf.
func (o Options) settings() map[string]string {
	s := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "", // temporary folders can be too deep for a socket's path
		"max_connections":         "200",
		"shared_buffers":          "128MB",
		"timezone":                "UTC",
	}
	if !o.Durable {
		s["fsync"] = "off"
		s["synchronous_commit"] = "off"
		s["full_page_writes"] = "off"
		// In the cluster's folder instead of /dev/shm, which containers keep
		// small and in which a killed server leaves its segments.
		s["dynamic_shared_memory_type"] = "mmap"
		// Log that is not needed any more makes room early, for memory's sake.
		s["max_wal_size"] = "256MB"
	}
	maps.Copy(s, o.Settings)
	return s
}

// Cluster is a throwaway Postgres cluster and its server. Safe for concurrent
// use.
type Cluster struct {
	bin      Binaries
	account  account
	env      []string // more of the programs' environment
	inMemory bool     // dir is in memory if there was room
	dir      string   // holds data/ and log
	password string
	port     int

	mu     sync.Mutex
	server *leash.Process // nil until first started
	guard  *leash.Guard   // nil once stopped
}

// Start makes a cluster and starts its server on a free port. It returns once
// the server accepts connections, within two minutes. The context is for the
// start alone; the cluster runs until Stop. When the start fails nothing is left,
// and the error shows the end of the server's log.
//
// The databases are UTF8 with the "C" collation, which is the same on every
// system; tests that want another name it in the column or the query.
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

// removeScript stops the server, if it still runs, and removes the cluster's
// folder. It runs after Stop, too, and finds nothing left to do then. It tries
// several times because an interrupted initdb may still be writing.
//
// $1 is the cluster's folder, $2 that of the binaries.
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
	// The guard runs as the server's account, so that it can harm nothing else, and
	// in a session of its own, so that Ctrl-C does not end it.
	attr := &syscall.SysProcAttr{Setsid: true, Credential: as.credential}
	guard, err := leash.StartGuard(attr, "syncer-postgres-guard", removeScript, dir, bin.Dir)
	if err != nil {
		_ = os.Remove(dir)
		return nil, err
	}
	return &Cluster{bin: bin, account: as, inMemory: inMemory, dir: dir, password: rand.Text(), guard: guard}, nil
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// init fills the cluster's folder with an empty cluster.
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

// configure adds settings to postgresql.conf: unlike arguments of the server,
// they give way to ALTER SYSTEM.
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

// URL returns the address of a database of the cluster, for its superuser. It
// holds the password and stays the same when the server is restarted.
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

// Stop stops the server, by force if it must, and removes everything that the
// cluster left on disk. A second Stop does nothing.
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
