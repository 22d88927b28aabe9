package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/tulle-mesh/tulle/meshctl/mesh"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const foreignDump = `{"certificates":[
 {"identity":"spiffe://cluster.local/ns/a/sa/b","state":"Available","certChain":[{"serialNumber":"255","validFrom":"2026-11-21T11:00:00Z","expirationTime":"2026-11-22T11:00:00Z"}],"rootCerts":[]},
 {"identity":"spiffe://cluster.local/ns/a/sa/c","state":"Unavailable: failed: refused: not here","certChain":[]},
 {"identity":"spiffe://cluster.local/ns/a/sa/d","state":"Initializing","certChain":[]}]}`

func parseDump(data []byte, node string, now time.Time) ([]certificate, error) {
	d, err := mesh.ParseDump(data)
	if err != nil {
		return nil, err
	}
	return certificatesOf(d, node, now)
}

func TestCertificatesOfAForeignZtunnelAreRead(t *testing.T) {
	list, err := parseDump([]byte(foreignDump), "node-1", now)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d certificates, %v", len(list), err)
	}
	if c := list[0]; c.State != "valid" || c.LeftSeconds != 23*3600 || !strings.HasSuffix(c.Serial, "ff") || c.Node != "node-1" {
		t.Errorf("available: %+v", c)
	}
	if c := list[1]; c.State != "failed" || c.Error != "failed: refused: not here" {
		t.Errorf("unavailable: %+v", c)
	}
	if c := list[2]; c.State != "pending" || !c.NotAfter.IsZero() {
		t.Errorf("initializing: %+v", c)
	}
}

func TestOurOwnZtunnelTellsMore(t *testing.T) {
	list, err := parseDump([]byte(`{"certificates":[{"identity":"x","state":"Available"}],"certificateStatus":[
 {"identity":"spiffe://td/ns/a/sa/b","state":"overdue","serial":"0a","notBefore":"2026-11-20T13:00:00Z","notAfter":"2026-11-21T13:00:00Z","lastError":"unreachable"}]}`), "n", now)
	if err != nil || len(list) != 1 || list[0].State != "overdue" || list[0].Error != "unreachable" || list[0].LeftSeconds != 3600 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestACertificateThatIsOverIsExpiredWhateverItsHolderSays(t *testing.T) {
	list, err := parseDump([]byte(foreignDump), "n", now.Add(48*time.Hour))
	if err != nil || list[0].State != "expired" || list[0].LeftSeconds >= 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestTheTableShowsWhatIsWrongBelowIt(t *testing.T) {
	list, _ := parseDump([]byte(foreignDump), "node-1", now)
	var b bytes.Buffer
	printCertificates(&b, list, false)
	for _, want := range []string{"IDENTITY", "23h00m", "valid", "spiffe://cluster.local/ns/a/sa/c on node-1: failed: refused: not here\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		if strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
			t.Errorf("trailing blanks in %q", line)
		}
	}
}

func FuzzParseDump(f *testing.F) {
	f.Add([]byte(foreignDump))
	f.Fuzz(func(t *testing.T, data []byte) { parseDump(data, "n", now) })
}

func TestDurationsInTwoUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		5 * time.Second: "5s", 65 * time.Second: "1m05s", 23*time.Hour + 59*time.Minute: "23h59m", 50 * time.Hour: "2d02h",
	} {
		if got := words(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
