package source

import "time"

// Status is a source's state for people; /debug/errorz serves it as JSON.
type Status struct {
	// From names the source, as "file /etc/tulle".
	From string `json:"from"`
	// LastGood is when the Objects in force were read; zero before the first.
	LastGood time.Time `json:"lastGood,omitzero"`
	// LastRead is when the last reading began that found the Objects in force to
	// be what is there: a change made before it is in force.
	LastRead time.Time `json:"lastRead,omitzero"`
	// Objects counts those in force, by kind.
	Objects map[string]int `json:"objects,omitempty"`
	// Problems are what keeps a newer state from coming into force; empty when
	// the newest is in force.
	Problems []Problem `json:"problems"`
	// ProblemsTotal counts them, since Problems holds only the first ones.
	ProblemsTotal int `json:"problemsTotal"`
	// Inert lists objects that were read and are not Tulle's business, at most
	// a hundred of InertTotal.
	Inert      []string `json:"inert,omitempty"`
	InertTotal int      `json:"inertTotal,omitempty"`
}
