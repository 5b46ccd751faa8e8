package imsim

import (
	"encoding/hex"
	"slices"
	"strconv"
)

const openIMHead = `{"errCode":0,"errMsg":"","errDlt":"","data":`

// openIMPlatform is a platform's number and, for 3.8.0, name.
type openIMPlatform struct {
	id   int64
	name string
}

var openIMPlatforms = [numPlatforms]openIMPlatform{
	IOS: {1, "IOS"}, Android: {2, "Android"}, Windows: {3, "Windows"}, MacOS: {4, "OSX"}, Web: {5, "Web"},
	MiniWeb: {6, "MiniWeb"}, Linux: {7, "Linux"}, AndroidPad: {8, "APad"}, IPad: {9, "IPad"}, Harmony: {11, "HarmonyOS"},
}

// presence appends the answer of get_users_online_status: an entry for each id, in
// order, repeated ids included; null without ids.
func (o *openIM) presence(b []byte, c *call) ([]byte, *failure) {
	b = append(b, openIMHead...)
	if len(c.ids) == 0 {
		return append(b, `null}`...), nil
	}
	for i, id := range c.ids {
		b = append(b, separator(i))
		b = o.appendUser(b, c, id)
	}
	return append(b, `]}`...), nil
}

// separator returns what precedes an array's i-th element.
func separator(i int) byte {
	if i == 0 {
		return '['
	}
	return ','
}

func (o *openIM) appendUser(b []byte, c *call, userID string) []byte {
	devices := o.connected(c, userID)
	var v servedValue
	b = append(b, `{"userID":`...)
	b = appendJSONString(b, userID)
	b = append(b, `,"status":`...)
	b = o.appendStatus(b, len(devices) > 0)
	b = append(b, `,"detailPlatformStatus":`...)
	if len(devices) == 0 {
		b = append(b, "null"...)
	} else {
		v.state = servedOnline
		h := hash(0, userID)
		for i, d := range devices {
			b = append(b, separator(i))
			b = o.appendDevice(b, d, draw(h, int64(i)))
			v.add(d.Platform, d.Mode)
		}
		b = append(b, ']')
	}
	o.server.note(c, userID, v)
	return append(b, '}')
}

func (o *openIM) appendStatus(b []byte, online bool) []byte {
	switch {
	case o.config.Version == OpenIM380 && online:
		return append(b, `"online"`...)
	case o.config.Version == OpenIM380:
		return append(b, `"offline"`...)
	case online:
		return append(b, '1')
	default:
		return append(b, '0')
	}
}

// appendDevice appends one device. Its connection id and token are invented, and
// marked so that a leak can be found.
func (o *openIM) appendDevice(b []byte, d Device, secret uint64) []byte {
	p := openIMPlatforms[d.Platform]
	if o.config.Version == OpenIM380 {
		b = append(b, `{"platform":"`...)
		b = append(b, p.name...)
		b = append(b, `","status":"online","connID":"`...)
	} else {
		b = append(b, `{"platformID":`...)
		b = strconv.AppendInt(b, p.id, 10)
		b = append(b, `,"connID":"`...)
	}
	b = append(b, "SIMCONN"...)
	b = appendHex(b, secret)
	b = append(b, `","isBackground":`...)
	b = strconv.AppendBool(b, d.Mode == Background)
	b = append(b, `,"token":"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.SIMTOKEN`...)
	for i := range int64(6) { // about as long as a real one
		b = appendHex(b, draw(secret, i))
	}
	return append(b, `"}`...)
}

func appendHex(b []byte, v uint64) []byte {
	return hex.AppendEncode(b, []byte{
		byte(v >> 56), byte(v >> 48), byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v),
	})
}

// usersStatus appends the answer of get_users_status, which merges devices by
// platform.
func (o *openIM) usersStatus(b []byte, c *call) ([]byte, *failure) {
	if len(c.ids) == 0 && c.hit(FaultDrop) == nil {
		return nil, o.missing("userIDs is empty")
	}
	b = append(b, openIMHead+`{"statusList":[`...)
	for i, id := range c.ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"userID":`...)
		b = appendJSONString(b, id)
		devices := o.connected(c, id)
		var ids []int64
		for _, d := range devices {
			if n := openIMPlatforms[d.Platform].id; !slices.Contains(ids, n) {
				ids = append(ids, n)
			}
		}
		if len(ids) == 0 {
			b = append(b, `,"status":0,"platformIDs":null}`...)
			continue
		}
		b = append(b, `,"status":1,"platformIDs":`...)
		for j, n := range ids {
			b = strconv.AppendInt(append(b, separator(j)), n, 10)
		}
		b = append(b, `]}`...)
	}
	return append(b, `]}}`...), nil
}

// accounts appends the answer of account_check.
func (o *openIM) accounts(b []byte, c *call) ([]byte, *failure) {
	b = append(b, openIMHead+`{"results":`...)
	if len(c.ids) == 0 {
		return append(b, `null}}`...), nil
	}
	for i, id := range c.ids {
		b = append(b, separator(i))
		b = append(b, `{"userID":`...)
		b = appendJSONString(b, id)
		b = append(b, `,"accountStatus":`...)
		known := o.knows(c, id)
		switch {
		case o.config.Version == OpenIM380 && known:
			b = append(b, `"registered"}`...)
		case o.config.Version == OpenIM380:
			b = append(b, `"unregistered"}`...)
		case known:
			b = append(b, `1}`...)
		default:
			b = append(b, `0}`...)
		}
		v := servedValue{state: servedNotImported}
		if known {
			v.state = servedImported
		}
		o.server.note(c, id, v)
	}
	return append(b, `]}}`...), nil
}
