package jobs

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// TestQueueLog: what the queue says again and again of a database that is away
// is written once a minute, whichever of the queues it is about.
func TestQueueLog(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	again := newWarnings(zerolog.New(log))
	again.now = func() time.Time { return now }
	queue := slog.New(&queueLog{warnings: again})
	queue.Info("producer: Job completed")
	for _, name := range []string{"app1_presence", "app2_presence", "app1_presence"} {
		queue.Error("producer: Error fetching jobs", slog.String("err", "timed out after 10s"), slog.String("queue", name))
		now = now.Add(10 * time.Second)
	}
	queue.With("client_id", "c").Error("elector: Error attempting to elect", "error", errors.New("dial :5432: refused"), "attempt", 1)
	queue.Error("elector: Unexpected notification", "topic", "t")
	again.flush(true)
	want := `{"level":"warn","queue":"app1_presence","error":"timed out after 10s","message":"queue: producer: Error fetching jobs"}
{"level":"warn","client_id":"c","attempt":1,"error":"dial :5432: refused","message":"queue: elector: Error attempting to elect"}
{"level":"warn","topic":"t","message":"queue: elector: Unexpected notification"}
{"level":"warn","happened_at":"2026-11-22T12:00:20Z","left_out":1,"queue":"app1_presence","error":"timed out after 10s","message":"queue: producer: Error fetching jobs"}
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
