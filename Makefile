# Tulle's build. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/tulle-mesh/tulle/internal/telemetry.Version=$(VERSION)
GO_BUILD := CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Run a mesh of two nodes and show what it does (KEEP=1 to look)
	@KEEP='$(KEEP)' $(BIN)/demo

.PHONY: test
test: packages vet ## Run every test, with real peers; as root, install what is missing
	.ci/test.sh

.PHONY: build
build: ## Build the binaries into bin/
	@mkdir -p $(BIN)
	@$(GO_BUILD) -o $(BIN)/ ./meshctl ./istiod-lite ./ztunnel ./waypoint ./examples/shop/... ./examples/samples
	@$(GO_BUILD) -o $(BIN)/tulle-agent ./ztunnel/agent

CLUSTER := $(BIN)/cluster --source $(CURDIR)/e2e/cluster

.PHONY: cluster
cluster: # The program that runs the cluster of the end-to-end tests
	@mkdir -p $(BIN)
	@CGO_ENABLED=0 go -C e2e/cluster build -trimpath -o $(CURDIR)/$(BIN)/cluster ./cmd/cluster

.PHONY: cluster-binaries
cluster-binaries: cluster # The programs of a Kubernetes cluster, built once and cached
	@$(CLUSTER) binaries

.PHONY: images
images: build cluster ## Make OCI images, and load them into a running cluster
	@$(CLUSTER) images --bin $(BIN) --version '$(VERSION)' --out out/images

.PHONY: cluster-up
cluster-up: images ## Start a Kubernetes cluster of three nodes (as root)
	@$(CLUSTER) up out/images/*.tar

# Tests that have been vetted are linked without what debuggers read.
QUICK := -vet=off -ldflags='-s -w'

.PHONY: e2e
e2e: packages images ## Test on a Kubernetes cluster from nothing; logs of a failure in out/e2e
	@if $(CLUSTER) status >/dev/null 2>&1; then echo 'e2e: a cluster is up; end it with `make cluster-down`' >&2; exit 1; fi
	cd e2e/cluster && go vet ./... && go test $(QUICK) $$(go list ./... | grep -v /suite)
	cd e2e/cluster && go test $(QUICK) ./suite -count=1 -timeout 40m -v -args $(E2E)

REPORTS ?= e2e/conformance/reports
.PHONY: conformance
conformance: packages build cluster ## Run the Gateway API's conformance suite on a cluster from nothing; write its report
	@if [ "$$TULLE_E2E_RUNNING" != 1 ] && $(CLUSTER) status >/dev/null 2>&1; then \
	  echo 'conformance: a cluster is up; end it with `make cluster-down`, or use it with TULLE_E2E_RUNNING=1' >&2; exit 1; fi
	@$(CLUSTER) images --bin $(BIN) --version '$(VERSION)' --out out/conformance/images istiod-lite ztunnel tulle-agent waypoint echo
	cd e2e/conformance && go vet ./... && go test $(QUICK) ./echo
	@set -o pipefail; cd e2e/conformance && echo 'the suite runs; all it says is in out/conformance/log' && \
	go test $(QUICK) . -count=1 -timeout 30m -v -args -version='$(VERSION)' -reports='$(abspath $(REPORTS))' $(CONFORMANCE) 2>&1 | \
	tee ../../out/conformance/log | grep -E '^ *--- (PASS|FAIL)|^(PASS|FAIL|ok|conformance:|mesh installed|  +[0-9.]+ s)|tests of a mesh|report kept'

.PHONY: cluster-down
cluster-down: cluster ## End the Kubernetes cluster and remove all of it
	@$(CLUSTER) down

.PHONY: vet
vet: ## Run go vet
	CGO_ENABLED=0 go vet ./...

.PHONY: generate
generate: ## Write the Go of api/*.proto anew with the pinned generators
	cd api/generate && go run . ../.. ../..
	go generate ./manifests

.PHONY: bench
bench: build ## Measure speed and memory beside baselines (BENCH=-short: a look)
	@mkdir -p out
	CGO_ENABLED=0 go run ./e2e/bench $(BENCH)

.PHONY: bench-control
bench-control: build cluster-binaries ## Measure the control plane at 10,000 pods (BENCH=-short: a look)
	@mkdir -p out
	CGO_ENABLED=0 go run ./e2e/control $(BENCH)

PEER := CGO_ENABLED=0 go -C e2e/bench/peers/

.PHONY: bench-peers
bench-peers: # The reverse proxies in Go that stand beside the waypoint in its benchmark
	@mkdir -p $(BIN)/peers
	$(PEER)caddy build -o $(CURDIR)/$(BIN)/peers/caddy github.com/caddyserver/caddy/v2/cmd/caddy
	$(PEER)traefik build -o $(CURDIR)/$(BIN)/peers/traefik github.com/traefik/traefik/v3/cmd/traefik

.PHONY: bench-waypoint
bench-waypoint: packages build bench-peers ## Measure waypoints beside other proxies (BENCH=-short: a look)
	@mkdir -p out
	CGO_ENABLED=0 go run ./e2e/bench/waypoint $(BENCH)

.PHONY: packages
packages: ## Install the Debian packages that the tests use, or name them
	@.ci/packages.sh

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN) out
