package ca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tulle-mesh/tulle/api/auth"
	"github.com/tulle-mesh/tulle/certs"
)

// DefaultNodeAccount is the account of node proxies, as in Istio.
const DefaultNodeAccount = "istio-system/ztunnel"

// impersonatedIdentity is the key of the request's metadata under which a node
// proxy names the identity that it asks for.
const impersonatedIdentity = "ImpersonatedIdentity"

// Placement knows which service accounts run where.
type Placement interface {
	// RunsOnNode reports whether a live pod of the service account runs on the
	// node. It does not block.
	RunsOnNode(node, namespace, serviceAccount string) bool
}

// Pods knows the pods that tokens are bound to.
type Pods interface {
	// Pod returns a pod and whether there is one that has not ended. It does
	// not block.
	Pod(namespace, name string) (Pod, bool)
}

// Pod is what a token says of its pod, as the cluster knows it.
type Pod struct{ UID, ServiceAccount, Node string }

// Config is what a [Server] needs. Authority and Placement must be set.
type Config struct {
	Authority *certs.Authority
	Placement Placement
	// Pods has the pod of a caller that asks for the identity of others looked
	// up: it must be there, alive, and what the token says that it is. Nil
	// takes the token's word, where tokens are made by who makes the pods.
	Pods Pods
	// NodeAccounts lists, as namespace/name, who may ask for the identities of
	// pods on its node. Empty means DefaultNodeAccount.
	NodeAccounts []string
	// PlacementWait bounds the wait for a pod that is not known yet; zero means
	// DefaultPlacementWait, negative no wait.
	PlacementWait time.Duration
	Logger        *zap.Logger           // may be nil
	Registerer    prometheus.Registerer // may be nil
}

// Server implements auth.IstioCertificateServiceServer. Its calls must have come
// through [Interceptors]. It is safe for concurrent use.
type Server struct {
	auth.UnimplementedIstioCertificateServiceServer
	cfg     Config
	metrics *metrics
	waiters chan struct{}
}

// NewServer checks cfg and returns the service.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Authority == nil || cfg.Placement == nil {
		return nil, errors.New("ca: no authority or no placement")
	}
	if len(cfg.NodeAccounts) == 0 {
		cfg.NodeAccounts = []string{DefaultNodeAccount}
	}
	cfg.NodeAccounts = slices.Clone(cfg.NodeAccounts)
	for _, account := range cfg.NodeAccounts {
		ns, name, ok := strings.Cut(account, "/")
		if !ok || ns == "" || name == "" || strings.Contains(name, "/") {
			return nil, fmt.Errorf("ca: node account %q is not of the form namespace/name", account)
		}
	}
	cfg.PlacementWait = cmp.Or(cfg.PlacementWait, DefaultPlacementWait)
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	m, err := newMetrics(cfg.Registerer, cfg.Authority)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, metrics: m, waiters: make(chan struct{}, maxPlacementWaiters)}, nil
}

// refusal is a decision against a request: why for the log and the metric, and
// all that the caller is told.
type refusal struct {
	reason certs.Reason
	code   codes.Code
	err    error
}

func (r *refusal) Error() string { return string(r.reason) + ": " + r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// Reasons of this package's own refusals, beside those of certs.
const (
	reasonUnauthenticated certs.Reason = "unauthenticated"
	reasonRequest         certs.Reason = "bad_request"
	reasonNotNode         certs.Reason = "not_a_node_account"
	reasonNoNode          certs.Reason = "token_without_node"
	reasonNotPlaced       certs.Reason = "not_on_node"
	reasonPod             certs.Reason = "caller_pod"
	reasonCanceled        certs.Reason = "canceled"
)

func deny(reason certs.Reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, code: codes.PermissionDenied, err: fmt.Errorf(format, args...)}
}

// CreateCertificate implements auth.IstioCertificateServiceServer.
func (s *Server) CreateCertificate(ctx context.Context, req *auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
	s.metrics.requests.Inc()
	caller, authenticated := CallerFromContext(ctx)
	log := s.cfg.Logger.With(zap.String("caller", caller.Account()), zap.String("pod", caller.PodName),
		zap.String("node", caller.Node), zap.String("peer", peerAddress(ctx)))
	var id spiffeid.ID
	issued, err := func() (*certs.Issued, error) {
		if !authenticated {
			return nil, &refusal{reasonUnauthenticated, codes.Unauthenticated, errors.New("no interceptor has authenticated the call")}
		}
		var err error
		if id, err = s.grant(ctx, caller, req); err != nil {
			return nil, err
		}
		return s.cfg.Authority.Issue([]byte(req.GetCsr()), id, lifetime(req.GetValidityDuration()))
	}()
	if err != nil {
		r := refusalOf(err)
		s.metrics.refused(r.reason)
		fields := []zap.Field{zap.String("reason", string(r.reason)), zap.Error(r.err)}
		if !id.IsZero() {
			fields = append(fields, zap.String("identity", id.String()))
		}
		log.Info("certificate refused", fields...)
		return nil, status.Error(r.code, publicMessage(r.code))
	}
	s.metrics.issued.Inc()
	log.Info("certificate issued",
		zap.String("identity", id.String()),
		zap.String("serial", certs.SerialText(issued.Leaf.SerialNumber)),
		zap.Time("not_after", issued.Leaf.NotAfter))
	return &auth.IstioCertificateResponse{CertChain: issued.Chain}, nil
}

// grant decides which identity the caller gets.
func (s *Server) grant(ctx context.Context, caller Caller, req *auth.IstioCertificateRequest) (spiffeid.ID, error) {
	asked, impersonates, err := askedIdentity(req.GetMetadata())
	if err != nil {
		return spiffeid.ID{}, &refusal{reasonRequest, codes.InvalidArgument, err}
	}
	td := s.cfg.Authority.TrustDomain()
	if !impersonates {
		own, err := spiffeid.FromSegments(td, "ns", caller.Namespace, "sa", caller.ServiceAccount)
		if err != nil {
			return spiffeid.ID{}, deny(reasonRequest, "identity of the caller: %w", err)
		}
		return own, nil
	}
	ns, sa, err := splitIdentity(asked)
	switch {
	case err != nil:
		return spiffeid.ID{}, &refusal{reasonRequest, codes.InvalidArgument, err}
	case !slices.Contains(s.cfg.NodeAccounts, caller.Account()):
		return asked, deny(reasonNotNode, "%s is no node account (%s)", caller.Account(), strings.Join(s.cfg.NodeAccounts, ", "))
	case caller.Node == "":
		return asked, deny(reasonNoNode, "the token of %s names no node", caller.Account())
	case asked.TrustDomain() != td:
		return asked, deny(certs.ReasonTrustDomain, "%s is not in the trust domain %s", asked, td)
	}
	if err := s.await(ctx, func() *refusal { return s.checkPlacement(caller, ns, sa) }); err != nil {
		return asked, err
	}
	return asked, nil
}

// checkPlacement returns why the caller may not have the certificate of the
// service account now, nil when it may.
func (s *Server) checkPlacement(caller Caller, ns, sa string) *refusal {
	if s.cfg.Pods != nil {
		pod, ok := s.cfg.Pods.Pod(caller.Namespace, caller.PodName)
		switch {
		case !ok:
			return deny(reasonPod, "no live pod %s/%s is known, to which the token of the caller is bound", caller.Namespace, caller.PodName)
		case pod.UID != caller.PodUID:
			return deny(reasonPod, "the pod %s/%s has the UID %s, the token is bound to one with %s", caller.Namespace, caller.PodName, pod.UID, caller.PodUID)
		case pod.ServiceAccount != caller.ServiceAccount:
			return deny(reasonPod, "the pod %s/%s runs under the service account %s, the token is of %s", caller.Namespace, caller.PodName, pod.ServiceAccount, caller.ServiceAccount)
		case pod.Node != caller.Node:
			return deny(reasonPod, "the pod %s/%s runs on the node %q, the token is of %q", caller.Namespace, caller.PodName, pod.Node, caller.Node)
		}
	}
	if !s.cfg.Placement.RunsOnNode(caller.Node, ns, sa) {
		return deny(reasonNotPlaced, "no pod with the service account %s/%s is known to run on node %s", ns, sa, caller.Node)
	}
	return nil
}

// await returns nil once check does, and its refusal when it does not within
// the configured wait: a new pod may be known to its node before it is here.
func (s *Server) await(ctx context.Context, check func() *refusal) error {
	refused := check()
	if refused == nil {
		return nil
	}
	if s.cfg.PlacementWait < 0 {
		return refused
	}
	select {
	case s.waiters <- struct{}{}:
		defer func() { <-s.waiters }()
	default:
		return refused
	}
	deadline := time.NewTimer(s.cfg.PlacementWait)
	defer deadline.Stop()
	poll := time.NewTicker(placementPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return &refusal{reasonCanceled, codes.Canceled, context.Cause(ctx)}
		case <-deadline.C:
			return refused
		case <-poll.C:
			if refused = check(); refused == nil {
				return nil
			}
		}
	}
}

// askedIdentity reads the request's metadata. Keys other than
// ImpersonatedIdentity are other authorities' business and passed over.
func askedIdentity(md *structpb.Struct) (id spiffeid.ID, present bool, err error) {
	value, present := md.GetFields()[impersonatedIdentity]
	if !present {
		return spiffeid.ID{}, false, nil
	}
	text, ok := value.GetKind().(*structpb.Value_StringValue)
	if !ok {
		return spiffeid.ID{}, true, fmt.Errorf("%s is not a string", impersonatedIdentity)
	}
	if len(text.StringValue) > maxIdentityBytes {
		return spiffeid.ID{}, true, fmt.Errorf("%s of %d bytes, at most %d are read", impersonatedIdentity, len(text.StringValue), maxIdentityBytes)
	}
	if id, err = spiffeid.FromString(text.StringValue); err != nil {
		return spiffeid.ID{}, true, fmt.Errorf("%s: %w", impersonatedIdentity, err)
	}
	return id, true, nil
}

// splitIdentity takes apart spiffe://<td>/ns/<namespace>/sa/<service account>.
func splitIdentity(id spiffeid.ID) (ns, sa string, err error) {
	parts := strings.Split(id.Path(), "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return "", "", fmt.Errorf("%s is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>", id)
	}
	return parts[2], parts[4], nil
}

// lifetime turns seconds into a duration without overflow.
func lifetime(seconds int64) time.Duration {
	if seconds <= 0 {
		return 0
	}
	return time.Duration(min(seconds, math.MaxInt64/int64(time.Second))) * time.Second
}

func refusalOf(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var csr *certs.CSRError
	if errors.As(err, &csr) {
		if csr.Reason == certs.ReasonTrustDomain {
			return &refusal{csr.Reason, codes.PermissionDenied, err}
		}
		return &refusal{csr.Reason, codes.InvalidArgument, err}
	}
	return &refusal{certs.ReasonNotAvailable, codes.Unavailable, err}
}

// publicMessage is all that a caller learns of a refusal.
func publicMessage(code codes.Code) string {
	switch code {
	case codes.Unauthenticated:
		return "the request is not authenticated"
	case codes.InvalidArgument:
		return "the request is not acceptable"
	case codes.Canceled:
		return "the request was canceled"
	case codes.Unavailable:
		return "the authority cannot sign now, try again"
	default:
		return "the request is not permitted"
	}
}
