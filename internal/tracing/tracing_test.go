package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// kept is an exporter that keeps what it is given.
type kept struct{ spans []sdk.ReadOnlySpan }

// ExportSpans keeps spans.
func (k *kept) ExportSpans(_ context.Context, spans []sdk.ReadOnlySpan) error {
	k.spans = append(k.spans, spans...)
	return nil
}

// Shutdown does nothing.
func (k *kept) Shutdown(context.Context) error { return nil }

// story returns the content of a span.
func story(s sdk.ReadOnlySpan) string {
	text := s.Name()
	for _, a := range s.Attributes() {
		text += fmt.Sprintf(" %s=%s", a.Key, a.Value.String())
	}
	for _, e := range s.Events() {
		text += " (" + e.Name + ")"
	}
	if s.Status().Code == codes.Error {
		text += " error:" + s.Status().Description
	}
	return text
}

// TestCleaner: of spans that are not our own only what is on the list is sent.
func TestCleaner(t *testing.T) {
	got := &kept{}
	provider := sdk.NewTracerProvider(sdk.WithSyncer(&cleaner{to: got, report: &report{now: time.Now}}))
	for _, scope := range []string{"other", Scope} {
		ctx, span := provider.Tracer(scope).Start(t.Context(), scope, trace.WithAttributes(
			attribute.String("url.full", "https://host/?usersig=secret"), attribute.Int("http.response.status_code", 200), attribute.String("db.query.text", "SELECT")))
		span.RecordError(errors.New("user u1 is wrong"))
		span.SetStatus(codes.Error, "words")
		_, child := provider.Tracer("other").Start(ctx, "child", trace.WithLinks(trace.Link{SpanContext: span.SpanContext()}))
		child.End()
		span.End()
	}
	var told []string
	for _, s := range got.spans {
		told = append(told, story(s))
	}
	want := []string{
		"child", "other http.response.status_code=200 error:",
		"child", "syncer url.full=https://host/?usersig=secret http.response.status_code=200 db.query.text=SELECT (exception) error:words",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := len(got.spans[0].Links()); n != 0 {
		t.Errorf("%d links are sent", n)
	}
}

// TestSampler: nothing but a run begins a trace, and all spans of one share its fate.
func TestSampler(t *testing.T) {
	var got tracetest.InMemoryExporter
	provider := sdk.NewTracerProvider(sdk.WithSyncer(&got), sdk.WithSampler(sampler{root: "run", share: sdk.TraceIDRatioBased(0.5)}))
	tracer := provider.Tracer(Scope)
	runs := 0
	for range 200 {
		_, alone := tracer.Start(t.Context(), "SELECT")
		alone.End()
		ctx, run := tracer.Start(t.Context(), "run")
		_, child := tracer.Start(ctx, "page")
		if child.IsRecording() != run.IsRecording() {
			t.Fatal("a run and its page are not sampled alike")
		}
		if run.IsRecording() {
			runs++
		}
		child.End()
		run.End()
	}
	if n := len(got.GetSpans()); runs < 50 || runs > 150 || n != 2*runs {
		t.Errorf("of 200 runs %d are sampled, with %d spans", runs, n)
	}
}

// TestReport: lost traces are complained about once in ten minutes.
func TestReport(t *testing.T) {
	var log bytes.Buffer
	now := time.Now()
	r := &report{log: zerolog.New(&log), now: func() time.Time { return now }}
	for range 5 {
		r.failed(errors.New("refused eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"), 100)
		now = now.Add(3 * time.Minute)
	}
	const says = `"message":"traces do not get through, see [traces] endpoint; all else goes on without them"}`
	want := []string{`{"level":"warn","error":"refused [redacted]","lost_spans":100,` + says, `{"level":"warn","error":"refused [redacted]","lost_spans":400,` + says}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(log.String()), "\n")); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// start starts tracing to a server.
func start(t *testing.T, url string, log *bytes.Buffer) *Tracing {
	t.Helper()
	tracing, err := Start(t.Context(), Config{
		Endpoint: url, Header: map[string]string{"authorization": "Bearer t"}, Sample: 1, Version: "v", Process: "p", Root: "run", Log: zerolog.New(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tracing
}

// TestAnswers: what a server makes of spans other than taking them is complained
// about; the headers go to no other server.
func TestAnswers(t *testing.T) {
	var strayed atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	defer other.Close()
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"taken":   {func(w http.ResponseWriter, _ *http.Request) {}, ""},
		"refused": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, "the server answers with HTTP 401 Unauthorized"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, "the server answers with HTTP 307 Temporary Redirect"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(tc.answer)
			defer server.Close()
			var log bytes.Buffer
			tracing := start(t, server.URL, &log)
			_, run := tracing.Tracer().Start(t.Context(), "run")
			run.End()
			tracing.Stop()
			if said := log.String(); (said != "") != (tc.want != "") || !strings.Contains(said, tc.want) {
				t.Errorf("logged %q, want %q", said, tc.want)
			}
		})
	}
	if n := strayed.Load(); n != 0 {
		t.Errorf("%d requests were sent to where the server redirects", n)
	}
}

// TestHang: spans are made as if nothing were when the server hangs, however many.
func TestHang(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	var log bytes.Buffer
	tracing := start(t, server.URL, &log)
	ctx, run := tracing.Tracer().Start(t.Context(), "run")
	const many = 100_000 // would take hours if each waited for the server
	for range many {
		_, page := tracing.Tracer().Start(ctx, "page")
		page.End()
	}
	run.End()
	tracing.Stop()
	if said := log.String(); strings.Count(said, "traces do not get through") != 1 {
		t.Errorf("logged %q", said)
	}
}

// TestOff: without tracing there is nothing to be put anywhere.
func TestOff(t *testing.T) {
	var off *Tracing
	if off.Tracer() != nil || off.Statements() != nil || off.Requests() != nil {
		t.Error("there is something where nothing is traced")
	}
	off.Stop()
}

// idle is a transport that can be closed.
type idle struct {
	http.RoundTripper
	closed bool
}

// CloseIdleConnections notes that it was called.
func (i *idle) CloseIdleConnections() { i.closed = true }

// TestRequests: a request is passed on as it is, without the trace's context.
func TestRequests(t *testing.T) {
	var log bytes.Buffer
	tracing := start(t, "http://127.0.0.1:1", &log)
	defer tracing.Stop()
	ctx, run := tracing.Tracer().Start(t.Context(), "run")
	defer run.End()
	var got http.Header
	base := &idle{RoundTripper: roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r.Header
		if r.URL.RawQuery != "usersig=x" {
			t.Errorf("query %q", r.URL.RawQuery)
		}
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
	})}
	client := &http.Client{Transport: tracing.Requests()(base)}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://host/path?usersig=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("token", "t")
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(http.Header{"Token": {"t"}}, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if client.CloseIdleConnections(); !base.closed {
		t.Error("the base is not closed")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip answers.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
