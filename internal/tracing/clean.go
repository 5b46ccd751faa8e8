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

// sentAttributes are the attributes that spans of libraries may have. A request's URL
// is not among them because Tencent's signature is in its query; nor are error texts,
// which can name a user.
var sentAttributes = []attribute.Key{
	"http.request.method", "http.response.status_code", "network.protocol.version", "server.address", "server.port", "error.type",
	"db.system.name", "db.operation.batch.size", "db.collection.name", "pgx.rows_affected", "pgx.sql_state",
}

// cleaner is the last exporter before spans leave the process. Our own spans pass
// unchanged. Library spans are reduced to sentAttributes, so that a new library
// version cannot send more.
type cleaner struct {
	to     sdk.SpanExporter
	report *report
}

// ExportSpans sends spans. It logs errors itself, at a limited rate.
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

// clean is a span without what must not leave the process.
type clean struct {
	sdk.ReadOnlySpan
	attributes []attribute.KeyValue
}

func cleaned(s sdk.ReadOnlySpan) clean {
	c := clean{ReadOnlySpan: s}
	for _, a := range s.Attributes() {
		if slices.Contains(sentAttributes, a.Key) {
			c.attributes = append(c.attributes, a)
		}
	}
	return c
}

// Attributes returns the attributes that may be sent.
func (c clean) Attributes() []attribute.KeyValue { return c.attributes }

// Events returns nothing: events hold error texts.
func (c clean) Events() []sdk.Event { return nil }

// Links returns nothing.
func (c clean) Links() []sdk.Link { return nil }

// Status returns the code without its description.
func (c clean) Status() sdk.Status { return sdk.Status{Code: c.ReadOnlySpan.Status().Code} }

// reportEvery is the shortest time between two warnings about lost traces.
const reportEvery = 10 * time.Minute

// report logs that traces get lost. It is safe for concurrent use.
type report struct {
	log zerolog.Logger
	now func() time.Time

	mu   sync.Mutex
	at   time.Time // of the last warning
	lost int       // spans since then
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
