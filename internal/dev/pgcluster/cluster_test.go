package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

// patience ends a test that hangs.
const patience = 5 * time.Minute

// ownerMode makes the test binary the owner of a cluster, to be killed by a test.
const ownerMode = "SYNCER_PGCLUSTER_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerMode) != "" {
		ownCluster()
	}
	goleak.VerifyTestMain(m)
}

// ownCluster starts a cluster, prints its folder and address, and never stops it.
func ownCluster() {
	c, err := Start(context.Background(), Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.dir, c.URL("postgres"))
	select {}
}

func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// leavesNothing sets a folder for temporary files that must be empty
// at its end.
func leavesNothing(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	// The server's account has to get in.
	for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, entry := range left {
			t.Errorf("left behind: %s", entry.Name())
		}
	})
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func queryOne[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// serverPIDs returns every process of the server: the postmaster and all that it
// started.
func serverPIDs(t *testing.T, conn *pgx.Conn) []int {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT pid FROM pg_stat_activity
		UNION
		SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int`)
	if err != nil {
		t.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	if len(pids) < 4 {
		t.Fatalf("server processes %v; want the postmaster and its helpers", pids)
	}
	return pids
}

// waitGone waits until none of the processes, nor the folder, is there.
func waitGone(t *testing.T, dir string, pids ...int) {
	t.Helper()
	gone := func() bool {
		for _, pid := range pids {
			if !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				return false
			}
		}
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	}
	deadline := time.After(patience)
	for !gone() {
		select {
		case <-deadline:
			t.Fatalf("folder %s or one of the processes %v is still there", dir, pids)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestStart(t *testing.T) {
	c := start(t, Options{Settings: map[string]string{"application_name": "it's ours", "work_mem": "5MB"}})
	conn := connect(t, c.URL("postgres"))
	for setting, want := range map[string]string{
		"TimeZone":              "UTC",
		"application_name":      "it's ours",
		"fsync":                 "off",
		"full_page_writes":      "off",
		"listen_addresses":      "127.0.0.1",
		"max_connections":       "200",
		"server_encoding":       "UTF8",
		"session_authorization": superuser,
		"synchronous_commit":    "off",
		"work_mem":              "5MB",
	} {
		if got := queryOne[string](t, conn, "SELECT current_setting($1)", setting); got != want {
			t.Errorf("%s is %q; want %q", setting, got, want)
		}
	}
}

func TestStart_durable(t *testing.T) {
	c := start(t, Options{Durable: true})
	conn := connect(t, c.URL("postgres"))
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if got := queryOne[string](t, conn, "SELECT current_setting($1)", setting); got != "on" {
			t.Errorf("%s is %q; want on", setting, got)
		}
	}
}

func TestStart_twoAtOnce(t *testing.T) {
	first, second := start(t, Options{}), start(t, Options{})
	if first.URL("postgres") == second.URL("postgres") {
		t.Fatalf("two clusters share an address")
	}
	a, b := connect(t, first.URL("postgres")), connect(t, second.URL("postgres"))
	const identity = "SELECT system_identifier::text FROM pg_control_system()"
	if queryOne[string](t, a, identity) == queryOne[string](t, b, identity) {
		t.Error("two addresses lead to one cluster")
	}
}

func TestTempBase(t *testing.T) {
	as, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", "")
	memory := openToAll(memoryFolder) && hasRoom(memoryFolder)
	for _, inMemory := range []bool{false, true} {
		dir, err := as.tempBase(inMemory)
		if got, want := dir == memoryFolder, inMemory && memory; err != nil || got != want {
			t.Errorf("in memory %t: %s, %v; want the folder in memory: %t", inMemory, dir, err, want)
		}
	}
	leavesNothing(t) // in a folder of its own
	if dir, err := as.tempBase(true); err != nil || dir != os.Getenv("TMPDIR") {
		t.Errorf("with TMPDIR %s: %s, %v", os.Getenv("TMPDIR"), dir, err)
	}
}

func TestStart_refusesOtherPasswords(t *testing.T) {
	c := start(t, Options{})
	url := strings.Replace(c.URL("postgres"), c.password, "wrong", 1)
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("connected with a wrong password")
	}
}

func TestStart_brokenSetting(t *testing.T) {
	leavesNothing(t)
	c, err := Start(t.Context(), Options{Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil {
		_ = c.Stop()
		t.Fatal("started with a setting that does not exist")
	}
	if want := `unrecognized configuration parameter "no_such_setting"`; !strings.Contains(err.Error(), want) {
		t.Errorf("error does not show the server's log, which says %s:\n%v", want, err)
	}
}

func TestStart_cancelled(t *testing.T) {
	leavesNothing(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := Start(ctx, Options{}); !errors.Is(err, context.Canceled) {
		if c != nil {
			_ = c.Stop()
		}
		t.Fatalf("error %v; want %v", err, context.Canceled)
	}
}

func TestStart_portTakenMeanwhile(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := start(t, Options{})
	c.StopServer(Fast)
	taken := l.Addr().(*net.TCPAddr).Port
	choices := []int{taken, taken, c.port}
	err = c.startOnFreePort(t.Context(), func() (int, error) {
		port := choices[0]
		choices = choices[1:]
		return port, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(choices) != 0 || c.port == taken {
		t.Errorf("started on port %d with choices %v left", c.port, choices)
	}
	connect(t, c.URL("postgres"))
}

func TestRestart(t *testing.T) {
	for name, mode := range map[string]StopMode{"fast": Fast, "immediate": Immediate} {
		t.Run(name, func(t *testing.T) {
			c := start(t, Options{})
			url := c.URL("postgres")
			conn := connect(t, url)
			if _, err := conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 42 AS n"); err != nil {
				t.Fatal(err)
			}
			// synchronous_commit is off: what must survive a crash has to be on its way.
			if _, err := conn.Exec(t.Context(), "CHECKPOINT"); err != nil {
				t.Fatal(err)
			}
			c.StopServer(mode)
			if _, err := pgx.Connect(t.Context(), url); err == nil {
				t.Fatal("connected to a stopped server")
			}
			if err := c.StartServer(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.StartServer(t.Context()); err == nil {
				t.Error("a running server was started once more")
			}
			if err := c.Restart(t.Context(), mode); err != nil {
				t.Fatal(err)
			}
			if got := queryOne[int](t, connect(t, url), "SELECT n FROM kept"); got != 42 {
				t.Errorf("read %d after the restart; want 42", got)
			}
		})
	}
}

func TestStop(t *testing.T) {
	c := start(t, Options{})
	pids := append(serverPIDs(t, connect(t, c.URL("postgres"))), c.guard.PID())
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	waitGone(t, c.dir, pids...)
	if err := c.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if err := c.StartServer(t.Context()); err == nil {
		t.Error("the server of a removed cluster was started")
	}
}

func TestStop_ownerKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self)
	owner.Env = append(os.Environ(), ownerMode+"=1")
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Process.Kill() })
	var dir, url string
	if _, err := fmt.Fscanln(out, &dir, &url); err != nil {
		t.Fatal(err)
	}
	pids := serverPIDs(t, connect(t, url))
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	waitGone(t, dir, pids...)
	_ = owner.Wait() // "signal: killed"
}
