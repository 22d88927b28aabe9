package source

const (
	// MaxObjects bounds one Objects. A mesh of 50,000 pods has about 120,000
	// objects; the bound stops a runaway generator before memory does.
	MaxObjects = 500_000

	// maxPolicyValues bounds the values of one list in an AuthorizationPolicy,
	// for the proxies evaluate them one by one on each connection.
	maxPolicyValues = 4096

	// maxPolicyRules bounds the rules of one policy, and the entries of a
	// rule's from, to and when.
	maxPolicyRules = 1024

	// maxHosts and maxEndpoints bound one ServiceEntry. Kubernetes bounds an
	// EndpointSlice to 1000 endpoints and 100 ports.
	maxHosts     = 256
	maxEndpoints = 1000
	maxPorts     = 256

	// maxHistory bounds the changes that a Store remembers, in changes: some
	// seconds at a thousand a second. Who is further behind compares everything.
	maxHistory = 8192
)
