package jobs

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
)

// TestQueueLog: errors of the queue's client are logged at debug level, with their
// fields; what is less is not logged.
func TestQueueLog(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	queue := slog.New(&queueLog{log: zerolog.New(log)})
	queue.Info("producer: Job completed")
	queue.Error("producer: Error fetching jobs", slog.String("err", "timed out after 10s"), slog.String("queue", "app1_presence"))
	queue.With("client_id", "c").Error("elector: Error attempting to elect", "error", errors.New("dial :5432: refused"), "attempt", 1)
	want := `{"level":"debug","error":"timed out after 10s","queue":"app1_presence","message":"queue: producer: Error fetching jobs"}
{"level":"debug","client_id":"c","error":"dial :5432: refused","attempt":1,"message":"queue: elector: Error attempting to elect"}
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
