package state

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	api "github.com/tulle-mesh/tulle/api/workload"
	"github.com/tulle-mesh/tulle/internal/workload"
	"github.com/tulle-mesh/tulle/internal/xdsclient"
)

// AddressHandler takes workloads and services from the control plane. Bad
// resources are rejected by name, the last good one staying in force, and the
// rest of the delta is published as one snapshot.
func (s *Store) AddressHandler() xdsclient.Handler { return xdsclient.HandlerFunc(s.applyAddresses) }

func (s *Store) applyAddresses(delta xdsclient.Delta) []xdsclient.Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rejected []xdsclient.Rejection
	u := newAddressUpdate(s.Snapshot())
	for _, name := range delta.Removed {
		// A uid has two separators or more, a service's name has one.
		if strings.Count(name, "/") >= 2 {
			u.removeWorkload(name)
		} else {
			u.removeService(name)
		}
	}
	for _, r := range delta.Resources {
		if err := u.put(r); err != nil {
			rejected = append(rejected, xdsclient.Rejection{Name: r.Name, Err: err})
		}
	}
	if u.dirty {
		s.publish(u.commit())
	}
	return rejected
}

// addressUpdate collects the changes of one delta on top of a snapshot.
type addressUpdate struct {
	base      *Snapshot
	workloads *iradix.Txn[*workload.Workload]
	addresses *iradix.Txn[[]*workload.Workload]
	services  *iradix.Txn[*workload.Service]
	vips      *iradix.Txn[[]*workload.Service]
	ranges    *iradix.Txn[[]*workload.Service]
	endpoints *iradix.Txn[Endpoints]
	joined    *iradix.Txn[time.Time]
	dirty     bool
	// policies is set when an authorization may come out differently.
	policies bool
	// moved is set when a tunnel may lead to somebody else.
	moved bool
}

func newAddressUpdate(base *Snapshot) *addressUpdate {
	return &addressUpdate{
		base:      base,
		workloads: base.workloads.Txn(),
		addresses: base.addresses.Txn(),
		services:  base.services.Txn(),
		vips:      base.vips.Txn(),
		ranges:    base.ranges.Txn(),
		endpoints: base.endpoints.Txn(),
		joined:    base.joined.Txn(),
	}
}

func (u *addressUpdate) commit() *Snapshot {
	next := *u.base
	next.workloads = u.workloads.CommitOnly()
	next.addresses = u.addresses.CommitOnly()
	next.services = u.services.CommitOnly()
	next.vips = u.vips.CommitOnly()
	next.ranges = u.ranges.CommitOnly()
	next.endpoints = u.endpoints.CommitOnly()
	u.forgetJoined(time.Now())
	next.joined = u.joined.CommitOnly()
	if u.policies {
		next.policyVersion++
	}
	if u.moved {
		next.moves++
	}
	return &next
}

func (u *addressUpdate) put(r xdsclient.Resource) error {
	var a api.Address
	if err := r.Body.UnmarshalTo(&a); err != nil {
		return err
	}
	w, svc, err := workload.FromProto(&a)
	switch {
	case err != nil:
		return err
	case w != nil && w.UID != r.Name:
		// It could never be removed again.
		return fmt.Errorf("workload %q came under another name", w.UID)
	case w != nil:
		u.removeStale(w)
		u.putWorkload(w)
	case svc.Key().String() != r.Name:
		return fmt.Errorf("service %q came under another name", svc.Key())
	default:
		u.putService(svc)
	}
	return nil
}

// putWorkload indexes w, whose former version removeStale has taken out.
func (u *addressUpdate) putWorkload(w *workload.Workload) {
	u.dirty = true
	u.workloads.Insert([]byte(w.UID), w)
	if !w.HostNetwork {
		for _, a := range w.Addresses {
			key := addrKey(nil, w.Network, a)
			list, _ := u.addresses.Get(key)
			u.addresses.Insert(key, withWorkload(list, w))
		}
	}
	for svc := range w.Services {
		key := []byte(svc.String())
		set, _ := u.endpoints.Get(key)
		u.endpoints.Insert(key, set.with(w))
	}
}

// removeStale takes out what the former version of w has in the indexes and w
// will not replace.
func (u *addressUpdate) removeStale(w *workload.Workload) {
	old, ok := u.workloads.Get([]byte(w.UID))
	if !ok {
		// It may come back after a removal, with other policies than before.
		u.policies = true
		return
	}
	u.unindexAddresses(old)
	for svc := range old.Services {
		if _, still := w.Services[svc]; !still {
			u.removeEndpoint(svc, old.UID)
		}
	}
	if old.Namespace != w.Namespace || !slices.Equal(old.AuthorizationPolicies, w.AuthorizationPolicies) {
		u.policies = true
	}
	if old.Protocol != w.Protocol || old.Identity() != w.Identity() || old.Network != w.Network || !slices.Equal(old.Addresses, w.Addresses) {
		u.moved = true
	}
	switch {
	case w.Protocol != workload.HBONE:
		u.joined.Delete([]byte(w.UID))
	case old.Protocol != workload.HBONE:
		u.joined.Insert([]byte(w.UID), time.Now())
	}
}

// forgetJoined drops what is too old for anybody to ask for.
func (u *addressUpdate) forgetJoined(now time.Time) {
	if u.base.joined.Len() == 0 {
		return
	}
	u.base.joined.Root().Walk(func(uid []byte, at time.Time) bool {
		if now.Sub(at) > joinedMemory {
			u.joined.Delete(uid)
		}
		return false
	})
}

func (u *addressUpdate) removeWorkload(uid string) {
	old, ok := u.workloads.Delete([]byte(uid))
	if !ok {
		return
	}
	u.dirty, u.policies, u.moved = true, true, true
	u.joined.Delete([]byte(uid))
	u.unindexAddresses(old)
	for svc := range old.Services {
		u.removeEndpoint(svc, uid)
	}
}

func (u *addressUpdate) unindexAddresses(w *workload.Workload) {
	if w.HostNetwork {
		return
	}
	for _, a := range w.Addresses {
		key := addrKey(nil, w.Network, a)
		list, _ := u.addresses.Get(key)
		list = slices.DeleteFunc(slices.Clone(list), func(o *workload.Workload) bool { return o.UID == w.UID })
		if len(list) == 0 {
			u.addresses.Delete(key)
		} else {
			u.addresses.Insert(key, list)
		}
	}
}

func (u *addressUpdate) removeEndpoint(svc workload.ServiceKey, uid string) {
	key := []byte(svc.String())
	set, _ := u.endpoints.Get(key)
	if set = set.without(uid); set.Len() == 0 {
		u.endpoints.Delete(key)
	} else {
		u.endpoints.Insert(key, set)
	}
}

// withWorkload returns a new list that has w in its place.
func withWorkload(list []*workload.Workload, w *workload.Workload) []*workload.Workload {
	out := make([]*workload.Workload, 0, len(list)+1)
	for _, o := range list {
		if o.UID != w.UID {
			out = append(out, o)
		}
	}
	out = append(out, w)
	slices.SortFunc(out, func(a, b *workload.Workload) int {
		switch {
		case workload.Preferred(a, b):
			return -1
		case workload.Preferred(b, a):
			return 1
		default:
			return 0
		}
	})
	return out
}

func (u *addressUpdate) putService(svc *workload.Service) {
	name := svc.Key().String()
	u.removeService(name)
	u.dirty = true
	u.services.Insert([]byte(name), svc)
	for txn, keys := range u.vipKeys(svc) {
		for _, key := range keys {
			list, _ := txn.Get(key)
			txn.Insert(key, withService(list, svc))
		}
	}
}

func (u *addressUpdate) removeService(name string) {
	old, ok := u.services.Delete([]byte(name))
	if !ok {
		return
	}
	u.dirty = true
	for txn, keys := range u.vipKeys(old) {
		for _, key := range keys {
			list, _ := txn.Get(key)
			list = slices.DeleteFunc(slices.Clone(list), func(o *workload.Service) bool { return o == old })
			if len(list) == 0 {
				txn.Delete(key)
			} else {
				txn.Insert(key, list)
			}
		}
	}
}

// vipKeys returns the index keys of a service, without repetition.
func (u *addressUpdate) vipKeys(svc *workload.Service) map[*iradix.Txn[[]*workload.Service]][][]byte {
	single, ranges := map[string]bool{}, map[string]bool{}
	for _, v := range svc.VIPs {
		if v.Prefix.IsSingleIP() {
			single[string(addrKey(nil, v.Network, v.Prefix.Addr()))] = true
		} else {
			ranges[string(rangeKey(nil, v.Network, v.Prefix))] = true
		}
	}
	return map[*iradix.Txn[[]*workload.Service]][][]byte{
		u.vips:   byteKeys(single),
		u.ranges: byteKeys(ranges),
	}
}

func byteKeys(set map[string]bool) [][]byte {
	out := make([][]byte, 0, len(set))
	for k := range maps.Keys(set) {
		out = append(out, []byte(k))
	}
	return out
}

// withService returns a new list with svc in its place: the canonical service
// first, then by name, so that every node settles a conflict alike.
func withService(list []*workload.Service, svc *workload.Service) []*workload.Service {
	out := append(slices.Clone(list), svc)
	slices.SortFunc(out, func(a, b *workload.Service) int {
		if a.Canonical != b.Canonical {
			if a.Canonical {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Key().String(), b.Key().String())
	})
	return out
}
