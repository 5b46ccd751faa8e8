package tencent

import "syncer/imclient"

// The names in the answers are Tencent's, case-sensitive, and used in this file only.

// How many bytes are kept of a user id (one more than can be asked about), of the words
// about a call, and of those about one user.
const (
	keptID   = maxUserIDBytes + 1
	keptText = 4 << 10
	keptInfo = 256
)

// status is the part that all answers share.
type status struct {
	ActionStatus string
	ErrorInfo    string
	ErrorCode    string // "": the body is not an answer of the API
}

// Envelope implements imclient.Body.
func (s *status) Envelope() imclient.Envelope {
	return imclient.Envelope{Code: s.ErrorCode, Text: s.ErrorInfo, Failed: s.ActionStatus == "FAIL"}
}

// readMember reads a member of an answer that is not its own.
func (s *status) readMember(d *imclient.Decoder, name []byte) {
	switch string(name) {
	case "ActionStatus":
		s.ActionStatus = d.Word()
	case "ErrorInfo":
		s.ErrorInfo = d.Text(keptText)
	case "ErrorCode":
		s.ErrorCode = d.Scalar()
	}
}

// presenceRequest is the body of query_online_status and of querystate.
type presenceRequest struct {
	NeedDetail int      `json:"IsNeedDetail,omitempty"` // 1: with the devices
	Accounts   []string `json:"To_Account"`
}

// presenceReply is the answer of both.
type presenceReply struct {
	status
	Results []presenceResult  // QueryResult
	Failed  []presenceFailure // ErrorList: the accounts that failed one by one
}

// Reset implements imclient.Body.
func (r *presenceReply) Reset() {
	*r = presenceReply{Results: r.Results[:0], Failed: r.Failed[:0]}
}

// ReadMember implements imclient.Body.
func (r *presenceReply) ReadMember(d *imclient.Decoder, name []byte, asked int) {
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
}

// presenceResult is one user. query_online_status is documented with Status, and with
// State in its English samples; querystate with State. Real answers had both.
type presenceResult struct {
	Account   string // To_Account
	State     string
	Status    string
	Platforms imclient.Platforms // of Detail
	Unknown   int                // devices whose platform is unknown
}

func (u *presenceResult) read(d *imclient.Decoder) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "To_Account":
			u.Account = d.UserID(keptID)
		case "State":
			u.State = d.Word()
		case "Status":
			u.Status = d.Word()
		case "Detail": // absent, null and [] mean the same
			d.Array(func() { u.add(readDevice(d)) })
		}
	})
}

// add adds a device to the platforms, instead of to a list of any length. It ignores
// devices that are offline or in an unknown state.
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

// device is a platform on which the user is, or was, logged in.
type device struct{ Platform, Status string }

func readDevice(d *imclient.Decoder) (v device) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "Platform":
			v.Platform = d.Word()
		case "Status":
			v.Status = d.Word()
		}
	})
	return v
}

// presenceFailure holds the code of one user as it is written, "" for none.
type presenceFailure struct {
	Account string // To_Account
	Code    string // ErrorCode
}

func readFailure(d *imclient.Decoder) (f presenceFailure) {
	d.Object(func(name []byte) {
		switch string(name) {
		case "To_Account":
			f.Account = d.UserID(keptID)
		case "ErrorCode":
			f.Code = d.Scalar()
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

// Reset implements imclient.Body.
func (r *accountsReply) Reset() { *r = accountsReply{Results: r.Results[:0]} }

// ReadMember implements imclient.Body.
func (r *accountsReply) ReadMember(d *imclient.Decoder, name []byte, asked int) {
	if string(name) == "ResultItem" {
		d.Users(asked, func() { r.Results = append(r.Results, readAccount(d)) })
	} else {
		r.readMember(d, name)
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
			v.UserID = d.UserID(keptID)
		case "ResultCode":
			v.Code = d.Scalar()
		case "ResultInfo":
			v.Info = d.Text(keptInfo)
		case "AccountStatus":
			v.Status = d.Word()
		}
	})
	return v
}
