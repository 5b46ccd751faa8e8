package repo_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"syncer/internal/pg"
	"syncer/repo"
	"syncer/repo/userstable"
)

// refusingServer asks for a password, and then refuses it.
func refusingServer(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			refuse(conn)
		}
	}()
	return listener.Addr().String()
}

func refuse(conn net.Conn) {
	defer conn.Close()
	backend := pgproto3.NewBackend(conn, conn)
	if _, err := backend.ReceiveStartupMessage(); err != nil {
		return
	}
	backend.Send(&pgproto3.AuthenticationCleartextPassword{})
	if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	if _, err := backend.Receive(); err != nil {
		return
	}
	backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: `password authentication failed for user "syncer"`})
	_ = backend.Flush()
}

func TestErrorsTellNoPassword(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ url, want string }{
		"port":            {"postgres://syncer:s3cr3t@localhost:notaport/app", "cannot be read as postgres://"},
		"slash":           {"postgres://syncer:s3cr/3t@localhost/app", "cannot be read as postgres://"},
		"percent":         {"postgres://syncer:%zzs3cr3t@localhost/app", "cannot be read as postgres://"},
		"at":              {"postgresql://syncer:s3cr@3t@:none/app", "cannot be read as postgres://"},
		"option":          {"postgres://syncer:s3cr3t@localhost/app?sslmode=no", "cannot be read as postgres://"},
		"in the query":    {"postgres://localhost:1x/app?password=s3cr3t&sslmode=no", "cannot be read as postgres://"},
		"keywords":        {"host=localhost password=s3cr3t port=none", "cannot be read as postgres://"},
		"spaced keywords": {"host=localhost password=x s3cr3t user=syncer", "cannot be read as postgres://"},
		"scheme":          {"mysql://syncer:s3cr3t@localhost/app", "cannot be read as postgres://"},
		"refused":         {"postgres://syncer:s3cr3t@127.0.0.1:1/app?sslmode=disable", "connection refused"},
		"wrong":           {"postgres://syncer:s3cr3t@" + refusingServer(t) + "/app?sslmode=disable", "password authentication failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, err := repo.Open(t.Context(), pg.Config{URL: test.url, Schema: "syncer", MaxConns: 1, Process: "p"})
			if err == nil {
				store.Close()
				t.Fatal("Open succeeded")
			}
			wantNoSecret(t, err, test.want)
			users, err := userstable.Open(t.Context(), userstable.Config{URL: test.url, Table: []string{"users"}, KeyColumn: "id", UserID: "id"})
			if err == nil {
				err = users.Check(t.Context())
				users.Close()
			}
			wantNoSecret(t, err, test.want)
		})
	}
}

// wantNoSecret looks for pieces of the password in an error and all its causes.
func wantNoSecret(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v does not say %q", err, want)
	}
	for ; err != nil; err = errors.Unwrap(err) {
		for _, part := range []string{"s3cr", "3t", "%zz"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("the error tells %q: %v", part, err)
			}
		}
	}
}
