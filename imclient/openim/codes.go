package openim

import (
	"net/http"
	"strconv"
	"strings"

	"syncer/imclient"
)

// What to do about a code. The names are those of an app's settings.
const (
	fixAdmin  = "make admin_user_id one of the server's admin users (imAdminUserID in its configuration)"
	fixSecret = "check secret against that of the server's configuration (share.yml); admin_user_id was not looked at"
	fixUser   = "make admin_user_id one of the server's admin users (imAdminUserID in share.yml); secret is right"
	fixLogin  = "check secret and admin_user_id against the server's configuration (share.yml)"
	fixToken  = "the server has refused the tokens of several logins, each just issued: check that nothing else logs in as admin_user_id or logs it out, and the clocks of its machines"
	fixPath   = "check base_url: this address does not serve OpenIM's API"
	fixOther  = "the server cannot serve this call; see its log under the operationID"
)

// Codes that are examined one by one. Source: OpenIM's predefined errors.
const (
	codeUnknown       = 2 // gRPC
	codeExhausted     = 8 // gRPC
	codeTooMany       = 429
	codeInternal      = 500
	codeNotYetValid   = 1504
	tooLargeWords     = "larger than max" // gRPC's words for a message above its limit
	argumentErrorName = "ArgsError"
)

// classes holds the codes with which OpenIM v3 answers these calls. 1 to 16 are gRPC's,
// which releases up to v3.8.3 pass on. A code that is not in the table is transient.
//
// A wrong argument or record (1001, 1004, 1101 and similar) may be the fault of one id,
// which ClassBadBatch lets the caller find. Our settings cannot cause them: headers and
// tokens are always sent, and a user who is not an administrator gets 1002.
var classes = map[int]imclient.Class{
	1:               imclient.ClassTransient, // cancelled
	codeUnknown:     imclient.ClassTransient,
	3:               imclient.ClassBadBatch,  // invalid argument
	4:               imclient.ClassTransient, // deadline exceeded
	5:               imclient.ClassBadBatch,  // not found
	6:               imclient.ClassFatal,     // already exists
	7:               imclient.ClassFatal,     // permission denied
	codeExhausted:   imclient.ClassBadBatch,  // message too large, or a limiter: see classOf
	9:               imclient.ClassFatal,     // failed precondition
	10:              imclient.ClassTransient, // aborted
	11:              imclient.ClassBadBatch,  // out of range
	12:              imclient.ClassFatal,     // unimplemented
	13:              imclient.ClassTransient, // internal
	14:              imclient.ClassTransient, // unavailable: a service is down
	15:              imclient.ClassFatal,     // data loss
	16:              imclient.ClassFatal,     // unauthenticated
	codeTooMany:     imclient.ClassThrottled,
	codeInternal:    imclient.ClassTransient, // Redis, Mongo or a service down
	1001:            imclient.ClassBadBatch,  // ArgsError
	1002:            imclient.ClassFatal,     // NoPermissionError
	1003:            imclient.ClassFatal,     // DuplicateKeyError
	1004:            imclient.ClassBadBatch,  // RecordNotFoundError
	1101:            imclient.ClassBadBatch,  // UserIDNotFoundError
	1102:            imclient.ClassFatal,     // RegisteredAlreadyError
	1501:            imclient.ClassUnauthorised,
	1502:            imclient.ClassUnauthorised,
	1503:            imclient.ClassUnauthorised,
	codeNotYetValid: imclient.ClassTransient, // the clocks of the server's machines differ: passes
	1505:            imclient.ClassUnauthorised,
	1506:            imclient.ClassUnauthorised,
	1507:            imclient.ClassUnauthorised,
	1520:            imclient.ClassFatal, // OrgUserNoPermissionError
	80000:           imclient.ClassFatal, // a callback of the server failed
	90002:           imclient.ClassTransient,
	90004:           imclient.ClassTransient,
	90007:           imclient.ClassFatal,
}

// meaningOf returns what a code means. Where a code stands for several things, the HTTP
// status and the words distinguish them.
func meaningOf(code, httpStatus int, text string) imclient.Meaning {
	m := imclient.Meaning{Class: classes[code]}
	switch {
	case code == codeInternal && httpStatus == http.StatusBadRequest:
		m.Class = imclient.ClassBadBatch // the request could not be read
	case (code == codeInternal || code == codeExhausted) && strings.Contains(text, tooLargeWords):
		m.Class = imclient.ClassBadBatch
	case code == codeExhausted && strings.Contains(text, "limit"):
		m.Class = imclient.ClassThrottled // a service's own rate limiter
	case code == codeUnknown && strings.Contains(text, argumentErrorName):
		m.Class = imclient.ClassBadBatch // how v3.8.0 passes on some argument errors
	case httpStatus == http.StatusTooManyRequests:
		m.Class = imclient.ClassThrottled
	}
	if m.Class == imclient.ClassFatal {
		m.Says = adviceOn(code)
	}
	return m
}

// Meaning returns what the code of a user's failure means. It reports false for an
// unknown code.
func Meaning(code string) (m imclient.Meaning, ok bool) {
	n, err := strconv.Atoi(code)
	if err != nil {
		return m, false
	}
	if _, ok = classes[n]; ok {
		m = meaningOf(n, http.StatusOK, "")
	}
	return m, ok
}

// loginAdvice returns what to do about a login refused with a code. The server checks the
// secret first. Source: captured answers.
func loginAdvice(code string) string {
	switch code {
	case "1002":
		return fixSecret
	case "1001", "1004":
		return fixUser
	default:
		return fixLogin
	}
}

// adviceOn returns what to do about a fatal code.
func adviceOn(code int) string {
	switch code {
	case 7, 16, 1002, 1520:
		return fixAdmin
	case 12:
		return fixPath
	default:
		return fixOther
	}
}
