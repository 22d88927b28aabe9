package extauthz_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	api "github.com/tulle-mesh/tulle/api/waypoint"
	"github.com/tulle-mesh/tulle/waypoint/extauthz"
)

// TestStatsAreBounded has more names of providers than a mesh ever has.
func TestStatsAreBounded(t *testing.T) {
	var s extauthz.Stats
	for i := range 1000 {
		s.Asked(fmt.Sprint(i), extauthz.Failed(&api.ExternalAuth{}, errors.New("gone")), time.Duration(i)*10*time.Millisecond)
	}
	var questions, others uint64
	list := s.Summaries()
	for _, p := range list {
		questions += p.Results[extauthz.Error]
		if p.Provider == "other" {
			others = p.Asked
		}
	}
	if len(list) > 201 || questions != 1000 || others < 700 {
		t.Errorf("%d providers with %d questions, %d of others", len(list), questions, others)
	}
}

func TestTimesOfQuestionsAreCountedByBucket(t *testing.T) {
	var s extauthz.Stats
	denied := extauthz.Failed(&api.ExternalAuth{}, nil)
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Second, 5 * time.Second, time.Minute} {
		s.Asked("a", denied, d)
	}
	if a := s.Unasked("a", &api.ExternalAuth{FailOpen: true}, errors.New("full")); a.Allowed() {
		t.Errorf("%+v", a)
	}
	p := s.Summaries()[0]
	if p.Asked != 6 || p.Results[extauthz.Denied] != 6 || p.Results[extauthz.Error] != 1 || p.Took != 66*time.Second+2*time.Millisecond+1 ||
		p.Within[time.Millisecond] != 2 || p.Within[2500*time.Microsecond] != 3 || p.Within[time.Second] != 4 || p.Within[5*time.Second] != 5 {
		t.Errorf("%+v", p)
	}
}
