package e2e

import (
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// collector takes traces, as OTLP over HTTP has it, and sees to it that they hold
// no secret and no user's id.
type collector struct {
	t       *testing.T
	url     string
	hanging chan struct{} // not nil: nothing is answered until it is closed

	mu       sync.Mutex
	requests []string // method, path and authorization
	spans    []span
}

// span is one that came.
type span struct {
	scope, name       string
	trace, id, parent string
	process           string
	attributes        map[string]string
	events            []string
	status            string // "": no error
}

// userIDs are those of a world's users.
var userIDs = regexp.MustCompile(`u0\d{4}`)

func newCollector(t *testing.T, hangs bool) *collector {
	c := &collector{t: t}
	server := httptest.NewServer(c)
	c.url = server.URL
	t.Cleanup(server.Close)
	if hangs {
		c.hanging = make(chan struct{})
		t.Cleanup(func() { close(c.hanging) })
	}
	return c
}

// ServeHTTP takes a request for traces.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	zip, err := gzip.NewReader(r.Body)
	if err != nil {
		c.t.Error(err)
		return
	}
	body, err := io.ReadAll(zip)
	if err != nil {
		c.t.Error(err)
		return
	}
	for _, pattern := range []*regexp.Regexp{secrets, userIDs} {
		if found := pattern.FindIndex(body); found != nil {
			c.t.Errorf("the traces hold a secret or a user's id: %q", body[max(0, found[0]-100):found[1]])
		}
	}
	c.mu.Lock()
	c.requests = append(c.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+r.Header.Get("Authorization"))
	for len(body) > 0 {
		// A request is nothing but field 1, ResourceSpans, again and again.
		number, kind, n := protowire.ConsumeTag(body)
		part, m := protowire.ConsumeBytes(body[max(n, 0):])
		if number != 1 || kind != protowire.BytesType || m < 0 {
			c.t.Errorf("no request for traces: field %d of type %d", number, kind)
			break
		}
		body = body[n+m:]
		var spans otlp.ResourceSpans
		if err := proto.Unmarshal(part, &spans); err != nil {
			c.t.Error(err)
			break
		}
		c.take(&spans)
	}
	c.mu.Unlock()
	if c.hanging != nil {
		<-c.hanging
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (c *collector) take(all *otlp.ResourceSpans) {
	process := attributes(all.Resource.Attributes)["service.instance.id"]
	for _, scope := range all.ScopeSpans {
		for _, s := range scope.Spans {
			got := span{
				scope: scope.Scope.Name, name: s.Name, process: process, attributes: attributes(s.Attributes),
				trace: hex.EncodeToString(s.TraceId), id: hex.EncodeToString(s.SpanId), parent: hex.EncodeToString(s.ParentSpanId),
			}
			for _, e := range s.Events {
				got.events = append(got.events, e.Name)
			}
			if s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR {
				got.status = strings.TrimSuffix("error: "+s.Status.Message, ": ")
			}
			c.spans = append(c.spans, got)
		}
	}
}

func attributes(all []*common.KeyValue) map[string]string {
	m := make(map[string]string, len(all))
	for _, a := range all {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			m[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			m[a.Key] = fmt.Sprint(v.IntValue)
		default:
			m[a.Key] = a.Value.String()
		}
	}
	return m
}

// received returns what came so far.
func (c *collector) received() ([]span, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans), slices.Clone(c.requests)
}

// The libraries that make spans beneath ours.
const (
	statementScope = "github.com/exaring/otelpgx"
	requestScope   = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// inTree are the attributes that a tree is drawn with.
var inTree = []string{
	"http.response.status_code", "trigger", "status", "range", "attempt", "users", "changed", "failed", "calls", "retries", "verdict", "gone",
	"class", "code", "http_status",
}

// tree draws a trace, children in the order of their text, without SQL statements.
func tree(t *testing.T, spans []span) string {
	t.Helper()
	children := make(map[string][]span)
	known := make(map[string]bool)
	for _, s := range spans {
		known[s.id] = true
	}
	for _, s := range spans {
		if s.parent != "" && !known[s.parent] {
			t.Errorf("the parent of %s is missing", s.name)
		}
		children[s.parent] = append(children[s.parent], s)
	}
	var draw func(s span, indent string) string
	draw = func(s span, indent string) string {
		var b strings.Builder
		b.WriteString(indent + s.name)
		for _, key := range inTree {
			if v, ok := s.attributes[key]; ok {
				b.WriteString(" " + key + "=" + v)
			}
		}
		for _, e := range slices.Compact(s.events) { // a call that missed its time waits twice
			b.WriteString(" (" + e + ")")
		}
		if s.status != "" {
			b.WriteString(" " + s.status)
		}
		b.WriteString("\n")
		var below []string
		for _, child := range children[s.id] {
			if child.scope != statementScope {
				below = append(below, draw(child, indent+"  "))
			}
		}
		slices.Sort(below)
		return b.String() + strings.Join(below, "")
	}
	var all strings.Builder
	for _, root := range children[""] {
		all.WriteString(draw(root, ""))
	}
	return all.String()
}
