package cel

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// Vocabulary is the words that an expression may use. It is safe for concurrent use.
type Vocabulary struct {
	words []word

	// What compiles is made for the first expression: most processes have none, and it
	// takes some megabytes.
	once sync.Once
	env  *cel.Env
}

// Conditions are for policies: what is known before the request goes anywhere.
// Reports are for logs and metrics: they have all of it and what is known when the
// request is over, by the names that Envoy gives it.
var (
	Conditions = &Vocabulary{words: conditions}
	Reports    = &Vocabulary{words: slices.Concat(conditions, reports)}
)

// Attribute is a word of a vocabulary.
type Attribute struct {
	// Name is object.field, as "request.path".
	Name string
	// Type is CEL's.
	Type string
}

var (
	texts  = cel.MapType(cel.StringType, cel.StringType)
	claims = cel.MapType(cel.StringType, cel.DynType)
)

// word is an attribute with its type.
type word struct {
	name string
	of   *cel.Type
}

var conditions = []word{
	{"auth.audiences", cel.ListType(cel.StringType)},
	{"auth.claims", claims},
	{"auth.presenter", cel.StringType},
	{"auth.principal", cel.StringType},
	{"connection.mtls", cel.BoolType},
	{"connection.sni", cel.StringType},
	{"destination.ip", cel.StringType},
	{"destination.port", cel.IntType},
	{"request.headers", texts},
	{"request.host", cel.StringType},
	{"request.id", cel.StringType},
	{"request.method", cel.StringType},
	{"request.path", cel.StringType},
	{"request.protocol", cel.StringType},
	{"request.query", cel.StringType},
	{"request.scheme", cel.StringType},
	{"request.time", cel.TimestampType},
	{"request.url_path", cel.StringType},
	{"source.ip", cel.StringType},
	{"source.namespace", cel.StringType},
	{"source.principal", cel.StringType},
	{"source.service_account", cel.StringType},
	{"source.trust_domain", cel.StringType},
}

var reports = []word{
	{"connection.requested_server_name", cel.StringType},
	{"connection.uri_san_peer_certificate", cel.StringType},
	{"destination.address", cel.StringType},
	{"destination.service", cel.StringType},
	{"destination.namespace", cel.StringType},
	{"request.duration", cel.DurationType},
	{"request.referer", cel.StringType},
	{"request.size", cel.IntType},
	{"request.total_size", cel.IntType},
	{"request.useragent", cel.StringType},
	{"response.code", cel.IntType},
	{"response.code_details", cel.StringType},
	{"response.flags", cel.StringType},
	{"response.grpc_status", cel.IntType},
	{"response.headers", texts},
	{"response.size", cel.IntType},
	{"response.total_size", cel.IntType},
	{"response.trailers", texts},
	{"source.address", cel.StringType},
	{"source.port", cel.IntType},
	{"source.workload", cel.StringType},
	{"upstream.address", cel.StringType},
	{"upstream.cluster", cel.StringType},
	{"upstream.port", cel.IntType},
	{"upstream.transport_failure_reason", cel.StringType},
	{"xds.cluster_name", cel.StringType},
	{"xds.route_name", cel.StringType},
}

// Attributes returns the words in the order of their names.
func (v *Vocabulary) Attributes() []Attribute {
	var out []Attribute
	for _, w := range v.words {
		out = append(out, Attribute{Name: w.name, Type: w.of.String()})
	}
	slices.SortFunc(out, func(a, b Attribute) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// provider knows the objects' fields, and asks the Vars of an evaluation for them.
type provider struct {
	*types.Registry
	objects map[string]map[string]*types.FieldType
}

func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if _, ok := p.objects[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return p.Registry.FindStructType(name)
}

func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	fields, ok := p.objects[name]
	if !ok {
		return p.Registry.FindStructFieldNames(name)
	}
	var names []string
	for f := range fields {
		names = append(names, f)
	}
	slices.Sort(names)
	return names, true
}

func (p *provider) FindStructFieldType(object, field string) (*types.FieldType, bool) {
	fields, ok := p.objects[object]
	if !ok {
		return p.Registry.FindStructFieldType(object, field)
	}
	f, ok := fields[field]
	return f, ok
}

// NewValue refuses: nobody makes requests up.
func (p *provider) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, ok := p.objects[name]; ok {
		return types.NewErr("%s cannot be made in an expression", name)
	}
	return p.Registry.NewValue(name, fields)
}

func (v *Vocabulary) make() {
	registry, err := types.NewRegistry()
	if err != nil {
		panic(fmt.Sprintf("cel: %v", err))
	}
	p := &provider{Registry: registry, objects: map[string]map[string]*types.FieldType{}}
	options := []cel.EnvOption{
		cel.CustomTypeProvider(p), cel.CustomTypeAdapter(registry),
		ext.Strings(), ext.Network(),
		cel.ParserExpressionSizeLimit(MaxBytes), cel.ParserRecursionLimit(maxDepth),
		cel.ExpressionNodeLimit(maxNodes), cel.ExpressionNestingDepthLimit(maxDepth), cel.RegexProgramSizeLimit(maxRegexp),
		cel.DefaultUTCTimeZone(true), cel.CrossTypeNumericComparisons(true),
	}
	for _, w := range v.words {
		object, field, _ := strings.Cut(w.name, ".")
		if p.objects[object] == nil {
			p.objects[object] = map[string]*types.FieldType{}
			options = append(options, cel.Variable(object, cel.ObjectType(object)))
		}
		p.objects[object][field] = attribute(w)
	}
	if v.env, err = cel.NewEnv(options...); err != nil {
		panic(fmt.Sprintf("cel: %v", err))
	}
}

// attribute looks a word up in the Vars of an evaluation.
func attribute(w word) *types.FieldType {
	name := w.name
	return &types.FieldType{
		Type: w.of,
		IsSet: func(target any) bool {
			_, ok := target.(Vars).Attribute(name)
			return ok
		},
		GetFrom: func(target any) (any, error) {
			value, ok := target.(Vars).Attribute(name)
			if !ok && value == nil {
				return nil, &AbsentError{Name: name}
			}
			if f, ok := value.(Fields); ok {
				return header{f}, nil
			}
			return value, nil
		},
	}
}
