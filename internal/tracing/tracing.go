// Package tracing sends traces to a server of OpenTelemetry's OTLP over HTTP. Package
// jobs makes the spans of runs; OpenTelemetry's libraries make those of HTTP requests
// and SQL statements below them.
//
// If the server cannot be reached, only traces are lost: spans wait in a bounded
// queue that drops what does not fit.
package tracing

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config says where traces go and which process sends them.
type Config struct {
	Endpoint string            // with scheme and path
	Header   map[string]string // of every upload
	CAs      *x509.CertPool    // trusted certificate authorities; nil: the system's
	Proxy    *url.URL          // carries all that is sent; nil: none does
	Sample   float64           // the share of traces, 0 to 1, that is sent
	Version  string            // of the program
	Process  string            // its name, unique among all processes
	// Root is the only name that a span without a parent may have. Other work without
	// a run, such as the queue's polling, is not traced.
	Root string
	IDs  sdk.IDGenerator
	Log  zerolog.Logger
}

// Scope is the instrumentation scope of our own spans.
const Scope = "syncer"

// Tracing makes and sends spans; a nil Tracing makes none. Start returns one; Stop
// it.
type Tracing struct {
	provider *sdk.TracerProvider
	report   *report
}

// Start begins to trace. It does not contact the server.
func Start(ctx context.Context, c Config) (*Tracing, error) {
	exporter, err := otlptrace.New(ctx, newSender(c))
	if err != nil {
		return nil, fmt.Errorf("make the sender of traces: %w", err)
	}
	who, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "syncer"), attribute.String("service.version", c.Version), attribute.String("service.instance.id", c.Process),
	), resource.WithFromEnv()) // OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME override ours
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	t := &Tracing{report: &report{log: c.Log, now: time.Now}}
	t.provider = sdk.NewTracerProvider(
		sdk.WithResource(who), sdk.WithIDGenerator(c.IDs), sdk.WithSampler(sampler{root: c.Root, share: sdk.TraceIDRatioBased(c.Sample)}),
		sdk.WithBatcher(&cleaner{to: exporter, report: t.report}),
	)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.report.failed(err, 0) }))
	return t, nil
}

// Check sends an empty upload and returns the server's error, if any.
func Check(ctx context.Context, c Config) error {
	s := newSender(c)
	defer s.client.CloseIdleConnections()
	return s.UploadTraces(ctx, nil)
}

// stopTimeout bounds the last upload when the program ends.
const stopTimeout = 2 * time.Second

// Stop sends the remaining spans, for at most stopTimeout.
func (t *Tracing) Stop() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.report.failed(fmt.Errorf("send what is left, at most for %s: %w", stopTimeout, err), 0)
	}
}

// Tracer returns the tracer for our own spans; nil without tracing.
func (t *Tracing) Tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer(Scope)
}

// Statements returns a tracer of SQL statements; nil without tracing. A span is named
// after the statement's verb. It contains neither text, which can hold a customer's
// condition, nor arguments. Taking a connection from the pool is not traced.
func (t *Tracing) Statements() pgx.QueryTracer {
	if t == nil {
		return nil
	}
	return statements{otelpgx.NewTracer(otelpgx.WithTracerProvider(t.provider), otelpgx.WithDisableAcquireTracer(),
		otelpgx.WithDisableSQLStatementInAttributes(), otelpgx.WithDisableConnectionDetailsInAttributes())}
}

// statements omits the preparing of a statement, which happens once per connection
// and would look like a second statement of the same name.
type statements struct{ *otelpgx.Tracer }

// TracePrepareStart does nothing.
func (statements) TracePrepareStart(ctx context.Context, _ *pgx.Conn, _ pgx.TracePrepareStartData) context.Context {
	return ctx
}

// TracePrepareEnd does nothing.
func (statements) TracePrepareEnd(context.Context, *pgx.Conn, pgx.TracePrepareEndData) {}

// Requests returns what traces the requests of a transport; nil without tracing. The
// trace context is not sent to the server, which belongs to the provider.
func (t *Tracing) Requests() func(http.RoundTripper) http.RoundTripper {
	if t == nil {
		return nil
	}
	return func(base http.RoundTripper) http.RoundTripper {
		return transport{base: base, RoundTripper: otelhttp.NewTransport(base,
			otelhttp.WithTracerProvider(t.provider), otelhttp.WithPropagators(propagation.NewCompositeTextMapPropagator()),
			otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + r.URL.Path }))}
	}
}

// transport is a traced transport that can be closed like its base.
type transport struct {
	http.RoundTripper
	base http.RoundTripper
}

// CloseIdleConnections closes the idle connections of the base.
func (t transport) CloseIdleConnections() {
	if base, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// sampler samples whole traces by their id, so that all processes and spans of a
// trace decide alike. It drops spans that have no parent and begin no trace of ours.
type sampler struct {
	root  string
	share sdk.Sampler
}

// ShouldSample decides about one span.
func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if p.Name != s.root && !trace.SpanContextFromContext(p.ParentContext).IsValid() {
		return sdk.SamplingResult{Decision: sdk.Drop}
	}
	return s.share.ShouldSample(p)
}

// Description returns the sampler's name.
func (s sampler) Description() string { return "syncer: " + s.share.Description() }
