package main

import (
	"github.com/rs/zerolog"

	"syncer/internal/config"
	"syncer/jobs"
	"syncer/repo"
)

// appQuota is the call quota of one of an app's APIs.
type appQuota struct {
	app string
	*repo.Quota
}

// reload puts into force what can be changed while the daemon runs: the jobs, the
// call rates and the log's level. What else has changed is named. A configuration
// with a mistake changes nothing.
func (s *system) reload(load func() (*config.Config, error), engine *jobs.Engine) {
	loaded, err := load()
	if err != nil {
		s.log.Error().Err(err).Msg("the configuration is not reloaded; the one before stays in force")
		return
	}
	inForce := withoutRestart(s.config, loaded)
	scheduled, err := s.scheduled(inForce.Jobs)
	if err != nil {
		s.log.Error().Err(err).Msg("the configuration is not reloaded; the one before stays in force")
		return
	}
	changed := config.Changes(s.config, inForce)
	s.config = inForce
	setLevel(inForce.Log)
	for _, app := range inForce.Apps {
		for _, q := range s.quotas {
			if q.app == app.Name {
				q.SetLimit(float64(rate(app, q.Kind())))
			}
		}
	}
	engine.Schedule(scheduled)
	for _, warning := range loaded.Warnings {
		s.log.Warn().Msg(warning)
	}
	if waiting := config.Changes(inForce, loaded); len(waiting) > 0 {
		s.log.Warn().Strs("settings", waiting).Msg("some settings have changed that need a restart")
	}
	s.log.Info().Strs("changed", changed).Msg("configuration reloaded")
}

// withoutRestart gives the old configuration with what takes no restart from the
// new one.
func withoutRestart(old, loaded *config.Config) *config.Config {
	c := *old
	c.Log.Level = loaded.Log.Level
	c.Jobs, c.Sweep.MaxGap = loaded.Jobs, loaded.Sweep.MaxGap
	c.Apps = nil
	for _, app := range old.Apps {
		for _, other := range loaded.Apps {
			if other.Name != app.Name || other.Provider != app.Provider {
				continue
			}
			if app.Tencent != nil {
				t := *app.Tencent
				t.PresenceRate, t.AccountsRate = other.Tencent.PresenceRate, other.Tencent.AccountsRate
				app.Tencent = &t
			} else {
				o := *app.OpenIM
				o.PresenceRate, o.AccountsRate = other.OpenIM.PresenceRate, other.OpenIM.AccountsRate
				app.OpenIM = &o
			}
		}
		c.Apps = append(c.Apps, app)
	}
	return &c
}

// setLevel sets what is logged from now on, everywhere in this process.
func setLevel(c config.Log) { zerolog.SetGlobalLevel(level(c)) }
