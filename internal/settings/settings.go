package settings

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Environment names the variable behind a flag, for the flags that have one.
type Environment map[string]string

// describe names a flag for an error, with the variable that may have set it.
func (e Environment) describe(flag string) string {
	if variable := e[flag]; variable != "" {
		return "--" + flag + " (" + variable + ")"
	}
	return "--" + flag
}

// Error says which setting is wrong.
type Error struct {
	// Setting is the flag, with its variable when it has one.
	Setting string
	Reason  string
}

func (e *Error) Error() string { return e.Setting + ": " + e.Reason }

// Parse sets fs from the environment and then from args, which win. It returns
// flag.ErrHelp when help was asked for, and an *Error for a variable that does not fit.
func Parse(fs *flag.FlagSet, environment Environment, args []string, getenv func(string) string) error {
	for name, variable := range environment {
		value := getenv(variable)
		if value == "" {
			continue
		}
		// Istio writes addresses as URLs.
		if err := fs.Set(name, strings.TrimPrefix(value, "https://")); err != nil {
			return &Error{Setting: variable, Reason: err.Error()}
		}
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fmt.Errorf("flags: %w", err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("flags: unexpected argument %q", fs.Arg(0))
	}
	return nil
}

// Checks gathers every setting that cannot work, so that one start shows them all.
// Its methods take the values by the names of their flags.
type Checks struct {
	environment Environment
	errs        []error
}

// NewChecks returns Checks without an error.
func NewChecks(environment Environment) *Checks { return &Checks{environment: environment} }

// Wrong adds an error.
func (c *Checks) Wrong(flag, format string, args ...any) {
	c.errs = append(c.errs, &Error{Setting: c.environment.describe(flag), Reason: fmt.Sprintf(format, args...)})
}

// Addresses are host:port; the host may be empty, the port not.
func (c *Checks) Addresses(values map[string]string) {
	for flag, addr := range values {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			c.Wrong(flag, "%q is not host:port", addr)
		}
	}
}

// Required are not empty.
func (c *Checks) Required(values map[string]string) {
	for flag, value := range values {
		if value == "" {
			c.Wrong(flag, "is required")
		}
	}
}

// Files exist, and are no directories.
func (c *Checks) Files(paths map[string]string) {
	for flag, path := range paths {
		if st, err := os.Stat(path); err != nil {
			c.Wrong(flag, "%v", err)
		} else if st.IsDir() {
			c.Wrong(flag, "%s is a directory", path)
		}
	}
}

// Durations are positive, or zero where that is allowed.
func (c *Checks) Durations(values map[string]time.Duration, orZero ...string) {
	for flag, d := range values {
		if d < 0 || d == 0 && !slices.Contains(orZero, flag) {
			c.Wrong(flag, "%v is not a positive duration", d)
		}
	}
}

// TrustDomain is a name, not a SPIFFE ID.
func (c *Checks) TrustDomain(flag, value string) {
	if _, err := spiffeid.TrustDomainFromString(value); err != nil || strings.Contains(value, "/") {
		c.Wrong(flag, "%q is not a trust domain", value)
	}
}

// IP is an address or empty.
func (c *Checks) IP(flag, value string) {
	if value == "" {
		return
	}
	if _, err := netip.ParseAddr(value); err != nil {
		c.Wrong(flag, "%q is not an IP address", value)
	}
}

// LogFormat is text or json.
func (c *Checks) LogFormat(flag, value string) {
	if value != "text" && value != "json" {
		c.Wrong(flag, "%q is none of text, json", value)
	}
}

// Err is all that was wrong, in the order of the flags, nil for nothing.
func (c *Checks) Err() error {
	slices.SortFunc(c.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(c.errs...)
}
