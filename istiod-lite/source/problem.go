package source

import (
	"strings"
)

// Problem is one thing wrong with the configuration, put so that its author
// finds the place. It is served as JSON by /debug/errorz.
type Problem struct {
	// File is the path relative to the source's root, empty for a cluster.
	File string `json:"file,omitempty"`
	// Line is the first line of the document, from 1; zero when unknown.
	Line int `json:"line,omitempty"`
	// Object is "Kind namespace/name", empty when the document does not say.
	Object string `json:"object,omitempty"`
	// Field is the path of the field, as spec.rules[0].from[1].source.
	Field string `json:"field,omitempty"`
	// Message says what is wrong and, where there is one, the way out.
	Message string `json:"message"`
}

// Error joins the parts as file:line: object: field: message.
func (p Problem) Error() string {
	parts := make([]string, 0, 4)
	if p.File != "" {
		parts = append(parts, Origin{File: p.File, Line: p.Line}.String())
	}
	if p.Object != "" {
		parts = append(parts, p.Object)
	}
	if p.Field != "" {
		parts = append(parts, p.Field)
	}
	return strings.Join(append(parts, p.Message), ": ")
}
