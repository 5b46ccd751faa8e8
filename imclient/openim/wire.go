package openim

import (
	"strconv"
	"strings"

	"syncer/imclient"
)

// The names in the answers are OpenIM's. Users also carry connID and token, which is the
// user's live session. They have no name here, so that decoding skips them and nothing
// else can see them.

// How many bytes are kept of a user id (one more than can be asked about), of the words
// about a call, and of a token (one more than a header takes).
const (
	keptID   = maxUserIDBytes + 1
	keptText = 4 << 10
	maxToken = 8 << 10
)

// status is the part that all answers share.
type status struct {
	Code   string // "": the body is not an answer of the API
	Msg    string
	Detail string
}

// Envelope implements imclient.Body.
func (s *status) Envelope() imclient.Envelope {
	text := s.Msg
	if s.Detail != "" && !strings.Contains(s.Msg, s.Detail) {
		text += ": " + s.Detail
	}
	return imclient.Envelope{Code: s.Code, Text: text}
}

// readMember reads a member of an answer; data reads its data.
func (s *status) readMember(d *imclient.Decoder, name []byte, data func()) {
	switch string(name) {
	case "errCode":
		s.Code = d.Scalar()
	case "errMsg":
		s.Msg = d.Text(keptText)
	case "errDlt":
		s.Detail = d.Text(keptText)
	case "data":
		data()
	}
}

// readField reads an object of which only the field of one name counts.
func readField(d *imclient.Decoder, name string, read func()) {
	d.Object(func(field []byte) {
		if string(field) == name {
			read()
		}
	})
}

type presenceRequest struct {
	UserIDs []string `json:"userIDs"`
}

// presenceReply is the answer of get_users_online_status; data is absent or null for an
// empty list.
type presenceReply struct {
	status
	Users []presenceUser
}

type presenceUser struct {
	UserID    string
	Status    string // 1, 0; before v3.8.1 online, offline
	Platforms imclient.Platforms
	Unknown   int // devices whose platform is unknown
}

// Reset implements imclient.Body.
func (r *presenceReply) Reset() { *r = presenceReply{Users: r.Users[:0]} }

// ReadMember implements imclient.Body.
func (r *presenceReply) ReadMember(d *imclient.Decoder, name []byte, asked int) {
	r.readMember(d, name, func() { r.readUsers(d, asked) })
}

func (r *presenceReply) readUsers(d *imclient.Decoder, asked int) {
	d.Users(asked, func() {
		r.Users = append(r.Users, presenceUser{})
		u := &r.Users[len(r.Users)-1]
		d.Object(func(name []byte) {
			switch string(name) {
			case "userID":
				u.UserID = d.UserID(keptID)
			case "status":
				u.Status = d.Scalar()
			case "detailPlatformStatus": // null when offline
				d.Array(func() { u.add(readDevice(d)) })
			case "platformIDs": // of get_users_status; null when offline
				d.Array(func() { u.add(device{PlatformID: d.Scalar()}) })
			}
		})
	})
}

// add adds a connection to the platforms, instead of to a list of hundreds.
func (u *presenceUser) add(d device) {
	if d.Status == "offline" || d.Status == "0" {
		return
	}
	mode := imclient.ModeOnline
	if d.Background {
		mode = imclient.ModeBackground
	}
	platform, ok := platformOf(d)
	if !ok {
		u.Unknown++
	}
	u.Platforms.Add(platform, mode)
}

// device is one connection; a user may have several on one platform.
type device struct {
	PlatformID string // since v3.8.1
	Platform   string // before v3.8.1: its name
	Status     string // before v3.8.1 only
	Background bool
}

func readDevice(d *imclient.Decoder) (v device) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "platformID":
			v.PlatformID = d.Scalar()
		case "platform":
			v.Platform = d.Word()
		case "status":
			v.Status = d.Scalar()
		case "isBackground":
			v.Background = d.Bool()
		}
	})
	return v
}

type statusRequest struct {
	UserID  string   `json:"userID"` // the caller
	UserIDs []string `json:"userIDs"`
}

// statusReply is the answer of get_users_status.
type statusReply struct{ presenceReply }

// ReadMember implements imclient.Body.
func (r *statusReply) ReadMember(d *imclient.Decoder, name []byte, asked int) {
	r.readMember(d, name, func() { readField(d, "statusList", func() { r.readUsers(d, asked) }) })
}

type accountsRequest struct {
	UserIDs []string `json:"checkUserIDs"`
}

// accountsReply is the answer of account_check.
type accountsReply struct {
	status
	Results []accountResult
}

type accountResult struct {
	UserID string
	Status string // 1, 0; before v3.8.1 registered, unregistered
}

// Reset implements imclient.Body.
func (r *accountsReply) Reset() { *r = accountsReply{Results: r.Results[:0]} }

// ReadMember implements imclient.Body.
func (r *accountsReply) ReadMember(d *imclient.Decoder, name []byte, asked int) {
	r.readMember(d, name, func() {
		readField(d, "results", func() {
			d.Users(asked, func() { r.Results = append(r.Results, readAccount(d)) })
		})
	})
}

func readAccount(d *imclient.Decoder) (v accountResult) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "userID":
			v.UserID = d.UserID(keptID)
		case "accountStatus":
			v.Status = d.Scalar()
		}
	})
	return v
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
	Token  string
	Expire int64 // seconds; a lifetime, not a time
}

// Reset implements imclient.Body.
func (r *loginReply) Reset() { *r = loginReply{} }

// ReadMember implements imclient.Body.
func (r *loginReply) ReadMember(d *imclient.Decoder, name []byte, _ int) {
	r.readMember(d, name, func() {
		d.Object(func(name []byte) {
			switch string(name) {
			case "token":
				r.Token = d.Text(maxToken + 1)
			case "expireTimeSeconds":
				r.Expire, _ = strconv.ParseInt(d.Scalar(), 10, 64)
			}
		})
	})
}
