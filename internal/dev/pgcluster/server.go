package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/leash"
)

// StopMode is how a server is stopped.
type StopMode int

const (
	// Fast ends the sessions, rolls back their transactions and writes a checkpoint.
	Fast StopMode = iota
	// Immediate aborts as in a crash; the next start recovers from the log.
	Immediate
)

// stopPatience is the time between a signal and the next, stronger one.
const stopPatience = 15 * time.Second

// StartServer starts a stopped or crashed server again on the same port. It returns
// when the server accepts connections.
func (c *Cluster) StartServer(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.guard == nil {
		return errors.New("starting Postgres: the cluster has been removed")
	}
	if c.server != nil && c.server.Running() {
		return errors.New("starting Postgres: the server is running")
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.startServer(ctx)
}

// StopServer stops the server and keeps the cluster. If the server does not react, it
// gets stronger signals up to SIGKILL. Without a server it has no effect.
func (c *Cluster) StopServer(mode StopMode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopServer(mode)
}

// Restart is StopServer followed by StartServer.
func (c *Cluster) Restart(ctx context.Context, mode StopMode) error {
	c.StopServer(mode)
	return c.StartServer(ctx)
}

func (c *Cluster) stopServer(mode StopMode) {
	if c.server == nil {
		return
	}
	signals := []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL}
	if mode == Immediate {
		signals = signals[1:]
	}
	c.server.End(stopPatience, signals...)
}

// errPortTaken is why a start failed if something else listens on the port.
var errPortTaken = errors.New("the port is taken")

// startOnFreePort starts the server on a port that free returns, and tries again if
// another process takes that port meanwhile.
func (c *Cluster) startOnFreePort(ctx context.Context, free func() (int, error)) error {
	var err error
	for range 10 {
		if c.port, err = free(); err != nil {
			return fmt.Errorf("looking for a free port: %w", err)
		}
		if err = c.startServer(ctx); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

// freePort returns an unused port of 127.0.0.1. It is below the range of outgoing
// connections (from 32768 on Linux), so that none takes it during a restart.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 20000 + rand.IntN(12000)
		var l net.Listener
		if l, err = net.Listen("tcp", localAddress(port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

func localAddress(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (c *Cluster) address() string { return localAddress(c.port) }

// startServer starts the server and waits until it accepts connections.
func (c *Cluster) startServer(ctx context.Context) error {
	// The server outlives the context of its start.
	cmd := c.command(context.Background(), "postgres", "-D", c.data(), "-p", strconv.Itoa(c.port))
	s, err := leash.Start(cmd, filepath.Join(c.dir, "log"))
	if err != nil {
		return fmt.Errorf("starting Postgres: %w", err)
	}
	c.server = s
	err = c.waitReady(ctx, s)
	if err == nil {
		return nil
	}
	c.stopServer(Immediate)
	if strings.Contains(s.LastOutput(), "could not create any TCP/IP sockets") {
		err = errPortTaken
	}
	return fmt.Errorf("starting Postgres %d on %s: %w", c.bin.Version, c.address(), err)
}

// waitReady returns nil once a connection succeeds. The password ensures that this
// server answered.
func (c *Cluster) waitReady(ctx context.Context, s *leash.Process) error {
	// Another server on the port may accept and never respond. So the attempt ends
	// when ours, which cannot get the port, has ended.
	attempt, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.Gone:
			cancel()
		case <-attempt.Done():
		}
	}()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		conn, err := pgx.Connect(attempt, c.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-s.Gone:
			return s.Died()
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting for it to accept connections: %w\n%s", ctx.Err(), err, s.LastOutput())
		case <-poll.C:
		}
	}
}

// command returns a command that runs a program of the server: as the cluster's
// account, in its own session so that Ctrl-C does not reach it, in English, without
// variables for other clusters. The end of ctx kills it and its children.
func (c *Cluster) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.bin.path(program), args...)
	cmd.Dir = c.dir
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "PG") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(append(cmd.Env, "LC_ALL=C"), c.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.account.credential}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// lastLines returns the end of a program's output, which contains the reason of its
// failure.
func lastLines(out []byte) string {
	const most = 20
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
