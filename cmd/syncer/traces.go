package main

import (
	"context"
	"fmt"

	"syncer/internal/build"
	"syncer/internal/config"
	"syncer/internal/tracing"
	"syncer/jobs"
)

// tracingConfig returns the configuration of tracing, without the sender's part.
func tracingConfig(c config.Traces) (tracing.Config, error) {
	cas, err := readCAs(c.CAFile)
	if err != nil {
		return tracing.Config{}, fmt.Errorf("traces: %w", err)
	}
	header, err := c.Header()
	if err != nil {
		return tracing.Config{}, fmt.Errorf("traces.headers: %w", err)
	}
	return tracing.Config{Endpoint: c.Endpoint, Header: header, CAs: cas, Proxy: c.Proxy.Reveal(), Sample: c.Sample, Version: build.Read().Version}, nil
}

// openTracing starts sending traces if an endpoint is set.
func (s *system) openTracing(ctx context.Context) error {
	if s.config.Traces.Endpoint == "" {
		return nil
	}
	c, err := tracingConfig(s.config.Traces)
	if err != nil {
		return err
	}
	c.Process, c.Root, c.IDs, c.Log = s.process, jobs.RunSpan, jobs.TraceIDs{}, s.log
	if s.tracing, err = tracing.Start(ctx, c); err != nil {
		return err
	}
	s.log.Info().Str("endpoint", c.Endpoint).Float64("sample", c.Sample).Msg("traces")
	// Closed last, because closing the others is traced too.
	s.closers = append([]func(){s.tracing.Stop}, s.closers...)
	s.users.Tracer = s.tracing.Statements()
	return nil
}

// traces sends an empty request, which a server for traces accepts.
func (ch *checker) traces(ctx context.Context) {
	if ch.config.Traces.Endpoint == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := tracingConfig(ch.config.Traces)
	if err == nil {
		err = tracing.Check(ctx, c)
	}
	advice := "check [traces] endpoint (OTLP over HTTP, most often port 4318) and headers; everything else works without it"
	if ch.config.Traces.Proxy != "" {
		advice += "; and check [traces] proxy: all requests go through it"
	}
	ch.say("traces "+ch.config.Traces.Endpoint, err, advice)
}
