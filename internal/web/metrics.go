package web

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of the pages and the API.
type Metrics struct {
	requests *prometheus.CounterVec
	readings *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// routes are the values of the label route.
var routes = []string{"/", "/app/{app}", "/run/{id}", "/failures", "/user", "/user/{id...}", "/v1/presence", "/v1/online", "/v1/history", "/openapi.json"}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "syncer_web_requests_total", Help: "Requests to the pages and the API, by route and HTTP status.",
		}, []string{"route", "code"}),
		readings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "syncer_web_readings_total", Help: "Sets of statements for the pages, which all viewers share: read, or failed.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "syncer_web_api_seconds", Help: "Time in which the API answered.",
			Buckets: []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2},
		}, []string{"route"}),
	}
	r.MustRegister(m.requests, m.readings, m.seconds)
	for _, route := range routes {
		m.requests.WithLabelValues(route, "200")
	}
	for _, result := range []string{"read", "failed"} {
		m.readings.WithLabelValues(result)
	}
	return m
}

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// counted counts the requests to a route.
func (s *Server) counted(route string, h http.HandlerFunc) http.Handler {
	if s.Metrics == nil {
		return h
	}
	// The usual answer, without a look-up.
	ok := s.Metrics.requests.WithLabelValues(route, "200")
	seconds := s.Metrics.seconds.WithLabelValues(route)
	api := len(route) > 4 && route[:4] == "/v1/"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		recorded := &recorder{w, http.StatusOK}
		h(recorded, r)
		if recorded.status == http.StatusOK {
			ok.Inc()
		} else {
			s.Metrics.requests.WithLabelValues(route, strconv.Itoa(recorded.status)).Inc()
		}
		if api {
			seconds.Observe(time.Since(began).Seconds())
		}
	})
}
