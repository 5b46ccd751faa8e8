package jobs

import (
	"context"
	"time"

	"syncer/imclient"
)

// keepRolledUp keeps the days of users up to date until the context ends: at
// once, and whenever the tables are maintained. The first time on a long history
// takes minutes, so that nothing waits for it: reports use the history meanwhile.
func (e *Engine) keepRolledUp(ctx context.Context) {
	if err := imclient.Guard(func() error { return e.rollUp(ctx) }); err != nil && ctx.Err() == nil {
		warning(e.log, err).Err(err).Msg("rolling up failed; it will be tried again")
	}
	e.repeat(ctx, e.maintainEvery, e.rollUp)
}

func (e *Engine) rollUp(ctx context.Context) error {
	var before time.Time
	if e.config.Retention > 0 {
		before = e.store.Now().Add(-e.config.Retention)
	}
	return e.store.RollUp(ctx, e.config.ReportZone, before)
}
