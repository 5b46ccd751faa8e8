package imsim

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// maxTencentID is the longest user id in bytes. Source: "Use Limits".
const maxTencentID = 32

// validTencentID reports whether an id is one to 32 bytes of printable ASCII. For
// others the real API's answer is undocumented; here the whole call fails, as for a
// value of the wrong type.
func validTencentID(id string) bool {
	for i := range len(id) {
		if id[i] < 0x20 || id[i] > 0x7e {
			return false
		}
	}
	return id != "" && len(id) <= maxTencentID
}

// parsePresence reads {"To_Account":["id",…],"IsNeedDetail":1}. Names are
// case-sensitive. Source: "Querying Account Online Status", error codes.
func (t *tencent) parsePresence(body []byte) (request, *failure) {
	var r request
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return r, t.coded(90001, "Fail to Parse json data of body, Please check it")
	}
	for _, flag := range []string{"IsNeedDetail", "IsReturnInstid", "IsReturnCustomStatus"} {
		var n int
		if v, ok := fields[flag]; ok && json.Unmarshal(v, &n) != nil {
			return r, t.coded(90001, flag+" is not an integer")
		}
	}
	r.detail = bytes.Equal(bytes.TrimSpace(fields["IsNeedDetail"]), []byte("1"))
	if json.Unmarshal(orNull(fields["To_Account"]), &r.ids) != nil || r.ids == nil {
		return r, t.coded(90003, "To_Account is not an array of strings")
	}
	return r, t.checkPresence(r.ids)
}

func (t *tencent) checkPresence(ids []string) *failure {
	if len(ids) == 0 {
		return t.coded(90001, "To_Account is empty")
	}
	if len(ids) > or(t.config.PresenceLimit, 500) {
		return t.coded(90011, "too many accounts in To_Account")
	}
	for _, id := range ids {
		if !validTencentID(id) {
			return t.coded(90003, "To_Account holds a value that is no UserID")
		}
	}
	return nil
}

// orNull returns a JSON value, or null if it is missing.
func orNull(v json.RawMessage) []byte {
	if v == nil {
		return []byte("null")
	}
	return v
}

// parseAccounts reads {"CheckItem":[{"UserID":"id"},…]}.
func (t *tencent) parseAccounts(body []byte) (request, *failure) {
	var r request
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return r, t.coded(60003, "the HTTP body is not JSON")
	}
	var items []map[string]json.RawMessage
	if json.Unmarshal(orNull(fields["CheckItem"]), &items) != nil || len(items) == 0 {
		return r, t.coded(70402, "CheckItem is not an array of accounts, or empty")
	}
	r.ids = make([]string, len(items))
	valid := true
	for i, item := range items {
		if json.Unmarshal(orNull(item["UserID"]), &r.ids[i]) != nil || !validTencentID(r.ids[i]) {
			valid = false
		}
	}
	if !valid || len(items) > or(t.config.AccountsLimit, 100) {
		return r, t.coded(70402, "CheckItem has an invalid UserID or too many")
	}
	return r, nil
}

// tencentPlatform is a device's name in Detail.
type tencentPlatform struct {
	name string
	as   Platform // what the name reveals
}

// tencentPlatforms are the names of query_online_status. iPhone to Mac are documented
// for Detail, Linux is known from webhooks, the others are guesses.
var tencentPlatforms = [numPlatforms]tencentPlatform{
	IOS: {"iPhone", IOS}, IPad: {"iPad", IPad}, Android: {"Android", Android}, Web: {"Web", Web},
	Windows: {"PC", Windows}, MacOS: {"Mac", MacOS}, Linux: {"Linux", Linux},
	AndroidPad: {"Android", Android}, MiniWeb: {"Web", Web}, Harmony: {"Harmony", Harmony},
}

// oldTencentPlatforms are the names of querystate, whose sample has IPhone.
var oldTencentPlatforms = func() [numPlatforms]tencentPlatform {
	names := tencentPlatforms
	names[IOS].name = "IPhone"
	return names
}()

// userError is one entry of an ErrorList.
type userError struct {
	userID string
	code   int
}

// presence appends the answer of either presence API. both adds Status, which the
// newer API has beside State. As documented, a call succeeds if any account does, and
// fails with the code of an account if all fail.
func (t *tencent) presence(b []byte, c *call, names *[numPlatforms]tencentPlatform, both bool) []byte {
	b = append(b, `{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"QueryResult":[`...)
	var failed []userError
	answered := 0
	for _, id := range c.ids {
		if code := t.userCode(c, id); code != 0 {
			failed = append(failed, userError{id, code})
			continue
		}
		if answered++; answered > 1 {
			b = append(b, ',')
		}
		b = t.appendUser(b, c, id, names, both)
	}
	b = append(b, ']')
	if answered == 0 && len(failed) > 0 {
		b = t.failHead(b[:0], t.coded(failed[0].code, "all accounts failed"))
	}
	return append(appendErrorList(b, failed), '}')
}

// userCode returns the code with which one user fails, 0 if none.
func (t *tencent) userCode(c *call, userID string) int {
	if h := c.hit(FaultUserCode); h != nil && h.about(userID) {
		return or(h.Code, 70107)
	}
	if c.api.kind == TencentPresence && !t.knows(userID, c.at) {
		return 70107
	}
	return 0
}

func appendErrorList(b []byte, failed []userError) []byte {
	if len(failed) == 0 {
		return b
	}
	b = append(b, `,"ErrorList":[`...)
	for i, f := range failed {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"To_Account":`...)
		b = appendJSONString(b, f.userID)
		b = append(b, `,"ErrorCode":`...)
		b = strconv.AppendInt(b, int64(f.code), 10)
		b = append(b, '}')
	}
	return append(b, ']')
}

// tencentStates are the values of State and Status.
var tencentStates = [...]string{servedOffline: "Offline", servedPushOnline: "PushOnline", servedOnline: "Online"}

func (t *tencent) appendUser(b []byte, c *call, userID string, names *[numPlatforms]tencentPlatform, both bool) []byte {
	devices := t.server.look(c, userID)
	var v servedValue
	for _, d := range devices {
		v.state = max(v.state, tencentState(d.Mode))
	}
	b = append(b, `{"To_Account":`...)
	b = appendJSONString(b, userID)
	b = append(b, `,"State":"`...)
	b = append(b, tencentStates[v.state]...)
	if both {
		b = append(b, `","Status":"`...)
		b = append(b, tencentStates[v.state]...)
	}
	b = append(b, '"')
	if c.detail && len(devices) > 0 {
		b = append(b, `,"Detail":[`...)
		for i, d := range devices {
			if i > 0 {
				b = append(b, ',')
			}
			state := tencentState(d.Mode)
			b = append(b, `{"Platform":"`...)
			b = append(b, names[d.Platform].name...)
			b = append(b, `","Status":"`...)
			b = append(b, tencentStates[state]...)
			b = append(b, `"}`...)
			mode := Online
			if state == servedPushOnline {
				mode = Push
			}
			v.add(names[d.Platform].as, mode)
		}
		b = append(b, ']')
	}
	t.server.note(c, userID, v)
	return append(b, '}')
}

func tencentState(m Mode) servedState {
	if m == Push {
		return servedPushOnline
	}
	return servedOnline
}

// accounts appends the answer of account_check, in which an unknown account is no
// error.
func (t *tencent) accounts(b []byte, c *call) []byte {
	b = append(b, `{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","ResultItem":[`...)
	for i, id := range c.ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"UserID":`...)
		b = appendJSONString(b, id)
		if code := t.userCode(c, id); code != 0 {
			b = append(b, `,"ResultCode":`...)
			b = strconv.AppendInt(b, int64(code), 10)
			b = append(b, `,"ResultInfo":"simulated error"}`...)
			continue
		}
		status, v := "Imported", servedValue{state: servedImported}
		if !t.knows(id, c.at) {
			status, v = "NotImported", servedValue{state: servedNotImported}
		}
		b = append(b, `,"ResultCode":0,"ResultInfo":"","AccountStatus":"`...)
		b = append(b, status...)
		b = append(b, `"}`...)
		t.server.note(c, id, v)
	}
	return append(b, `]}`...)
}
