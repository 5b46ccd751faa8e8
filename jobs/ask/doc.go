// Package ask asks one API of an app about any number of users: in batches, with
// retries, by bisection of the batches that the API refuses, and behind a circuit
// breaker. It knows the API only as a function and nothing of Postgres. Package
// jobs, its only user, decides what becomes of the answers; package imclient has
// the values and the error classes that it goes by.
package ask
