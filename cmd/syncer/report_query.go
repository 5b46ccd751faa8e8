package main

import (
	"context"

	"syncer/internal/report"
	"syncer/repo/reports"
)

// reportQuery reads the data of reports.
type reportQuery struct {
	reader *reports.Reader
	head   report.Head
	users  bool // whether the report may name users
	gaps   []reports.GapRow
}

// run returns the report of a name, or all for reportAll.
func (q *reportQuery) run(ctx context.Context, name string) ([]report.Report, error) {
	var err error
	if q.gaps, err = q.reader.Gaps(ctx, q.head.Span); err != nil { // charts show them
		return nil, err
	}
	names := []string{name}
	if name == reportAll {
		names = report.Names
	}
	var all []report.Report
	for _, name := range names {
		one, err := q.one(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

func (q *reportQuery) one(ctx context.Context, name string) (report.Report, error) {
	r, h, span := q.reader, q.head, q.head.Span
	switch name {
	case report.Concurrency:
		rows, err := r.Concurrency(ctx, span, h.Buckets())
		return report.NewConcurrency(h, rows, q.gaps), err
	case report.ActiveUsers:
		rows, err := r.ActiveUsers(ctx, span)
		return report.NewActiveUsers(h, rows, q.gaps), err
	case report.Sessions:
		byDay, overall, err := r.Sessions(ctx, span)
		if err != nil {
			return report.Report{}, err
		}
		var longest []reports.SessionRow
		if q.users {
			longest, err = r.LongestSessions(ctx, span, report.Longest)
		}
		return report.NewSessions(h, byDay, overall, longest, q.gaps), err
	case report.Platforms:
		rows, err := r.Platforms(ctx, span)
		if err != nil {
			return report.Report{}, err
		}
		devices, err := r.Devices(ctx, span)
		return report.NewPlatforms(h, rows, devices), err
	case report.Accounts:
		rows, err := r.Accounts(ctx, span)
		if err != nil {
			return report.Report{}, err
		}
		coverage, err := r.AccountCoverage(ctx, span)
		return report.NewAccounts(h, rows, coverage, q.gaps), err
	case report.Runs:
		rows, err := r.Runs(ctx, span)
		return report.NewRuns(h, rows, q.gaps), err
	case report.Inactive:
		rows, err := r.Inactive(ctx, span)
		return report.NewInactive(h, rows), err
	default: // gaps
		coverage, err := r.Coverage(ctx, span)
		return report.NewGaps(h, q.gaps, coverage), err
	}
}
