package mesh

import "time"

// arrival is how long a request waits for a service that was asked for and has not come:
// the control plane answers within some tens of milliseconds.
const arrival = time.Second
