package tencent

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"syncer/imclient"
)

func TestCheckAccounts(t *testing.T) {
	type answer = imclient.Answer[imclient.AccountStatus]
	is := func(id string, status imclient.AccountStatus) imclient.Observed[imclient.AccountStatus] {
		return imclient.Observed[imclient.AccountStatus]{UserID: id, Value: status}
	}
	type many = []imclient.Observed[imclient.AccountStatus]
	const aImported = `{"UserID":"a","ResultCode":0,"ResultInfo":"","AccountStatus":"Imported"}`
	for name, tc := range map[string]struct {
		ids     []string
		answers []http.HandlerFunc
		want    answer
	}{
		"the document's sample": {
			ids:     []string{"a", "b"},
			answers: []http.HandlerFunc{ok(`"ResultItem":[` + aImported + `,{"UserID":"b","ResultCode":0,"ResultInfo":"","AccountStatus":"NotImported"}]`)},
			want:    answer{Observed: many{is("a", imclient.StatusImported), is("b", imclient.StatusNotImported)}, Calls: 1},
		},
		"items that fail": {
			ids: []string{"a", "b", "c", "d"},
			answers: []http.HandlerFunc{
				ok(`"ResultItem":[` + aImported + `,{"UserID":"b","ResultCode":70107,"ResultInfo":"Err_Account_Not_Exist ` + testSecret + `"},
					{"UserID":"c","ResultCode":70169},{"UserID":"d","ResultCode":"70500","AccountStatus":"Imported"}]`),
				ok(`"ResultItem":[{"UserID":"c","ResultCode":70169,"ResultInfo":"timeout"},{"UserID":"d","ResultCode":0,"AccountStatus":"NotImported"}]`),
			},
			want: answer{Observed: many{is("a", imclient.StatusImported), is("d", imclient.StatusNotImported)}, Calls: 2,
				Rejected: []imclient.UserError{rejected("b", "70107", "Err_Account_Not_Exist [redacted]"), rejected("c", "70169", "timeout")}},
		},
		"a code that is none costs the others nothing": {
			ids: []string{"a", "b", "c"},
			answers: []http.HandlerFunc{
				ok(`"ResultItem":[` + aImported + `,{"UserID":"b","ResultCode":"none","AccountStatus":"Imported"},{"UserID":"c","ResultCode":"","AccountStatus":"NotImported"}]`),
				ok(`"ResultItem":[{"UserID":"b","ResultCode":null,"AccountStatus":"Imported"}]`),
			},
			want: answer{Observed: many{is("a", imclient.StatusImported), is("b", imclient.StatusImported), is("c", imclient.StatusNotImported)}, Calls: 2},
		},
		"missing, placeholder, repeated, unasked, no status, no code": {
			ids: []string{"a", "b", "c", "d"},
			answers: []http.HandlerFunc{
				ok(`"ResultItem":[` + aImported + `,{"UserID":"a","AccountStatus":"NotImported"},{"UserID":"@TLS#NOT_FOUND","AccountStatus":"Imported"},
					{"UserID":"z","AccountStatus":"Imported"},{"UserID":"c","ResultCode":0},{"UserID":"d","AccountStatus":"NotImported"}]`),
				ok(`"ResultItem":[{"UserID":"c","ResultCode":0,"AccountStatus":"Frozen"}]`),
			},
			want: answer{Observed: many{is("a", imclient.StatusImported), is("d", imclient.StatusNotImported)}, Unasked: 1, Calls: 2,
				Rejected: []imclient.UserError{rejected("b", imclient.CodeMissing, missingText),
					rejected("c", imclient.CodeUnknownValue, `the answer has no known import status: "Frozen"`)}},
		},
		"ids that must not be sent": {
			ids:     []string{"a", "früh"},
			answers: []http.HandlerFunc{ok(`"ResultItem":[` + aImported + `]`)},
			want: answer{Observed: many{is("a", imclient.StatusImported)}, Calls: 1, Rejected: []imclient.UserError{
				rejected("früh", imclient.CodeInvalidID, "the user id has the byte 0xc3, only printable ASCII is allowed")}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, tc.answers...)
			got, err := s.client().CheckAccounts(t.Context(), tc.ids)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, ignoreTimes[imclient.AccountStatus]()); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCheckAccounts_wrongTypes: an answer in which no user is to be found is no
// failure of users.
func TestCheckAccounts_wrongTypes(t *testing.T) {
	for _, results := range []string{`{"UserID":"a"}`, `"none"`, `[7]`, `[{"UserID":1,"ResultCode":"none","AccountStatus":false}]`} {
		answer, err := newServer(t, ok(`"ResultItem":`+results)).client().CheckAccounts(t.Context(), []string{"a"})
		if err == nil || imclient.ClassOf(err) != imclient.ClassTransient || answer.Rejected != nil {
			t.Errorf("%s: %+v, %v", results, answer, err)
		}
	}
}

func TestCheckAccounts_request(t *testing.T) {
	s := newServer(t, ok(`"ResultItem":[{"UserID":"a","AccountStatus":"Imported"},{"UserID":"b","AccountStatus":"Imported"}]`))
	if _, err := s.client().CheckAccounts(t.Context(), []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	want := []request{{Path: "POST /v4/im_open_login_svc/account_check", Body: `{"CheckItem":[{"UserID":"a"},{"UserID":"b"}]}`}}
	if diff := cmp.Diff(want, s.requests(), cmpopts.IgnoreUnexported(request{})); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestPing(t *testing.T) {
	s := newServer(t, ok(`"ResultItem":[{"UserID":"`+testAdmin+`","AccountStatus":"NotImported"}]`), fails(70403, ""))
	c := s.client()
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if got, want := s.requests()[0].Body, `{"CheckItem":[{"UserID":"admin\u0026co"}]}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	if err := c.Ping(t.Context()); imclient.ClassOf(err) != imclient.ClassFatal {
		t.Errorf("no admin right: %v", err)
	}
}
