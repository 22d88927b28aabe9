// Package api is the node agent's local interface: HTTP and JSON on a unix
// socket, for the CNI plugin and the runner of local meshes.
//
//	PUT    /v1/pods/{uid}   {"name","namespace","serviceAccount","netnsPath","strict","running"}
//	       200 with the pod's status once the proxy acknowledged it; 400 when the
//	       request is wrong; 503 when it could not be done in time, and then the
//	       pod is captured all the same, its connections are refused and the agent
//	       goes on trying. ?timeout=5s bounds the wait (30 s at most).
//	DELETE /v1/pods/{uid}   200 once proxy and rules are gone, also when the pod
//	       was not enrolled. A running pod leaves without losing a connection;
//	       ?gone=true says that the pod was deleted, and nothing of it is kept.
//	GET    /v1/pods         {"pods":[status…]}
//	GET    /v1/pods/{uid}   status, or 404
//	POST   /v1/cni/add      what ztunnel/agent/cni asks; also del and check. They
//	       exist where the agent follows Kubernetes.
//	GET    /healthz/ready   200, or 500 with what is pending
//
// Every error has the body {"reason": "…"}. It owns the socket and the encoding;
// what a request does is the business of ztunnel/agent/enrol
// and ztunnel/agent/kube.
package api
