package e2e

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"syncer/internal/dev/pgcluster"
)

const signOfLife = "WATCHDOG=1"

// notified stands in for a service manager: it collects what is sent to its socket,
// whose address it returns.
func notified(t *testing.T) (address string, sent *buffer) {
	t.Helper()
	// The name of a socket may be no longer than 107 bytes.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	sent = &buffer{}
	go func() {
		message := make([]byte, 1024)
		for {
			n, err := socket.Read(message)
			if err != nil {
				return
			}
			_, _ = sent.Write(append(message[:n:n], 0))
		}
	}()
	return socket.LocalAddr().String(), sent
}

// messages are those that a manager got; signs of life in a row count as one.
func messages(sent *buffer) []string {
	all := strings.Split(strings.TrimSuffix(sent.String(), "\x00"), "\x00")
	return slices.CompactFunc(all, func(a, b string) bool { return a == signOfLife && b == signOfLife })
}

// TestService: the service manager hears of the start, of reloads and of the
// stop, and signs of life between them, also while the database is away.
func TestService(t *testing.T) {
	t.Parallel()
	cluster, err := pgcluster.Start(t.Context(), pgcluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, worldOptions{dbURL: cluster.URL("postgres"), config: noJobs})
	w.run(exitDone, "migrate", "up")
	address, sent := notified(t)
	p := w.daemon("NOTIFY_SOCKET="+address, "WATCHDOG_USEC=300000")
	signs := func() int { return strings.Count(sent.String(), signOfLife) }
	w.eventually("it lives", func() bool { return signs() > 2 })

	// They go on for longer than rescue_after, which is when the engine would
	// count as stuck.
	cluster.StopServer(pgcluster.Immediate)
	p.said("it will be tried again")
	before := signs()
	w.eventually("it lives on without the database", func() bool { return signs() > before+60 })
	if err := cluster.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}

	w.edit(`level = "debug"`, `level = "info"`)
	p.signal(syscall.SIGHUP)
	p.said("configuration reloaded")
	p.stop()
	got := messages(sent)
	for i := range got {
		got[i] = regexp.MustCompile(`USEC=\d+`).ReplaceAllString(got[i], "USEC=…")
	}
	const ready = "READY=1\nSTATUS=apps: 2, jobs: 1"
	want := []string{ready, signOfLife, "RELOADING=1\nMONOTONIC_USEC=…\n", ready, signOfLife, "STOPPING=1"}
	// Whether there was a sign between two that come close together is chance.
	rare := func(all []string) []string {
		return slices.DeleteFunc(all, func(m string) bool { return m == signOfLife })
	}
	if diff := cmp.Diff(signOfLife, got[1]); diff != "" {
		t.Errorf("after the start (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(rare(want), rare(got)); diff != "" {
		t.Errorf("what the service manager heard (-want +got):\n%s", diff)
	}
}
