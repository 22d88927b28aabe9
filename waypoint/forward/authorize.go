package forward

import (
	"context"
	"errors"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/waypoint/jwt"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// authorize lets in who may pass: the permit is what forward wants to see.
func (e *exchange) authorize(ctx context.Context) (request.Permit, bool) {
	permit, err := e.judge(ctx)
	if err != nil {
		e.rec.Err = err
		var denial *request.Denial
		if errors.As(err, &denial) {
			e.rec.Policy = denial.Policy
		}
		e.deny(err)
		return permit, false
	}
	e.rec.Policy = permit.Policy()
	return permit, true
}

// deny answers a request that may not pass.
func (e *exchange) deny(err error) {
	var refusal *jwt.Refusal
	var asked *authorizerRefusal
	var long longContent
	var broken brokenContent
	switch {
	case errors.As(err, &asked):
		e.refuse(asked.answer)
		return
	case errors.As(err, &long):
		e.reply(reply{status: 413, flag: flagDenied, text: "the content is too long"})
		return
	case errors.As(err, &broken):
		e.refuseContent(err)
		return
	}
	if !errors.As(err, &refusal) {
		e.reply(reply{status: 403, flag: flagDenied, text: "access denied by policy"})
		return
	}
	r := reply{status: refusal.Status, flag: flagDenied, text: "the request's token is not accepted"}
	if challenge := refusal.Challenge(); challenge != "" {
		r.header = message.Header{{Name: "www-authenticate", Value: challenge}}
	}
	e.reply(r)
}

// question is what policies are asked about a request. They keep nothing of it.
type question struct {
	attributes request.Attributes
	request    request.Request
}

var questions = sync.Pool{New: func() any { return new(question) }}

func (q *question) release() {
	*q = question{}
	questions.Put(q)
}

// judge checks the request's token and asks the service's policies, and whom they ask.
// The error is a *jwt.Refusal, a *request.Denial, or one of askCustom.
func (e *exchange) judge(ctx context.Context) (request.Permit, error) {
	svc := e.svc
	q := questions.Get().(*question)
	defer q.release()
	q.request = request.Request{
		Method: e.r.Method, Scheme: e.r.Scheme, Authority: e.r.Authority, Path: e.r.Path, Folded: message.Folded(e.r.Path),
		Query: e.r.Query, HasQuery: e.r.HasQuery, Protocol: e.r.Protocol, Fields: &e.r.Header,
	}
	q.attributes = request.Attributes{
		Source: e.c.Source.Addr(), Remote: e.remote(), Peer: e.c.Peer, Destination: e.c.Destination, Request: &q.request,
	}
	attributes := &q.attributes
	// CUSTOM policies judge the request as it was sent; what their authorizers change in
	// it, all that follows sees.
	consent := svc.Policies.Consult(attributes)
	if len(consent.Asks()) > 0 {
		if err := e.askCustom(ctx, &consent); err != nil {
			return request.Permit{}, err
		}
		attributes.Request.Query, attributes.Request.HasQuery = e.r.Query, e.r.HasQuery
	}
	if !svc.Tokens.Empty() {
		token, err := svc.Tokens.Check(ctx, e.r)
		if err != nil {
			return request.Permit{}, err
		}
		e.rations.token = token
		attributes.Request.Token, attributes.Request.Fields = token, &e.r.Header
		attributes.Request.Query, attributes.Request.HasQuery = e.r.Query, e.r.HasQuery
	}
	permit, observed, err := svc.Policies.Authorize(attributes, consent)
	for _, o := range observed {
		if o.Matched || o.WouldDeny {
			e.f.log.Info("policy that is not enforced fits", zap.String("policy", o.Policy), zap.Bool("would_deny", o.WouldDeny),
				zap.Stringer("src.identity", e.c.Identity), zap.String("path", e.r.Path))
		}
	}
	return permit, err
}

func asks(filters route.Filters) bool {
	return slices.ContainsFunc(filters, func(f route.Filter) bool { return f.ExternalAuth != nil })
}
