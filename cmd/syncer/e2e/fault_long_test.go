//go:build long

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/dev/pgcluster"
)

// smallDisk mounts a file system of a few megabytes that the server may write.
// That takes root.
func smallDisk(t *testing.T, cluster *pgcluster.Cluster) string {
	t.Helper()
	db, err := pgx.Connect(t.Context(), cluster.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	var data string
	if err := db.QueryRow(t.Context(), `SHOW data_directory`).Scan(&data); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(filepath.Dir(data), "small") // the server reaches what is there
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=48m,mode=0700"); err != nil {
		t.Fatalf("mount a file system, which takes root: %v", err)
	}
	t.Cleanup(func() {
		// The server, which goes later, has files there.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	owner, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	of := owner.Sys().(*syscall.Stat_t)
	if err := os.Chown(dir, int(of.Uid), int(of.Gid)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fill writes a file as large as there is space, and returns its name.
func fill(t *testing.T, dir string) string {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = file.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

// TestLongDiskFull: amid a sweep the disk with all of syncer's tables is full, for
// some seconds. What could not be written is written afterwards.
func TestLongDiskFull(t *testing.T) {
	t.Parallel()
	cluster := server(t, nil)
	disk := smallDisk(t, cluster)
	f := oneDaemon(t, worldOptions{dbURL: cluster.URL("postgres"), patience: longPatience})
	f.exec(`CREATE TABLESPACE small LOCATION '` + disk + `'`)
	f.exec(`ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE small`)
	f.exec(`ALTER INDEX ALL IN TABLESPACE pg_default SET TABLESPACE small`)
	p := f.atWork()
	spoken := p.spoken()
	ballast, full := fill(t, disk), time.Now()
	f.unready(p, "No space left on device (SQLSTATE 53100)")
	f.eventually("the disk has been full for 10 s", func() bool { return time.Since(full) > 10*time.Second })
	p.quiet(spoken, 30)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.ready(p)
	f.swept()
	f.wantSQL("0", `SELECT count(*) FROM syncer.sync_run WHERE status = 'failed'`)
	f.survived()
}

// TestLongPostgresRestarts: the server is restarted amid one sweep after the other.
func TestLongPostgresRestarts(t *testing.T) {
	t.Parallel()
	testRestarts(t, pgcluster.Immediate, pgcluster.Fast, pgcluster.Immediate, pgcluster.Fast, pgcluster.Immediate, pgcluster.Fast)
}

// TestLongPostgresSilent: connections are lost one way, the other way or both.
func TestLongPostgresSilent(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]direction{"to the server": toServer, "to the client": toClient, "both ways": bothWays} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testSilent(t, worldOptions{patience: longPatience}, lost)
		})
	}
}

// TestLongPostgresOutOfReach: new connections are lost too, for a while.
func TestLongPostgresOutOfReach(t *testing.T) {
	t.Parallel()
	f := oneDaemon(t, worldOptions{patience: longPatience})
	proxy, url := through(t, f.dbURL)
	f.write("database_url", url)
	p := f.atWork()
	proxy.lose(bothWays, bothWays)
	spoken, away := p.spoken(), time.Now()
	f.unready(p, "")
	f.eventually("it has been away for 20 s", func() bool { return time.Since(away) > 20*time.Second })
	p.quiet(spoken, 40)
	proxy.lose(bothWays, 0)
	f.ready(p)
	f.swept()
	f.survived()
}

// TestLongUsersDatabaseSilent: the users' database is out of reach, without an error.
func TestLongUsersDatabaseSilent(t *testing.T) {
	t.Parallel()
	testUsersAway(t, func(p *proxy) { p.lose(bothWays, bothWays) })
}
