package install

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/tulle-mesh/tulle/manifests"
)

// Upgrade brings an installed mesh to the options' version, the control plane first,
// then the agents, then the proxies, and waits for each before the next. The values
// of the installation hold on; opt.Values go before them. A downgrade of the minor
// version, and a step over more than one, are refused unless opt.Force.
func (m *Mesh) Upgrade(ctx context.Context, opt Options) (*Report, error) {
	inv, err := m.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	if inv == nil {
		return nil, fmt.Errorf("%w: use `meshctl install` (or Helm, if Helm installed it)", ErrNotInstalled)
	}
	if !opt.Force {
		list, err := m.Components(ctx)
		if err != nil {
			return nil, err
		}
		if err := fits(inv.Version, list, opt.Version); err != nil {
			return nil, err
		}
	}
	opt.Values = manifests.Override(inv.Values, opt.Values)
	report, err := m.make(ctx, inv, opt, true)
	return report, interrupted(ctx, err)
}

// fits tells whether a mesh of one version, with components that may be of others, can
// go to another version. Versions that are no numbers, as of builds between releases,
// are not judged.
func fits(from string, components []Component, to string) error {
	target, err := version.ParseSemantic(to)
	if err != nil {
		return nil
	}
	refuse := func(what, has, why string) error {
		return fmt.Errorf("%w: %s is %s, and %s %s; --force does it nevertheless", ErrVersions, what, has, to, why)
	}
	if v, err := version.ParseSemantic(from); err == nil {
		if v.Major() > target.Major() || v.Major() == target.Major() && v.Minor() > target.Minor() {
			return refuse("the installed mesh", from, "is older: going back by a minor version is not tested")
		}
	}
	for _, c := range components {
		v, err := version.ParseSemantic(tag(c.Image))
		if err != nil || c.Image == "" {
			continue
		}
		if v.Major() != target.Major() || apart(v.Minor(), target.Minor()) > 1 {
			return refuse(c.Name, tag(c.Image), "is more than one minor version away: components talk to each other one version apart, so upgrade step by step")
		}
	}
	return nil
}

func apart(a, b uint) uint {
	if a > b {
		return a - b
	}
	return b - a
}
