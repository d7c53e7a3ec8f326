# SPDX-License-Identifier: Apache-2.0
# Copyright The Sealane Authors

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# What an operator may want to change: make image IMAGE=registry.example/sealane:v1 PLATFORMS="linux/amd64 linux/arm64"
export IMAGE ?= ghcr.io/sealane/sealane:dev
PLATFORMS ?= linux/$(shell go env GOARCH)
VERSION ?= $(shell git describe --tags --always --dirty)
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# As in test/flags, so that each package is compiled once for all.
export GOFLAGS := $(filter-out -trimpath,$(GOFLAGS)) -trimpath
export CGO_ENABLED ?= 0

tool := go tool -modfile=internal/tools/go.mod
chart := daemonset/deploy/chart
template = $(tool) helm template sealane $(chart) --namespace sealane-system --include-crds \
	--set "image.repository=$${IMAGE%:*},image.tag=$${IMAGE\#\#*:}"

.PHONY: help build generate verify lint fmt test test-kernels test-apiserver fuzz image manifests demo demo-down e2e bench scale ci ci-full clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## compile every program into bin/
	go build -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/...

generate: ## compile the eBPF programs, generate deep copies and CRDs
	test/setup build
	go generate ./...

verify: generate ## fail if generated files or go.mod are not what is committed
	go mod tidy -diff
	git diff --exit-code
	git status --porcelain --untracked-files=normal -- api bpf $(chart)/crds | (! grep .)

lint: ## golangci-lint, shellcheck, helm lint
	internal/tools/lint/run

fmt: ## format Go code and sort imports as lint wants it
	go tool -modfile=internal/tools/lint/go.mod golangci-lint fmt

# Each of these is a script.
test: ## run all tests; as root also the privileged ones
	test/run
test-kernels: ## run the data path's tests on other kernels, in virtual machines
	test/kernels/run
test-apiserver: ## run the tests that need an API server of their own
	test/apiserver/run
fuzz: ## run each fuzz target for FUZZTIME (5s)
	test/fuzz
demo: ## three nodes on this machine, with pods, status and a look at the wire (DUAL=1, LANE=vxlan)
	test/demo/run
demo-down: ## take the demo down without a trace
	test/demo/down
e2e: ## lab clusters, our own tests and upstream's
	test/e2e/run
bench: ## measure beside flannel and the bare limits (BENCH=-1x: only see that it works)
	perf/run $(BENCH)
scale: ## simulate key management at 5,000 nodes (SCALE=-nodes=500: sooner done)
	go run ./perf/scale $(SCALE)
ci: ## everything that a change has to pass
	.ci/run
ci-full: ## all that can be tested, for hours; docs/verification.md gets the result (PARTS="bench scale")
	.ci/full $(PARTS)

image: ## build dist/sealane-image.tar, without any container engine
	test/setup image
	go run ./internal/imagebuild -name '$(IMAGE)' -platforms '$(PLATFORMS)' -version '$(VERSION)' -revision "$$(git rev-parse HEAD)" -out dist/sealane-image.tar

manifests: ## render dist/sealane.yaml and dist/sealane-uninstall.yaml
	mkdir -p dist
	$(template) --set createNamespace=true >dist/.part && mv dist/.part dist/sealane.yaml
	$(template) --set uninstall=true --show-only templates/uninstall.yaml >dist/.part && mv dist/.part dist/sealane-uninstall.yaml

clean: ## remove what was built here
	rm -rf bin dist
