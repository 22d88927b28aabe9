// Package vip sends what pods say to a service's virtual address to one of its
// pods, by nftables rules in their node's namespace: what kube-proxy does in a
// cluster. Only pods outside the mesh need it; the others' ztunnel balances by
// itself.
//
// It owns the table "tulle-services" of a node and replaces it as a whole, in
// one transaction: there is no moment without rules, and connections that exist
// keep the backend that they have.
package vip
