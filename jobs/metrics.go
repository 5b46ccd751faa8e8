package jobs

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"syncer/imclient"
	"syncer/internal/build"
	"syncer/repo"
)

// Metrics count what this process does. What the database knows, the same for
// all processes, is in State. No label holds a user's id: the values are
// the names of apps and jobs in the configuration and words of ours.
type Metrics struct {
	runs          *prometheus.CounterVec
	rangeFailures *prometheus.CounterVec
	rescued       prometheus.Counter
	maintained    prometheus.Gauge

	users, changes, failures, retries *prometheus.CounterVec
	askTime, saveTime                 *prometheus.HistogramVec

	calls     *prometheus.CounterVec
	callTime  *prometheus.HistogramVec
	quotaWait *prometheus.CounterVec

	breakerOpen *prometheus.GaugeVec
	stalled     *prometheus.GaugeVec

	hints       *prometheus.CounterVec
	hintDelay   prometheus.Histogram
	transitions *prometheus.CounterVec

	suspectPages      *prometheus.CounterVec
	rejectedAnswers   *prometheus.CounterVec
	contradictedUsers *prometheus.CounterVec
}

// Upper ends of the histograms' buckets, in seconds. A page waits for its call
// times, at a low rate for minutes.
var (
	callBuckets = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	askBuckets  = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	hintBuckets = []float64{.1, .25, .5, .75, 1, 1.5, 2.5, 5, 10, 30, 60}
	saveBuckets = []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30}
)

// What finds transitions.
const (
	foundBySweep = "sweep"
	foundByHint  = "hint"
)

// NewMetrics makes the counters and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		registry.MustRegister(h)
		return h
	}
	m := &Metrics{
		runs: counter("syncer_runs_total",
			"Runs that this process closed, and ticks that it skipped, by result: succeeded, partial, failed, skipped.", "app", "sync_job", "kind", "result"),
		rangeFailures: counter("syncer_range_failures_total",
			"Attempts at a range, or at the planning of a run, that failed, by the class of the error: as of calls, or users_table.", "app", "kind", "class"),
		rescued: prometheus.NewCounter(prometheus.CounterOpts{Name: "syncer_rescued_ranges_total",
			Help: "Ranges taken over because their worker gave no sign of life."}),
		maintained: prometheus.NewGauge(prometheus.GaugeOpts{Name: "syncer_maintained_timestamp_seconds",
			Help: "When this process last maintained the tables and nothing failed or gave way; before that, when it started."}),
		users:    counter("syncer_users_observed_total", "Users of the pages that were written, the failed ones included.", "app", "kind"),
		changes:  counter("syncer_changes_total", "Users whose value was new or different, and written.", "app", "kind"),
		failures: counter("syncer_user_failures_total", "Users of the pages that were written who came without a value.", "app", "kind"),
		retries:  counter("syncer_retries_total", "API calls that repeated one that had failed.", "app", "kind"),
		askTime: histogram("syncer_page_ask_duration_seconds",
			"From the first question about a page to the judgement on its answers, with the waiting for call times.", askBuckets, "app", "kind"),
		saveTime: histogram("syncer_page_save_duration_seconds", "The writing of a page.", saveBuckets, "app", "kind"),
		calls: counter("syncer_api_calls_total",
			"API calls by outcome: ok, or the class of the error (transient, throttled, unauthorised, fatal, bad_batch, per_user).", "app", "api", "class"),
		callTime: histogram("syncer_api_call_duration_seconds",
			"From sending a call to the end of its answer, without the waiting for its call time.", callBuckets, "app", "api"),
		quotaWait: counter("syncer_quota_wait_seconds_total",
			"Time that calls waited for their call times, of all calls together: more than a second a second when several wait.", "app", "api"),
		breakerOpen: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "syncer_api_breaker_open",
			Help: "1 while an API does not answer this process and its calls, except for probes, are held back."}, []string{"app", "kind"}),
		stalled: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "syncer_work_stalled",
			Help: "1 while work is due that this process, which has workers free, is not given, or a tick that no process records."}, []string{"app", "kind"}),
		hints: counter("syncer_hints_total",
			"Users whom hooks named, by what came of it: confirmed (the API agreed, and it was news), repeated (it was known, or another hint about the user came), "+
				"contradicted (the API disagreed, twice), unknown_user (without a snapshot), dropped (no room, no time or no answer).", "app", "result"),
		hintDelay: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "syncer_hint_delay_seconds",
			Help: "From the arrival of a hook to the row in the history that it led to.", Buckets: hintBuckets}),
		transitions: counter("syncer_transitions_total",
			"Changes of presence that were written, without users seen for the first time, by what found them: sweep or hint. The share of hint is the recall of the hooks.", "app", "found_by"),
		suspectPages: counter("syncer_suspect_pages_total",
			"Pages that were suspect, because too many users of the page or of one call went offline at once, and were rechecked.", "app"),
		rejectedAnswers: counter("syncer_rejected_answers_total", "Users whose pages stayed suspect and were not written.", "app"),
		contradictedUsers: counter("syncer_contradicted_users_total",
			"Users of the pages that were written whom one API of OpenIM called offline and the second opinion did not.", "app"),
	}
	built := build.Read()
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "syncer_build_info",
		Help: "Always 1; the labels have the version of the program, its commit and its Go toolchain."}, []string{"version", "revision", "goversion"})
	info.WithLabelValues(built.Version, built.Revision, built.Go).Set(1)
	registry.MustRegister(info, m.hintDelay, m.rescued, m.maintained, m.breakerOpen, m.stalled)
	return m
}

// show makes an app's counters visible before anything was counted: the first
// increase of a counter that begins with it would not be seen.
func (m *Metrics) show(app string) {
	for _, result := range hintResults {
		m.hints.WithLabelValues(app, result)
	}
	m.transitions.WithLabelValues(app, foundBySweep)
	m.transitions.WithLabelValues(app, foundByHint)
	m.suspectPages.WithLabelValues(app)
	m.rejectedAnswers.WithLabelValues(app)
	m.contradictedUsers.WithLabelValues(app)
	for _, kind := range imclient.Kinds() {
		m.breakerOpen.WithLabelValues(app, string(kind))
		m.stalled.WithLabelValues(app, string(kind))
		for _, c := range []*prometheus.CounterVec{m.users, m.changes, m.failures, m.retries} {
			c.WithLabelValues(app, string(kind))
		}
		for _, class := range []string{imclient.ClassTransient.String(), imclient.ClassThrottled.String(), imclient.ClassFatal.String(), classUsersTable} {
			m.rangeFailures.WithLabelValues(app, string(kind), class)
		}
	}
}

// results are what can become of a tick.
var results = []repo.RunStatus{repo.RunSucceeded, repo.RunPartial, repo.RunFailed, repo.RunSkipped}

// showJob does the same for a job of an app.
func (m *Metrics) showJob(app string, job Job) {
	for _, result := range results {
		m.runs.WithLabelValues(app, job.Name, string(job.Kind), string(result))
	}
}

// classUsersTable is the class of what is wrong with a users table.
const classUsersTable = "users_table"

// gaveBack counts a failed attempt at a range, or at the planning of a run.
func (m *Metrics) gaveBack(app string, kind imclient.Kind, class imclient.Class, usersMistake bool) {
	label := class.String()
	if usersMistake {
		label = classUsersTable
	}
	m.rangeFailures.WithLabelValues(app, string(kind), label).Inc()
}

// closed counts a run that is over, or a tick that is skipped.
func (m *Metrics) closed(app, job string, kind imclient.Kind, result repo.RunStatus) {
	m.runs.WithLabelValues(app, job, string(kind), string(result)).Inc()
}

// asked counts a page that was asked about.
func (m *Metrics) asked(app string, kind imclient.Kind, took time.Duration) {
	m.askTime.WithLabelValues(app, string(kind)).Observe(took.Seconds())
}

// wrote counts a page that was written.
func (m *Metrics) wrote(app string, kind imclient.Kind, users, changed, failed int64, took time.Duration) {
	m.users.WithLabelValues(app, string(kind)).Add(float64(users))
	m.changes.WithLabelValues(app, string(kind)).Add(float64(changed))
	m.failures.WithLabelValues(app, string(kind)).Add(float64(failed))
	m.saveTime.WithLabelValues(app, string(kind)).Observe(took.Seconds())
}

// Calls returns the observer that counts the calls of an app's client.
func (m *Metrics) Calls(app string) imclient.Observer { return &callMetrics{metrics: m, app: app} }

// callMetrics counts the calls of one app.
type callMetrics struct {
	metrics *Metrics
	app     string
}

// Called counts a call.
func (c *callMetrics) Called(api, outcome string, took time.Duration) {
	c.metrics.calls.WithLabelValues(c.app, api, outcome).Inc()
	c.metrics.callTime.WithLabelValues(c.app, api).Observe(took.Seconds())
}

// Waited counts the waiting for a call time and adds it to the span of the call.
func (c *callMetrics) Waited(ctx context.Context, api string, d time.Duration) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("waited for its call time", trace.WithAttributes(attribute.Float64("wait_ms", milliseconds(d))))
	}
	c.metrics.quotaWait.WithLabelValues(c.app, api).Add(max(d, 0).Seconds())
}
