package repo

// Trigger is why a run was started.
type Trigger string

// The triggers of runs.
const (
	TriggerCron     Trigger = "cron"
	TriggerCatchUp  Trigger = "catch_up"
	TriggerBackfill Trigger = "backfill"
	TriggerHint     Trigger = "hint" // see HintRun
)

// RunStatus is the state of a run: running, or how it ended. The state machine is drawn in
// docs/design.md.
type RunStatus string

// The statuses of runs. A partial run went through all its users, but
// some failed, had their answers rejected, or were missing from the users table and were
// not removed. TestStatusWords compares these words, and those of ranges, with the words
// in statements and in the tables' constraints.
const (
	RunRunning   RunStatus = "running"
	RunSucceeded RunStatus = "succeeded"
	RunPartial   RunStatus = "partial"
	RunFailed    RunStatus = "failed"
	RunCancelled RunStatus = "cancelled"
	RunSkipped   RunStatus = "skipped"
)

// The statuses with which a range ends; before, it is pending or running.
const (
	rangeDone   = "done"
	rangeFailed = "failed"
)
