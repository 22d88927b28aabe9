package request

// For returns the set as it concerns one client: policies that cannot fit it, whatever
// it asks, are left out. It decides as the whole set does, and pays where policies are
// many: it is made once per connection. It must not be used for other peers.
func (s Policies) For(p Peer) Policies {
	out := s
	out.custom = possible(s.custom, p)
	out.deny = possible(s.deny, p)
	out.allow = possible(s.allow, p)
	out.audit = possible(s.audit, p)
	if out.unfit = s.unfit; len(out.unfit) == 0 && len(out.allow) < len(s.allow) {
		out.unfit = s.allow
	}
	return out
}

// possible returns the policies that may fit the peer; the list itself when all may.
func possible(list []*Policy, p Peer) []*Policy {
	in := input{Attributes: &Attributes{Peer: p}}
	var out []*Policy
	for i, policy := range list {
		switch may := policy.mayFit(&in); {
		case !may && out == nil:
			out = append(make([]*Policy, 0, len(list)), list[:i]...)
		case may && out != nil:
			out = append(out, policy)
		}
	}
	if out == nil {
		return list
	}
	return out
}

func (p *Policy) mayFit(in *input) bool {
	for i := range p.rules {
		if p.rules[i].mayFit(in) {
			return true
		}
	}
	return false
}

func (r *rule) mayFit(in *input) bool {
	switch r.fixed {
	case always:
		return true
	case never:
		return false
	}
	for i := range r.groups {
		may := false
		for j := range r.groups[i].anyOf {
			may = may || r.groups[i].anyOf[j].mayFit(in)
		}
		if !may {
			return false
		}
	}
	return true
}

func (c *clause) mayFit(in *input) bool {
	switch c.fixed {
	case always:
		return true
	case never:
		return false
	}
	for i := range c.conditions {
		switch c.conditions[i].field {
		case fieldNamespace, fieldAccount, fieldTrustDomain, fieldPrincipal:
			if !c.conditions[i].holds(in) {
				return false
			}
		}
	}
	return true
}
