package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// sendTimeout bounds one upload.
const sendTimeout = 10 * time.Second

// sender posts spans as OTLP over HTTP. OpenTelemetry's otlptracehttp would link gRPC
// into the program and let environment variables choose the endpoint; see
// docs/dependencies.md.
type sender struct {
	client   *http.Client
	endpoint string
	header   http.Header
}

func newSender(c Config) *sender {
	s := &sender{endpoint: c.Endpoint, header: http.Header{}}
	s.header.Set("User-Agent", "syncer/"+c.Version)
	for name, value := range c.Header {
		s.header.Set(name, value)
	}
	s.header.Set("Content-Type", "application/x-protobuf")
	s.header.Set("Content-Encoding", "gzip")
	s.client = &http.Client{
		Timeout: sendTimeout,
		Transport: &http.Transport{
			Proxy:             http.ProxyURL(c.Proxy),
			TLSClientConfig:   &tls.Config{RootCAs: c.CAs, MinVersion: tls.VersionTLS12},
			IdleConnTimeout:   90 * time.Second,
			ForceAttemptHTTP2: true,
		},
		// The headers are for this server only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// Start does nothing: the server is not contacted until there are spans.
func (s *sender) Start(context.Context) error { return nil }

// Stop closes the connections.
func (s *sender) Stop(context.Context) error {
	s.client.CloseIdleConnections()
	return nil
}

// UploadTraces sends spans once. Spans that cannot be sent are lost.
func (s *sender) UploadTraces(ctx context.Context, spans []*otlp.ResourceSpans) error {
	// TracesData has the same encoding as the ExportTraceServiceRequest that the
	// server expects.
	message, err := proto.Marshal(&otlp.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	var body bytes.Buffer
	zip := gzip.NewWriter(&body)
	_, err = zip.Write(message)
	if err = errors.Join(err, zip.Close()); err != nil {
		return fmt.Errorf("compress spans: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint, &body)
	if err != nil {
		return fmt.Errorf("make the request: %w", err)
	}
	request.Header = s.header.Clone()
	answer, err := s.client.Do(request)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	const mostRead = 64 << 10 // so that the connection can be used again
	_, _ = io.CopyN(io.Discard, answer.Body, mostRead)
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("the server answers with HTTP %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	return nil
}
