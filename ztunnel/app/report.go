package app

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/tulle-mesh/tulle/internal/accesslog"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/handshake"
	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/mtls"
	"github.com/tulle-mesh/tulle/ztunnel/conntrack"
	"github.com/tulle-mesh/tulle/ztunnel/inbound"
	"github.com/tulle-mesh/tulle/ztunnel/metrics"
	"github.com/tulle-mesh/tulle/ztunnel/outbound"
)

// reporter writes the access log and counts the metrics.
type reporter struct {
	log     *accesslog.Log
	metrics *metrics.Metrics
}

// report is one open connection.
type report struct {
	*reporter
	c                      *conntrack.Connection
	fromClient, fromServer *atomic.Uint64
	count                  *metrics.Connection
}

// Opened implements conntrack.Reporter.
func (r *reporter) Opened(c *conntrack.Connection, fromClient, fromServer *atomic.Uint64) conntrack.Report {
	r.log.Opened(entry(c))
	return &report{reporter: r, c: c, fromClient: fromClient, fromServer: fromServer,
		count: r.metrics.Open(peers(c), fromClient, fromServer)}
}

// Closed implements conntrack.Report.
func (r *report) Closed(d time.Duration, err error) {
	e := entry(r.c)
	e.FromClient, e.FromServer = r.fromClient.Load(), r.fromServer.Load()
	e.Duration, e.Err = d, err
	if policy := deniedBy(err); policy != "" {
		e.Policy = policy
	}
	r.log.Connection(e)
	r.count.Close(flag(err))
}

// Failed implements conntrack.Reporter. A connection of which nothing but its
// addresses is known was refused early; any other is a connection that failed.
func (r *reporter) Failed(c *conntrack.Connection, d time.Duration, err error) {
	e := entry(c)
	e.Duration, e.Err, e.Policy = d, err, deniedBy(err)
	if c.SrcWorkload == nil && c.DstWorkload == nil {
		r.log.Refused(e)
	} else {
		r.log.Connection(e)
	}
	r.metrics.Failed(peers(c), flag(err))
}

func entry(c *conntrack.Connection) accesslog.Entry {
	e := accesslog.Entry{
		Direction: accesslog.Inbound, Source: c.Src, SourceWorkload: c.SrcWorkload, SourceIdentity: c.SrcIdentity,
		Destination: c.ActualDst, DestinationService: c.DstService,
		DestinationWorkload: c.DstWorkload, DestinationIdentity: c.DstIdentity, Policy: c.Policy, Retried: c.Retried,
	}
	if c.Direction == conntrack.Outbound {
		e.Direction = accesslog.Outbound
	}
	switch c.Protocol {
	case conntrack.HBONE:
		e.Carrier = "h2"
	case conntrack.HBONEQUIC:
		e.Carrier = "h3"
	case conntrack.Local:
		e.Carrier = "local"
	}
	if c.TunnelDst.IsValid() {
		e.Destination = c.TunnelDst
		if c.ActualDst.IsValid() {
			e.HBONEAddr = c.ActualDst.String()
		}
	}
	return e
}

func peers(c *conntrack.Connection) metrics.Peers {
	p := metrics.Peers{
		Reporter: metrics.Destination, Source: c.SrcWorkload, Destination: c.DstWorkload,
		SourceIdentity: c.SrcIdentity, DestinationIdentity: c.DstIdentity, Service: c.DstService,
		MutualTLS: c.Protocol != conntrack.TCP,
	}
	if c.Direction == conntrack.Outbound {
		p.Reporter = metrics.Source
	}
	return p
}

func deniedBy(err error) string {
	if denial := (*authz.Denial)(nil); errors.As(err, &denial) {
		return denial.Policy
	}
	return ""
}

// flag is the response_flags of a connection that ended with err.
func flag(err error) metrics.Flag {
	var (
		denial *authz.Denial
		ourIn  *inbound.Refusal
		ourOut *outbound.Refusal
		status *hbone.StatusError
		failed *handshake.Error
		peer   *mtls.PeerError
		domain *mtls.TrustDomainError
	)
	switch {
	case err == nil:
		return metrics.FlagNone
	case errors.As(err, &denial), errors.As(err, &ourIn) && ourIn.Status == 401, errors.As(err, &ourOut):
		return metrics.FlagDeny
	case errors.As(err, &status) && status.Status == 401:
		return metrics.FlagDeny
	case errors.As(err, &peer), errors.As(err, &domain):
		return metrics.FlagIdentity
	case errors.As(err, &failed):
		return metrics.FlagTLSFailure
	}
	return metrics.FlagConnect
}
