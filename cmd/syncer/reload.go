package main

import (
	"context"
	"errors"
	"slices"

	"github.com/rs/zerolog"

	"syncer/imclient"
	"syncer/internal/config"
	"syncer/jobs"
)

// reload applies what can change while the daemon runs: the jobs, the call rates, the log
// level and the certificate of hooks. It logs the names of other changed settings. An invalid configuration changes
// nothing. It returns the configuration in force.
func (s *system) reload(old *config.Config, load func() (*config.Config, error), engine *jobs.Engine) *config.Config {
	keep := func(err error) *config.Config {
		event := s.log.Error().Err(err)
		if caught, ok := errors.AsType[*imclient.PanicError](err); ok {
			event = event.Bytes("stack", caught.Stack)
		}
		event.Msg("the configuration is not reloaded; the previous one stays in force")
		return old
	}
	var loaded *config.Config
	err := imclient.Guard(func() (err error) {
		loaded, err = load()
		return err
	})
	if err != nil {
		return keep(err)
	}
	if err := s.sameTenants(old, loaded); err != nil {
		return keep(err)
	}
	inForce := withoutRestart(old, loaded)
	scheduled, err := s.scheduled(inForce.Jobs)
	if err != nil {
		return keep(err)
	}
	if err := s.receiving.reload(); err != nil {
		return keep(err)
	}
	setLevel(inForce.Log)
	for i, app := range s.apps { // in the order of the configuration
		for _, quota := range app.Quotas {
			quota.SetLimit(float64(inForce.Apps[i].Connection().Rate(quota.Kind())))
		}
	}
	engine.Schedule(scheduled)
	for _, job := range old.Jobs {
		if !slices.ContainsFunc(inForce.Jobs, func(other config.Job) bool { return other.Name == job.Name }) {
			s.log.Warn().Str("job", job.Name).Msg("the job is removed: the configuration no longer has it, and its ticks stop")
		}
	}
	for _, warning := range loaded.Warnings {
		s.log.Warn().Msg(warning)
	}
	if waiting := config.Changes(inForce, loaded); len(waiting) > 0 {
		s.log.Warn().Strs("settings", waiting).Msg("settings have changed that need a restart")
	}
	s.log.Info().Strs("changed", config.Changes(old, inForce)).Msg("configuration reloaded")
	return inForce
}

// sameTenants returns an error if an app's name belongs to another tenant in the database.
// It does not look up unchanged apps, so that a reload does not need the database.
func (s *system) sameTenants(old, loaded *config.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	for _, app := range loaded.Apps {
		if slices.ContainsFunc(old.Apps, func(before config.App) bool {
			return before.Name == app.Name && before.Provider == app.Provider && before.Tenant() == app.Tenant()
		}) {
			continue
		}
		if err := s.store.CheckApp(ctx, app.Name, app.Provider, app.Tenant()); err != nil {
			return err
		}
	}
	return nil
}

// withoutRestart returns the old configuration with the settings of the new one that need
// no restart.
func withoutRestart(old, loaded *config.Config) *config.Config {
	c := *old
	c.Log.Level = loaded.Log.Level
	c.Jobs, c.Sweep.MaxGap = loaded.Jobs, loaded.Sweep.MaxGap
	c.Apps = nil
	for _, app := range old.Apps {
		for _, other := range loaded.Apps {
			if other.Name == app.Name && other.Provider == app.Provider {
				app = app.WithRates(other)
			}
		}
		c.Apps = append(c.Apps, app)
	}
	return &c
}

// setLevel sets the log level of the process.
func setLevel(c config.Log) { zerolog.SetGlobalLevel(level(c)) }
