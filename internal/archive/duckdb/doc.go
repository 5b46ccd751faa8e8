// Package duckdb tests that others read what syncer archives: DuckDB, with the SQL of
// docs/archive.md, and Apache Arrow's reader. It is a module of its own because DuckDB is a
// C++ library, which must not come near the program.
package duckdb
