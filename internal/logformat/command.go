package logformat

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Op is what a command writes.
type Op uint8

// The commands, by Envoy's names; Own is Tulle's.
const (
	StartTime Op = iota
	Req
	ReqWithoutQuery
	Resp
	Trailer
	Protocol
	UpstreamProtocol
	ResponseCode
	ResponseCodeDetails
	ConnectionTerminationDetails
	ResponseFlags
	ResponseFlagsLong
	BytesReceived
	BytesSent
	Duration
	ResponseDuration
	ResponseTxDuration
	RouteName
	UpstreamHost
	UpstreamHostWithoutPort
	UpstreamPort
	UpstreamHostName
	UpstreamCluster
	UpstreamLocalAddress
	UpstreamTransportFailureReason
	UpstreamRequestAttemptCount
	UpstreamPeerURISAN
	DownstreamRemoteAddress
	DownstreamRemoteAddressWithoutPort
	DownstreamRemotePort
	DownstreamLocalAddress
	DownstreamLocalAddressWithoutPort
	DownstreamLocalPort
	DownstreamPeerURISAN
	DownstreamLocalURISAN
	DownstreamTLSVersion
	RequestedServerName
	GRPCStatus
	GRPCStatusNumber
	Hostname
	Environment
	TraceID
	StreamID
	Path
	Method
	Own
)

// arguments says what stands in the parentheses of a command.
type arguments uint8

const (
	none     arguments = iota
	fields             // a field's name, and with ? another's: X?Y
	layout             // of a time, optional
	variable           // a name of the environment
	grpcForm           // CAMEL_STRING, SNAKE_STRING or NUMBER, optional
	pathForm           // WQ or NQ, and ORIG, PATH or ORIG_OR_PATH, optional
	word               // one of ownWords
)

type definition struct {
	op     Op
	args   arguments
	number bool
}

var definitions = map[string]definition{
	"START_TIME":                             {StartTime, layout, false},
	"REQ":                                    {Req, fields, false},
	"REQ_WITHOUT_QUERY":                      {ReqWithoutQuery, fields, false},
	"RESP":                                   {Resp, fields, false},
	"TRAILER":                                {Trailer, fields, false},
	"PROTOCOL":                               {Protocol, none, false},
	"UPSTREAM_PROTOCOL":                      {UpstreamProtocol, none, false},
	"RESPONSE_CODE":                          {ResponseCode, none, true},
	"RESPONSE_CODE_DETAILS":                  {ResponseCodeDetails, none, false},
	"CONNECTION_TERMINATION_DETAILS":         {ConnectionTerminationDetails, none, false},
	"RESPONSE_FLAGS":                         {ResponseFlags, none, false},
	"RESPONSE_FLAGS_LONG":                    {ResponseFlagsLong, none, false},
	"BYTES_RECEIVED":                         {BytesReceived, none, true},
	"BYTES_SENT":                             {BytesSent, none, true},
	"DURATION":                               {Duration, none, true},
	"RESPONSE_DURATION":                      {ResponseDuration, none, true},
	"RESPONSE_TX_DURATION":                   {ResponseTxDuration, none, true},
	"ROUTE_NAME":                             {RouteName, none, false},
	"UPSTREAM_HOST":                          {UpstreamHost, none, false},
	"UPSTREAM_REMOTE_ADDRESS":                {UpstreamHost, none, false},
	"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":   {UpstreamHostWithoutPort, none, false},
	"UPSTREAM_REMOTE_PORT":                   {UpstreamPort, none, true},
	"UPSTREAM_HOST_NAME":                     {UpstreamHostName, none, false},
	"UPSTREAM_CLUSTER":                       {UpstreamCluster, none, false},
	"UPSTREAM_CLUSTER_RAW":                   {UpstreamCluster, none, false},
	"UPSTREAM_LOCAL_ADDRESS":                 {UpstreamLocalAddress, none, false},
	"UPSTREAM_TRANSPORT_FAILURE_REASON":      {UpstreamTransportFailureReason, none, false},
	"UPSTREAM_REQUEST_ATTEMPT_COUNT":         {UpstreamRequestAttemptCount, none, true},
	"UPSTREAM_PEER_URI_SAN":                  {UpstreamPeerURISAN, none, false},
	"DOWNSTREAM_REMOTE_ADDRESS":              {DownstreamRemoteAddress, none, false},
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": {DownstreamRemoteAddressWithoutPort, none, false},
	"DOWNSTREAM_REMOTE_PORT":                 {DownstreamRemotePort, none, true},
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":       {DownstreamRemoteAddress, none, false},
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": {DownstreamRemoteAddressWithoutPort, none, false},
	"DOWNSTREAM_DIRECT_REMOTE_PORT":                 {DownstreamRemotePort, none, true},
	"DOWNSTREAM_LOCAL_ADDRESS":                      {DownstreamLocalAddress, none, false},
	"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         {DownstreamLocalAddressWithoutPort, none, false},
	"DOWNSTREAM_LOCAL_PORT":                         {DownstreamLocalPort, none, true},
	"DOWNSTREAM_PEER_URI_SAN":                       {DownstreamPeerURISAN, none, false},
	"DOWNSTREAM_LOCAL_URI_SAN":                      {DownstreamLocalURISAN, none, false},
	"DOWNSTREAM_TLS_VERSION":                        {DownstreamTLSVersion, none, false},
	"REQUESTED_SERVER_NAME":                         {RequestedServerName, none, false},
	"GRPC_STATUS":                                   {GRPCStatus, grpcForm, false},
	"GRPC_STATUS_NUMBER":                            {GRPCStatusNumber, none, true},
	"HOSTNAME":                                      {Hostname, none, false},
	"ENVIRONMENT":                                   {Environment, variable, false},
	"TRACE_ID":                                      {TraceID, none, false},
	"STREAM_ID":                                     {StreamID, none, false},
	"PATH":                                          {Path, pathForm, false},
	"METHOD":                                        {Method, none, false},
	"TULLE":                                         {Own, word, false},
}

// ownWords are the arguments of %TULLE()%.
var ownWords = []string{
	"DESTINATION_SERVICE", "DESTINATION_WORKLOAD", "DETAIL", "LIMIT", "POLICY", "SOURCE_NAMESPACE", "SOURCE_WORKLOAD",
}

// Command is one command of a format.
type Command struct {
	Op Op
	// Name is the field, variable or word in parentheses, Alternative the field to take
	// where there is none of that name. Fields' names are in lower case.
	Name, Alternative string
	// Number tells that the value is one.
	Number bool

	max   int
	clock clock
}

// parseCommand reads what stands between the percent signs.
func parseCommand(name, args string, hasArgs bool, limit string) (Command, error) {
	d, ok := definitions[name]
	if !ok {
		return Command{}, fmt.Errorf("command %%%s%% is unknown%s", name, hint(name))
	}
	c := Command{Op: d.op, Number: d.number, max: maxValueBytes}
	fail := func(format string, a ...any) (Command, error) {
		return Command{}, fmt.Errorf("command %%%s%%: "+format, append([]any{name}, a...)...)
	}
	if limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil || n < 1 {
			return fail("length %q is not a positive number", limit)
		}
		c.max = min(c.max, n)
	}
	switch d.args {
	case none:
		if hasArgs && args != "" {
			return fail("takes nothing in parentheses, and there is %q", args)
		}
	case fields:
		c.Name, c.Alternative, _ = strings.Cut(strings.ToLower(args), "?")
		if c.Name == "" {
			return fail("names no field, as in %%%s(USER-AGENT)%%", name)
		}
		for _, f := range []string{c.Name, c.Alternative} {
			if strings.ContainsFunc(f, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("()%,;\"", r) }) {
				return fail("%q is not a field's name", f)
			}
		}
	case layout:
		var err error
		if c.clock, err = parseClock(args); err != nil {
			return fail("%v", err)
		}
	case variable:
		if c.Name = args; c.Name == "" {
			return fail("names no variable")
		}
	case grpcForm:
		switch args {
		case "", "CAMEL_STRING", "SNAKE_STRING", "NUMBER":
			c.Name = args
		default:
			return fail("%q is none of CAMEL_STRING, SNAKE_STRING, NUMBER", args)
		}
	case pathForm:
		for _, w := range strings.Split(args, ":") {
			switch w {
			case "", "WQ", "ORIG_OR_PATH", "ORIG":
			case "NQ":
				c.Name = w
			case "PATH":
				c.Alternative = w
			default:
				return fail("%q is none of WQ, NQ, ORIG, PATH, ORIG_OR_PATH", w)
			}
		}
	case word:
		if !slices.Contains(ownWords, args) {
			return fail("%q is none of %s", args, strings.Join(ownWords, ", "))
		}
		c.Name = args
	}
	return c, nil
}

// hint says more of commands that Envoy has and a waypoint has nothing for.
func hint(name string) string {
	switch name {
	case "DYNAMIC_METADATA", "FILTER_STATE", "CLUSTER_METADATA", "UPSTREAM_METADATA", "UPSTREAM_FILTER_STATE", "METADATA":
		return ": waypoints have no such data of filters; %TULLE(SOURCE_WORKLOAD)% and the like name the peers"
	}
	return ""
}
