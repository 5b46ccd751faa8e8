package jobs

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the counters of an engine. No label holds a user's id.
type Metrics struct {
	suspectPages     *prometheus.CounterVec
	disbelievedUsers *prometheus.CounterVec
}

// NewMetrics makes the counters and registers them.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		suspectPages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "syncer_suspect_pages_total",
			Help: "Pages whose answers were in doubt, because too many users were offline at once, and were asked again.",
		}, []string{"app"}),
		disbelievedUsers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "syncer_disbelieved_users_total",
			Help: "Users whose answers stayed in doubt and were not written.",
		}, []string{"app"}),
	}
	registry.MustRegister(m.suspectPages, m.disbelievedUsers)
	return m
}

// show makes an app's counters visible before anything was counted.
func (m *Metrics) show(app string) {
	m.suspectPages.WithLabelValues(app)
	m.disbelievedUsers.WithLabelValues(app)
}
