package tencent

import (
	"cmp"
	"strconv"
	"time"

	"syncer/imclient"
)

// What to do about a code. The names are those of an app's settings.
const (
	fixAdmin      = "set identifier to an account that is an app administrator in the console, and not blocked"
	fixApp        = "check sdk_app_id, and that the app is enabled in the console"
	fixIdentifier = "check identifier: it differs from the one that is signed"
	fixRegion     = "set region (or base_url) to the data centre of sdk_app_id; check sdk_app_id"
	fixPlan       = "renew or extend the app's package, or enable the app, in the console; access returns some minutes later"
	fixFeature    = "enable the feature in the console"
	fixPath       = "check base_url and presence_api: this address does not know the API"
	fixSource     = "allow this machine's address in the console's list of REST API source addresses"
	fixSignature  = "check secret_key, sdk_app_id and identifier (they must belong together), region, and this machine's clock"
)

// What a code says of one user, for the lists that carry codes without words.
const (
	noSuchUser = "the provider does not know this user; it was never imported"
	badFormat  = "the provider takes this user id for malformed"
	timedOut   = "the provider timed out on this user"
)

// codeLockedOut: the signature was refused, after too many others.
const codeLockedOut = "70050"

// Short names for the table.
const (
	transient    = imclient.ClassTransient
	throttled    = imclient.ClassThrottled
	unauthorised = imclient.ClassUnauthorised
	fatal        = imclient.ClassFatal
	badBatch     = imclient.ClassBadBatch
	perUser      = imclient.ClassPerUser
)

// codes holds the meaning of every documented code, see meanings.
var codes = make(map[int]imclient.Meaning)

func init() {
	for _, m := range meanings {
		for _, code := range m.codes {
			codes[code] = m.Meaning
		}
	}
}

// meanings lists the codes of the two APIs, the common REST gateway and the account
// system, those of older copies of the documents included. A code that is not in the
// list is transient. Sources: "Querying Account Online Status", "Querying Accounts",
// "RESTful API Overview", "Error Codes", read 2026-11.
//
// Some do not mean what their text suggests. 70009 (key of another app) may pass with a
// new signature. 60008 is a timeout or a malformed request; it is treated as the former.
// 60004 and 60005 once meant a bad signature and now "try again later"; a new signature
// serves both. 60028: the trial edition's calls of 24 hours are used up; it is called
// again after an hour. 70050 asks for a pause of at least a minute.
var meanings = []struct {
	imclient.Meaning
	codes []int
}{
	{imclient.Meaning{Class: transient}, []int{60008, 60013, 60014, 70017, 70018, 70201, 70202, 70203, 70205, 70207, 70208, 70212, 70213, 70222,
		70225, 70231, 70308, 70348, 70362, 70401, 70500, 90992, 90994, 90995, 91000}},
	{imclient.Meaning{Class: transient, Says: timedOut}, []int{70169}},
	{imclient.Meaning{Class: throttled}, []int{60007, 60011, 60018, 60019, 70114, 72010}},
	{imclient.Meaning{Class: throttled, Pause: time.Hour}, []int{60028}},
	{imclient.Meaning{Class: throttled, Pause: time.Minute}, []int{70050}},
	{imclient.Meaning{Class: unauthorised}, []int{60004, 60005, 60025, 70001, 70002, 70003, 70004, 70005, 70006, 70007, 70008, 70009, 70010, 70019,
		70052, 70214, 70221, 70236, 70346, 70347}},
	{imclient.Meaning{Class: badBatch}, []int{60002, 60003, 60015, 70101, 70102, 70113, 70206, 70402, 70404, 71000, 90001, 90003, 90011, 90018,
		90028, 90029, 93000}},
	{imclient.Meaning{Class: perUser, Says: badFormat}, []int{70103, 70104, 70105, 70106}},
	{imclient.Meaning{Class: perUser, Says: noSuchUser}, []int{70107, 90012, 90048}},
	{imclient.Meaning{Class: fatal, Says: fixAdmin}, []int{60010, 70051, 70403, 90009}},
	{imclient.Meaning{Class: fatal, Says: fixApp}, []int{60006, 60012, 70014, 70015, 70115, 70140, 70145, 70204, 70209, 70210, 70211}},
	{imclient.Meaning{Class: fatal, Says: fixFeature}, []int{70399, 72001, 72011, 72012}},
	{imclient.Meaning{Class: fatal, Says: fixIdentifier}, []int{70013}},
	{imclient.Meaning{Class: fatal, Says: fixPath}, []int{60009}},
	{imclient.Meaning{Class: fatal, Says: fixPlan}, []int{60016, 60017, 60020, 60027, 70398, 72000, 72002, 80005}},
	{imclient.Meaning{Class: fatal, Says: fixRegion}, []int{60026, 70016, 70020}},
	{imclient.Meaning{Class: fatal, Says: fixSource}, []int{60021}},
}

// Meaning returns what the code of a user's failure means. It reports false for a code
// that the documents do not list.
func Meaning(code string) (m imclient.Meaning, ok bool) {
	n, err := strconv.Atoi(code)
	if err != nil {
		return m, false
	}
	m, ok = codes[n]
	return m, ok
}

// userFault returns the words for a code that an answer carries for one user, and
// whether asking again may help. info is the provider's own text, if any.
func userFault(code int, info string) (text string, again bool) {
	m := codes[code]
	text = cmp.Or(info, m.Says, "the provider answers with code "+strconv.Itoa(code)+" for this user")
	return text, m.Class == transient || m.Class == throttled
}
