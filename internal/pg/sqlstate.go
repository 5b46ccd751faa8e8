package pg

import (
	"errors"

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
