package api_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/tulle-mesh/tulle/api/auth"
	"github.com/tulle-mesh/tulle/api/lease"
	"github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/api/zds"
)

var update = flag.Bool("update", false, "write the golden files anew")

// files are all files of the contract.
var files = []protoreflect.FileDescriptor{
	workload.File_api_workload_workload_proto,
	security.File_api_security_authorization_proto,
	zds.File_api_zds_zds_proto,
	auth.File_api_auth_ca_proto,
	waypoint.File_api_waypoint_waypoint_proto,
	lease.File_api_lease_lease_proto,
}

// messages lists every message of the contract, nested ones included, map entries not.
func messages() []protoreflect.MessageDescriptor {
	var all []protoreflect.MessageDescriptor
	var add func(protoreflect.MessageDescriptors)
	add = func(ms protoreflect.MessageDescriptors) {
		for i := range ms.Len() {
			if m := ms.Get(i); !m.IsMapEntry() {
				all = append(all, m)
				add(m.Messages())
			}
		}
	}
	for _, f := range files {
		add(f.Messages())
	}
	return all
}

// fieldNumbers is the wire contract, written down apart from the .proto files
// so that a renumbering there is noticed.
var fieldNumbers = map[protoreflect.FullName]string{
	"tulle.lease.Report":                "replica=1 serial=2 rules=3 has_rules=4 held=5 demands=6 leaving=7",
	"tulle.lease.Demand":                "rule=1 key=2 rate=3",
	"tulle.lease.Grant":                 "serial=1 shares=2",
	"tulle.lease.Share":                 "rule=1 key=2 share=3 dropped=4",
	"istio.workload.Address":            "workload=1 service=2",
	"istio.workload.Workload":           "name=1 namespace=2 addresses=3 network=4 tunnel_protocol=5 trust_domain=6 service_account=7 waypoint=8 node=9 canonical_name=10 canonical_revision=11 workload_type=12 workload_name=13 native_tunnel=14 authorization_policies=16 status=17 cluster_id=18 network_gateway=19 uid=20 hostname=21 services=22 application_tunnel=23 locality=24 network_mode=25 extensions=26 capacity=27",
	"istio.workload.Service":            "name=1 namespace=2 hostname=3 addresses=4 ports=5 subject_alt_names=6 waypoint=7 load_balancing=8 ip_families=9 extensions=10 canonical=11 ingress_use_waypoint=12 weighted_waypoints=13 visibility=14",
	"istio.workload.LoadBalancing":      "routing_preference=1 mode=2 health_policy=3",
	"istio.workload.Locality":           "region=1 zone=2 subzone=3",
	"istio.workload.PortList":           "ports=1",
	"istio.workload.Port":               "service_port=1 target_port=2 app_protocol=3",
	"istio.workload.GatewayAddress":     "hostname=1 address=2 hbone_mtls_port=3",
	"istio.workload.WeightedWaypoint":   "destination=1 weight=2",
	"istio.workload.NetworkAddress":     "network=1 address=2 length=3",
	"istio.workload.NamespacedHostname": "namespace=1 hostname=2",
	"istio.workload.Extension":          "name=1 config=2",
	"istio.workload.ApplicationTunnel":  "protocol=1 port=2",

	"istio.security.Authorization":       "name=1 namespace=2 scope=3 action=4 rules=5 dry_run=6 extensions=7",
	"istio.security.Rule":                "clauses=1",
	"istio.security.Clause":              "matches=2",
	"istio.security.Match":               "namespaces=1 not_namespaces=2 principals=3 not_principals=4 source_ips=5 not_source_ips=6 destination_ips=7 not_destination_ips=8 destination_ports=9 not_destination_ports=10 service_accounts=11 not_service_accounts=12 extensions=13",
	"istio.security.Address":             "address=1 length=2",
	"istio.security.ServiceAccountMatch": "namespace=1 serviceAccount=2",
	"istio.security.StringMatch":         "exact=1 prefix=2 suffix=3 presence=4",

	"istio.workload.zds.ZdsHello":         "version=1",
	"istio.workload.zds.WorkloadRequest":  "add=1 del=2 snapshot_sent=3 keep=5",
	"istio.workload.zds.WorkloadInfo":     "name=1 namespace=2 service_account=3",
	"istio.workload.zds.AddWorkload":      "uid=1 workload_info=2",
	"istio.workload.zds.KeepWorkload":     "uid=1",
	"istio.workload.zds.DelWorkload":      "uid=2",
	"istio.workload.zds.SnapshotSent":     "",
	"istio.workload.zds.WorkloadResponse": "ack=1",
	"istio.workload.zds.Ack":              "error=1",

	"istio.v1.auth.IstioCertificateRequest":  "csr=1 validity_duration=3 metadata=4",
	"istio.v1.auth.IstioCertificateResponse": "cert_chain=1",

	"tulle.waypoint.Service":             "namespace=1 hostname=2 name=3 ports=4 policies=5 authentications=6 rate_limits=7 workload=8 trusted_proxies=9",
	"tulle.waypoint.Port":                "port=1 protocol=2 routes=3",
	"tulle.waypoint.RouteTable":          "client_namespace=1 rules=2 matches=3",
	"tulle.waypoint.Match":               "rule=1 path=2 method=3 headers=4 query=5 server_names=6 ports=7",
	"tulle.waypoint.PathMatch":           "exact=1 prefix=2 regex=3 text_prefix=4 ignore_case=5",
	"tulle.waypoint.FieldMatch":          "name=1 exact=2 regex=3 prefix=4 present=5 invert=6",
	"tulle.waypoint.RouteRef":            "kind=1 namespace=2 name=3 rule=4",
	"tulle.waypoint.Rule":                "ref=1 filters=2 backends=3 timeouts=4 retry=5 session_affinity=6 rate_limits=7 fault=8",
	"tulle.waypoint.Backend":             "service=1 port=2 weight=3 filters=4 fault=5 subset=6",
	"tulle.waypoint.Filter":              "request_headers=1 response_headers=2 redirect=3 rewrite=4 mirror=5 cors=6 external_auth=7 fault=8 direct_response=9",
	"tulle.waypoint.HeaderChange":        "set=1 add=2 remove=3",
	"tulle.waypoint.HeaderField":         "name=1 value=2",
	"tulle.waypoint.Redirect":            "scheme=1 hostname=2 path=3 port=4 status=5",
	"tulle.waypoint.Rewrite":             "hostname=1 path=2",
	"tulle.waypoint.DirectResponse":      "status=1 body=2",
	"tulle.waypoint.RegexChange":         "match=1 substitution=2",
	"tulle.waypoint.PathChange":          "full=1 prefix=2 regex=3",
	"tulle.waypoint.Mirror":              "backend=1 numerator=2 denominator=3",
	"tulle.waypoint.Cors":                "allow_origins=1 allow_credentials=2 allow_methods=3 allow_headers=4 expose_headers=5 max_age=6 allow_origin_regexes=7 forward_unmatched=8",
	"tulle.waypoint.ExternalAuth":        "backend=1 grpc=2 path_prefix=3 allowed_headers=4 allowed_response_headers=5 max_body_bytes=6 partial_body=7 timeout=8 fail_open=9 status_on_error=10 added_headers=11 allowed_denial_headers=12 allowed_client_headers=13 name=14 clear_route_cache=15 raw_body=16",
	"tulle.waypoint.Timeouts":            "request=1 backend=2",
	"tulle.waypoint.Retry":               "attempts=1 codes=2 backoff=3 conditions=4 per_try_timeout=5 same_endpoint=6 other_localities=7",
	"tulle.waypoint.SessionAffinity":     "cookie=1 header=2 absolute_timeout=3 idle_timeout=4 permanent=5",
	"tulle.waypoint.Policy":              "namespace=1 name=2 action=3 provider=4 rules=5 dry_run=6 external_auth=7",
	"tulle.waypoint.PolicyRule":          "from=1 to=2 when=3",
	"tulle.waypoint.Source":              "principals=1 not_principals=2 request_principals=3 not_request_principals=4 namespaces=5 not_namespaces=6 service_accounts=7 not_service_accounts=8 ip_blocks=9 not_ip_blocks=10 remote_ip_blocks=11 not_remote_ip_blocks=12 trust_domains=13 not_trust_domains=14",
	"tulle.waypoint.Operation":           "hosts=1 not_hosts=2 ports=3 not_ports=4 methods=5 not_methods=6 paths=7 not_paths=8",
	"tulle.waypoint.Condition":           "key=1 values=2 not_values=3",
	"tulle.waypoint.Authentication":      "namespace=1 name=2 rules=3",
	"tulle.waypoint.TokenRule":           "issuer=1 audiences=2 jwks_uri=3 jwks=4 from_headers=5 from_params=6 from_cookies=7 output_payload_to_header=8 forward_original_token=9 output_claim_to_headers=10 timeout=11 space_delimited_claims=12 fault=13",
	"tulle.waypoint.TokenHeader":         "name=1 prefix=2",
	"tulle.waypoint.ClaimHeader":         "header=1 claim=2",
	"tulle.waypoint.Fault":               "delay=1 abort=2 headers=3 ref=4",
	"tulle.waypoint.FaultDelay":          "duration=1 numerator=2 denominator=3",
	"tulle.waypoint.FaultAbort":          "status=1 grpc_status=2 has_grpc_status=3 reset=4 numerator=5 denominator=6",
	"tulle.waypoint.Destination":         "namespace=1 hostname=2 settings=3 ports=4 subsets=5",
	"tulle.waypoint.DestinationPort":     "port=1 settings=2",
	"tulle.waypoint.Subset":              "name=1 workloads=2 settings=3 ports=4",
	"tulle.waypoint.DestinationSettings": "balancing=1 outlier=2 panic_percent=3 health_check=4 circuit=5 pool=6 budget=7 adaptive=8 tls=9 session_affinity=10 fault=11 retry=12",
	"tulle.waypoint.Balancing":           "balancer=1 hash=2 slow_start=3 slow_start_aggression=4 slow_start_percent=5 ring_size=6 table_size=7 locality=8",
	"tulle.waypoint.LocalityChoice":      "off=1 failover=2 failover_priority=3",
	"tulle.waypoint.Failover":            "from=1 to=2",
	"tulle.waypoint.HashKey":             "header=1 query=2 cookie=3 source_ip=4",
	"tulle.waypoint.HashCookie":          "name=1 path=2 ttl=3 has_ttl=4",
	"tulle.waypoint.Outlier":             "consecutive_5xx=1 consecutive_gateway=2 consecutive_local=3 split_local=4 interval=5 base_ejection=6 max_ejection=7 max_ejected_percent=8 success_rate_factor=9 success_rate_targets=10 success_rate_requests=11 failure_percent=12 failure_percent_targets=13 failure_percent_requests=14",
	"tulle.waypoint.HealthCheck":         "http=1 grpc=2 tcp=3 interval=4 timeout=5 unhealthy_threshold=6 healthy_threshold=7",
	"tulle.waypoint.HttpCheck":           "path=1 host=2 codes=3",
	"tulle.waypoint.GrpcCheck":           "service=1",
	"tulle.waypoint.Circuit":             "connections=1 pending=2 requests=3 retries=4",
	"tulle.waypoint.Pool":                "requests_per_connection=1 idle_timeout=2 connect_timeout=3 max_streams=4 upgrade=5 max_connection_duration=6",
	"tulle.waypoint.Budget":              "percent=1 interval=2 min_count=3 min_interval=4 off=5",
	"tulle.waypoint.Adaptive":            "percentile=1 window=2 min_rtt_interval=3 min_rtt_requests=4 min_concurrency=5 max_concurrency=6 buffer_percent=7 priorities=8",
	"tulle.waypoint.PriorityRule":        "priority=1 headers=2 namespaces=3 principals=4",
	"tulle.waypoint.Tls":                 "server_name=1 ca_certificates=2 subject_names=3 insecure=4 client_certificate=5 client_key=6 mesh=7 ca_certificates_file=8",
	"tulle.waypoint.RateLimit":           "namespace=1 name=2 rules=3 backend=4 fail_open=5 shadow=6 timeout=7 fault=8",
	"tulle.waypoint.RateLimitRule":       "name=1 match=2 key=3 limits=4 cost=5 local=6 shadow=7",
	"tulle.waypoint.RateLimitMatch":      "path=1 methods=2 headers=3 query=4 principals=5 namespaces=6",
	"tulle.waypoint.RateLimitKey":        "identity=1 namespace=2 header=3 path=4 method=5 source_ip=6 jwt_claim=7 query=8 service_account=9 host=10 default=11 has_default=12",
	"tulle.waypoint.RateLimitAmount":     "requests=1 unit=2 burst=3",
	"tulle.waypoint.RateLimitCost":       "request_header=1 response_header=2 default=3",
	"tulle.waypoint.RateLimitBackend":    "leases=1 redis=2 rls=3",
	"tulle.waypoint.RedisBackend":        "address=1 database=2 username=3 password_file=4 tls=5",
	"tulle.waypoint.RateLimitService":    "backend=1 domain=2",
	"tulle.waypoint.Telemetry":           "tracing=1 access_logs=2 metrics=3",
	"tulle.waypoint.Tracing":             "disabled=1 sampling=2 has_sampling=3 otlp=4 tags=5 ignore_parent=6",
	"tulle.waypoint.SpanTag":             "name=1 literal=2 header=3 environment=4 default=5",
	"tulle.waypoint.AccessLog":           "disabled=1 otlp=2 format=3 json=4 filter=5 json_default=6",
	"tulle.waypoint.Metrics":             "overrides=1",
	"tulle.waypoint.MetricOverride":      "metric=1 disabled=2 tags=3",
	"tulle.waypoint.MetricTag":           "name=1 remove=2 value=3",
}

func TestFieldNumbersAreTheContracts(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	for _, m := range messages() {
		seen[m.FullName()] = true
		var got []string
		fields := m.Fields()
		byNumber := map[protoreflect.FieldNumber]protoreflect.Name{}
		for i := range fields.Len() {
			byNumber[fields.Get(i).Number()] = fields.Get(i).Name()
		}
		for _, n := range slices.Sorted(maps.Keys(byNumber)) {
			got = append(got, fmt.Sprintf("%s=%d", byNumber[n], n))
		}
		if g, want := strings.Join(got, " "), fieldNumbers[m.FullName()]; g != want {
			t.Errorf("%s:\n got %s\nwant %s", m.FullName(), g, want)
		}
	}
	for name := range fieldNumbers {
		if !seen[name] {
			t.Errorf("%s is in the contract and in no .proto file", name)
		}
	}
}

// enumNumbers is the wire contract of the enums, in number order from 0.
var enumNumbers = map[protoreflect.FullName]string{
	"istio.workload.Service.Visibility":         "PUBLIC NAMESPACE",
	"istio.workload.LoadBalancing.Scope":        "UNSPECIFIED_SCOPE REGION ZONE SUBZONE NODE CLUSTER NETWORK",
	"istio.workload.LoadBalancing.Mode":         "UNSPECIFIED_MODE STRICT FAILOVER PASSTHROUGH",
	"istio.workload.LoadBalancing.HealthPolicy": "ONLY_HEALTHY ALLOW_ALL",
	"istio.workload.AppProtocol":                "UNKNOWN HTTP11 HTTP2 GRPC TCP TLS",
	"istio.workload.ApplicationTunnel.Protocol": "NONE PROXY",
	"istio.workload.TunnelProtocol":             "NONE HBONE LEGACY_ISTIO_MTLS",
	"istio.workload.WorkloadType":               "DEPLOYMENT CRONJOB POD JOB",
	"istio.workload.WorkloadStatus":             "HEALTHY UNHEALTHY",
	"istio.workload.IPFamilies":                 "AUTOMATIC IPV4_ONLY IPV6_ONLY DUAL",
	"istio.workload.NetworkMode":                "STANDARD HOST_NETWORK",
	"istio.security.Scope":                      "GLOBAL NAMESPACE WORKLOAD_SELECTOR",
	"istio.security.Action":                     "ALLOW DENY",
	"istio.workload.zds.Version":                "NOT_USED V1",
	"tulle.waypoint.Protocol":                   "UNKNOWN HTTP1 HTTP2 GRPC TCP TLS",
	"tulle.waypoint.Action":                     "ALLOW DENY AUDIT CUSTOM",
	"tulle.waypoint.Balancer":                   "LEAST_REQUEST ROUND_ROBIN RANDOM PEAK_EWMA RING_HASH MAGLEV",
	"tulle.waypoint.Priority":                   "NORMAL LOW HIGH CRITICAL",
}

func TestEnumNumbersAreTheContracts(t *testing.T) {
	for name, want := range enumNumbers {
		e, err := protoregistry.GlobalTypes.FindEnumByName(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		values := e.Descriptor().Values()
		for i := range values.Len() {
			v := values.ByNumber(protoreflect.EnumNumber(i))
			if v == nil {
				t.Errorf("%s has no number %d", name, i)
				continue
			}
			got = append(got, string(v.Name()))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", name, got, want)
		}
	}
}

// fill sets every field of m to a value that is a function of its number, and
// of one member of each oneof the last.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			v := m.Mutable(f).Map()
			entry := v.NewValue()
			fill(entry.Message(), depth+1)
			v.Set(protoreflect.ValueOfString("ns/host").MapKey(), entry)
		case f.IsList():
			list := m.Mutable(f).List()
			for n := range 2 {
				if f.Message() != nil {
					e := list.NewElement()
					fillMessage(e.Message(), depth)
					list.Append(e)
					continue
				}
				list.Append(scalar(f, n))
			}
		case f.Message() != nil:
			fillMessage(m.Mutable(f).Message(), depth)
		default:
			m.Set(f, scalar(f, 0))
		}
	}
}

func fillMessage(m protoreflect.Message, depth int) {
	// google.protobuf.Value holds itself.
	if depth < 4 {
		fill(m, depth+1)
	}
}

func scalar(f protoreflect.FieldDescriptor, n int) protoreflect.Value {
	number := int(f.Number())*10 + n
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("%s-%d", f.Name(), n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{10, 0, byte(number), byte(n)})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(number) << 20)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(number) << 20)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(math.Sqrt(float64(number)))
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	}
	panic("no value for kind " + f.Kind().String())
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	typ, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return typ.New().Interface()
}

// TestGoldenBytes holds each message's bytes: they may never change, since
// other versions of the binaries and foreign peers read them.
func TestGoldenBytes(t *testing.T) {
	for _, d := range messages() {
		t.Run(string(d.FullName()), func(t *testing.T) {
			m := newMessage(t, d)
			fill(m.ProtoReflect(), 0)
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", string(d.FullName())+".hex")
			if *update {
				if err := os.WriteFile(path, []byte(hex.Dump(raw)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.Dump(raw); got != string(want) {
				t.Errorf("bytes changed:\n%s\nwant:\n%s", got, want)
			}
			back := newMessage(t, d)
			if err := proto.Unmarshal(raw, back); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(m, back) {
				t.Errorf("round trip changed the message:\n%v\n%v", m, back)
			}
		})
	}
}

// TestUnknownFieldsSurvive: a message of a newer peer passes through unharmed.
func TestUnknownFieldsSurvive(t *testing.T) {
	for _, d := range messages() {
		m := newMessage(t, d)
		fill(m.ProtoReflect(), 0)
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		newer := protowire.AppendTag(bytes.Clone(raw), 1000, protowire.BytesType)
		newer = protowire.AppendString(newer, "from the future")
		back := newMessage(t, d)
		if err := proto.Unmarshal(newer, back); err != nil {
			t.Errorf("%s: %v", d.FullName(), err)
			continue
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(back)
		if err != nil || !bytes.Equal(again, newer) {
			t.Errorf("%s: unknown field lost (%v)", d.FullName(), err)
		}
	}
}

func TestTruncationIsAnErrorOrAShorterMessageNeverAPanic(t *testing.T) {
	for _, d := range messages() {
		m := newMessage(t, d)
		fill(m.ProtoReflect(), 0)
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for n := range raw {
			back := newMessage(t, d)
			_ = proto.Unmarshal(raw[:n], back)
		}
	}
}
