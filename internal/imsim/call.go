package imsim

import (
	"net/http"
	"slices"
	"time"
)

// api is one path of one backend.
type api struct {
	path    string
	kind    Kind // 0: a login, which names no users
	backend backend
	limit   *limiter
	// parse reads the body. It returns the ids even of a refused call, so that they
	// are counted.
	parse func(body []byte) (request, *failure)
	// answer appends the body of the answer.
	answer func(body []byte, c *call) ([]byte, *failure)
	// poison is the documented code for input that the API cannot process.
	poison int
	// hooks says which faults of hooks hit this, if it is not an API but a sender of hooks.
	hooks hooksOf
	// merged means that the answer comes from Redis, which has the devices of all
	// gateways.
	merged bool
	// list is the beginning of an answer, up to its list of users.
	list string
	// mangled is a valid JSON answer in which every type is wrong.
	mangled string
}

// backend is what the APIs of one provider share.
type backend interface {
	// nonce returns the value that should differ in every call.
	nonce(r *http.Request) string
	// refuse checks everything but the body: parameters, headers, signature or token.
	refuse(c *call) *failure
	tooMany() *failure
	notAdmin(a *api) *failure
	// coded returns a failure with a code of the provider.
	coded(code int, text string) *failure
	// failed appends the body of a failure.
	failed(body []byte, f *failure) []byte
	// zips reports whether answers are compressed if the client accepts that.
	zips() bool
}

// request is the content of a call's body.
type request struct {
	ids    []string
	detail bool
}

// refusal is why a call was refused, for Stats.
type refusal uint8

const (
	otherwise refusal = iota
	unauthorised
	rateLimited
)

// failure is an error answer.
type failure struct {
	code   int
	text   string // ErrorInfo; errMsg
	detail string // errDlt
	status int    // HTTP status; 0 means 200
	header http.Header
	why    refusal
}

// call is one call while it is processed.
type call struct {
	request
	api     *api
	http    *http.Request
	body    []byte
	bad     *failure // of the body
	arrived time.Time
	hits    []hit
	// at is the population's time of the answer.
	at     time.Time
	served []servedUser
	// devices is reused memory for the devices of one user.
	devices []Device
}

// hit returns the call's fault of a kind, or nil.
func (c *call) hit(kind FaultKind) *hit {
	for i := range c.hits {
		if c.hits[i].Kind == kind {
			return &c.hits[i]
		}
	}
	return nil
}

// respond appends the answer of a call that no network fault ended.
func (s *Server) respond(body []byte, c *call) ([]byte, *failure) {
	b := c.api.backend
	if f := b.refuse(c); f != nil {
		return nil, f
	}
	if h := c.hit(FaultCode); h != nil {
		return nil, b.coded(h.Code, h.Text+c.echo(*h))
	}
	if c.hit(FaultNotAdmin) != nil {
		return nil, b.notAdmin(c.api)
	}
	if c.api.limit != nil && !c.api.limit.allow(s.now) {
		return nil, b.tooMany()
	}
	if c.bad != nil {
		return nil, c.bad
	}
	if h := c.hit(FaultPoison); h != nil {
		code := h.Code
		if code == 0 {
			code = c.api.poison
		}
		return nil, b.coded(code, h.Text)
	}
	if c.hit(FaultWrongTypes) != nil {
		return append(body, c.api.mangled...), nil
	}
	c.at = s.populationTime(s.now())
	c.ids = c.spoilIDs()
	return c.api.answer(body, c)
}

// spoilIDs returns the ids to answer about: those of the call, changed by faults.
func (c *call) spoilIDs() []string {
	ids := c.ids
	names := func(h *hit, id string) bool {
		return h.about(id) || len(h.IDs) == 0 && id == c.ids[0]
	}
	if h := c.hit(FaultDrop); h != nil {
		ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return names(h, id) })
	}
	if h := c.hit(FaultRepeat); h != nil {
		for _, id := range slices.Clone(ids) {
			if names(h, id) {
				ids = append(ids[:len(ids):len(ids)], id)
			}
		}
	}
	if h := c.hit(FaultUnasked); h != nil {
		ids = append(ids[:len(ids):len(ids)], h.IDs...)
	}
	return ids
}

// look returns a user's devices as this call sees them. They are valid until the next
// look.
func (s *Server) look(c *call, userID string) []Device {
	for i := range c.hits {
		if c.hits[i].hides(userID, c.at, c.api.merged) {
			return nil
		}
	}
	c.devices = s.users.AppendDevices(c.devices[:0], userID, c.at)
	if h := c.hit(FaultFlip); h != nil && !c.api.merged {
		return oneGateway(c.devices, int(hash(h.random, userID)&1))
	}
	return c.devices
}

// oneGateway keeps the connected devices of one of two gateways. The devices of a
// user with several are spread over both.
func oneGateway(devices []Device, gateway int) []Device {
	pushed := func(d Device) bool { return d.Mode == Push }
	connected := 0
	for _, d := range devices {
		if !pushed(d) {
			connected++
		}
	}
	if connected < 2 {
		return devices
	}
	n := 0
	return slices.DeleteFunc(devices, func(d Device) bool {
		if pushed(d) {
			return false
		}
		n++
		return n%2 != gateway
	})
}
