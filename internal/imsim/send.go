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

// interrupt does what a fault of the network does, and reports whether that was
// the end of the call.
func interrupt(w http.ResponseWriter, c *call) bool {
	ctx := c.http.Context()
	if h := c.hit(FaultDelay); h != nil {
		timer := time.NewTimer(h.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-h.cleared:
		case <-ctx.Done():
			panic(http.ErrAbortHandler)
		}
	}
	for _, h := range c.hits {
		switch h.Kind {
		case FaultHang:
			select {
			case <-h.cleared:
			case <-ctx.Done():
			}
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

// echo is the call once more, where its fault is to repeat it.
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

// reset ends the connection by a TCP reset, or just closes it where there is
// no TCP.
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

// writeHuge begins an answer that never comes to its point.
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

// bombs are those made so far, by what they become: func() string.
var bombs sync.Map

// bomb is a compressed answer that begins with a list of users and goes on with
// empty ones for size bytes.
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

// send writes an answer, and records it before, so that a client that has it
// finds it recorded.
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

// appendJSONString appends a string as JSON. Most ids need no escape.
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
