package jobs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"syncer/imclient"
	"syncer/jobs/ask"
	"syncer/repo"
	"syncer/repo/userstable"
)

// RunSpan is the name of the span that a trace begins with: that of a run. No other
// is without a parent.
const RunSpan = "run"

// spans make the spans of the work on one run. Without a tracer they make none,
// at no cost.
type spans struct {
	tracer trace.Tracer
	run    []attribute.KeyValue // which run it is
}

// noSpan is what takes the place of a span where nothing is traced.
var noSpan trace.Span = noop.Span{}

// spansOf makes the spans of a run.
func (s *shared) spansOf(run repo.Run) spans {
	if s.config.Tracer == nil {
		return spans{}
	}
	return spans{tracer: s.config.Tracer, run: []attribute.KeyValue{
		attribute.String("app", s.apps[run.AppID].Name), attribute.String("job", run.Job),
		attribute.String("kind", string(run.Kind)), attribute.Int64("run_id", run.ID),
	}}
}

// beginWork begins a span right below that of the run.
func (s *shared) beginWork(ctx context.Context, run repo.Run, name string) (context.Context, trace.Span) {
	if s.config.Tracer == nil {
		return ctx, noSpan
	}
	return s.spansOf(run).begin(trace.ContextWithRemoteSpanContext(ctx, s.rootOf(run)), name)
}

// begin begins a span. Attributes are to be made only for one that IsRecording.
func (s spans) begin(ctx context.Context, name string) (context.Context, trace.Span) {
	if s.tracer == nil {
		return ctx, noSpan
	}
	ctx, span := s.tracer.Start(ctx, name)
	if span.IsRecording() {
		span.SetAttributes(s.run...)
	}
	return ctx, span
}

// end ends a span with what came of it.
func end(span trace.Span, err error) {
	if span.IsRecording() && err != nil {
		fail(span, err)
	}
	span.End()
}

// errUnwritten ends the span of a page that is not written because another failed.
var errUnwritten = errors.New("another page failed")

// Classes of work that is left to others, besides those of calls.
const (
	classStopped = "stopped" // the program ends, or another page failed
	classGone    = "gone"    // another worker has the range, or the run is closed
)

// fail records why. It records only values of a bounded number, never an error's text:
// they may name users, and traces go elsewhere. The words stand in the log and the run.
func fail(span trace.Span, err error) {
	apiErr, answered := errors.AsType[*imclient.Error](err)
	_, usersMistake := errors.AsType[*userstable.Error](err)
	sqlErr, inDatabase := errors.AsType[interface {
		error
		SQLState() string
	}](err)
	class, code := "other", ""
	switch {
	case errors.Is(err, ask.ErrStopped) || errors.Is(err, errUnwritten) || imclient.IsContext(err):
		class = classStopped
	case usersMistake:
		class = classUsersTable
	case answered:
		class, code = apiErr.Class.String(), apiErr.Code
	case inDatabase:
		class, code = "database", sqlErr.SQLState()
	case errors.Is(err, repo.ErrGone) || errors.Is(err, repo.ErrErased):
		class = classGone
	}
	span.SetAttributes(attribute.String("class", class))
	status := class
	if code != "" {
		span.SetAttributes(attribute.String("code", code))
		status += " " + code
	}
	if answered && apiErr.HTTPStatus != 0 {
		span.SetAttributes(attribute.Int("http_status", apiErr.HTTPStatus))
	}
	if cause, ok := errors.AsType[syscall.Errno](err); ok {
		span.SetAttributes(attribute.String("cause", cause.Error()))
	}
	if class != classStopped && class != classGone { // nothing is wrong
		span.SetStatus(codes.Error, status)
	}
}

// traced returns q with a span for each call; q itself if nothing is traced.
func traced[V comparable](s spans, q queryFunc[V]) queryFunc[V] {
	if s.tracer == nil {
		return q
	}
	return func(ctx context.Context, ids []string) (imclient.Answer[V], error) {
		ctx, span := s.begin(ctx, "call")
		answer, err := q(ctx, ids)
		if span.IsRecording() {
			span.SetAttributes(attribute.Int("users", len(ids)), attribute.Int("calls", answer.Calls), attribute.Int("failed", len(answer.Rejected)))
		}
		end(span, err)
		return answer, err
	}
}

// endPage ends a page's span.
func (p *page[V]) endPage(r *repo.Range, err error) {
	if p.span.IsRecording() {
		p.span.SetAttributes(attribute.Int("range", r.No), attribute.Int("users", len(p.IDs)+p.Bad),
			attribute.Int64("changed", p.written.Changed), attribute.Int64("failed", p.written.Failed),
			attribute.Int64("calls", p.result.Calls.Made), attribute.Int64("retries", p.result.Calls.Retries))
		if p.review.verdict != ordinary {
			p.span.SetAttributes(attribute.String("verdict", string(p.review.verdict)),
				attribute.Int("before", p.review.before), attribute.Int("gone", p.review.gone))
		}
	}
	end(p.span, err)
}

// counted are the attributes of work that is done.
func counted(c repo.Counters) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.Int64("users", c.Users), attribute.Int64("changed", c.Changed), attribute.Int64("failed", c.Failed),
		attribute.Int64("calls", c.Calls), attribute.Int64("retries", c.Retries),
	}
}

// traceRun makes the span of a run that is closed, and returns its trace's id; "" for
// one that is not traced.
func (s *shared) traceRun(run repo.Run) (traceID string) {
	if s.config.Tracer == nil || run.FinishedAt == nil {
		return ""
	}
	spans := s.spansOf(run)
	ctx := context.WithValue(context.Background(), rootKey{}, s.rootOf(run))
	_, span := spans.tracer.Start(ctx, RunSpan, trace.WithTimestamp(run.StartedAt))
	if span.IsRecording() {
		traceID = span.SpanContext().TraceID().String()
		span.SetAttributes(spans.run...)
		span.SetAttributes(counted(run.Counters)...)
		span.SetAttributes(attribute.String("trigger", string(run.Trigger)), attribute.String("status", string(run.Status)),
			attribute.Int64("removed", run.Removed))
		if run.Status == repo.RunFailed {
			span.SetStatus(codes.Error, string(run.Status))
		}
	}
	span.End(trace.WithTimestamp(*run.FinishedAt))
	return traceID
}

// rootOf returns the span of a run, which is made when the run is closed. Its ids
// follow from the run, so that the spans of all processes that work on it come
// together without a word between them. A run of the same number in another
// database began at another time.
func (s *shared) rootOf(run repo.Run) trace.SpanContext {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", s.store.Schema(), run.ID, run.StartedAt.UnixMicro()))
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(sum[:16]), SpanID: trace.SpanID(sum[16:24]), TraceFlags: trace.FlagsSampled, Remote: true,
	})
}

type rootKey struct{}

// TraceIDs makes the ids of spans: those of a run follow from it, all others are
// random.
type TraceIDs struct{}

// NewIDs makes the ids of a span without a parent.
func (TraceIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if root, ok := ctx.Value(rootKey{}).(trace.SpanContext); ok {
		return root.TraceID(), root.SpanID()
	}
	var id trace.TraceID
	_, _ = rand.Read(id[:]) // never fails
	return id, TraceIDs{}.NewSpanID(ctx, id)
}

// NewSpanID makes the id of a span with a parent.
func (TraceIDs) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var id trace.SpanID
	_, _ = rand.Read(id[:]) // never fails
	return id
}

func milliseconds(d time.Duration) float64 { return float64(max(d, 0)) / float64(time.Millisecond) }
