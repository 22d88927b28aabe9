package source

// The labels and annotations that Tulle reads. They are Istio's and Kubernetes's.
const (
	// LabelDataplaneMode enrols a namespace's pods or a pod: ModeAmbient or
	// ModeNone. The pod's own label decides over its namespace's.
	LabelDataplaneMode = "istio.io/dataplane-mode"
	ModeAmbient        = "ambient"
	ModeNone           = "none"

	// AnnotationRedirection is written by a node agent on pods whose traffic it
	// captures: "enabled", or "pending" until a proxy has accepted the pod.
	AnnotationRedirection = "ambient.istio.io/redirection"
	// AnnotationSidecarStatus marks pods that carry a proxy of their own.
	AnnotationSidecarStatus = "sidecar.istio.io/status"
	// AnnotationDryRun set to "true" makes an AuthorizationPolicy only report.
	AnnotationDryRun = "istio.io/dry-run"
	// AnnotationTrafficDistribution is Istio's form of spec.trafficDistribution,
	// also for namespaces and ServiceEntries.
	AnnotationTrafficDistribution = "networking.istio.io/traffic-distribution"

	LabelCanonicalName     = "service.istio.io/canonical-name"
	LabelCanonicalRevision = "service.istio.io/canonical-revision"
	LabelWorkloadName      = "service.istio.io/workload-name"
	// LabelUseWaypoint names the Gateway that traffic to the object, or to those
	// of a namespace, goes through; "none" asks for none.
	LabelUseWaypoint          = "istio.io/use-waypoint"
	LabelUseWaypointNamespace = "istio.io/use-waypoint-namespace"
	// LabelUseWaypointCanary names a second Gateway, through which as many percent of
	// new connections go as the annotation says.
	LabelUseWaypointCanary            = "istio.io/use-waypoint-canary"
	LabelUseWaypointCanaryNamespace   = "istio.io/use-waypoint-canary-namespace"
	AnnotationUseWaypointCanaryWeight = "istio.io/use-waypoint-canary-weight"
	// AnnotationSkipIdleWaypoint set to "true" on a namespace has node proxies go past
	// the waypoints of its services for which nothing is configured.
	AnnotationSkipIdleWaypoint = "waypoint.tulle.dev/skip-idle"
	// LabelWaypointFor on a Gateway or its class is service, workload, all or none.
	LabelWaypointFor = "istio.io/waypoint-for"
	// LabelGatewayManaged marks what was made for a Gateway, and LabelGatewayName
	// names that Gateway.
	LabelGatewayManaged = "gateway.istio.io/managed"
	LabelGatewayName    = "gateway.networking.k8s.io/gateway-name"
	// LabelIngressUseWaypoint set to "true" has ingress gateways, too, go through
	// the waypoint.
	LabelIngressUseWaypoint = "istio.io/ingress-use-waypoint"
	// AnnotationServiceAccount on a Gateway names the account of its proxies,
	// which else is called as the Gateway.
	AnnotationServiceAccount = "gateway.istio.io/service-account"

	// AnnotationNameOverride on a Gateway names the Deployment and Service of its
	// proxies, which else are called as the Gateway.
	AnnotationNameOverride = "gateway.istio.io/name-override"

	LabelTunnel      = "networking.istio.io/tunnel"
	LabelNetwork     = "topology.istio.io/network"
	LabelRegion      = "topology.kubernetes.io/region"
	LabelZone        = "topology.kubernetes.io/zone"
	LabelSubzone     = "topology.istio.io/subzone"
	LabelServiceName = "kubernetes.io/service-name"

	// LabelSliceManagedBy on an EndpointSlice says who keeps it; those of
	// EndpointSliceController follow the selector of their Service.
	LabelSliceManagedBy     = "endpointslice.kubernetes.io/managed-by"
	EndpointSliceController = "endpointslice-controller.k8s.io"
)
