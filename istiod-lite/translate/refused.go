package translate

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// A pod has no condition that would say what became of its wish for a waypoint, as a
// Service and a WorkloadEntry have; so a warning does, for all pods of a namespace that
// fare alike one.

// refuse notes why a pod does not get the waypoint that its own label asks for; it is
// called whenever its workload is made, with memo nil when it goes.
func (t *Translator) refuse(name source.Name, memo *podMemo) {
	text := ""
	if memo != nil && !memo.pod.Spec.HostNetwork && !source.Ended(memo.pod) && !t.waypoints.ownPod(name) {
		if waypoint, own, ok := waypointName(memo.pod.Labels, name.Namespace, nil); ok && own {
			if asked, _ := t.waypoints.bind(memo.pod.Labels, name.Namespace, memo.namespace.object, forWorkload); !asked.Bound {
				text = fmt.Sprintf("it asks for the waypoint %s by its label %s and does not get it: %s", waypoint, source.LabelUseWaypoint, asked.Message)
			}
		}
	}
	if t.refused[name] == text {
		return
	}
	t.out.warned = true
	if text == "" {
		delete(t.refused, name)
	} else {
		t.refused[name] = text
	}
}

// refusedWarnings name the first pod of each namespace that fares like others.
func (t *Translator) refusedWarnings() []Warning {
	type like struct{ namespace, text string }
	var out []Warning
	told := map[like]bool{}
	for _, name := range slices.SortedFunc(maps.Keys(t.refused), compareNames) {
		if l := (like{name.Namespace, t.refused[name]}); !told[l] {
			told[l] = true
			out = append(out, Warning{Object: "Pod " + name.String(), Message: l.text})
		}
	}
	return out
}
