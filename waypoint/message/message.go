package message

// Request is the head of a request, in normal form. A codec makes it; who gets it
// owns it until its exchange ends.
type Request struct {
	// Method is a token (RFC 9110, 9.1), as sent.
	Method string
	// Scheme is "http" or "https".
	Scheme string
	// Authority is host[:port] in lower case: the Host field of HTTP/1.1, :authority
	// of HTTP/2. It is empty only where HTTP/1.0 sent none.
	Authority string
	// Path is what NormalizePath returns: it begins with "/", or is "*" in OPTIONS *,
	// or "" in CONNECT.
	Path string
	// Query is what follows the first "?", as sent; HasQuery tells an empty one from
	// none.
	Query    string
	HasQuery bool
	// Protocol is what the client wants to change to, in lower case: of Upgrade in
	// HTTP/1.1, of :protocol in HTTP/2 (RFC 8441). Empty without.
	Protocol string
	// Header has neither Host nor what only frames the message or belongs to one
	// connection: connection, content-length, transfer-encoding, upgrade,
	// keep-alive, proxy-connection, expect, and te but for "trailers".
	Header Header
	// Length is that of the content in bytes, -1 when only its end tells.
	Length int64
	// ExpectContinue says that the client waits for 100 before it sends the content.
	ExpectContinue bool
}

// Target returns path and query as they stand in a request line or :path.
func (r *Request) Target() string {
	if r.HasQuery {
		return r.Path + "?" + r.Query
	}
	return r.Path
}

// Clone returns a copy that may be changed apart.
func (r *Request) Clone() *Request {
	c := *r
	c.Header = r.Header.Clone()
	return &c
}

// Response is the head of a response. Header is without what Request.Header is
// without.
type Response struct {
	// Status is 100 to 599.
	Status int
	Header Header
	// Length is that of the content in bytes, -1 when only its end tells. Responses
	// to HEAD and those with 304 tell the length of what they do not have.
	Length int64
}

// Interim reports whether another response follows (RFC 9110, 15.2). 101 ends the
// exchange of messages, so it is none.
func (r *Response) Interim() bool { return r.Status < 200 && r.Status != 101 }
