package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// explained is an error in words for an operator, with the original behind it.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

// Explain puts an error of the cluster's API into words that say what to do:
// servers that do not answer with their address, missing rights with the verb.
// Other errors come back as they are; nil stays nil.
func (c *Client) Explain(err error) error {
	var done *explained
	if err == nil || errors.As(err, &done) {
		return err
	}
	if text := c.words(err); text != "" {
		return &explained{text, err}
	}
	return err
}

func (c *Client) words(err error) string {
	var (
		host      *net.DNSError
		op        *net.OpError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case apierrors.IsUnauthorized(err):
		return fmt.Sprintf("%s does not accept the credentials of %s: %s; log in again, or choose another context with --context", c.server(), c.who(), reason(err))
	case apierrors.IsForbidden(err):
		return c.forbidden(err)
	case errors.Is(err, context.Canceled):
		return ""
	case errors.As(err, &authority), errors.As(err, &name), errors.As(err, &invalid):
		return fmt.Sprintf("%s shows a certificate that the kubeconfig does not trust: %v; check certificate-authority of %s", c.server(), root(err), c.who())
	case errors.As(err, &host):
		return fmt.Sprintf("%s is not reachable: its name %s is not known; check the server of %s", c.server(), host.Name, c.who())
	case errors.As(err, &op):
		return fmt.Sprintf("%s is not reachable: %v; is the cluster up, and is %s the right one?", c.server(), op.Err, c.who())
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("%s did not answer in time; is the cluster up, and is %s the right one?", c.server(), c.who())
	}
	return ""
}

// forbidden says which right is missing and how to look it up.
func (c *Client) forbidden(err error) string {
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) {
		return ""
	}
	message := status.Status().Message
	d := status.Status().Details
	verb := quotedAfter(message, "cannot ")
	resource := quotedAfter(message, " resource ")
	if verb == "" || d == nil {
		return fmt.Sprintf("%s may not do this: %s", c.who(), message)
	}
	if resource == "" {
		resource = d.Kind
	}
	if d.Group != "" {
		resource += "." + d.Group
	}
	object, check := resource, "kubectl auth can-i "+verb+" "+resource
	if d.Name != "" && !strings.Contains(resource, "/") {
		object += " " + d.Name
	}
	if ns := quotedAfter(message, "in the namespace "); ns != "" {
		object, check = object+" in namespace "+ns, check+" -n "+ns
	} else {
		object, check = object+" in all namespaces", check+" -A"
	}
	return fmt.Sprintf("%s may not %s %s: it needs a role with that verb (%s)", c.who(), verb, object, check)
}

// quotedAfter returns verb from `… cannot list resource "pods" …` and the like: a
// word, quoted or not.
func quotedAfter(text, mark string) string {
	_, rest, ok := strings.Cut(text, mark)
	if !ok {
		return ""
	}
	if rest, ok := strings.CutPrefix(rest, `"`); ok {
		word, _, _ := strings.Cut(rest, `"`)
		return word
	}
	word, _, _ := strings.Cut(rest, " ")
	return word
}

func (c *Client) server() string { return "the API server " + c.Config.Host }

func (c *Client) who() string {
	if c.Context == "" {
		return "this service account"
	}
	return fmt.Sprintf("context %q", c.Context)
}

func reason(err error) string {
	status := apierrors.APIStatus(nil)
	if errors.As(err, &status) && status.Status().Message != "" {
		return status.Status().Message
	}
	return err.Error()
}

func root(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
