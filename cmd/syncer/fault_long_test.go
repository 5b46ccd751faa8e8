//go:build long

package main

import (
	"testing"
	"time"

	"syncer/internal/pgcluster"
)

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
			testSilent(t, lost)
		})
	}
}

// TestLongPostgresOutOfReach: new connections are lost too, for a while.
func TestLongPostgresOutOfReach(t *testing.T) {
	t.Parallel()
	f := oneDaemon(t, worldOptions{patience: longPatience})
	proxy, url := through(t, f.dbURL)
	f.write("database_url", url)
	f.grow(1)
	p := f.processes[0]
	f.swept()
	f.change()
	f.amid()
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

// TestLongUsersDatabaseSilent: the users' database is out of reach, and nobody says so.
func TestLongUsersDatabaseSilent(t *testing.T) {
	t.Parallel()
	testUsersAway(t, func(p *proxy) { p.lose(bothWays, bothWays) })
}
