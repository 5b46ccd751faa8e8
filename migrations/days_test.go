package migrations_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"syncer/internal/config"
	"syncer/internal/localtime"
)

// TestDayStart compares day_start with what reports computed in Go take for the
// beginning of a day: in every zone that Postgres knows, around each change of
// clocks in ten years.
func TestDayStart(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	rows, err := conn.Query(t.Context(), `SELECT name FROM pg_timezone_names WHERE name !~ '^posix'`)
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var zones []string
	var days, begins []time.Time
	zonesKnown := 0
	for _, name := range names {
		location, err := config.Location(name)
		if err != nil {
			continue // of the server's own, or refused
		}
		zonesKnown++
		at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).In(location)
		end := at.AddDate(10, 0, 0)
		for ; at.Before(end); _, at = at.ZoneBounds() {
			if at.IsZero() {
				break
			}
			for n := -1; n <= 1; n++ {
				local := at.AddDate(0, 0, n)
				day := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC)
				zones, days = append(zones, name), append(days, day)
				begins = append(begins, localtime.Day(day.Year(), day.Month(), day.Day(), location))
			}
		}
	}
	if zonesKnown < 400 {
		t.Fatalf("%d zones are compared; want those of the tz database", zonesKnown)
	}
	rows, err = conn.Query(t.Context(), `
SELECT zone, day::text, begins AT TIME ZONE 'UTC', day_start(day, zone) AT TIME ZONE 'UTC'
FROM unnest($1::text[], $2::date[], $3::timestamptz[]) AS t (zone, day, begins)
WHERE day_start(day, zone) <> begins
ORDER BY zone, day`, zones, days, begins)
	if err != nil {
		t.Fatal(err)
	}
	type difference struct {
		Zone, Day   string
		InGo, InSQL time.Time
	}
	differences, err := pgx.CollectRows(rows, pgx.RowToStructByPos[difference])
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		t.Errorf("%s in %s begins at %s in Go, at %s in SQL", d.Day, d.Zone, d.InGo, d.InSQL)
	}
}

func TestDayStart_cases(t *testing.T) {
	t.Parallel()
	conn := connect(t, migrated(t))
	expect(t, conn, `SELECT zone, day_start(day::date, zone), extract(epoch FROM day_start(day::date + 1, zone) - day_start(day::date, zone))::float8 / 3600
FROM (VALUES
    (1, 'America/Havana', '2026-03-08'),   -- no midnight
    (2, 'America/Havana', '2026-11-01'),   -- two
    (3, 'Atlantic/Azores', '2026-03-29'),
    (4, 'Atlantic/Azores', '2026-10-25'),
    (5, 'America/Santiago', '2026-09-06'),
    (6, 'Europe/Berlin', '2026-10-25'),
    (7, 'Australia/Lord_Howe', '2026-04-05'),
    (8, 'UTC', '2026-10-25')
) AS t (no, zone, day) ORDER BY no`,
		"America/Havana 2026-03-08T05:00:00 23",
		"America/Havana 2026-11-01T04:00:00 25",
		"Atlantic/Azores 2026-03-29T01:00:00 23",
		"Atlantic/Azores 2026-10-25T00:00:00 25",
		"America/Santiago 2026-09-06T04:00:00 23",
		"Europe/Berlin 2026-10-24T22:00:00 25",
		"Australia/Lord_Howe 2026-04-04T13:00:00 24.5",
		"UTC 2026-10-25T00:00:00 24",
	)
}
