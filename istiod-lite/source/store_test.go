package source_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

// TestAStoresStatesDoNotChange edits a store at random and looks at every state
// that it has made again at the end.
func TestAStoresStatesDoNotChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, pods := source.NewStore(), map[source.Name]*corev1.Pod{}
		type moment struct {
			objects *source.Objects
			pods    map[source.Name]*corev1.Pod
		}
		var moments []moment
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			name := source.Name{Namespace: "a", Name: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")}
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				store.Delete(source.Key{Kind: "Pod", Name: name})
				delete(pods, name)
			case 1:
				kept := map[source.Name]*corev1.Pod{}
				for k, v := range pods {
					kept[k] = v
				}
				moments = append(moments, moment{store.Objects(), kept})
			default:
				pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name},
					Spec: corev1.PodSpec{NodeName: rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "node"),
						ServiceAccountName: rapid.SampledFrom([]string{"", "s"}).Draw(t, "account")},
					Status: corev1.PodStatus{Phase: rapid.SampledFrom([]corev1.PodPhase{"Running", "Failed"}).Draw(t, "phase")}}
				store.Put(pod)
				pods[name] = pod
			}
		}
		for i, m := range moments {
			if len(m.objects.Pods) != len(m.pods) {
				t.Fatalf("state %d has %d pods, had %d", i, len(m.objects.Pods), len(m.pods))
			}
			fresh := source.NewBuilder()
			for name, pod := range m.pods {
				if m.objects.Pods[name] != pod {
					t.Fatalf("state %d: pod %s is another", i, name)
				}
				if p := fresh.Add(pod, source.Origin{}); p != nil {
					t.Fatal(p)
				}
			}
			counted := fresh.Build()
			for _, node := range []string{"n1", "n2"} {
				for _, account := range []string{"default", "s"} {
					if got, want := m.objects.RunsOnNode(node, "a", account), counted.RunsOnNode(node, "a", account); got != want {
						t.Fatalf("state %d: %s runs on %s = %v, want %v", i, account, node, got, want)
					}
				}
			}
			for j := range i {
				keys := map[source.Name]bool{}
				for _, k := range m.objects.Changes(moments[j].objects) {
					keys[k.Name] = true
				}
				for _, name := range []string{"x", "y", "z"} {
					name := source.Name{Namespace: "a", Name: name}
					if m.pods[name] != moments[j].pods[name] && !keys[name] {
						t.Fatalf("%s changed between states %d and %d, which is not told", name, j, i)
					}
				}
			}
		}
	})
}

// TestChangesAreToldThatTheStoreHasForgotten makes more changes than a Store
// remembers.
func TestChangesAreToldThatTheStoreHasForgotten(t *testing.T) {
	store := source.NewStore()
	pod := func(i int) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprint("p", i%10)}}
	}
	for i := range 10 {
		store.Put(pod(i))
	}
	first := store.Objects()
	for i := range 20_000 {
		store.Put(pod(i))
		store.Objects()
	}
	if keys := store.Objects().Changes(first); len(keys) != 10 {
		t.Errorf("%d changes, want those of all 10 pods", len(keys))
	}
	if keys := store.Objects().Changes(store.Objects()); len(keys) != 0 {
		t.Errorf("changes between a state and itself: %v", keys)
	}
}
