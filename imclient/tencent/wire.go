package tencent

import (
	"slices"

	"syncer/imclient"
)

// The names here are Tencent's, case-sensitive, and used nowhere else.

// Of what an answer says so many bytes are kept: of a user id one more than can
// be asked about, of a word more than any that we know.
const (
	keptID   = maxUserIDBytes + 1
	keptWord = 64
	keptText = 4 << 10
)

// status is what every reply begins with.
type status struct {
	ActionStatus string
	ErrorInfo    string
	ErrorCode    string // "": the body is no reply of the API
}

func (s *status) envelope() *status { return s }

// readMember reads a member of a reply that is none of its own.
func (s *status) readMember(d *imclient.Decoder, name []byte) {
	switch string(name) {
	case "ActionStatus":
		s.ActionStatus = word(d.Text(keptWord))
	case "ErrorInfo":
		s.ErrorInfo = string(d.Text(keptText))
	case "ErrorCode":
		s.ErrorCode = word(d.Scalar(keptWord))
	default:
		d.Skip()
	}
}

// wireReply is any reply.
type wireReply interface {
	envelope() *status // the part that all have
	// reset forgets everything. It is called before each call, which may fail before
	// there is an answer to read.
	reset()
	// read reads the reply to a question about asked users. Nothing is left of the
	// one before, and nothing is kept of one that is not whole.
	read(d *imclient.Decoder, asked int)
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
	Results []presenceResult // QueryResult
	// Failed holds the accounts that failed each for itself (ErrorList).
	Failed []presenceFailure
}

func (r *presenceReply) says() bool {
	return slices.ContainsFunc(r.Results, func(u presenceResult) bool { return u.Account != "" }) ||
		slices.ContainsFunc(r.Failed, func(f presenceFailure) bool { return f.Account != "" })
}

func (r *presenceReply) reset() {
	*r = presenceReply{Results: r.Results[:0], Failed: r.Failed[:0]}
}

func (r *presenceReply) read(d *imclient.Decoder, asked int) {
	r.reset()
	whole := d.Answer(func(name []byte) {
		switch string(name) {
		case "QueryResult":
			d.Users(asked, func() {
				r.Results = append(r.Results, presenceResult{})
				r.Results[len(r.Results)-1].read(d)
			})
		case "ErrorList":
			d.Users(asked, func() { r.Failed = append(r.Failed, readFailure(d)) })
		default:
			r.readMember(d, name)
		}
	})
	if !whole {
		*r = presenceReply{}
	}
}

// presenceResult is one user. query_online_status is documented with Status,
// and with State in its English samples; querystate with State; real answers
// were seen with both.
type presenceResult struct {
	Account   string // To_Account
	State     string
	Status    string
	Platforms imclient.Platforms // of Detail
	Unknown   int                // devices whose platform has no name here
}

func (u *presenceResult) read(d *imclient.Decoder) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "To_Account":
			u.Account = string(d.Text(keptID))
		case "State":
			u.State = word(d.Text(keptWord))
		case "Status":
			u.Status = word(d.Text(keptWord))
		case "Detail": // absent, null and [] mean the same
			d.Array(func() { u.add(readDevice(d)) })
		default:
			d.Skip()
		}
	})
}

// add notes a device. There may be any number, of which only what they have in
// common is kept. Devices that are offline, or in a state unknown to us, do not
// count.
func (u *presenceResult) add(v device) {
	mode := imclient.ModeNone
	switch v.Status {
	case "Online":
		mode = imclient.ModeOnline
	case "PushOnline":
		mode = imclient.ModePushOnline
	default:
		return
	}
	platform, ok := platformOf(v.Platform)
	if !ok {
		u.Unknown++
	}
	u.Platforms.Add(platform, mode)
}

// device is one platform on which the user is, or was, logged in.
type device struct{ Platform, Status string }

func readDevice(d *imclient.Decoder) (v device) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "Platform":
			v.Platform = word(d.Text(keptWord))
		case "Status":
			v.Status = word(d.Text(keptWord))
		default:
			d.Skip()
		}
	})
	return v
}

// presenceFailure has the code of one user as it is written, "" for none. Nothing
// that stands there is an error: one user's must not cost the others their answer.
type presenceFailure struct {
	Account string // To_Account
	Code    string // ErrorCode
}

func readFailure(d *imclient.Decoder) (f presenceFailure) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "To_Account":
			f.Account = string(d.Text(keptID))
		case "ErrorCode":
			f.Code = word(d.Scalar(keptWord))
		default:
			d.Skip()
		}
	})
	return f
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
	Results []accountResult // ResultItem
}

func (r *accountsReply) says() bool {
	return slices.ContainsFunc(r.Results, func(u accountResult) bool { return u.UserID != "" })
}

func (r *accountsReply) reset() { *r = accountsReply{Results: r.Results[:0]} }

func (r *accountsReply) read(d *imclient.Decoder, asked int) {
	r.reset()
	whole := d.Answer(func(name []byte) {
		if string(name) == "ResultItem" {
			d.Users(asked, func() { r.Results = append(r.Results, readAccount(d)) })
		} else {
			r.readMember(d, name)
		}
	})
	if !whole {
		*r = accountsReply{}
	}
}

type accountResult struct {
	UserID string
	Code   string // ResultCode; see presenceFailure
	Info   string // ResultInfo
	Status string // AccountStatus
}

func readAccount(d *imclient.Decoder) (v accountResult) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "UserID":
			v.UserID = string(d.Text(keptID))
		case "ResultCode":
			v.Code = word(d.Scalar(keptWord))
		case "ResultInfo":
			v.Info = word(d.Text(keptInfo))
		case "AccountStatus":
			v.Status = word(d.Text(keptWord))
		default:
			d.Skip()
		}
	})
	return v
}

// keptInfo is how many bytes are kept of the words about one user's failure.
const keptInfo = 256

// word returns the text of v; those that come all the time are not allocated.
func word(v []byte) string {
	switch string(v) {
	case "":
		return ""
	case "0":
		return "0"
	case "OK":
		return "OK"
	case "Online":
		return "Online"
	case "PushOnline":
		return "PushOnline"
	case "Offline":
		return "Offline"
	case "iPhone":
		return "iPhone"
	case "iPad":
		return "iPad"
	case "Android":
		return "Android"
	case "Web":
		return "Web"
	case "PC":
		return "PC"
	case "Mac":
		return "Mac"
	case "Imported":
		return "Imported"
	case "NotImported":
		return "NotImported"
	case "70107": // not imported: most of those who fail
		return "70107"
	default:
		return string(v)
	}
}
