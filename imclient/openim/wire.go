package openim

import (
	"slices"
	"strconv"

	"syncer/imclient"
)

// The names here are OpenIM's. Rows also carry connID and token, which is the
// user's live session: they have no name here, so that they are skipped while
// decoding and cannot reach anything else.

// Of what an answer says so many bytes are kept: of a user id one more than can
// be asked about, of a word more than any that we know.
const (
	keptID   = maxUserIDBytes + 1
	keptWord = 64
	keptText = 4 << 10
)

// status is what every reply begins with.
type status struct {
	Code   string // "": the body is no reply of the API
	Msg    string
	Detail string
}

func (s *status) envelope() *status { return s }

// readReply reads a reply; data reads its data. It reports whether it was whole.
func (s *status) readReply(d *imclient.Decoder, data func()) (whole bool) {
	return d.Answer(func(name []byte) {
		switch string(name) {
		case "errCode":
			s.Code = string(d.Scalar(keptWord))
		case "errMsg":
			s.Msg = string(d.Text(keptText))
		case "errDlt":
			s.Detail = string(d.Text(keptText))
		case "data":
			data()
		default:
			d.Skip()
		}
	})
}

// wireReply is any reply.
type wireReply interface {
	envelope() *status // the part that all have
	// read reads the reply to a question about asked users. Nothing is left of the
	// one before, and nothing is kept of one that is not whole.
	read(d *imclient.Decoder, asked int)
	// says reports whether anything is said about anybody.
	says() bool
}

// word returns the text of a value that is a number since v3.8.1 and a string
// before; those that come all the time are not allocated.
func word(v []byte) string {
	switch string(v) {
	case "0":
		return "0"
	case "1":
		return "1"
	case "online":
		return "online"
	case "offline":
		return "offline"
	case "registered":
		return "registered"
	case "unregistered":
		return "unregistered"
	default:
		return string(v)
	}
}

type presenceRequest struct {
	UserIDs []string `json:"userIDs"`
}

// presenceReply is the answer of get_users_online_status, and of
// get_users_status; data is absent or null for an empty list.
type presenceReply struct {
	status
	Users []presenceUser
}

type presenceUser struct {
	UserID    string
	Status    string // 1, 0; before v3.8.1 online, offline
	Platforms imclient.Platforms
	Unknown   int // devices whose platform is not known
}

func (r *presenceReply) says() bool {
	return slices.ContainsFunc(r.Users, func(u presenceUser) bool { return u.UserID != "" })
}

func (r *presenceReply) read(d *imclient.Decoder, asked int) {
	*r = presenceReply{Users: r.Users[:0]}
	if !r.readReply(d, func() { r.readUsers(d, asked) }) {
		*r = presenceReply{}
	}
}

func (r *presenceReply) readUsers(d *imclient.Decoder, asked int) {
	d.Users(asked, func() {
		r.Users = append(r.Users, presenceUser{})
		u := &r.Users[len(r.Users)-1]
		d.Object(func(name []byte) {
			switch string(name) {
			case "userID":
				u.UserID = string(d.Text(keptID))
			case "status":
				u.Status = word(d.Scalar(keptWord))
			case "detailPlatformStatus": // null when offline
				d.Array(func() { u.add(readDevice(d)) })
			case "platformIDs": // of get_users_status; null when offline
				d.Array(func() { u.add(device{PlatformID: string(d.Scalar(keptWord))}) })
			default:
				d.Skip()
			}
		})
	})
}

// add notes a connection. There may be hundreds, of which only what they have in
// common is kept.
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
			v.PlatformID = string(d.Scalar(keptWord))
		case "platform":
			v.Platform = string(d.Text(keptWord))
		case "status":
			v.Status = word(d.Scalar(keptWord))
		case "isBackground":
			v.Background = d.Bool()
		default:
			d.Skip()
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

func (r *statusReply) read(d *imclient.Decoder, asked int) {
	*r = statusReply{presenceReply{Users: r.Users[:0]}}
	whole := r.readReply(d, func() {
		d.Object(func(name []byte) {
			if string(name) == "statusList" {
				r.readUsers(d, asked)
			} else {
				d.Skip()
			}
		})
	})
	if !whole {
		*r = statusReply{}
	}
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

func (r *accountsReply) says() bool {
	return slices.ContainsFunc(r.Results, func(u accountResult) bool { return u.UserID != "" })
}

func (r *accountsReply) read(d *imclient.Decoder, asked int) {
	*r = accountsReply{Results: r.Results[:0]}
	whole := r.readReply(d, func() {
		d.Object(func(name []byte) {
			if string(name) == "results" {
				d.Users(asked, func() { r.Results = append(r.Results, readAccount(d)) })
			} else {
				d.Skip()
			}
		})
	})
	if !whole {
		*r = accountsReply{}
	}
}

func readAccount(d *imclient.Decoder) (v accountResult) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "userID":
			v.UserID = string(d.Text(keptID))
		case "accountStatus":
			v.Status = word(d.Scalar(keptWord))
		default:
			d.Skip()
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

// says: a login that holds no token is its caller's to judge.
func (*loginReply) says() bool { return true }

// maxToken is more bytes than a token has, and a header takes.
const maxToken = 8 << 10

func (r *loginReply) read(d *imclient.Decoder, _ int) {
	*r = loginReply{}
	whole := r.readReply(d, func() {
		d.Object(func(name []byte) {
			switch string(name) {
			case "token":
				r.Token = string(d.Text(maxToken + 1))
			case "expireTimeSeconds":
				r.Expire, _ = strconv.ParseInt(string(d.Scalar(keptWord)), 10, 64)
			default:
				d.Skip()
			}
		})
	})
	if !whole {
		*r = loginReply{}
	}
}
