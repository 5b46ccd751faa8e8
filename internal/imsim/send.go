package imsim

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// hang returns when the fault is cleared or, if after is not nil, when it fires. It
// closes the connection if the client leaves.
func (h hit) hang(c *call, after <-chan time.Time) {
	select {
	case <-after:
	case <-h.cleared:
	case <-c.http.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// interrupt applies faults of the network, and reports whether they ended the call.
func interrupt(w http.ResponseWriter, c *call) bool {
	if h := c.hit(FaultDelay); h != nil {
		h.hang(c, time.After(h.Delay))
	}
	for _, h := range c.hits {
		switch h.Kind {
		case FaultHang:
			h.hang(c, nil)
			panic(http.ErrAbortHandler) // closes the connection
		case FaultClose:
			panic(http.ErrAbortHandler)
		case FaultReset:
			reset(w)
		case FaultStatus:
			if h.RetryAfter > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(h.RetryAfter))
			}
			writeText(w, "text/plain", h.Status, h.Body+c.echo(h))
		case FaultHTML:
			writeText(w, "text/html", or(h.Status, http.StatusOK), "<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1>"+c.echo(h)+"</body></html>\n")
		case FaultEmpty:
			writeText(w, "application/json", http.StatusOK, "")
		case FaultRedirect:
			to := h.Body
			if to == "" {
				to = "/moved" + c.http.URL.Path
			}
			w.Header().Set("Location", to)
			writeText(w, "text/plain", http.StatusFound, "")
		case FaultHuge:
			writeHuge(w, or(h.Size, 64<<20))
		case FaultBomb:
			w.Header().Set("Content-Encoding", "gzip")
			writeText(w, "application/json", http.StatusOK, bomb(c.api.list, or(h.Size, 16<<20)))
		default:
			continue
		}
		return true
	}
	return false
}

// echo returns the call as text if its fault has Echo.
func (c *call) echo(h hit) string {
	if !h.Echo {
		return ""
	}
	return fmt.Sprintf(" %s %s token: %s\n%.1000s", c.http.Method, c.http.URL, c.http.Header.Get("token"), c.body)
}

func writeText(w http.ResponseWriter, contentType string, status int, body string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// reset sends a TCP reset, or closes the connection if it is not TCP.
func reset(w http.ResponseWriter) {
	if hijacker, ok := w.(http.Hijacker); ok {
		if conn, _, err := hijacker.Hijack(); err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// writeHuge writes an answer without content of the given size.
func writeHuge(w http.ResponseWriter, size int) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"QueryResult":[],"data":[],"padding":"`)
	padding := bytes.Repeat([]byte("x"), 64<<10)
	for size > 0 {
		n, err := w.Write(padding[:min(size, len(padding))])
		if err != nil {
			return
		}
		size -= n
	}
	_, _ = io.WriteString(w, `"}`)
}

// bombs caches results of bomb: func() string.
var bombs sync.Map

// bomb returns a compressed answer that begins with a list of users and continues
// with empty ones for size bytes.
func bomb(list string, size int) string {
	type key struct {
		list string
		size int
	}
	made, _ := bombs.LoadOrStore(key{list, size}, sync.OnceValue(func() string {
		var out strings.Builder
		z := gzip.NewWriter(&out)
		_, _ = io.WriteString(z, list) // into memory: cannot fail
		users := bytes.Repeat([]byte("{},"), 16<<10)
		for left := size; left > 0; left -= len(users) {
			_, _ = z.Write(users[:min(left, len(users))])
		}
		_ = z.Close()
		return out.String()
	}))
	return made.(func() string)()
}

var zippers = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // a valid level: cannot fail
	return z
}}

// send records and then writes an answer, so that a client that has it finds it
// recorded.
func (s *Server) send(w http.ResponseWriter, c *call, body []byte, f *failure) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if c.hit(FaultContentType) != nil {
		h.Set("Content-Type", "text/html")
	}
	status := http.StatusOK
	if f != nil {
		status = or(f.status, status)
		for name, values := range f.header {
			h[name] = values
		}
	}
	if status == http.StatusOK && c.api.backend.zips() && strings.Contains(c.http.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = zip(body)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if c.hit(FaultTruncate) != nil {
		w.WriteHeader(status)
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	if h := c.hit(FaultDrip); h != nil && len(body) > 0 {
		w.WriteHeader(status)
		drip(w, c, h, body[:len(body)-1])
		body = body[len(body)-1:]
	}
	if s.record != nil && c.http.Context().Err() == nil {
		s.record.add(c.api.kind, c.served, c.arrived, s.now())
	}
	if c.hit(FaultDrip) == nil {
		w.WriteHeader(status)
	}
	_, _ = w.Write(body)
}

// drip sends a body byte by byte, until the client leaves or the fault is cleared.
func drip(w http.ResponseWriter, c *call, h *hit, body []byte) {
	flusher := http.NewResponseController(w)
	tick := time.NewTicker(time.Duration(or(int(h.Delay), int(100*time.Millisecond))))
	defer tick.Stop()
	for i := range body {
		_, _ = w.Write(body[i : i+1])
		_ = flusher.Flush()
		select {
		case <-tick.C:
		case <-h.cleared:
			panic(http.ErrAbortHandler) // closes the connection
		case <-c.http.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}

func zip(body []byte) []byte {
	var out bytes.Buffer
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(&out)
	_, _ = z.Write(body) // into memory: cannot fail
	_ = z.Close()
	return out.Bytes()
}

// appendJSONString appends a string as JSON. Most ids need no escaping.
func appendJSONString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			quoted, _ := json.Marshal(s) // a string: cannot fail
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
