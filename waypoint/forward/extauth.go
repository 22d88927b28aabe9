package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/internal/authz/request"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/waypoint/extauthz"
	"github.com/tulle-mesh/tulle/waypoint/message"
	"github.com/tulle-mesh/tulle/waypoint/route"
)

// authorizerRefusal is the error of a request that an external authorizer did not let
// pass, or could not be asked about.
type authorizerRefusal struct {
	// name is the provider's, or what the rule calls it.
	name   string
	answer *extauthz.Answer
}

func (r *authorizerRefusal) Error() string {
	if r.answer.Err != nil {
		return fmt.Sprintf("the external authorizer %s could not be asked: %v", r.name, r.answer.Err)
	}
	return fmt.Sprintf("the external authorizer %s refuses with status %d", r.name, r.answer.Status)
}

func (r *authorizerRefusal) Unwrap() error { return r.answer.Err }

// longContent is the error of a request with more content than its authorizer takes.
type longContent struct{ limit int }

func (e longContent) Error() string {
	return fmt.Sprintf("the content is longer than the %d bytes that the external authorizer is sent", e.limit)
}

// brokenContent is the error of a request whose content could not be read.
type brokenContent struct{ error }

func (e brokenContent) Unwrap() error { return e.error }

// quietly returns a logger for what every request may cause while something is broken:
// a line per second tells as much.
func quietly(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Second, 1, 0)
	}))
}

// askCustom asks the authorizers of the CUSTOM policies that fit. The error is an
// *authorizerRefusal, or the client's, whose content could not be read.
func (e *exchange) askCustom(ctx context.Context, consent *request.Consent) error {
	for i, ask := range consent.Asks() {
		if ask.Auth == nil {
			continue // Authorize denies it
		}
		if err := e.ask(ctx, ask.Provider, ask.Auth); err != nil {
			e.rec.Policy = ask.Policy
			return err
		}
		consent.Agree(i)
	}
	return nil
}

// askFilters asks the authorizers of a rule or a backend.
func (e *exchange) askFilters(ctx context.Context, filters route.Filters) error {
	for i := range filters {
		if auth := filters[i].ExternalAuth; auth != nil {
			if auth.Backend.Fault != "" {
				return &authorizerRefusal{auth.Backend.Service, extauthz.Failed(&api.ExternalAuth{StatusOnError: 500}, errors.New(auth.Backend.Fault))}
			}
			name := auth.Spec.GetName()
			if name == "" {
				name = auth.Backend.Service
			}
			if err := e.ask(ctx, name, auth.Spec); err != nil {
				return err
			}
		}
	}
	return nil
}

// consult asks the external authorizers among the filters, and answers a request that
// may not pass.
func (e *exchange) consult(ctx context.Context, filters route.Filters) bool {
	if !asks(filters) {
		return true
	}
	if err := e.askFilters(ctx, filters); err != nil {
		e.rec.Err = err
		e.deny(err)
		return false
	}
	return true
}

// consultRule asks those of the rule.
func (e *exchange) consultRule(ctx context.Context) bool {
	return e.d.Rule == nil || e.consult(ctx, e.d.Rule.Filters)
}

// ask asks one authorizer and changes the request as it wants.
func (e *exchange) ask(ctx context.Context, name string, auth *api.ExternalAuth) error {
	q := &extauthz.Question{
		Request: e.r, Two: e.c.Version == 2, ID: e.identify(), Source: e.c.Source, Principal: identity(e.c),
		Destination: e.c.Destination, Time: e.rec.Start,
	}
	if !e.f.cfg.Identity.IsZero() {
		q.Own = e.f.cfg.Identity.String()
	}
	var answer *extauthz.Answer
	release, err := e.quote(q, auth)
	switch {
	case errors.Is(err, errPeeksFull):
		answer = e.f.authorizers.Unasked(name, auth, err)
	case err != nil:
		return err
	default:
		answer = func() *extauthz.Answer {
			defer release()
			return e.f.ask(ctx, name, auth, q)
		}()
	}
	switch {
	case !answer.Allowed():
		return &authorizerRefusal{name, answer}
	case answer.Err != nil:
		e.f.quiet.Warn("request passes although its external authorizer could not be asked, as its provider has it",
			zap.String("provider", name), zap.Error(answer.Err))
	}
	answer.Apply(e.r)
	if answer.Responds() {
		e.answers = append(e.answers, answer)
	}
	return nil
}

func identity(c *Client) string {
	if c.Identity.IsZero() {
		return ""
	}
	return c.Identity.String()
}

// ask asks an authorizer of the mesh.
func (f *Forwarder) ask(ctx context.Context, name string, auth *api.ExternalAuth, q *extauthz.Question) *extauthz.Answer {
	begun := time.Now()
	a := f.askUncounted(ctx, auth, q)
	if ctx.Err() == nil { // else nobody knows what it would have said
		f.authorizers.Asked(name, a, time.Since(begun))
	}
	return a
}

func (f *Forwarder) askUncounted(ctx context.Context, auth *api.ExternalAuth, q *extauthz.Question) *extauthz.Answer {
	backend := auth.GetBackend()
	if backend.GetFault() != "" {
		return extauthz.Failed(auth, errors.New(backend.GetFault()))
	}
	key, ok := workload.ParseServiceKey(backend.GetService())
	if !ok || backend.GetPort() == 0 || backend.GetPort() > 65535 {
		return extauthz.Failed(auth, fmt.Errorf("%q, port %d, is no service", backend.GetService(), backend.GetPort()))
	}
	within, cancel := extauthz.InTime(ctx, auth)
	defer cancel()
	d, err := f.cfg.Mesh.Destination(within, key, uint16(backend.GetPort()), "")
	if err == nil && d.Fault() != "" {
		err = fmt.Errorf("%s: %s", d.Name(), d.Fault())
	}
	if err != nil {
		if cause := context.Cause(within); cause != nil {
			err = cause
		}
		return extauthz.Failed(auth, err)
	}
	q.Secure = d.Secure
	return extauthz.Ask(within, auth, d.Backend, d.Protocol, q)
}

// identify gives the request an x-request-id, where it has none.
func (e *exchange) identify() string {
	id := e.r.Header.Get("x-request-id")
	if id == "" {
		id = newRequestID()
		e.r.Header.Set("x-request-id", id)
	}
	return id
}

// refuse answers what an authorizer did not let pass.
func (e *exchange) refuse(a *extauthz.Answer) {
	text := "access denied by policy"
	if a.Err == nil {
		text = string(a.Content)
	}
	header := make(message.Header, 0, len(a.Header)+1)
	typed := false
	for _, f := range a.Header {
		if f.Name == "content-type" {
			if typed = true; isGRPC(e.r.Header) {
				continue
			}
		}
		header = append(header, f)
	}
	if isGRPC(e.r.Header) || a.Err != nil {
		text = text[:min(len(text), maxMessageBytes)]
		e.reply(reply{status: a.Status, flag: flagDenied, text: text, header: header})
		return
	}
	e.rec.Status, e.rec.Flag = a.Status, flagDenied
	empty := len(a.Content) == 0 || e.r.Method == "HEAD"
	if !typed && !empty {
		header = append(header, message.Field{Name: "content-type", Value: "text/plain; charset=utf-8"})
	}
	r := &message.Response{Status: a.Status, Header: header, Length: int64(len(a.Content))}
	e.leave(r)
	err := e.x.Respond(r, empty)
	if err == nil && !empty {
		_, err = e.x.Write(a.Content)
	}
	if err == nil {
		err = e.x.Close(nil)
	}
	e.rec.fail(flagDownstream, err)
}

// askBytes asks about a connection that carries bytes, which only gRPC can.
func (f *Forwarder) askBytes(ctx context.Context, c *Client, consent *request.Consent) error {
	for i, ask := range consent.Asks() {
		if ask.Auth == nil {
			continue
		}
		q := &extauthz.Question{Source: c.Source, Principal: identity(c), Destination: c.Destination, Time: time.Now(), Whole: true}
		if !f.cfg.Identity.IsZero() {
			q.Own = f.cfg.Identity.String()
		}
		answer := f.ask(ctx, ask.Provider, ask.Auth, q)
		if !answer.Allowed() {
			return &authorizerRefusal{ask.Provider, answer}
		}
		consent.Agree(i)
	}
	return nil
}
