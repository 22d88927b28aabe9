package jwt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Document is what a server answered.
type Document struct {
	Body []byte
	// MaxAge is how long the server says that it is fresh, zero when it does not.
	MaxAge time.Duration
}

// Fetcher gets documents of issuers. It must bound what it reads, end with ctx, and
// be safe for concurrent use.
type Fetcher interface {
	Fetch(ctx context.Context, url string) (Document, error)
}

// HTTPFetcher fetches over HTTP and HTTPS, with the system's certificate authorities.
type HTTPFetcher struct{ client *http.Client }

// NewHTTPFetcher returns a fetcher. dial nil connects directly, and not to addresses
// of this machine or its link: whoever may write a RequestAuthentication chooses the
// URL, and must reach neither the waypoint's own ports nor a cloud's metadata.
func NewHTTPFetcher(dial func(ctx context.Context, network, address string) (net.Conn, error)) *HTTPFetcher {
	if dial == nil {
		dial = Dial
	}
	return &HTTPFetcher{client: &http.Client{
		// Keys are fetched every few minutes: nothing is worth keeping in between.
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case len(via) > maxRedirects:
				return fmt.Errorf("more than %d redirects", maxRedirects)
			case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
				return errors.New("redirected from https to " + r.URL.Scheme)
			}
			return nil
		},
	}}
}

// Dial connects directly, and not to addresses of this machine or its link.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{Control: guard}).DialContext(ctx, network, address)
}

var errGuarded = errors.New("addresses of this machine and its link are not for policies to choose")

func guard(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if a := ap.Addr().Unmap(); a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return errGuarded
	}
	return nil
}

// Fetch gets a document of at most 1 MiB.
func (f *HTTPFetcher) Fetch(ctx context.Context, url string) (Document, error) {
	if !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
		return Document{}, fmt.Errorf("fetch %s: neither https nor http", url)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Document{}, err
	}
	req.Header.Set("Accept", "application/json")
	res, err := f.client.Do(req)
	if err != nil {
		return Document{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Document{}, fmt.Errorf("fetch %s: status %d", url, res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxDocumentBytes+1))
	if err != nil {
		return Document{}, fmt.Errorf("fetch %s: %w", url, err)
	}
	if len(body) > maxDocumentBytes {
		return Document{}, fmt.Errorf("fetch %s: longer than %d bytes", url, maxDocumentBytes)
	}
	return Document{Body: body, MaxAge: freshness(res.Header.Get("Cache-Control"))}, nil
}

// freshness reads max-age of Cache-Control (RFC 9111, 5.2.2.1).
func freshness(control string) time.Duration {
	for directive := range strings.SplitSeq(control, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if strings.EqualFold(name, "max-age") {
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err == nil {
				return time.Duration(seconds) * time.Second
			}
		}
	}
	return 0
}
