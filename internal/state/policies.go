package state

import (
	"fmt"

	"go.uber.org/zap"

	api "github.com/tulle-mesh/tulle/api/security"
	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

// AuthorizationHandler takes policies from the control plane. A policy that
// cannot be parsed at all is rejected and the last good one stays in force; one
// that is understood only in part is in force in its strictest sense.
func (s *Store) AuthorizationHandler() xdsclient.Handler {
	return xdsclient.HandlerFunc(s.applyPolicies)
}

func (s *Store) applyPolicies(delta xdsclient.Delta) []xdsclient.Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rejected []xdsclient.Rejection
	base := s.Snapshot()
	txn := base.policies.Txn()
	dirty := false
	for _, name := range delta.Removed {
		_, ok := txn.Delete([]byte(name))
		dirty = dirty || ok
	}
	for _, r := range delta.Resources {
		p, err := parsePolicy(r)
		if err != nil {
			rejected = append(rejected, xdsclient.Rejection{Name: r.Name, Err: err})
			continue
		}
		if w := p.Warnings(); len(w) > 0 {
			s.logger.Warn("a policy is not understood in every part and is taken in its strictest sense",
				zap.String("policy", p.Key()), zap.Strings("parts", w))
		}
		txn.Insert([]byte(p.Key()), p)
		dirty = true
	}
	if dirty {
		next := *base
		next.policies = txn.CommitOnly()
		next.policyVersion++
		next.indexPolicies()
		s.publish(&next)
	}
	return rejected
}

func parsePolicy(r xdsclient.Resource) (*authz.Policy, error) {
	var a api.Authorization
	if err := r.Body.UnmarshalTo(&a); err != nil {
		return nil, err
	}
	p, err := authz.ParsePolicy(&a)
	if err != nil {
		return nil, err
	}
	if p.Key() != r.Name {
		return nil, fmt.Errorf("policy %q came under another name", p.Key())
	}
	return p, nil
}
