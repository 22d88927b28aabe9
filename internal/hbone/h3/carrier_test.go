package h3_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/internal/hbone"
	"github.com/tulle-mesh/tulle/internal/hbone/carriertest"
	"github.com/tulle-mesh/tulle/internal/hbone/h3"
)

func TestCarrier(t *testing.T) {
	carriertest.Run(t, func(t *testing.T, h hbone.Handler) carriertest.Pair {
		server := serve(t, h3.ServerConfig{Handler: h})
		return carriertest.Pair{Client: dial(t, server.addr, h3.ClientConfig{}), Drain: server.Drain}
	})
}
