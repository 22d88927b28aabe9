package kubetest

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tulle-mesh/tulle/internal/roottest"
)

// Require skips the test unless the programs of Kubernetes are there.
func Require(tb testing.TB) {
	tb.Helper()
	if _, err := Binaries(); err != nil {
		roottest.Skip(tb, err.Error())
	}
}

// Start runs an API until the test's end.
func Start(tb testing.TB, options Options) *API {
	tb.Helper()
	Require(tb)
	a, err := Launch(tb.Context(), tb.TempDir(), options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(a.Stop)
	return a
}

// shared are the APIs of this process, by options.
var shared struct {
	mu   sync.Mutex
	apis map[string]*sharedAPI
	main bool // Package ends them
}

type sharedAPI struct {
	once sync.Once
	dir  string
	api  *API
	err  error
}

// Shared returns the API with these options that all tests of the package use;
// the first call starts it. The package's TestMain must call Package.
func Shared(tb testing.TB, options Options) *API {
	tb.Helper()
	Require(tb)
	shared.mu.Lock()
	if !shared.main {
		shared.mu.Unlock()
		tb.Fatal("kubetest.Shared needs a TestMain that calls kubetest.Package")
	}
	s := shared.apis[options.key()]
	if s == nil {
		s = &sharedAPI{}
		if shared.apis == nil {
			shared.apis = map[string]*sharedAPI{}
		}
		shared.apis[options.key()] = s
	}
	shared.mu.Unlock()
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "kubetest-"); s.err == nil {
			s.api, s.err = Launch(tb.Context(), s.dir, options)
		}
	})
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.api
}

// Package wraps a package's tests; the APIs that they share end with them. It is
// made for goleak.VerifyTestMain, and Run returns the exit code.
func Package(m interface{ Run() int }) Suite {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.main = true
	return Suite{m}
}

// Suite is what Package returns.
type Suite struct{ tests interface{ Run() int } }

// Run runs the tests.
func (s Suite) Run() int {
	defer func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		for _, s := range shared.apis {
			if s.api != nil {
				s.api.Close()
			}
			os.RemoveAll(s.dir)
		}
		shared.apis = nil
	}()
	return s.tests.Run()
}

// Close is Stop, and ends the idle connections of Client, whose goroutines a
// search for leaks would find.
func (a *API) Close() {
	a.Stop()
	closeIdle(a.Config)
}

// Namespace creates a namespace that nobody else has, labelled as given, and
// returns its name. It is not deleted: the API goes as a whole.
func (a *API) Namespace(tb testing.TB, labels map[string]string) string {
	tb.Helper()
	prefix := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(tb.Name()))
	prefix = strings.Trim(prefix[:min(len(prefix), 40)], "-")
	ns, err := a.Client.CoreV1().Namespaces().Create(tb.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: prefix + "-", Labels: labels}}, createOptions)
	if err != nil {
		tb.Fatal(fmt.Errorf("create a namespace: %w", err))
	}
	return ns.Name
}
