package jobs

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"syncer/imclient"
	"syncer/internal/pg"
	"syncer/jobs/ask"
	"syncer/repo"
	"syncer/repo/userstable"
)

// TestNotTraced: what is not traced costs nothing, not even garbage.
func TestNotTraced(t *testing.T) {
	ctx, off := t.Context(), spans{}
	calls := NewMetrics(prometheus.NewRegistry()).Calls("main")
	p := &page[imclient.Presence]{span: noSpan}
	r := &repo.Range{}
	calls.Waited(ctx, "api", time.Second)
	got := testing.AllocsPerRun(100, func() {
		inner, span := off.begin(ctx, "load")
		end(span, nil)
		p.endPage(r, nil)
		if inner != ctx {
			t.Error("another context")
		}
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
	ask := func(context.Context, []string) (a imclient.Answer[imclient.Presence], err error) { return a, nil }
	if reflect.ValueOf(traced(off, ask)).Pointer() != reflect.ValueOf(ask).Pointer() {
		t.Error("calls go a longer way")
	}
}

// TestFail: what failed is told by class and code, never in an error's words.
func TestFail(t *testing.T) {
	var got tracetest.InMemoryExporter
	tracer := sdk.NewTracerProvider(sdk.WithSyncer(&got), sdk.WithIDGenerator(TraceIDs{})).Tracer("syncer")
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&imclient.Error{Class: imclient.ClassFatal, Code: "70403", Text: "u00042", HTTPStatus: 200}, "fatal 70403 class=fatal code=70403 http_status=200"},
		{&imclient.Error{Text: "u00042", Err: fmt.Errorf("read: %w", syscall.ECONNRESET)}, "transient class=transient cause=connection reset by peer"},
		{fmt.Errorf("u00042: %w", &pgconn.PgError{Code: "40P01", Message: "u00042"}), "database 40P01 class=database code=40P01"},
		{&userstable.Error{Text: "u00042", Err: &pgconn.PgError{Code: "42703"}}, "users_table class=users_table"},
		{context.Canceled, " class=stopped"},
		{ask.ErrStopped, " class=stopped"},
		{errUnwritten, " class=stopped"},
		{fmt.Errorf("range: %w", repo.ErrGone), " class=gone"},
		{errors.New("panic: u00042"), "other class=other"},
	} {
		_, span := tracer.Start(t.Context(), "call")
		end(span, tc.err)
		s := got.GetSpans()[0]
		told := s.Status.Description
		for _, a := range s.Attributes {
			told += fmt.Sprintf(" %s=%s", a.Key, a.Value.String())
		}
		if diff := cmp.Diff(tc.want, told); diff != "" || (s.Status.Code == codes.Error) == strings.HasPrefix(tc.want, " ") {
			t.Errorf("%v (-want +got):\n%s", tc.err, diff)
		}
		got.Reset()
	}
}

// TestTraceIDs: those of a run follow from it, so that whoever works on it belongs
// to the same trace; those of a run of the same number elsewhere differ.
func TestTraceIDs(t *testing.T) {
	var got tracetest.InMemoryExporter
	tracer := sdk.NewTracerProvider(sdk.WithSyncer(&got), sdk.WithIDGenerator(TraceIDs{})).Tracer("syncer")
	engines := make([]*Engine, 2) // of two processes
	for i := range engines {
		engines[i] = &Engine{shared: &shared{store: &repo.Store{DB: &pg.DB{}}, apps: map[int16]*App{1: {App: repo.App{Name: "main"}}}, config: Config{Tracer: tracer}}}
	}
	began := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	run := repo.Run{ID: 7, AppID: 1, StartedAt: began, FinishedAt: new(began.Add(time.Minute)), Status: repo.RunSucceeded}
	elsewhere := run
	elsewhere.StartedAt = began.Add(time.Microsecond)
	for _, e := range engines {
		_, span := e.beginWork(t.Context(), run, "range")
		span.End()
	}
	id := engines[0].traceRun(run)
	if other := engines[0].traceRun(elsewhere); other == id {
		t.Errorf("two runs have the trace %s", id)
	}
	spans := got.GetSpans()
	first, second, root := spans[0], spans[1], spans[2]
	if root.Parent.IsValid() || root.SpanContext.TraceID().String() != id || root.StartTime != began || root.EndTime != began.Add(time.Minute) {
		t.Errorf("the run's span is %+v", root)
	}
	for _, s := range spans[:2] {
		if s.Parent.SpanID() != root.SpanContext.SpanID() || s.SpanContext.TraceID() != root.SpanContext.TraceID() {
			t.Errorf("%s belongs to %v, not to the run", s.Name, s.Parent)
		}
	}
	if first.SpanContext.SpanID() == second.SpanContext.SpanID() {
		t.Error("two spans have the same id")
	}
}
