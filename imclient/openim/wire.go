package openim

import (
	"bytes"
	"encoding/json"
	"slices"
)

// The names in the tags are OpenIM's. Rows also carry connID and token, which
// is the user's live session: they have no field here, so that they are dropped
// while decoding and cannot reach anything else.

// status is what every reply begins with.
type status struct {
	Code   json.Number `json:"errCode"` // "": the body is no reply of the API
	Msg    string      `json:"errMsg"`
	Detail string      `json:"errDlt"`
}

func (s *status) envelope() *status { return s }

// wireReply is any reply.
type wireReply interface {
	envelope() *status // the part that all have
	// says reports whether anything is said about anybody.
	says() bool
}

// word is a value that is a number since v3.8.1 and a string before; it keeps
// the text of either.
type word string

// UnmarshalJSON takes a number or a string, and "" for all else.
func (w *word) UnmarshalJSON(b []byte) error {
	*w = ""
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return nil
	}
	switch c := b[0]; {
	case c == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*w = word(s)
	case c == '-' || c >= '0' && c <= '9':
		*w = word(b)
	}
	return nil
}

type presenceRequest struct {
	UserIDs []string `json:"userIDs"`
}

// presenceReply is the answer of get_users_online_status; data is absent or null
// for an empty list.
type presenceReply struct {
	status
	Users []presenceUser `json:"data"`
}

func (r *presenceReply) says() bool {
	return slices.ContainsFunc(r.Users, func(u presenceUser) bool { return u.UserID != "" })
}

type presenceUser struct {
	UserID  string   `json:"userID"`
	Status  word     `json:"status"`               // 1, 0; before v3.8.1 online, offline
	Devices []device `json:"detailPlatformStatus"` // null when offline
}

// device is one connection; a user may have several on one platform.
type device struct {
	PlatformID word   `json:"platformID"` // since v3.8.1
	Platform   string `json:"platform"`   // before v3.8.1: its name
	Status     word   `json:"status"`     // before v3.8.1 only
	Background bool   `json:"isBackground"`
}

type statusRequest struct {
	UserID  string   `json:"userID"` // the caller
	UserIDs []string `json:"userIDs"`
}

// statusReply is the answer of get_users_status.
type statusReply struct {
	status
	Data struct {
		Users []userStatus `json:"statusList"`
	} `json:"data"`
}

func (r *statusReply) says() bool {
	return slices.ContainsFunc(r.Data.Users, func(u userStatus) bool { return u.UserID != "" })
}

type userStatus struct {
	UserID      string `json:"userID"`
	Status      word   `json:"status"`
	PlatformIDs []word `json:"platformIDs"` // null when offline
}

type accountsRequest struct {
	UserIDs []string `json:"checkUserIDs"`
}

// accountsReply is the answer of account_check.
type accountsReply struct {
	status
	Data struct {
		Results []accountResult `json:"results"`
	} `json:"data"`
}

func (r *accountsReply) says() bool {
	return slices.ContainsFunc(r.Data.Results, func(u accountResult) bool { return u.UserID != "" })
}

type accountResult struct {
	UserID string `json:"userID"`
	Status word   `json:"accountStatus"` // 1, 0; before v3.8.1 registered, unregistered
}

// loginRequest is the body of get_admin_token, and with PlatformID of user_token.
type loginRequest struct {
	Secret     string `json:"secret"`
	PlatformID int    `json:"platformID,omitempty"`
	UserID     string `json:"userID"`
}

// loginReply is the answer of both.
type loginReply struct {
	status
	Data struct {
		Token  string `json:"token"`
		Expire int64  `json:"expireTimeSeconds"` // a lifetime, not a time
	} `json:"data"`
}

// says: a login that holds no token is its caller's to judge.
func (*loginReply) says() bool { return true }
