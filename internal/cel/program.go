package cel

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
)

// Vars are the values of one evaluation.
type Vars interface {
	// Attribute returns the value of a word, as "request.path": a string, bool, int64,
	// []string, time.Time, time.Duration, map[string]string, map[string]any or Fields, as
	// the word's type wants it. ok is false for one that is absent: has() says so, and
	// asking for it all the same gets the value, or where that is nil is an error.
	Attribute(name string) (value any, ok bool)
}

// AbsentError says that an expression asked for something that is not there, without
// asking first whether it is (has()).
type AbsentError struct{ Name string }

func (e *AbsentError) Error() string { return e.Name + " is not known" }

// Program is a compiled expression, immutable and safe for concurrent use.
type Program struct {
	text     string
	program  cel.Program
	mentions map[string]bool
}

// Compile compiles a condition, whose value must be a boolean. The error says where
// it is wrong.
func (v *Vocabulary) Compile(text string) (*Program, error) {
	return v.compile(text, func(t *cel.Type) error {
		if t.Kind() != types.BoolKind && t.Kind() != types.DynKind {
			return fmt.Errorf("its value is of the type %s, where a condition has true or false", t)
		}
		return nil
	})
}

// CompileText compiles an expression whose value is shown as text: a string, number,
// boolean, time or duration.
func (v *Vocabulary) CompileText(text string) (*Program, error) {
	return v.compile(text, func(t *cel.Type) error {
		switch t.Kind() {
		case types.StringKind, types.IntKind, types.UintKind, types.DoubleKind, types.BoolKind, types.TimestampKind, types.DurationKind, types.DynKind:
			return nil
		}
		return fmt.Errorf("its value is of the type %s, which is no text", t)
	})
}

func (v *Vocabulary) compile(text string, fits func(*cel.Type) error) (*Program, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("is empty")
	}
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("is longer than %d bytes", MaxBytes)
	}
	v.once.Do(v.make)
	ast, issues := v.env.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, errors.New(oneLine(err.Error()))
	}
	if err := fits(ast.OutputType()); err != nil {
		return nil, err
	}
	program, err := v.env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost))
	if err != nil {
		return nil, errors.New(oneLine(err.Error()))
	}
	p := &Program{text: text, program: program, mentions: map[string]bool{}}
	for _, r := range ast.NativeRep().ReferenceMap() {
		if object, _, _ := strings.Cut(r.Name, "."); object != "" {
			p.mentions[object] = true
		}
	}
	return p, nil
}

// Mentions reports whether an object, as "request", occurs in the expression.
func (p *Program) Mentions(object string) bool { return p.mentions[object] }

// oneLine leaves of cel-go's errors what fits into a log line: without the picture of
// the place, which the numbers tell.
func oneLine(s string) string {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "|") {
			out = append(out, strings.TrimPrefix(line, "ERROR: <input>:"))
		}
	}
	return strings.Join(out, "; ")
}

// String returns the expression as it was written.
func (p *Program) String() string { return p.text }

// Holds evaluates a condition. The error is of one that could not be evaluated: it
// asked for what is absent, cost too much, or its value is no boolean.
func (p *Program) Holds(vars Vars) (bool, error) {
	out, _, err := p.program.Eval(activation{vars})
	if err != nil {
		return false, err
	}
	holds, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("its value is of the type %s, where a condition has true or false", out.Type().TypeName())
	}
	return bool(holds), nil
}

// Text evaluates an expression that is shown as text.
func (p *Program) Text(vars Vars) (string, error) {
	out, _, err := p.program.Eval(activation{vars})
	if err != nil {
		return "", err
	}
	switch value := out.Value().(type) {
	case string:
		return value, nil
	case bool:
		return strconv.FormatBool(value), nil
	case int64:
		return strconv.FormatInt(value, 10), nil
	case uint64:
		return strconv.FormatUint(value, 10), nil
	case float64:
		return strconv.FormatFloat(value, 'g', -1, 64), nil
	case time.Time:
		return value.UTC().Format(time.RFC3339Nano), nil
	case time.Duration:
		return value.String(), nil
	}
	return "", fmt.Errorf("its value is of the type %s, which is no text", out.Type().TypeName())
}

// activation gives every object the Vars: its fields' getters look there.
type activation struct{ vars Vars }

// ResolveName implements interpreter.Activation.
func (a activation) ResolveName(string) (any, bool) { return a.vars, true }

// Parent implements interpreter.Activation.
func (a activation) Parent() interpreter.Activation { return nil }
