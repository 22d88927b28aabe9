package check

import (
	"context"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// istiodWith is one that has these problems.
func istiodWith(problems string) []*mesh.Component {
	return []*mesh.Component{mesh.NewComponent(mesh.Component{Kind: mesh.Istiod, Name: "istiod-1"}, func(context.Context, string, string) ([]byte, error) {
		return []byte(`{"source":{"problems":[` + problems + `]}}`), nil
	})}
}

func TestAMembershipLabelIsReportedOnceInACluster(t *testing.T) {
	const label = `{"object":"Pod shop/web","field":"metadata.labels[istio.io/dataplane-mode]","message":"Unsupported value"}`
	const policy = `{"object":"AuthorizationPolicy shop/p","field":"spec.action","message":"enforced more strictly"}`
	for _, tt := range []struct {
		name, problems string
		cluster        *mesh.Cluster
		want           Status
		items          int
		hint           string
	}{
		{"in a cluster another check has it", label, &mesh.Cluster{}, Passed, 0, ""},
		{"what else is wrong stays", label + "," + policy, &mesh.Cluster{}, Failed, 1, "until then holds what is said of each"},
		{"a local mesh refuses it", label, nil, Failed, 1, "the last good state stays in force"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &runner{ctx: t.Context(), cluster: tt.cluster, report: &Report{}, emit: func(Result) {}}
			r.problems(istiodWith(tt.problems))
			got := r.report.Results
			if len(got) != 1 || got[0].Status != tt.want || len(got[0].Items) != tt.items || !strings.Contains(got[0].Hint, tt.hint) {
				t.Errorf("%+v", got)
			}
		})
	}
}
