package repo_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"syncer/imclient"
	"syncer/internal/dev/pgcluster"
	"syncer/migrations"
	"syncer/repo"
)

// TestChangeFeed follows docs/change-feed.md with pgoutput: rows of all partitions arrive
// under the names of the histories, in the order of their commits, also those of partitions
// made later and of the default one; moving rows between partitions, retention and erasure
// send nothing.
func TestChangeFeed(t *testing.T) {
	t.Parallel()
	cluster, err := pgcluster.Start(t.Context(), pgcluster.Options{Settings: map[string]string{"wal_level": "logical"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	b := &bench{url: cluster.URL("postgres"), clock: &fakeClock{at: noon}}
	m, err := migrations.Open(t.Context(), migrations.Config{URL: b.url, Schema: "syncer"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.store, b.conn = b.open(t, "first"), connect(t, b.url)
	if b.app, err = b.store.EnsureApp(t.Context(), "main", imclient.ProviderTencent, "1400000001"); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/change-feed.md")
	if err != nil {
		t.Fatal(err)
	}
	_, setup, _ := strings.Cut(string(page), "```sql\n")
	setup, _, found := strings.Cut(setup, "```")
	if !found {
		t.Fatal("change-feed.md has no statements")
	}
	for statement := range strings.SplitSeq(setup, ";\n") {
		if strings.TrimSpace(statement) != "" {
			exec(t, b.conn, statement)
		}
	}

	// The first day's rows go to the default partition, and are moved when partitions are
	// made; the second day's go to a partition that is younger than the publication.
	b.firstSight(t, "anna", "bob")
	b.clock.pass(24 * time.Hour)
	if _, err := b.store.MakePartitions(t.Context(), "day", b.clock.Now()); err != nil {
		t.Fatal(err)
	}
	wantLines(t, b.conn, "rows in the default partition", `SELECT count(*) FROM presence_history_default`, "0")
	b.firstSight(t, "cleo", "dirk")
	exec(t, b.conn, `INSERT INTO account_history (app_id, user_id, status, observed_at, run_id) VALUES (1, 'anna', 'imported', now(), 1)`)
	const rowsSQL = `SELECT concat_ws(' ', 'presence_history', user_id, state, platforms) FROM presence_history ORDER BY observed_at, user_id`
	want := append(lines(t, b.conn, rowsSQL), "account_history anna imported")
	if len(want) != 5 {
		t.Fatalf("rows: %v", want)
	}
	// Then all goes: by an erasure, and by retention.
	if _, err := b.store.Erase(t.Context(), repo.Erasure{App: b.app, UserID: "anna", Salt: salt}); err != nil {
		t.Fatal(err)
	}
	b.clock.pass(100 * 24 * time.Hour)
	if dropped, err := b.store.DropPartitions(t.Context(), b.clock.Now()); err != nil || dropped == 0 {
		t.Fatalf("DropPartitions = %d, %v", dropped, err)
	}
	wantLines(t, b.conn, "rows left", rowsSQL)
	if diff := cmp.Diff(want, b.feed(t)); diff != "" {
		t.Errorf("what the feed sent (-want +got):\n%s", diff)
	}
	if again := b.feed(t); len(again) > 0 {
		t.Errorf("what was taken is sent again: %v", again)
	}
}

// firstSight is a run that sees users for the first time.
func (b *bench) firstSight(t *testing.T, users ...string) {
	t.Helper()
	r := b.startedRange(t, b.backfill(imclient.KindPresence))
	p := repo.Page[imclient.Presence]{LastKey: users[len(users)-1]}
	for _, user := range users {
		p.Changes = append(p.Changes, repo.Change[imclient.Presence]{UserID: user, Value: onlineIOS, AskedAt: b.clock.Now(), ObservedAt: b.clock.Now()})
	}
	if _, err := b.store.Presence().SavePage(t.Context(), r, p); err != nil {
		t.Fatal(err)
	}
	if err := b.store.EndRun(t.Context(), r.Run.ID, repo.RunFailed, "test"); err != nil {
		t.Fatal(err)
	}
}

// feed takes what the slot has, as "table user value…".
func (b *bench) feed(t *testing.T) (rows []string) {
	t.Helper()
	messages, err := b.conn.Query(t.Context(), `SELECT data FROM pg_logical_slot_get_binary_changes('syncer_feed', NULL, NULL, 'proto_version', '1', 'publication_names', 'syncer_feed')`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(messages, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	var d decoder
	for _, message := range all {
		d.read(message)
	}
	return d.rows
}

// decoder decodes messages of pgoutput, version 1.
type decoder struct {
	relations map[uint32]relation
	rows      []string
}

type relation struct {
	name    string
	columns []string
}

func (d *decoder) read(message []byte) {
	body := bytes.NewBuffer(message[1:])
	number := func(size int) uint32 {
		var wide [4]byte
		copy(wide[4-size:], body.Next(size))
		return binary.BigEndian.Uint32(wide[:])
	}
	text := func() string {
		s, _ := body.ReadString(0)
		return strings.TrimSuffix(s, "\x00")
	}
	switch kind := message[0]; kind {
	case 'B', 'C', 'Y', 'O': // begin, commit, type, origin
	case 'R':
		id := number(4)
		r := relation{name: text() + "." + text()}
		number(1) // replica identity
		for range number(2) {
			number(1)
			r.columns = append(r.columns, text())
			number(4)
			number(4)
		}
		if d.relations == nil {
			d.relations = make(map[uint32]relation)
		}
		d.relations[id] = r
	case 'I':
		r := d.relations[number(4)]
		number(1) // N, the new tuple follows
		row := []string{strings.TrimPrefix(r.name, "syncer.")}
		for i := range number(2) {
			if number(1) != 't' {
				continue // null
			}
			value := string(body.Next(int(number(4))))
			if slices.Contains([]string{"user_id", "state", "status", "platforms"}, r.columns[i]) {
				row = append(row, value)
			}
		}
		d.rows = append(d.rows, strings.Join(row, " "))
	default:
		d.rows = append(d.rows, fmt.Sprintf("message %c", kind))
	}
}
