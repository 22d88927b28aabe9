package deploy_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/tulle-mesh/tulle/internal/kubetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kubetest.Package(m)) }
