package tencent

import (
	"cmp"
	"strconv"
	"time"

	"syncer/imclient"
)

// What to do about a code. The names are those of the settings of an app.
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

// codeLockedOut: the signature was refused, and too many were before it.
const codeLockedOut = 70050

// meaning is what a code means for the work.
type meaning struct {
	class imclient.Class
	says  string // what to do, or what it says of a user; "" where the class says all
}

// meaningOf classifies a code. What is not in the table is transient.
func meaningOf(code int) meaning { return codes[code] }

// Meaning says what the code of a user's failure means: its class and, for some,
// words. ok is false when it is no code of this table.
func Meaning(code string) (class imclient.Class, says string, ok bool) {
	n, err := strconv.Atoi(code)
	if err != nil {
		return 0, "", false
	}
	m, ok := codes[n]
	return m.class, m.says, ok
}

// pauseOf is how long the provider must not be called after a code, as far as
// its documents say: 70050 (too many bad signatures) for at least a minute,
// 60028 (the trial edition's calls of 24 hours are used up) for far longer,
// though we look again after an hour.
func pauseOf(code int) time.Duration {
	switch code {
	case 60028:
		return time.Hour
	case codeLockedOut:
		return time.Minute
	default:
		return 0
	}
}

// userFault gives the words for a code that an answer carries for one user, and
// whether asking again may help. info is the provider's own text, if any.
func userFault(code int, info string) (text string, again bool) {
	m := meaningOf(code)
	text = cmp.Or(info, m.says, "the provider answers with code "+strconv.Itoa(code)+" for this user")
	return text, m.class == imclient.ClassTransient || m.class == imclient.ClassThrottled
}

// Short names for the table.
const (
	transient    = imclient.ClassTransient
	throttled    = imclient.ClassThrottled
	unauthorised = imclient.ClassUnauthorised
	fatal        = imclient.ClassFatal
	badBatch     = imclient.ClassBadBatch
	perUser      = imclient.ClassPerUser
)

// codes holds every code that the two APIs, the common REST gateway and the
// account system behind them are known to answer with, those of older copies of
// the documents included. Sources: "Querying Account Online Status", "Querying
// Accounts", "RESTful API Overview", "Error Codes", read 2026-11.
//
// Three are not what their text suggests at first. 70009 (key of another app)
// may pass with a fresh signature and is tried once. 60008 is a timeout or a
// malformed request and is taken for the former. 60004 and 60005 once meant a
// bad signature and now "try again later"; signing anew does both.
var codes = map[int]meaning{
	60002: {class: badBatch},
	60003: {class: badBatch},
	60004: {class: unauthorised},
	60005: {class: unauthorised},
	60006: {class: fatal, says: fixApp},
	60007: {class: throttled},
	60008: {class: transient},
	60009: {class: fatal, says: fixPath},
	60010: {class: fatal, says: fixAdmin},
	60011: {class: throttled},
	60012: {class: fatal, says: fixApp},
	60013: {class: transient},
	60014: {class: transient},
	60015: {class: badBatch},
	60016: {class: fatal, says: fixPlan},
	60017: {class: fatal, says: fixPlan},
	60018: {class: throttled},
	60019: {class: throttled},
	60020: {class: fatal, says: fixPlan},
	60021: {class: fatal, says: fixSource},
	60025: {class: unauthorised},
	60026: {class: fatal, says: fixRegion},
	60027: {class: fatal, says: fixPlan},
	60028: {class: throttled},
	70001: {class: unauthorised},
	70002: {class: unauthorised},
	70003: {class: unauthorised},
	70004: {class: unauthorised},
	70005: {class: unauthorised},
	70006: {class: unauthorised},
	70007: {class: unauthorised},
	70008: {class: unauthorised},
	70009: {class: unauthorised},
	70010: {class: unauthorised},
	70013: {class: fatal, says: fixIdentifier},
	70014: {class: fatal, says: fixApp},
	70015: {class: fatal, says: fixApp},
	70016: {class: fatal, says: fixRegion},
	70017: {class: transient},
	70018: {class: transient},
	70019: {class: unauthorised},
	70020: {class: fatal, says: fixRegion},
	70050: {class: throttled},
	70051: {class: fatal, says: fixAdmin},
	70052: {class: unauthorised},
	70101: {class: badBatch},
	70102: {class: badBatch},
	70103: {class: perUser, says: badFormat},
	70104: {class: perUser, says: badFormat},
	70105: {class: perUser, says: badFormat},
	70106: {class: perUser, says: badFormat},
	70107: {class: perUser, says: noSuchUser},
	70113: {class: badBatch},
	70114: {class: throttled},
	70115: {class: fatal, says: fixApp},
	70140: {class: fatal, says: fixApp},
	70145: {class: fatal, says: fixApp},
	70169: {class: transient, says: timedOut},
	70201: {class: transient},
	70202: {class: transient},
	70203: {class: transient},
	70204: {class: fatal, says: fixApp},
	70205: {class: transient},
	70206: {class: badBatch},
	70207: {class: transient},
	70208: {class: transient},
	70209: {class: fatal, says: fixApp},
	70210: {class: fatal, says: fixApp},
	70211: {class: fatal, says: fixApp},
	70212: {class: transient},
	70213: {class: transient},
	70214: {class: unauthorised},
	70221: {class: unauthorised},
	70222: {class: transient},
	70225: {class: transient},
	70231: {class: transient},
	70236: {class: unauthorised},
	70308: {class: transient},
	70346: {class: unauthorised},
	70347: {class: unauthorised},
	70348: {class: transient},
	70362: {class: transient},
	70398: {class: fatal, says: fixPlan},
	70399: {class: fatal, says: fixFeature},
	70401: {class: transient},
	70402: {class: badBatch},
	70403: {class: fatal, says: fixAdmin},
	70404: {class: badBatch},
	70500: {class: transient},
	71000: {class: badBatch},
	72000: {class: fatal, says: fixPlan},
	72001: {class: fatal, says: fixFeature},
	72002: {class: fatal, says: fixPlan},
	72010: {class: throttled},
	72011: {class: fatal, says: fixFeature},
	72012: {class: fatal, says: fixFeature},
	80005: {class: fatal, says: fixPlan},
	90001: {class: badBatch},
	90003: {class: badBatch},
	90009: {class: fatal, says: fixAdmin},
	90011: {class: badBatch},
	90012: {class: perUser, says: noSuchUser},
	90018: {class: badBatch},
	90028: {class: badBatch},
	90029: {class: badBatch},
	90048: {class: perUser, says: noSuchUser},
	90992: {class: transient},
	90994: {class: transient},
	90995: {class: transient},
	91000: {class: transient},
	93000: {class: badBatch},
}
