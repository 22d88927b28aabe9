package caclient

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxTokenBytes bounds the file: more than any header list that gRPC servers
// accept by default would carry.
const maxTokenBytes = 16 << 10

// TokenFile authenticates requests with the bearer token in a file, which is
// read again for every request: Kubernetes replaces a projected token long
// before it expires. It implements credentials.PerRPCCredentials, for one call
// or a whole connection.
type TokenFile struct {
	Path string
	// Insecure allows sending the token over a connection without TLS. For
	// tests only: who sees the token is its bearer.
	Insecure bool
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t TokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	f, err := os.Open(t.Path)
	if err != nil {
		return nil, fmt.Errorf("bearer token: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTokenBytes+1))
	if err != nil {
		return nil, fmt.Errorf("bearer token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	switch {
	case len(data) > maxTokenBytes:
		return nil, fmt.Errorf("bearer token: %s is larger than %d bytes", t.Path, maxTokenBytes)
	case token == "":
		return nil, fmt.Errorf("bearer token: %s is empty", t.Path)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		// gRPC would refuse the header with an error that shows it.
		return nil, fmt.Errorf("bearer token: %s holds characters that a token cannot have", t.Path)
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (t TokenFile) RequireTransportSecurity() bool { return !t.Insecure }
