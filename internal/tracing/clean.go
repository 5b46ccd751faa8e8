package tracing

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"syncer/imclient"
)

// told are the attributes that spans of others may have. A request's URL is not
// among them, Tencent's signature being in its query; nor are errors' words, which
// can name a user.
var told = []attribute.Key{
	"http.request.method", "http.response.status_code", "network.protocol.version", "server.address", "server.port", "error.type",
	"db.system.name", "db.operation.batch.size", "db.collection.name", "pgx.rows_affected", "pgx.sql_state",
}

// cleaner is the last that sees spans before they leave the process. It sends them
// with what may be told. Our own are made for it; of those that libraries make only
// what is on the list is sent, so that nothing can come with another version of one.
type cleaner struct {
	to     sdk.SpanExporter
	report *report
}

// ExportSpans sends spans. What fails is reported here, once for a while.
func (c *cleaner) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	sent := make([]sdk.ReadOnlySpan, len(spans))
	for i, s := range spans {
		if sent[i] = s; s.InstrumentationScope().Name != Scope {
			sent[i] = cleaned(s)
		}
	}
	if err := c.to.ExportSpans(ctx, sent); err != nil {
		c.report.failed(err, len(spans))
	}
	return nil
}

// Shutdown ends the sending.
func (c *cleaner) Shutdown(ctx context.Context) error { return c.to.Shutdown(ctx) }

// clean is a span with less in it.
type clean struct {
	sdk.ReadOnlySpan
	attributes []attribute.KeyValue
}

func cleaned(s sdk.ReadOnlySpan) clean {
	c := clean{ReadOnlySpan: s}
	for _, a := range s.Attributes() {
		if slices.Contains(told, a.Key) {
			c.attributes = append(c.attributes, a)
		}
	}
	return c
}

// Attributes are those on the list.
func (c clean) Attributes() []attribute.KeyValue { return c.attributes }

// Events are left out: they hold errors' words.
func (c clean) Events() []sdk.Event { return nil }

// Links are left out.
func (c clean) Links() []sdk.Link { return nil }

// Status tells that something failed, not in which words.
func (c clean) Status() sdk.Status { return sdk.Status{Code: c.ReadOnlySpan.Status().Code} }

// reportEvery is how often it is said that traces get lost.
const reportEvery = 10 * time.Minute

// report says that traces get lost. Safe for concurrent use.
type report struct {
	log zerolog.Logger
	now func() time.Time

	mu   sync.Mutex
	at   time.Time // when it was said last
	lost int       // spans since
}

func (r *report) failed(err error, spans int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost += spans
	now := r.now()
	if !r.at.IsZero() && now.Sub(r.at) < reportEvery {
		return
	}
	r.log.Warn().Str("error", imclient.CleanText(err.Error())).Int("lost_spans", r.lost).
		Msg("traces do not get through, see [traces] endpoint; all else goes on without them")
	r.at, r.lost = now, 0
}
