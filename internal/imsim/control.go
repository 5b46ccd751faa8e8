package imsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// controlPrefix is the prefix of the paths that control the simulator:
//
//	GET    /_sim/stats            Stats
//	GET    /_sim/faults           the faults, with the hits of each
//	POST   /_sim/faults           add one: Fault as JSON, its Delay as "delay":"150ms", its For as "for":"30m"; answers {"id":1}
//	DELETE /_sim/faults           clear all
//	DELETE /_sim/faults/{id}      clear one
//	POST   /_sim/revoke           {"what":"signatures"}, "tokens" (kick), "forget" (lose them) or, without, signatures and tokens
//	POST   /_sim/round            {"round":3}, if the population is a Rounds
//	POST   /_sim/users            set one: {"user_id":"u1","devices":[{"platform":"ios","mode":"online"}]}, "imported":false, or "unset":true
//	GET    /_sim/served           ?kind=tencent_presence&user_id=u1: []Value
//	POST   /_sim/reset            Reset
//
// Errors are HTTP 400 with one line of text.
const controlPrefix = "/_sim/"

func (s *Server) controlHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := do(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		})
	}
	handle("GET /_sim/stats", func(*http.Request) (any, error) { return s.Stats(), nil })
	handle("GET /_sim/faults", func(*http.Request) (any, error) { return s.Faults(), nil })
	handle("POST /_sim/faults", s.postFault)
	handle("DELETE /_sim/faults", func(*http.Request) (any, error) { s.ClearFaults(); return done, nil })
	handle("DELETE /_sim/faults/{id}", s.deleteFault)
	handle("POST /_sim/revoke", s.postRevoke)
	handle("POST /_sim/round", s.postRound)
	handle("POST /_sim/users", s.postUser)
	handle("GET /_sim/served", s.getServed)
	handle("POST /_sim/reset", func(*http.Request) (any, error) { s.Reset(); return done, nil })
	return mux
}

// done is the answer of calls without a result.
var done = map[string]bool{"ok": true}

// readControl reads the body of a control call. An unknown field is an error.
func readControl(r *http.Request, into any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the body: %w", err)
	}
	return nil
}

func (s *Server) postFault(r *http.Request) (any, error) {
	var f struct {
		Fault
		Delay string `json:"delay"`
		For   string `json:"for"`
	}
	if err := readControl(r, &f); err != nil {
		return nil, err
	}
	for _, d := range []struct {
		name, text string
		into       *time.Duration
	}{{"delay", f.Delay, &f.Fault.Delay}, {"for", f.For, &f.Fault.For}} {
		if d.text == "" {
			continue
		}
		var err error
		if *d.into, err = time.ParseDuration(d.text); err != nil {
			return nil, fmt.Errorf("read %q: %w", d.name, err)
		}
	}
	id, err := s.AddFault(f.Fault)
	return map[string]int{"id": id}, err
}

func (s *Server) deleteFault(r *http.Request) (any, error) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || !s.ClearFault(id) {
		return nil, fmt.Errorf("there is no fault %q", r.PathValue("id"))
	}
	return done, nil
}

func (s *Server) postRevoke(r *http.Request) (any, error) {
	var what struct {
		What string `json:"what"`
	}
	if err := readControl(r, &what); err != nil {
		return nil, err
	}
	switch what.What {
	case "signatures":
		s.RevokeSignatures()
	case "tokens":
		s.KickTokens()
	case "forget":
		s.ForgetTokens()
	case "":
		s.RevokeSignatures()
		s.KickTokens()
	default:
		return nil, fmt.Errorf("cannot revoke %q; allowed: signatures, tokens, forget", what.What)
	}
	return done, nil
}

func (s *Server) postRound(r *http.Request) (any, error) {
	var to struct {
		Round *int `json:"round"`
	}
	if err := readControl(r, &to); err != nil {
		return nil, err
	}
	if s.rounds == nil {
		return nil, errors.New("the population has no rounds")
	}
	if to.Round == nil || *to.Round < 0 {
		return nil, errors.New(`a round is needed: {"round":3}`)
	}
	s.rounds.SetRound(*to.Round)
	return done, nil
}

func (s *Server) postUser(r *http.Request) (any, error) {
	var u struct {
		UserID   string   `json:"user_id"`
		Devices  []Device `json:"devices"`
		Imported *bool    `json:"imported"`
		Unset    bool     `json:"unset"`
	}
	if err := readControl(r, &u); err != nil {
		return nil, err
	}
	for _, d := range u.Devices {
		if d.Mode == 0 {
			return nil, fmt.Errorf("a device without a mode; allowed: %q", modeNames[1:])
		}
	}
	switch {
	case u.UserID == "":
		return nil, errors.New("a user_id is needed")
	case u.Unset:
		s.users.Unset(u.UserID)
	case u.Imported != nil && !*u.Imported:
		s.users.SetNotImported(u.UserID)
	default:
		s.users.Set(u.UserID, u.Devices...)
	}
	return done, nil
}

// kindNames are the kinds in /_sim/served.
var kindNames = map[string]Kind{
	"tencent_presence": TencentPresence, "tencent_accounts": TencentAccounts,
	"openim_presence": OpenIMPresence, "openim_accounts": OpenIMAccounts,
}

func (s *Server) getServed(r *http.Request) (any, error) {
	kind, ok := kindNames[r.URL.Query().Get("kind")]
	switch {
	case !ok:
		return nil, errors.New("kind must be tencent_presence, tencent_accounts, openim_presence or openim_accounts")
	case s.record == nil:
		return nil, errors.New("the simulator does not record what it serves")
	}
	return s.Served(kind, r.URL.Query().Get("user_id")), nil
}
