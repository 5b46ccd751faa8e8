package main

import (
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"syncer/internal/report"
)

// newTable returns a plain text table with the given columns.
func newTable(w io.Writer, columns ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(report.TableStyle())
	t.AppendHeader(columns)
	return t
}

// roughly formats a duration with a readable precision.
func roughly(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
