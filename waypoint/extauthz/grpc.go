package extauthz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/message"
)

// prefixBytes are before every message of gRPC (gRPC over HTTP/2, "Length-Prefixed-
// Message"): a flag for compression and the length.
const prefixBytes = 5

// callOf makes the question as a unary call.
func callOf(auth *api.ExternalAuth, q *Question, timeout time.Duration) (*message.Request, []byte, error) {
	content := make([]byte, prefixBytes, 1024)
	content, err := proto.MarshalOptions{}.MarshalAppend(content, checkRequest(auth, q))
	if err != nil {
		return nil, nil, fmt.Errorf("write the question: %w", err)
	}
	binary.BigEndian.PutUint32(content[1:], uint32(len(content)-prefixBytes))
	service := auth.GetBackend().GetService()
	if _, host, ok := strings.Cut(service, "/"); ok {
		service = host
	}
	return &message.Request{
		Method: "POST", Scheme: scheme(q), Authority: service, Path: authv3.Authorization_Check_FullMethodName,
		Header: message.Header{
			{Name: "content-type", Value: "application/grpc"},
			{Name: "te", Value: "trailers"},
			{Name: "grpc-timeout", Value: strconv.FormatInt(timeout.Milliseconds(), 10) + "m"},
			{Name: "user-agent", Value: "tulle-waypoint"},
		},
		Length: -1,
	}, content, nil
}

func peer(at netip.AddrPort, principal string) *authv3.AttributeContext_Peer {
	p := &authv3.AttributeContext_Peer{Principal: principal}
	if at.IsValid() {
		p.Address = &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: at.Addr().Unmap().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())},
		}}}
	}
	return p
}

func checkRequest(auth *api.ExternalAuth, q *Question) *authv3.CheckRequest {
	attributes := &authv3.AttributeContext{
		Source:      peer(q.Source, q.Principal),
		Destination: peer(q.Destination, q.Own),
		Request:     &authv3.AttributeContext_Request{Time: timestamppb.New(q.Time)},
	}
	r := q.Request
	if r == nil {
		return &authv3.CheckRequest{Attributes: attributes}
	}
	protocol := "HTTP/1.1"
	if q.Two {
		protocol = "HTTP/2"
	}
	http := &authv3.AttributeContext_HttpRequest{
		Id: text(q.ID), Method: r.Method, Path: text(r.Target()), Host: text(r.Authority), Scheme: r.Scheme, Protocol: protocol,
		Headers: headers(auth, r), Size: -1,
	}
	if r.Length >= 0 {
		http.Size = r.Length
	}
	if auth.GetMaxBodyBytes() > 0 {
		http.Headers[partialBody] = fmt.Sprint(!q.Whole)
		if auth.GetRawBody() || !utf8.Valid(q.Body) {
			http.RawBody = q.Body
		} else {
			http.Body = string(q.Body)
		}
	}
	attributes.Request.Http = http
	return &authv3.CheckRequest{Attributes: attributes}
}

// headers are the fields that are sent along, those of one name joined by commas, and
// what HTTP/2 has for the request line.
func headers(auth *api.ExternalAuth, r *message.Request) map[string]string {
	allowed := auth.GetAllowedHeaders()
	out := make(map[string]string, len(r.Header)+4)
	put := func(name, value string) {
		if len(allowed) > 0 && !fits(allowed, name) {
			return
		}
		value = text(value)
		if before, ok := out[name]; ok {
			value = before + "," + value
		}
		out[name] = value
	}
	put(":authority", r.Authority)
	put(":method", r.Method)
	put(":path", r.Target())
	put(":scheme", r.Scheme)
	for _, f := range r.Header {
		put(f.Name, f.Value)
	}
	return out
}

// text makes a field's value one that protobuf's strings take: octets beyond UTF-8 are
// replaced, as Envoy's sanitizing does.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "!")
}

// readCall reads the answer of a unary call.
func readCall(got *reply) (*Answer, error) {
	if got.head.Status != 200 {
		return nil, fmt.Errorf("the authorizer answers with HTTP status %d", got.head.Status)
	}
	if t := got.head.Header.Get("content-type"); !strings.HasPrefix(t, "application/grpc") {
		return nil, errors.New("the authorizer does not speak gRPC")
	}
	status := got.trailer.Get("grpc-status")
	told := got.trailer
	if status == "" {
		status, told = got.head.Header.Get("grpc-status"), got.head.Header
	}
	if status != "0" {
		return nil, fmt.Errorf("the authorizer's call ends with the status %q: %.200q", status, told.Get("grpc-message"))
	}
	content := got.content
	switch {
	case len(content) < prefixBytes:
		return nil, errors.New("the authorizer's answer is cut off")
	case content[0] != 0:
		return nil, errors.New("the authorizer's answer is compressed, which was not asked for")
	case uint64(binary.BigEndian.Uint32(content[1:])) != uint64(len(content)-prefixBytes):
		return nil, errors.New("the authorizer's answer is not one message")
	}
	var response authv3.CheckResponse
	if err := proto.Unmarshal(content[prefixBytes:], &response); err != nil {
		return nil, fmt.Errorf("read the authorizer's answer: %w", err)
	}
	return answerOf(&response)
}

// answerOf reads Envoy's CheckResponse.
func answerOf(c *authv3.CheckResponse) (*Answer, error) {
	if c.GetStatus().GetCode() != 0 {
		denied := c.GetDeniedResponse()
		var header message.Header
		var list []change
		if err := fields(&list, denied.GetHeaders()); err != nil {
			return nil, err
		}
		for _, f := range list {
			f.apply(&header)
		}
		status := int(denied.GetStatus().GetCode())
		return refused(status, header, []byte(denied.GetBody())), nil
	}
	a := &Answer{allowed: true}
	ok := c.GetOkResponse()
	if err := fields(&a.changes, ok.GetHeaders()); err != nil {
		return nil, err
	}
	if err := responseFields(&a.client, ok.GetResponseHeadersToAdd()); err != nil {
		return nil, err
	}
	if len(ok.GetHeadersToRemove())+len(ok.GetQueryParametersToSet())+len(ok.GetQueryParametersToRemove()) > maxChanges {
		return nil, fmt.Errorf("the authorizer's answer has more than %d changes", maxChanges)
	}
	for _, name := range ok.GetHeadersToRemove() {
		// As in Envoy, what frames the message stays, whoever wants it away.
		if name = strings.ToLower(name); writable(name, "") == nil {
			a.remove = append(a.remove, name)
		}
	}
	for _, p := range ok.GetQueryParametersToSet() {
		a.params = append(a.params, param{p.GetKey(), p.GetValue()})
	}
	a.removeParams = ok.GetQueryParametersToRemove()
	return a, nil
}

// fields reads changes of which one without a word about it overwrites.
func fields(out *[]change, in []*corev3.HeaderValueOption) error {
	return options(out, in, func(o *corev3.HeaderValueOption) how {
		switch {
		case o.GetAppend().GetValue():
			return appendField
		case o.GetAppendAction() == corev3.HeaderValueOption_ADD_IF_ABSENT:
			return addIfAbsent
		case o.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			return overwriteIfThere
		}
		return overwrite
	})
}

// responseFields reads changes of which one without a word about it adds a line.
func responseFields(out *[]change, in []*corev3.HeaderValueOption) error {
	return options(out, in, func(o *corev3.HeaderValueOption) how {
		if o.GetAppend() != nil {
			if o.GetAppend().GetValue() {
				return appendField
			}
			return overwrite
		}
		switch o.GetAppendAction() {
		case corev3.HeaderValueOption_ADD_IF_ABSENT:
			return addIfAbsent
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			return overwrite
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			return overwriteIfThere
		}
		return appendField
	})
}

func options(out *[]change, in []*corev3.HeaderValueOption, action func(*corev3.HeaderValueOption) how) error {
	if len(in) > maxChanges {
		return fmt.Errorf("the authorizer's answer has more than %d changes", maxChanges)
	}
	for _, o := range in {
		f := message.Field{Name: strings.ToLower(o.GetHeader().GetKey()), Value: o.GetHeader().GetValue()}
		if raw := o.GetHeader().GetRawValue(); f.Value == "" && len(raw) > 0 {
			f.Value = string(raw)
		}
		f.Value = strings.Trim(f.Value, " \t")
		if err := writable(f.Name, f.Value); err != nil {
			return fmt.Errorf("the authorizer's answer: %w", err)
		}
		*out = append(*out, change{f, action(o)})
	}
	return nil
}
