package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// tracesPath is the default path of OTLP over HTTP.
const tracesPath = "/v1/traces"

// traces checks the endpoint and adds the default path.
func (v validator) traces() {
	t := &v.c.Traces
	v.caFile("traces.ca_file", &t.CAFile)
	if _, err := t.Header(); err != nil && v.well("traces.headers") {
		v.problem("traces.headers", "%v", err)
	}
	const path = "traces.endpoint"
	if t.Endpoint == "" {
		return
	}
	v.baseURL(path, &t.Endpoint, "traces name hosts and apps; allow_http = true if that network is yours", t.AllowHTTP)
	if u, err := url.Parse(t.Endpoint); err == nil && u.Path == "" {
		t.Endpoint += tracesPath
	}
}

// headerPattern matches a request header.
var headerPattern = regexp.MustCompile("^([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\t\x20-\x7e]*)$")

// Header returns the Headers by name. Its errors repeat nothing of them.
func (t Traces) Header() (map[string]string, error) {
	header := make(map[string]string)
	at := 0
	for line := range strings.Lines(t.Headers.Reveal()) {
		at++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		found := headerPattern.FindStringSubmatch(line)
		if found == nil {
			return nil, fmt.Errorf(`line %d is no header (want "Name: value", one a line)`, at)
		}
		header[found[1]] = found[2]
	}
	return header, nil
}
