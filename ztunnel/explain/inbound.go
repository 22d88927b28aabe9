package explain

import (
	"errors"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/state"
)

// Inbound tells of the policies that apply to the pod and what each says of the
// connection; err is what the pod's inbound proxy decided on it, nil when it lets
// it pass. The answer's Node and Captured are the caller's to fill.
func Inbound(snap *state.Snapshot, server Name, attributes authz.Attributes, err error) InboundAnswer {
	a := InboundAnswer{Snapshot: snap.Version(), Policies: []Verdict{}, Allowed: err == nil}
	w := snap.WorkloadByPod(server.Namespace, server.Name)
	a.Server = describe(w)
	if err != nil {
		a.Reason = err.Error()
	}
	set := snap.Policies(w)
	permit, _, denied := set.Authorize(attributes)
	var denial *authz.Denial
	switch {
	case err == nil && denied == nil:
		a.Policy = permit.Policy()
	case errors.As(err, &denial):
		a.Policy = denial.Policy
	}
	for _, v := range set.Verdicts(attributes) {
		a.Policies = append(a.Policies, Verdict{
			Policy: v.Policy, Action: v.Action.String(), Scope: v.Scope.String(), DryRun: v.DryRun,
			Matched: v.Matched, Decides: !v.DryRun && v.Policy == a.Policy, Reason: v.Reason,
		})
	}
	return a
}
