package tencent

import (
	"bytes"
	"encoding/json"
	"slices"
)

// The code of a reply is a json.Number because a plain int would turn a code of the
// wrong type into 0, success. The names in the tags are Tencent's, case-sensitive, and used nowhere else.

// status is what every reply begins with.
type status struct {
	ActionStatus string      `json:"ActionStatus"`
	ErrorInfo    string      `json:"ErrorInfo"`
	ErrorCode    json.Number `json:"ErrorCode"` // "": the body is no reply of the API
}

func (s *status) envelope() *status { return s }

// wireReply is any reply.
type wireReply interface {
	envelope() *status // the part that all have
	// says reports whether anything is said about anybody.
	says() bool
}

// presenceRequest is the body of query_online_status and of querystate.
type presenceRequest struct {
	NeedDetail int      `json:"IsNeedDetail,omitempty"` // 1: with the devices
	Accounts   []string `json:"To_Account"`
}

// presenceReply is the answer of both.
type presenceReply struct {
	status
	Results []presenceResult `json:"QueryResult"`
	// Failed holds the accounts that failed each for itself.
	Failed []presenceFailure `json:"ErrorList"`

	devices []device // of all users, when read by quick
}

func (r *presenceReply) says() bool {
	return slices.ContainsFunc(r.Results, func(u presenceResult) bool { return u.Account != "" }) ||
		slices.ContainsFunc(r.Failed, func(f presenceFailure) bool { return f.Account != "" })
}

// presenceResult is one user. query_online_status is documented with Status,
// and with State in its English samples; querystate with State; real answers
// were seen with both.
type presenceResult struct {
	Account string   `json:"To_Account"`
	State   string   `json:"State"`
	Status  string   `json:"Status"`
	Devices []device `json:"Detail"` // absent, null and [] mean the same
}

// device is one platform on which the user is, or was, logged in.
type device struct {
	Platform string `json:"Platform"`
	Status   string `json:"Status"`
}

type presenceFailure struct {
	Account string   `json:"To_Account"`
	Code    userCode `json:"ErrorCode"`
}

// userCode is the code of one user as it is written, "" for none. Nothing that
// stands there is an error: one user's must not cost the others their answer.
type userCode string

// UnmarshalJSON takes the text of any value.
func (c *userCode) UnmarshalJSON(b []byte) error {
	if *c = ""; !bytes.Equal(b, []byte("null")) {
		*c = userCode(bytes.Trim(b, `"`))
	}
	return nil
}

// accountsRequest is the body of account_check.
type accountsRequest struct {
	Items []accountItem `json:"CheckItem"`
}

type accountItem struct {
	UserID string `json:"UserID"`
}

// accountsReply is the answer of account_check.
type accountsReply struct {
	status
	Results []accountResult `json:"ResultItem"`
}

func (r *accountsReply) says() bool {
	return slices.ContainsFunc(r.Results, func(u accountResult) bool { return u.UserID != "" })
}

type accountResult struct {
	UserID string   `json:"UserID"`
	Code   userCode `json:"ResultCode"`
	Info   string   `json:"ResultInfo"`
	Status string   `json:"AccountStatus"`
}
