//go:build linux && (amd64 || arm64) && !race

package rawio_test

import (
	"syscall"
	"testing"

	"github.com/tulle-mesh/tulle/internal/rawio"
)

func TestABlockingDescriptorDoesNotMakeItWait(t *testing.T) {
	a, _ := pair(t, 0)
	if _, err := rawio.Read(a, make([]byte, 1)); err != syscall.EAGAIN {
		t.Errorf("read: %v", err)
	}
	block := make([]byte, 64<<10)
	for {
		if _, err := rawio.Write(a, block); err != nil {
			if err != syscall.EAGAIN {
				t.Errorf("write: %v", err)
			}
			return
		}
	}
}
