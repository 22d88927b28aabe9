package extauthz

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/tulle-mesh/tulle/waypoint/message"
)

// Answer is what an authorizer said. It is immutable.
type Answer struct {
	// Err is why the authorizer could not be asked, or that its answer is none. Whether
	// the request passes then is the provider's setting: see Allowed.
	Err error
	// Status, Header and Content are what the client gets when it is refused.
	Status  int
	Header  message.Header
	Content []byte
	// Client are fields for the response to a request that passes, in the order in which
	// ApplyResponse puts them in.
	client []change

	allowed bool
	changes []change
	remove  []string
	// params to set or to take out of the query.
	params       []param
	removeParams []string
	// own are the fields that only the authorizer writes.
	own []string
}

// Allowed reports whether the request may pass.
func (a *Answer) Allowed() bool { return a.allowed }

// how a field is put in.
type how uint8

const (
	overwrite        how = iota
	appendField          // beside those that are there
	addIfAbsent          // unless there is one
	overwriteIfThere     // unless there is none
)

type change struct {
	message.Field
	how how
}

func (c change) apply(h *message.Header) {
	switch c.how {
	case overwrite:
		h.Set(c.Name, c.Value)
	case appendField:
		h.Add(c.Name, c.Value)
	case addIfAbsent:
		if !h.Has(c.Name) {
			h.Add(c.Name, c.Value)
		}
	case overwriteIfThere:
		if h.Has(c.Name) {
			h.Set(c.Name, c.Value)
		}
	}
}

type param struct{ name, value string }

// Apply changes a request that may pass as the authorizer wants.
func (a *Answer) Apply(r *message.Request) {
	for _, name := range a.own {
		r.Header.DelAlike(name)
	}
	for _, c := range a.changes {
		c.apply(&r.Header)
	}
	for _, name := range a.remove {
		r.Header.Del(name)
	}
	if len(a.params)+len(a.removeParams) > 0 {
		a.applyQuery(r)
	}
}

// applyQuery leaves the parameters that are not named as they were sent.
func (a *Answer) applyQuery(r *message.Request) {
	named := func(part string) bool {
		name, _, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(name); err == nil {
			name = decoded
		}
		return slices.Contains(a.removeParams, name) || slices.ContainsFunc(a.params, func(p param) bool { return p.name == name })
	}
	var parts []string
	if r.HasQuery && r.Query != "" {
		parts = slices.DeleteFunc(strings.Split(r.Query, "&"), named)
	}
	for _, p := range a.params {
		parts = append(parts, url.QueryEscape(p.name)+"="+url.QueryEscape(p.value))
	}
	r.Query = strings.Join(parts, "&")
	r.HasQuery = len(parts) > 0
}

// ApplyResponse puts into the response what the authorizer wants the client to get.
func (a *Answer) ApplyResponse(r *message.Response) {
	for _, c := range a.client {
		c.apply(&r.Header)
	}
}

// Responds reports whether ApplyResponse has something to do.
func (a *Answer) Responds() bool { return len(a.client) > 0 }

// writable says why a field cannot be changed by an authorizer: what frames a message,
// names its host or is no field.
func writable(name, value string) error {
	switch {
	case !message.ValidName(name):
		return fmt.Errorf("%q is no name of a header field in lower case", name)
	case message.Reserved(name) || name == "te":
		return fmt.Errorf("the header field %s is not the authorizer's to change", name)
	case !message.ValidValue(value):
		return fmt.Errorf("the value of the header field %s is none", name)
	}
	return nil
}

// refused returns the answer of an authorizer that does not let pass.
func refused(status int, header message.Header, content []byte) *Answer {
	if status < 200 || status > 599 {
		status = 403
	}
	if status == 204 || status == 304 {
		content = nil
	}
	return &Answer{Status: status, Header: header, Content: content}
}
