package pg

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// UTF8 is Postgres's name of UTF-8.
const UTF8 = "UTF8"

// A connection can be lost without a sign at either end: a firewall dropped its state, the
// other machine is gone, a proxy hangs. The system would wait for a quarter of an hour
// or without end, so all waits are bounded: connecting, the check of an idle connection,
// and each statement (Config.AnswerWithin).
const (
	connectTimeout = 10 * time.Second // of each host, unless the URL has connect_timeout
	pingTimeout    = 5 * time.Second
)

// boundConnecting bounds the waits that do not belong to a statement.
func boundConnecting(c *pgxpool.Config) {
	if c.ConnConfig.ConnectTimeout == 0 { // the pool's default is two minutes
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	c.PingTimeout = pingTimeout
	// Detects a machine that is gone, also during statements without a deadline.
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	c.ConnConfig.DialFunc = dialer.DialContext
}

// dropReadOnly closes, instead of reusing, sessions that refuse to write because the
// server is a standby or was read-only when they began. A new one may reach another
// host. Servers since version 14 report both settings unasked.
func dropReadOnly(c *pgxpool.Config) {
	c.AfterRelease = func(conn *pgx.Conn) bool {
		reported := conn.PgConn().ParameterStatus
		return reported("in_hot_standby") != "on" && reported("default_transaction_read_only") != "on"
	}
}

// onlyRead makes the sessions read-only and, unless limit is 0, ends their statements
// after it.
func onlyRead(params map[string]string, limit time.Duration) {
	params["default_transaction_read_only"] = "on"
	if limit > 0 {
		params["statement_timeout"] = strconv.FormatInt(limit.Milliseconds(), 10)
	}
}

// endSilent makes Postgres end sessions whose process is silent: idle in a transaction
// because it is frozen, or on a machine that is out of reach, for which the system would
// probe only after two hours. Over a Unix socket the TCP settings have no effect.
func endSilent(params map[string]string, after time.Duration) {
	const probes = 3
	milliseconds := strconv.FormatInt(after.Milliseconds(), 10)
	params["idle_in_transaction_session_timeout"] = milliseconds
	params["tcp_keepalives_idle"] = strconv.Itoa(max(1, int(after/(2*time.Second))))
	params["tcp_keepalives_interval"] = strconv.Itoa(max(1, int(after/(2*probes*time.Second))))
	params["tcp_keepalives_count"] = strconv.Itoa(probes)
	params["tcp_user_timeout"] = milliseconds // while data is in flight there are no probes
}

// unlimited are timeouts that role, database or server may set for all sessions. They
// would cut the idle listener of the queue again and again, and never let maintenance of
// large tables finish; the DB has bounds of its own.
var unlimited = []string{"idle_session_timeout", "statement_timeout", "lock_timeout"}

// unlimitedTransactionSQL turns off transaction_timeout, which servers before version 17
// do not know: as a parameter it would make them refuse the connection.
const unlimitedTransactionSQL = `
SELECT set_config(name, '0', false)
FROM pg_settings
WHERE name = 'transaction_timeout' AND setting <> '0'`

// overrideSession makes sessions independent of the settings of role, database and
// server. A parameter in the URL stays, because it was given for this program. Not for
// connections to a pooler, which refuses such parameters.
func overrideSession(c *pgxpool.Config) {
	params := c.ConnConfig.RuntimeParams
	params["default_transaction_isolation"] = string(isolation)
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

// returnTimesIn makes statements return timestamps in a zone.
func returnTimesIn(c *pgxpool.Config, location *time.Location) {
	c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: location},
		})
		return nil
	}
}
