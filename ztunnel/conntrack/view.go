package conntrack

import (
	"errors"
	"time"

	"github.com/tulle-mesh/tulle/internal/authz"
	"github.com/tulle-mesh/tulle/internal/workload"
)

// View is one connection as config_dump shows it. The first four keys are
// those of Istio's ztunnel.
type View struct {
	Src         string `json:"src"`
	OriginalDst string `json:"originalDst"`
	ActualDst   string `json:"actualDst"`
	Protocol    string `json:"protocol"`

	SrcIdentity string `json:"srcIdentity,omitempty"`
	DstIdentity string `json:"dstIdentity,omitempty"`
	// SrcWorkload and DstWorkload are "namespace/name", DstService
	// "namespace/hostname": what the addresses belonged to when it was opened.
	SrcWorkload string `json:"srcWorkload,omitempty"`
	DstWorkload string `json:"dstWorkload,omitempty"`
	DstService  string `json:"dstService,omitempty"`
	// Policy is the ALLOW policy that permitted an inbound connection.
	Policy        string    `json:"policy,omitempty"`
	BytesSent     uint64    `json:"bytesSent"`
	BytesReceived uint64    `json:"bytesReceived"`
	Opened        time.Time `json:"opened"`
	Age           string    `json:"age"`
}

// Views is "connections" of one workload in config_dump.
type Views struct {
	Inbound  []View `json:"inbound"`
	Outbound []View `json:"outbound"`
}

// Views shows all live connections as of now.
func (t *Table) Views(now time.Time) Views {
	return Views{Inbound: views(t.List(Inbound), now), Outbound: views(t.List(Outbound), now)}
}

func views(list []*Live, now time.Time) []View {
	out := make([]View, 0, len(list))
	for _, l := range list {
		v := View{
			Src: l.Src.String(), OriginalDst: l.OriginalDst.String(), ActualDst: l.ActualDst.String(),
			Protocol: string(l.Protocol), SrcWorkload: nameOf(l.SrcWorkload), DstWorkload: nameOf(l.DstWorkload),
			Policy: l.Policy, Opened: l.Opened.UTC(), Age: now.Sub(l.Opened).Round(time.Millisecond).String(),
		}
		v.BytesSent, v.BytesReceived = l.Bytes()
		if !l.SrcIdentity.IsZero() {
			v.SrcIdentity = l.SrcIdentity.String()
		}
		if !l.DstIdentity.IsZero() {
			v.DstIdentity = l.DstIdentity.String()
		}
		if l.DstService != nil {
			v.DstService = l.DstService.Key().String()
		}
		out = append(out, v)
	}
	return out
}

func nameOf(w *workload.Workload) string {
	if w == nil {
		return ""
	}
	return w.Namespace + "/" + w.Name
}

func incomplete(err error) bool {
	var d *authz.Denial
	return errors.As(err, &d) && d.Incomplete
}
