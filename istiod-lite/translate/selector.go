package translate

import "slices"

// selectors finds which of many label selectors take a set of labels, in the
// time of the labels rather than of the selectors: each selector is filed under
// one of its requirements.
type selectors[T any] struct {
	byLabel map[[2]string][]selected[T]
}

type selected[T any] struct {
	order int
	match map[string]string
	value T
}

// add files value under match, which must not be empty: an empty selector of
// Kubernetes selects nothing, and of a policy it is no selector.
func (s *selectors[T]) add(order int, match map[string]string, value T) {
	if len(match) == 0 {
		return
	}
	if s.byLabel == nil {
		s.byLabel = map[[2]string][]selected[T]{}
	}
	var key string
	for k := range match {
		if key == "" || k < key {
			key = k
		}
	}
	at := [2]string{key, match[key]}
	s.byLabel[at] = append(s.byLabel[at], selected[T]{order: order, match: match, value: value})
}

// find returns the values whose selectors take labels, in the order of add.
func (s *selectors[T]) find(labels map[string]string) []T {
	if s == nil || len(s.byLabel) == 0 {
		return nil
	}
	var hits []selected[T]
	for k, v := range labels {
		for _, c := range s.byLabel[[2]string{k, v}] {
			if subset(c.match, labels) {
				hits = append(hits, c)
			}
		}
	}
	slices.SortFunc(hits, func(a, b selected[T]) int { return a.order - b.order })
	values := make([]T, len(hits))
	for i, h := range hits {
		values[i] = h.value
	}
	return values
}

func subset(match, labels map[string]string) bool {
	for k, v := range match {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
