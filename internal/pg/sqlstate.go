package pg

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs on which decisions depend. Source: PostgreSQL, Appendix A.
const (
	CharacterNotInRepertoire = "22021"
	DeadlockDetected         = "40P01"
	IdleInTransactionTimeout = "25P03"
	InsufficientPrivilege    = "42501"
	InvalidParameterValue    = "22023"
	InvalidSchemaName        = "3F000"
	LockNotAvailable         = "55P03"
	QueryCanceled            = "57014"
	SerializationFailure     = "40001"
	UndefinedObject          = "42704"
	UndefinedTable           = "42P01"
	UniqueViolation          = "23505"
	UntranslatableCharacter  = "22P05"

	protocolViolation = "08P01"
)

// SQLState returns the SQLSTATE of an error that Postgres reported, "" for any other.
func SQLState(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// Lost reports whether an error of a statement says that there is no connection to
// Postgres: it was lost, refused or not made in time, or the server is starting, stopping
// or has crashed (SQLSTATE classes 08 and 57P). It returns false for a statement that was
// not answered in time, which may wait for a lock, and if this machine lacks file
// descriptors, because waiting for Postgres does not help then.
func Lost(err error) bool {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return false
	}
	if code := SQLState(err); code != "" {
		return strings.HasPrefix(code, "08") && code != protocolViolation || strings.HasPrefix(code, "57P")
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) {
		return false
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		strings.Contains(err.Error(), "conn closed") // pgconn has no value for it
}
