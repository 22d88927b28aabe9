package forward

import "testing"

func TestAClientLeavesRoomToOthers(t *testing.T) {
	var p peeks
	half := maxPeekedBytes / 2
	for _, step := range []struct {
		client string
		n      int
		fits   bool
	}{
		{"a", half, true}, {"a", 1, false}, {"b", half - 1, true}, {"c", 2, false}, {"c", 1, true}, {"d", 1, false},
	} {
		if err := p.take(step.client, step.n); (err == nil) != step.fits {
			t.Errorf("%s takes %d: %v", step.client, step.n, err)
		}
	}
	p.give("a", half)
	p.give("b", half-1)
	p.give("c", 1)
	if p.all != 0 || len(p.each) != 0 {
		t.Errorf("%d are still held: %v", p.all, p.each)
	}
}
