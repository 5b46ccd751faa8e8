// Package jobs runs sweeps. A scheduler starts a run at each tick of a job; the
// run's planning cuts the users table into ranges; a sweep goes through a range
// page by page, asks the API (package ask), and writes what it answered (package
// repo); a keeper does the housekeeping. River spreads the work over any number of
// processes; one process takes the same path. Commands in cmd/syncer build an
// Engine from the configuration.
package jobs
