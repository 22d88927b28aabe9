package caclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/tulle-mesh/tulle/api/auth"
	"github.com/tulle-mesh/tulle/certs"
)

// ImpersonatedIdentity is the key in the request's metadata under which a node
// proxy names the SPIFFE ID that it asks for.
const ImpersonatedIdentity = "ImpersonatedIdentity"

const (
	// DefaultTimeout bounds one request: an authority that is up answers within
	// a second, and one that is not should be asked again elsewhere.
	DefaultTimeout = 10 * time.Second
	// maxResponseBytes bounds an answer: the largest chain that is read, and
	// its framing.
	maxResponseBytes = certs.MaxChainBytes + 4<<10
)

// Config says how a [Client] asks. The zero value is usable.
type Config struct {
	// Token authenticates each request; nil when the connection does already.
	Token credentials.PerRPCCredentials
	// TTL is the lifetime asked for; zero means certs.DefaultLeafTTL. The
	// authority may grant less.
	TTL time.Duration
	// Timeout bounds one request; zero means DefaultTimeout.
	Timeout time.Duration
	// Now is the clock against which answers are checked; nil means time.Now.
	Now func() time.Time
	// Own leaves out ImpersonatedIdentity: the caller asks for the identity
	// that its token proves.
	Own bool
}

// Client asks one authority. It is safe for concurrent use.
type Client struct {
	api auth.IstioCertificateServiceClient
	cfg Config
}

// New returns a client of the authority at the other end of conn, which stays
// the caller's to close.
func New(conn grpc.ClientConnInterface, cfg Config) *Client {
	cfg.TTL = cmp.Or(cfg.TTL, certs.DefaultLeafTTL)
	cfg.Timeout = cmp.Or(cfg.Timeout, DefaultTimeout)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Client{api: auth.NewIstioCertificateServiceClient(conn), cfg: cfg}
}

// Error is a failure to get a certificate.
type Error struct {
	Identity spiffeid.ID
	// Code is the authority's answer, or codes.Unknown when there was none.
	Code codes.Code
	Err  error
	// permanent: the authority answered, and decided against us.
	permanent bool
}

func (e *Error) Error() string {
	verb := "request"
	if e.permanent {
		verb = "refused"
	}
	return fmt.Sprintf("certificate for %s: %s: %v", e.Identity, verb, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Permanent reports whether asking again at once is pointless: the authority
// has understood the request and refused it, or answered with what cannot be
// used. Otherwise the failure lies with the way there or passes by itself.
func (e *Error) Permanent() bool { return e.permanent }

// Sign makes a key, asks the authority to certify it for id, and checks what
// comes back. It blocks until the answer is there, the request's timeout is
// over, or ctx is done. Errors are of type *Error.
func (c *Client) Sign(ctx context.Context, id spiffeid.ID) (*x509svid.SVID, *x509bundle.Bundle, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	key, csr, err := certs.NewRequest(id)
	if err != nil {
		return nil, nil, &Error{Identity: id, Code: codes.Unknown, Err: err}
	}
	req := &auth.IstioCertificateRequest{
		Csr:              string(csr),
		ValidityDuration: int64(c.cfg.TTL / time.Second),
	}
	if !c.cfg.Own {
		req.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{
			ImpersonatedIdentity: structpb.NewStringValue(id.String()),
		}}
	}
	options := []grpc.CallOption{grpc.MaxCallRecvMsgSize(maxResponseBytes)}
	if c.cfg.Token != nil {
		options = append(options, grpc.PerRPCCredentials(c.cfg.Token))
	}
	resp, err := c.api.CreateCertificate(ctx, req, options...)
	if err != nil {
		code := status.Code(err)
		return nil, nil, &Error{Identity: id, Code: code, Err: err, permanent: refusal(code)}
	}
	svid, bundle, err := certs.VerifyIssued(resp.GetCertChain(), key, id, c.cfg.Now())
	if err != nil {
		var issued *certs.IssuedError
		if errors.As(err, &issued) && issued.Err != nil {
			err = fmt.Errorf("%s: %w", issued.Detail, issued.Err)
		} else if issued != nil {
			err = errors.New(issued.Detail)
		}
		return nil, nil, &Error{Identity: id, Code: codes.OK, Err: fmt.Errorf("the authority's answer is unusable: %w", err), permanent: true}
	}
	return svid, bundle, nil
}

// refusal tells the codes by which an authority decides from those by which a
// connection or a busy server fails.
func refusal(code codes.Code) bool {
	switch code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented, codes.Unauthenticated:
		return true
	}
	return false
}
