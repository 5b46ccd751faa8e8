//go:build long

package e2e

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"syncer/internal/dev/pgcluster"
)

// clockSource is a library that makes the clock of the program that loads it wrong by
// as many microseconds as a file says, which it looks at all the time.
const clockSource = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *wrong_by;

__attribute__((constructor)) static void open_file(void) {
	int fd = open(getenv("SYNCER_TEST_CLOCK_FILE"), O_RDONLY | O_CLOEXEC);
	if (fd < 0) abort();
	wrong_by = mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
	if (wrong_by == MAP_FAILED) abort();
	close(fd);
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
	static int (*real)(struct timeval *, void *);
	if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
	int failed = real(t, zone);
	long long us = t->tv_sec * 1000000LL + t->tv_usec + *wrong_by;
	t->tv_sec = us / 1000000;
	t->tv_usec = us % 1000000;
	return failed;
}

time_t time(time_t *t) {
	struct timeval now;
	gettimeofday(&now, NULL);
	if (t) *t = now.tv_sec;
	return now.tv_sec;
}
`

// wrongClock is the clock of a server.
type wrongClock struct {
	t    testing.TB
	file *os.File
}

// set makes the clock wrong by so much.
func (c *wrongClock) set(by time.Duration) {
	c.t.Helper()
	if _, err := c.file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(by.Microseconds())), 0); err != nil {
		c.t.Fatal(err)
	}
}

// serverWithClock starts a server whose clock can be set.
func serverWithClock(t *testing.T) (*pgcluster.Cluster, *wrongClock) {
	t.Helper()
	dir, err := os.MkdirTemp("", "syncer-clock-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { // the server runs as another user
		t.Fatal(err)
	}
	source, library, name := filepath.Join(dir, "clock.c"), filepath.Join(dir, "clock.so"), filepath.Join(dir, "wrong_by")
	if err := os.WriteFile(source, []byte(clockSource), 0o644); err != nil {
		t.Fatal(err)
	}
	compiler, err := exec.Command("go", "env", "CC").Output() // the race detector's
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(strings.TrimSpace(string(compiler)), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("compile a clock: %v\n%s", err, out)
	}
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	clock := &wrongClock{t: t, file: file}
	clock.set(0)
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	cluster, err := pgcluster.Start(t.Context(), pgcluster.Options{
		Settings: map[string]string{"synchronous_commit": "on", "max_connections": "60", "shared_buffers": "32MB"},
		Env:      []string{"LD_PRELOAD=" + library, "SYNCER_TEST_CLOCK_FILE=" + name},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	return cluster, clock
}

// inOrder stops the daemon and checks what is stored, but not by the simulator's
// clock: the server's was another one.
func (f *fleet) inOrder() {
	f.t.Helper()
	f.stop()
	f.finish()
	f.inLimit(40)
	f.truthful()
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status IN ('running', 'failed')`)
	f.wantSQL("0", `SELECT count(*) FROM (
		SELECT observed_at < lag(observed_at) OVER (PARTITION BY user_id ORDER BY run_id) AS early FROM syncer.presence_history) AS h WHERE early`)
	f.wantSQL("0", `SELECT count(*) FROM (
		SELECT started_at < lag(finished_at) OVER (ORDER BY run_id) AS early FROM syncer.sync_run WHERE status <> 'skipped') AS u WHERE early`)
}

// TestLongDatabaseClock: the clock of the database's machine jumps amid a sweep. A
// short way back is waited for, ahead it goes on at once; all stays in order.
func TestLongDatabaseClock(t *testing.T) {
	t.Parallel()
	for by, gaps := range map[time.Duration]string{-300 * time.Millisecond: "0", -4 * time.Second: "0", 2 * time.Second: "0", time.Hour: "1"} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			cluster, clock := serverWithClock(t)
			f := oneDaemon(t, worldOptions{dbURL: cluster.URL("postgres"), patience: longPatience})
			f.env = append(f.env, "SYNCER_SWEEP_MAX_GAP=1m")
			p := f.atWork()
			spoken := p.spoken()
			clock.set(by)
			f.swept()
			f.change()
			f.swept()
			f.ready(p)
			p.quiet(spoken, 5)
			f.wantSQL(gaps, `SELECT count(*) FROM syncer.sync_gap`)
			f.inOrder()
		})
	}
}

// TestLongDatabaseClock_putRight: a clock that was an hour ahead for a while is put
// right. Until it has caught up nothing is done, and the daemon says so; here it jumps.
func TestLongDatabaseClock_putRight(t *testing.T) {
	t.Parallel()
	cluster, clock := serverWithClock(t)
	clock.set(time.Hour)
	f := oneDaemon(t, worldOptions{dbURL: cluster.URL("postgres"), patience: longPatience})
	p := f.atWork()
	clock.set(0)
	f.unready(p, "the database's clock was set back")
	last, set := f.text(`SELECT max(run_id) FROM syncer.sync_run`), time.Now()
	f.eventually("it has waited for 20 s", func() bool { return time.Since(set) > 20*time.Second })
	f.wantSQL(last, `SELECT max(run_id) FROM syncer.sync_run`)
	clock.set(time.Hour + 20*time.Second)
	f.ready(p)
	f.swept()
	p.quiet("", 10)
	f.inOrder()
}

// TestLongDatabaseClock_years: the server's clock jumps three years ahead amid a sweep, for
// all of its functions. Nothing begins until it is put right; then the same run goes on.
func TestLongDatabaseClock_years(t *testing.T) {
	t.Parallel()
	cluster, clock := serverWithClock(t)
	f := oneDaemon(t, worldOptions{dbURL: cluster.URL("postgres"), patience: longPatience})
	f.env = append(f.env, "SYNCER_HISTORY_PARTITION=day")
	p := f.atWork()
	clock.set(3 * 365 * 24 * time.Hour)
	f.unready(p, "the database's clock is not believed")
	last, set := f.text(`SELECT max(run_id) FROM syncer.sync_run`), time.Now()
	f.eventually("it has waited for 20 s", func() bool { return time.Since(set) > 20*time.Second })
	f.wantSQL(last, `SELECT max(run_id) FROM syncer.sync_run`)
	_, stderr := f.backfill().wait(exitFailed)
	wantText(t, stderr, "the database's clock is not believed")
	clock.set(0)
	f.ready(p)
	f.change()
	f.swept()
	p.quiet("", 10)
	f.inOrder()
	f.wantSQL("true", `SELECT count(*) < 40 FROM syncer.history_partitions('syncer.presence_history')`)
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE greatest(started_at, finished_at, tick) > now()`)
}
