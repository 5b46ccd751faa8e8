package lab

import (
	"testing"
	"time"

	"github.com/rs/zerolog"

	"syncer/internal/dev/pgtest"
	"syncer/internal/imsim"
)

// BenchmarkSweep sweeps both apps, of whose users a fifth has changed since the sweep
// before: what it costs that the histories are on shards.
func BenchmarkSweep(b *testing.B) {
	for _, moved := range []bool{false, true} {
		name := "one database"
		if moved {
			name = "shards"
		}
		b.Run(name, func(b *testing.B) { sweeps(b, moved) })
	}
}

func sweeps(b *testing.B, moved bool) {
	const users = 5000
	url := pgtest.Database(b)
	tick := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	people := imsim.NewRounds(1, 0.2)
	people.UnknownShare = 0
	s, err := Open(b.Context(), Config{URL: url, Users: users, Start: tick.Add(-time.Minute), Every: 5 * time.Minute, People: people, Log: zerolog.Nop()})
	must(b, err)
	defer func() { must(b, s.Close()) }()
	if moved {
		(&shards{}).move(b, s, url)
	}
	var changed int64
	for b.Loop() {
		tick = tick.Add(5 * time.Minute)
		people.SetRound(people.Round() + 1)
		runs, err := s.Presence(b.Context(), tick)
		must(b, err)
		for _, run := range runs {
			changed += run.Changed
		}
	}
	b.ReportMetric(float64(changed)/b.Elapsed().Seconds(), "changes/s")
}
