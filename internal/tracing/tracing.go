// Package tracing sends traces to a server of OpenTelemetry's OTLP over HTTP. What
// spans there are, jobs decides; those of HTTP requests and of SQL statements come
// from OpenTelemetry's own libraries, beneath them.
//
// A server that is away costs traces and nothing else: spans wait in a queue of
// bounded length, and what does not fit is dropped.
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

// Config says where traces go and who sends them.
type Config struct {
	Endpoint string            // with scheme and path
	Header   map[string]string // of what is sent
	CAs      *x509.CertPool    // the only ones whose certificates are believed; nil: the system's
	Proxy    *url.URL          // carries all that is sent; nil: none does
	Sample   float64           // the share of traces, 0 to 1, that is sent
	Version  string            // of the program
	Process  string            // its name among others
	// Root is the only name that a span without a parent may have: what else is done
	// for no run, such as the queue's looking for jobs, is not traced.
	Root string
	IDs  sdk.IDGenerator
	Log  zerolog.Logger
}

// Scope is the name under which our own spans are made.
const Scope = "syncer"

// Tracing makes and sends spans. nil makes none. Make it with Start, and Stop it.
type Tracing struct {
	provider *sdk.TracerProvider
	report   *report
}

// Start begins to send traces. Nothing is sent yet, and nobody is asked whether the
// server is there.
func Start(ctx context.Context, c Config) (*Tracing, error) {
	exporter, err := otlptrace.New(ctx, newSender(c))
	if err != nil {
		return nil, fmt.Errorf("make the sender of traces: %w", err)
	}
	who, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "syncer"), attribute.String("service.version", c.Version), attribute.String("service.instance.id", c.Process),
	), resource.WithFromEnv()) // OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME go before ours
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

// Check asks whether the server takes traces, by sending none.
func Check(ctx context.Context, c Config) error {
	s := newSender(c)
	defer s.client.CloseIdleConnections()
	return s.UploadTraces(ctx, nil)
}

// stopTimeout bounds the sending of what is left when the program ends.
const stopTimeout = 2 * time.Second

// Stop sends what is left, if the server is quick.
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

// Tracer is for our own spans; nil without tracing.
func (t *Tracing) Tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer(Scope)
}

// Statements is told of SQL statements; nil without tracing. A statement has its
// verb for a name: neither its text, in which a customer's condition stands, nor
// its arguments are told, nor each connection that is taken from the pool.
func (t *Tracing) Statements() pgx.QueryTracer {
	if t == nil {
		return nil
	}
	return statements{otelpgx.NewTracer(otelpgx.WithTracerProvider(t.provider), otelpgx.WithDisableAcquireTracer(),
		otelpgx.WithDisableSQLStatementInAttributes(), otelpgx.WithDisableConnectionDetailsInAttributes())}
}

// statements leaves out that a statement is prepared: it would look like another of
// the same name, and happens once a connection.
type statements struct{ *otelpgx.Tracer }

// TracePrepareStart does nothing.
func (statements) TracePrepareStart(ctx context.Context, _ *pgx.Conn, _ pgx.TracePrepareStartData) context.Context {
	return ctx
}

// TracePrepareEnd does nothing.
func (statements) TracePrepareEnd(context.Context, *pgx.Conn, pgx.TracePrepareEndData) {}

// Requests gives what traces the requests of a transport; nil without tracing. The
// trace's context is not told to the server: it is the provider's, and no part of
// the trace.
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

// transport is a traced one that can be closed like its base.
type transport struct {
	http.RoundTripper
	base http.RoundTripper
}

// CloseIdleConnections closes those of the base.
func (t transport) CloseIdleConnections() {
	if base, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// sampler takes a share of the traces, each as a whole: it goes by the trace's id,
// so that all processes and all spans of a trace decide alike. A span that has no
// parent and begins no trace of ours is not wanted.
type sampler struct {
	root  string
	share sdk.Sampler
}

// ShouldSample decides about a span.
func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	if p.Name != s.root && !trace.SpanContextFromContext(p.ParentContext).IsValid() {
		return sdk.SamplingResult{Decision: sdk.Drop}
	}
	return s.share.ShouldSample(p)
}

// Description names the sampler.
func (s sampler) Description() string { return "syncer: " + s.share.Description() }
