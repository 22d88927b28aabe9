package check

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

// leaderLease is the Lease of the istiod that writes.
const leaderLease = "istiod-lite-leader"

// control is what the control planes say.
type control struct {
	istiods []*mesh.Component
	// syncz are the answers of those that answer; complete is false when one did not.
	syncz    []mesh.Syncz
	complete bool
}

func (r *runner) controlPlane() control {
	r.category = "control plane"
	var c control
	var err error
	const ready = "istiod is ready"
	if c.istiods, err = r.mesh.Components(r.ctx, mesh.Istiod); err != nil {
		r.fail(ready, "", err.Error())
		return c
	}
	var unready []string
	running := 0
	for _, x := range c.istiods {
		if x.Ready {
			running++
		} else {
			unready = append(unready, fmt.Sprintf("%s: %s", x, x.Reason))
		}
	}
	hint := "kubectl logs and describe of the pod say more"
	if r.cluster == nil {
		hint = "`meshctl local logs istiod-lite` says more"
	}
	switch {
	case running == 0 && len(unready) == 0:
		r.fail(ready, "`meshctl install`, or scale the Deployment up", "no instance of it runs")
		return c
	case running == 0:
		r.fail(ready, hint, unready...)
	case len(unready) > 0:
		r.warn(fmt.Sprintf("%s (%d of %d)", ready, running, len(c.istiods)), hint, unready...)
	default:
		r.pass(fmt.Sprintf("%s (%s)", ready, instances(running)))
	}
	r.versions("istiod has meshctl's version", c.istiods)
	if r.cluster != nil {
		r.leader(c.istiods)
	}
	r.problems(c.istiods)
	answers, errs := mesh.Each(r.ctx, c.istiods, func(ctx context.Context, x *mesh.Component) (mesh.Syncz, error) { return x.Syncz(ctx) })
	c.complete = true
	for i := range answers {
		if errs[i] != nil {
			c.complete = false
			continue
		}
		c.syncz = append(c.syncz, answers[i])
	}
	return c
}

func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}

// versions warns of components that are not meshctl's version.
func (r *runner) versions(name string, all []*mesh.Component) {
	if r.opt.Version == "" || r.opt.Version == "dev" || len(all) == 0 {
		return
	}
	var other []string
	for _, c := range all {
		if why := compareVersions(r.opt.Version, c.Version); why != "" {
			other = append(other, fmt.Sprintf("%s is %s", c, why))
		}
	}
	r.unless(other, Warned, name, "use the meshctl of the mesh's version, or `meshctl upgrade` the mesh")
}

// leader checks that one of the istiods holds the lease.
func (r *runner) leader(istiods []*mesh.Component) {
	const name = "one istiod leads"
	const hint = "without a leader nobody writes status and root certificates; the log of istiod says why it cannot become it"
	lease, err := r.cluster.Client.Kubernetes.CoordinationV1().Leases(r.cluster.System).Get(r.ctx, leaderLease, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		r.fail(name, hint, "there is no Lease "+leaderLease)
		return
	case err != nil:
		r.broken(name, r.cluster.Client.Explain(err))
		return
	case lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "":
		r.fail(name, hint, "nobody holds the Lease "+leaderLease)
		return
	}
	holder := *lease.Spec.HolderIdentity
	if lease.Spec.RenewTime == nil || r.opt.Now.Sub(lease.Spec.RenewTime.Time) > leaderAge {
		r.fail(name, hint, holder+" holds the Lease and has not renewed it for too long")
		return
	}
	for _, c := range istiods {
		if strings.HasPrefix(holder, c.Name) {
			r.pass(name + " (" + c.Name + ")")
			return
		}
	}
	r.warn(name, "this passes within seconds, when another one takes over", holder+" holds the Lease and is no pod of istiod now")
}

// problems lists what istiod says of the configuration. All instances read the
// same, so that the first that answers speaks for them.
func (r *runner) problems(istiods []*mesh.Component) {
	const name = "the configuration is understood"
	var last error
	for _, c := range istiods {
		e, err := c.Errorz(r.ctx)
		if err != nil {
			last = err
			continue
		}
		var failed, warned []string
		for _, p := range e.Source.Problems {
			if r.cluster == nil || !membershipLabel(p) {
				failed = append(failed, p.String())
			}
		}
		for _, p := range e.Refused {
			failed = append(failed, fmt.Sprintf("proxy %s refused %s: %s", p.Node, p.Type, p.Message))
		}
		for _, p := range e.Warnings {
			warned = append(warned, p.String())
		}
		if len(failed) > 0 {
			hint := "mend the objects: until then the last good state stays in force"
			if r.cluster != nil {
				hint = "mend the objects; until then holds what is said of each, and a proxy that refused something keeps what it had"
			}
			r.fail(name, hint, failed...)
		}
		r.unlessAlso(warned, len(failed) > 0, Warned, name, "these objects do not do all that they say")
		return
	}
	if last == nil {
		last = fmt.Errorf("no istiod runs")
	}
	r.broken(name, last)
}

// membershipLabel tells problems that [runner.labels] warns of, which finds them
// without an istiod, too.
func membershipLabel(p mesh.Problem) bool {
	return strings.HasSuffix(p.Field, "labels["+mesh.ModeLabel+"]") && (strings.HasPrefix(p.Object, "Namespace ") || strings.HasPrefix(p.Object, "Pod "))
}

// unlessAlso is unless that does not pass when something was reported already.
func (r *runner) unlessAlso(items []string, reported bool, status Status, name, hint string) {
	if len(items) > 0 || !reported {
		r.unless(items, status, name, hint)
	}
}
