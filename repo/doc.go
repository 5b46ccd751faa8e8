// Package repo reads and writes syncer's own tables. Each statement stands beside the method
// that sends it: run_*.go are runs and their ranges (start, claim, close, rescue, resume),
// value_*.go snapshots and history of users, and the others what their names say.
//
// Statements name tables as syncer.table; pg.DB puts the configured schema in. Times are
// arguments, from Store.Now; statements do not use now().
//
// Package jobs calls it. Below it are imclient, for the values, and internal/pg, for
// connections. Subpackage userstable reads the customer's table, and reports reads what
// the commands report, runs and explain show.
package repo
