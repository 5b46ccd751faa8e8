// Package pg is the half of storage that knows Postgres and nothing of syncer's tables:
// a pool of connections with a schema and deadlines (DB), the database's clock,
// sessions that hold locks, and SQLSTATEs. Package repo and its subpackages send all
// their statements through it; package migrations uses it to name lock holders.
// It imports no other package of syncer.
package pg
