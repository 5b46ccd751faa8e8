package ask

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"syncer/imclient"
	"syncer/imclient/openim"
	"syncer/imclient/tencent"
	"syncer/internal/imsim"
)

// tencentCodes reads the documented codes of Tencent, and what is to happen.
func tencentCodes(t *testing.T) map[int]imclient.Class {
	t.Helper()
	file, err := os.Open("../../imclient/tencent/testdata/error_codes.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	classes := map[string]imclient.Class{
		"retry": imclient.ClassTransient, "retry_after_slower": imclient.ClassThrottled, "reauth": imclient.ClassUnauthorised,
		"config_fatal": imclient.ClassFatal, "bad_request": imclient.ClassBadBatch, "per_user": imclient.ClassPerUser,
	}
	codes := map[int]imclient.Class{}
	for _, row := range rows[1:] {
		code, err := strconv.Atoi(row[0])
		class, ok := classes[row[1]]
		if err != nil || !ok {
			t.Fatalf("%q: %v", row, err)
		}
		codes[code] = class
	}
	codes[70009] = imclient.ClassUnauthorised // the key of another app: a fresh signature is tried first
	return codes
}

// openIMCodes are the codes that the client of OpenIM knows; its own tests compare
// them with the documents.
func openIMCodes() map[int]imclient.Class {
	codes := map[int]imclient.Class{}
	for code := range 100_000 {
		if m, ok := openim.Meaning(strconv.Itoa(code)); ok {
			codes[code] = m.Class
		}
	}
	return codes
}

// inMemory hands calls to a handler, without a network, so that time can jump.
type inMemory struct{ http.Handler }

func (h inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	return answer.Result(), nil
}

// asked is what came of asking about four users.
type asked struct {
	Observed       int
	Rejected       []string // "user code"
	Calls, Retries int64
	Failed         string // "class code" of the error
}

// ask asks about four users while the API goes wrong.
func ask[V comparable](t *testing.T, sim *imsim.Server, query API[V], f imsim.Fault) (got asked) {
	t.Helper()
	if _, err := sim.AddFault(f); err != nil {
		t.Fatal(err)
	}
	defer sim.ClearFaults()
	query.MaxBatch, query.Count = 4, func(Calls) {}
	var result Result[V]
	begun := time.Now()
	err := query.All(t.Context(), []string{"a", "b", "c", "d"}, &result)
	if took := time.Since(begun); took > BatchBudget {
		t.Errorf("it took %s, more than the budget of a batch", took)
	}
	if e, ok := errors.AsType[*imclient.Error](err); ok {
		got.Failed = e.Class.String() + " " + e.Code
	} else if err != nil {
		t.Fatal(err)
	}
	for _, answer := range result.Answers {
		got.Observed += len(answer.Observed)
		for _, rejected := range answer.Rejected {
			got.Rejected = append(got.Rejected, rejected.UserID+" "+rejected.Code)
		}
	}
	got.Calls, got.Retries = result.Calls.Made, result.Calls.Retries
	return got
}

// pauses are the codes after which the provider must not be called for longer than
// a batch is patient.
var pauses = map[int]bool{60028: true, 70050: true}

// once is what is to come of a code that is answered once.
func once(class imclient.Class, code int) asked {
	switch {
	case class == imclient.ClassThrottled && pauses[code]:
		return asked{Calls: 1, Failed: fmt.Sprintf("throttled %d", code)}
	case class == imclient.ClassTransient, class == imclient.ClassThrottled:
		return asked{Observed: 4, Calls: 2, Retries: 1}
	case class == imclient.ClassUnauthorised:
		return asked{Observed: 4, Calls: 2} // the client's second call, with a new signature or token
	case class == imclient.ClassFatal:
		return asked{Calls: 1, Failed: fmt.Sprintf("fatal %d", code)}
	default:
		return asked{Observed: 4, Calls: 3, Retries: 2} // in halves
	}
}

// always is what is to come of a code that every call is answered by.
func always(class imclient.Class, code int) asked {
	switch {
	case class == imclient.ClassThrottled && pauses[code]:
		return once(class, code)
	case class == imclient.ClassTransient, class == imclient.ClassThrottled:
		return asked{Calls: Tries, Retries: Tries - 1, Failed: fmt.Sprintf("%s %d", class, code)}
	case class == imclient.ClassFatal:
		return once(class, code)
	default: // seven nodes of a tree with four leaves
		return asked{Calls: 7, Retries: 6, Rejected: []string{fmt.Sprint("a ", code), fmt.Sprint("b ", code), fmt.Sprint("c ", code), fmt.Sprint("d ", code)}}
	}
}

// TestCodes: every documented code of both providers, and one that nobody knows,
// answered by a simulator to the real client: what is asked again, what is halved,
// what is given up and who is rejected, for a code that comes once, always, and for
// one user alone.
func TestCodes(t *testing.T) {
	t.Parallel()
	for provider, codes := range map[imclient.Provider]map[int]imclient.Class{imclient.ProviderTencent: tencentCodes(t), imclient.ProviderOpenIM: openIMCodes()} {
		if len(codes) < 30 {
			t.Fatalf("only %d codes of %s", len(codes), provider)
		}
		codes[4711] = imclient.ClassTransient
		for code, class := range codes {
			t.Run(fmt.Sprintf("%s %d", provider, code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testCode(t, provider, code, class) })
			})
		}
	}
}

func testCode(t *testing.T, provider imclient.Provider, code int, class imclient.Class) {
	const key, secret = "SIMKEY5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5", "SIMSECRETofTheServer"
	sim := imsim.New(imsim.Config{
		Tencent:    &imsim.Tencent{SDKAppID: 1400000001, Admins: []string{"administrator"}, SecretKey: key},
		OpenIM:     &imsim.OpenIM{AdminUserID: "imAdmin", Secret: secret},
		Population: &imsim.Rounds{},
	})
	const base = "http://im.example"
	var client interface {
		QueryPresence(context.Context, []string) (imclient.Answer[imclient.Presence], error)
		CheckAccounts(context.Context, []string) (imclient.Answer[imclient.AccountStatus], error)
		Close()
	}
	var err error
	if provider == imclient.ProviderTencent {
		client, err = tencent.New(tencent.Config{SDKAppID: 1400000001, Identifier: "administrator", SecretKey: key, BaseURL: base, HTTPConfig: imclient.HTTPConfig{Transport: inMemory{sim}}})
	} else {
		client, err = openim.New(openim.Config{AdminUserID: "imAdmin", Secret: secret, BaseURL: base, HTTPConfig: imclient.HTTPConfig{Transport: inMemory{sim}}})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	presence, accounts := API[imclient.Presence]{Query: client.QueryPresence}, API[imclient.AccountStatus]{Query: client.CheckAccounts}
	check := func(what string, want asked, f imsim.Fault) {
		t.Helper()
		f.Code = code
		for kind, got := range map[imclient.Kind]asked{imclient.KindPresence: ask(t, sim, presence, f), imclient.KindAccounts: ask(t, sim, accounts, f)} {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, answered %s (-want +got):\n%s", kind, what, diff)
			}
		}
	}
	check("once", once(class, code), imsim.Fault{Kind: imsim.FaultCode, Times: 1})
	if class != imclient.ClassUnauthorised { // that may pass; see TestTokens_refusedAgain and TestCall_refusedAgain of the clients
		check("always", always(class, code), imsim.Fault{Kind: imsim.FaultCode})
	}
	if class == imclient.ClassBadBatch || class == imclient.ClassPerUser {
		// As a whole for one user: abcd, ab, a, b, cd.
		check("for b", asked{Observed: 3, Rejected: []string{fmt.Sprint("b ", code)}, Calls: 5, Retries: 4}, imsim.Fault{Kind: imsim.FaultPoison, IDs: []string{"b"}})
	}
	if provider != imclient.ProviderTencent || class == imclient.ClassThrottled { // a limit is never about one user
		return
	}
	// In the list of those who fail each for itself: for good, or asked once more.
	want := asked{Observed: 3, Rejected: []string{fmt.Sprint("b ", code)}, Calls: 1}
	if class == imclient.ClassTransient {
		want.Calls = 2
	}
	check("for b in the list", want, imsim.Fault{Kind: imsim.FaultUserCode, IDs: []string{"b"}})
}
