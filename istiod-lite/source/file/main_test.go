package file_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
)

var checker = source.Checker{RootNamespace: "istio-system"}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
