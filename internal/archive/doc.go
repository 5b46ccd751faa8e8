// Package archive writes closed months of the histories, runs and gaps to Parquet files:
//
//	DIR/presence_history/app=NAME/month=2026-03/part-000.parquet
//	DIR/account_history/…, DIR/sync_run/…, DIR/observation_gap/…
//	DIR/app/part-000.parquet
//	DIR/_manifest.json
//
// A file is written under a temporary name, read back and compared with what was written,
// renamed, and then recorded in Postgres. A crash at any point leaves the file from before,
// or a complete new one that is not recorded yet and is written again.
package archive
