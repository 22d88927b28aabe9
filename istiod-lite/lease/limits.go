package lease

import "time"

const (
	// Full is the whole of a limit.
	Full = 1 << 16

	// Interval is how often replicas tell of their demand, and shares are thought over.
	// Shorter follows bursts sooner; at a quarter of a second a hot key has most of its
	// limit after half a second, and 100 replicas with 1,000 keys each cost 2 % of a core.
	Interval = 250 * time.Millisecond
	// spacing is how far apart shares are thought over at least: what many replicas say at
	// the same time is dealt with together.
	spacing = 20 * time.Millisecond
	// retention is how long the shares of a replica without a stream stay its own: longer
	// than a restart of the control plane and a few attempts to come back.
	retention = 10 * time.Second
	// forgotten is how long a key without demand keeps its shares.
	forgotten = 5 * time.Second

	// floorParts of a key's limit are shared evenly, so that a replica without demand has
	// something for the first requests: a twentieth, which is what a hot key may lose.
	floorParts = Full / 20
	// slack is what a share must differ by to be changed: a thirty-second of the whole.
	slack = Full / 32

	// maxReplicas bounds the replicas that are known, maxOfAccount those of one account,
	// which names them as it likes: a Gateway has tens. maxRules the rules of one and
	// maxKeys the keys with shares of their own of one rule: a replica tells of 1,024 at
	// most.
	maxReplicas  = 10_000
	maxOfAccount = 500
	maxRules     = 10_000
	maxKeys      = 4096
	// maxDemands of one report.
	maxDemands = 100_000
)
