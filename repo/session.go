package repo

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// unlimited are timeouts that role, database or server may set for all sessions, and
// that sessions of the store turn off. The store bounds its own waits, see boundWaits
// and giveUpAfter; these would cut the idle listener of the queue again and again, and
// never let maintenance of large tables finish.
var unlimited = []string{"idle_session_timeout", "statement_timeout", "lock_timeout"}

// unlimitedTransactionSQL does the same for transaction_timeout, which servers before
// version 17 do not know: as a parameter it would make them refuse the connection.
const unlimitedTransactionSQL = `
SELECT set_config(name, '0', false)
FROM pg_settings
WHERE name = 'transaction_timeout' AND setting <> '0'`

// overrideSession makes sessions independent of the settings of role, database and
// server. A parameter in the URL stays, because it was given for this program. Not for
// connections to a pooler, which refuses such parameters.
func overrideSession(c *pgxpool.Config) {
	params := c.ConnConfig.RuntimeParams
	params["default_transaction_isolation"] = isolation
	for _, name := range unlimited {
		if _, ok := params[name]; !ok {
			params[name] = "0"
		}
	}
	if _, ok := params["transaction_timeout"]; ok {
		return
	}
	c.ConnConfig.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		return conn.Exec(ctx, unlimitedTransactionSQL).Close()
	}
}

// speakUTF8 makes connections exchange text in UTF-8, whatever role, database, server or
// URL set.
func speakUTF8(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["client_encoding"] = utf8Encoding }
