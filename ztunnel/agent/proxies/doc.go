// Package proxies is the agent's side of ZDS: it listens for node proxies and
// tells them the pods.
//
// It owns the socket, the connections and the order of messages on each. The
// newest proxy is the one that gets pods; older ones, which are about to end
// after an upgrade, hear only of pods that leave, and that they are to leave a pod
// when the newest one has acknowledged it. When the newest goes away,
// the one before it gets all pods. What pods there are, and what an answer
// means for them, is the business of the Source (ztunnel/agent/enrol).
//
// A Server keeps no list of pods of its own. It asks the Source for a pod at the
// moment of sending, so that what it sends is never older than the last call of
// Send.
package proxies
