package translate

import "github.com/tulle-mesh/tulle/istiod-lite/source"

// updateWaypoints takes in what changed of the waypoints: Gateways, their Services
// and their pods. Whether one is ready concerns all that asks for it, wherever that
// is, and changes rarely: then all is built anew. That a pod of several comes or
// goes costs nothing.
func (t *Translator) updateWaypoints(u *update) {
	x := t.waypoints
	x.objects = u.objects
	dirty := map[source.Name]bool{}
	if u.gateways {
		u.all = true
		for name := range x.byName {
			dirty[name] = true
		}
		for name := range u.objects.Gateways {
			dirty[name] = true
		}
	}
	for _, svc := range u.services {
		for name, w := range x.byName {
			if w.service == svc || name.Namespace == svc.Namespace && WaypointService(w.gateway) == svc.Name {
				dirty[name] = true
			}
		}
	}
	before := map[source.Name]*waypoint{}
	for name := range dirty {
		before[name] = x.byName[name]
		if w := newWaypoint(u.objects, t.options, u.objects.Gateways[name]); w != nil {
			x.byName[name] = w
		} else {
			delete(x.byName, name)
			delete(x.pods, name)
		}
	}
	x.scan(func(w *waypoint) bool { return dirty[w.name] })
	for _, name := range u.pods {
		for at, w := range x.byName {
			if at.Namespace != name.Namespace {
				continue
			}
			if _, ok := before[at]; !ok {
				before[at] = w
			}
			if pod := u.objects.Pods[name]; pod != nil && w.takesPod(u.objects, pod) {
				x.pods[at][name] = ready(pod)
			} else {
				delete(x.pods[at], name)
			}
		}
	}
	for name, was := range before {
		is := x.byName[name]
		if is != nil {
			judged := *is
			judged.judge(x.pods[name])
			is = &judged
			x.byName[name] = is
		}
		if !is.same(was) {
			u.all = true
		}
	}
}
