# Everything that is done with this tree, by people and by CI (.ci/run), has a target here.
# `make` alone lists them.

SHELL         := bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS     += --no-print-directory
.NOTPARALLEL:

bin := build/bin

# The linter and the generators are pinned in a module of their own.
tool := go tool -modfile=tools/go.mod

# Gives build to the user who called sudo, so that make build works without root afterwards.
owned := [ -z "$${SUDO_UID-}" ] || chown -R "$$SUDO_UID:$$SUDO_GID" build

# The name that the manifests give to the image.
image := ghcr.io/heraldlb/herald:dev

# The version that Herald's programs report: make images VERSION="$(git describe --tags --always --dirty)" for a release.
# Recipes take it from the environment, so that the shell never reads it as a part of a command.
VERSION ?= dev
export VERSION

# Without buildvcs, and with a version that stays, a commit that changes no code relinks nothing.
compile := CGO_ENABLED=0 go build -trimpath -buildvcs=false
static := $(compile) -ldflags "-s -w"
versioned := $(compile) -ldflags "-s -w -X github.com/heraldlb/herald/cmd/internal/version.release=$$VERSION"

kubernetes_version := v1.36.3
version_package    := k8s.io/component-base/version
kubernetes_ldflags := -s -w -X $(version_package).gitVersion=$(kubernetes_version) \
	-X $(version_package).gitMajor=1 -X $(version_package).gitMinor=36

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##### Building

.PHONY: build
build: toolchain ## Build Herald's programs, static, into build/bin
	@mkdir -p $(bin)
	@echo "Building Herald's programs into $(bin), version $$VERSION."
	@$(versioned) -o $(bin)/ ./cmd/... ./e2e/app

.PHONY: kubernetes
kubernetes: toolchain $(bin)/kubernetes ## Build Kubernetes for the tests; about ten minutes the first time, then seconds

$(bin)/kubernetes: $(wildcard e2e/kubernetes/*)
	@mkdir -p $(bin)
	@echo "Building Kubernetes $(kubernetes_version): about ten minutes on two cores the first time, seconds after that."
	@cd e2e/kubernetes && CGO_ENABLED=0 ../progress.sh -trimpath -buildvcs=false -ldflags "$(kubernetes_ldflags)" -o ../../$@ .

.PHONY: metallb
metallb: toolchain $(bin)/metallb ## Build MetalLB, which Herald is measured against and takes over from; minutes the first time

# The programs, and their custom resources beside them.
$(bin)/metallb: e2e/metallb/go.mod
	@mkdir -p $(bin)
	@cd e2e/metallb && for program in controller speaker; do $(static) -o ../../$(bin)/metallb-$$program go.universe.tf/metallb/$$program; done
	@rm -rf $@ && cp -r --no-preserve=mode,timestamps "$$(go -C e2e/metallb list -m -f '{{.Dir}}' go.universe.tf/metallb)/config/crd/bases" $@

.PHONY: contour
contour: toolchain $(bin)/contour ## Build Contour, a controller of the Gateway API, for the story of static addresses; minutes the first time

# The program, and the custom resources that it reads beside it.
$(bin)/contour: e2e/contour/go.mod
	@mkdir -p $(bin)/contour-crds
	@cd e2e/contour && cp --no-preserve=mode,timestamps "$$(go list -m -f '{{.Dir}}' github.com/projectcontour/contour)/examples/contour/01-crds.yaml" \
		"$$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)"/config/crd/experimental/gateway.networking.k8s.io_*.yaml ../../$(bin)/contour-crds/
	@cd e2e/contour && $(static) -o ../../$@ github.com/projectcontour/contour/cmd/contour

.PHONY: packages
packages: ## Install the Debian packages that the lab needs and that are missing
	@e2e/lab/packages.sh

.PHONY: helm
helm: toolchain $(bin)/helm ## Build Helm, for the tests of the chart

$(bin)/helm: tools/go.mod go.mod
	@mkdir -p $(bin)
	@$(static) -modfile=tools/go.mod -o $@ helm.sh/helm/v4/cmd/helm

.PHONY: images
images: build ## Build Herald's image, and test/app for the tests' pods, from build/bin: needs docker but no registry
	@e2e/kind/images.sh $(image)

.PHONY: kind
kind: build kubernetes ## Build what a kind cluster consists of; two minutes more the first time; needs root
	@e2e/lab/packages.sh kind
	@$(static) -o $(bin)/ ./e2e/kind/pause
	@$(static) -o $(bin)/ ./e2e/kind/cluster
	@cd e2e/kind/coredns && $(static) -o ../../../$(bin)/coredns .
	@$(static) -modfile=tools/go.mod -o $(bin)/kind sigs.k8s.io/kind
	@mkdir -p build/kind && rm -rf build/kind/base
	@cp -r --no-preserve=mode "$$(go list -modfile=tools/go.mod -m -f '{{.Dir}}' sigs.k8s.io/kind)/images/base/files" build/kind/base
	@[ -n "$${HERALD_NODE_IMAGE-}" ] || e2e/kind/node/debian.sh build/kind

.PHONY: release
release: toolchain helm $(bin)/cyclonedx-gomod ## Build all that a release has into build/release, with VERSION=v0.1.0: docs/releasing.md
	@go run ./release

# Its own hash is in each SBOM, so it is built by the toolchain of go.mod, whatever the user's environment says.
$(bin)/cyclonedx-gomod: export GOENV := off
$(bin)/cyclonedx-gomod: export GOFLAGS :=
$(bin)/cyclonedx-gomod: export GOAMD64 := v1
$(bin)/cyclonedx-gomod: export GOEXPERIMENT :=
$(bin)/cyclonedx-gomod: tools/go.mod go.mod
	@mkdir -p $(bin)
	@$(static) -modfile=tools/go.mod -o $@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod

.PHONY: release-check
release-check: toolchain helm $(bin)/cyclonedx-gomod ## Build a release of this tree twice, and check that it is the same and that krew accepts it
	@release/check.sh

.PHONY: publish
publish: toolchain helm
	@release/publish.sh

.PHONY: generate
generate: toolchain ## Make deep copies and CRDs from api/, the one file and the chart's from manifests/, docs/reference from all
	$(tool) controller-gen object crd paths=./api/... output:crd:dir=manifests/crds
	@$(render) > manifests/herald.yaml
	@$(render_rules) > manifests/monitoring/prometheusrule.yaml
	@$(call render_chart,manifests/charts/herald)
	HERALD_GENERATE=1 go test -count=1 -run '^TestReference$$' ./cmd/...

render = { echo '\# Made by `make generate` from manifests/base. Edit that.'; $(tool) kustomize build manifests/base; }

# The alerts, as an object for the Prometheus Operator.
define render_rules
{ echo '# Made by `make generate` from alerts.yaml. Edit that.'; \
	printf '%s\n' 'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: herald' '  namespace: herald-system' 'spec:'; \
	sed -e '/^#/d' -e 's/^./  &/' manifests/monitoring/alerts.yaml; }
endef

# What the chart does not template itself.
define render_chart
	mkdir -p $(1)/crds $(1)/files; \
	sed '/^#/d' manifests/monitoring/alerts.yaml > $(1)/files/alerts.yaml; \
	rm -rf $(1)/files/dashboards && cp -r manifests/monitoring/dashboards $(1)/files/; \
	$(tool) kustomize build manifests/charts/sources/crds > $(1)/crds/crds.yaml; \
	for part in rights rights-l2 dead-nodes external-ips; do \
		$(tool) kustomize build manifests/charts/sources/$$part > $(1)/files/$$part.yaml; \
	done
endef

.PHONY: clean
clean: ## Remove what was built here; Go's own cache stays
	rm -rf build

##### Documents

.PHONY: docs
docs: toolchain $(bin)/hugo ## Build the site of the documents into build/site, and check its links
	@$(bin)/hugo --source site --destination ../build/site --cleanDestinationDir --noBuildLock --panicOnWarning --quiet
	@HERALD_SITE=build/site go test -count=1 -run '^TestSite$$' .

.PHONY: docs-serve
docs-serve: toolchain $(bin)/hugo ## Serve that site at http://localhost:1313, as the documents are now
	@$(bin)/hugo server --source site --noBuildLock --renderToMemory

$(bin)/hugo: tools/hugo/go.mod
	@mkdir -p $(bin)
	@echo "Building Hugo: a few minutes the first time."
	@$(static) -modfile=tools/hugo/go.mod -o $@ github.com/gohugoio/hugo

##### Checking

.PHONY: verify
verify: toolchain drift lint docs ## Check all that needs no tests to run: generated files, format, linters, go.mod files, documents, house rules
	@# The plugin runs on administrators' machines, too.
	for platform in darwin/arm64 windows/amd64; do GOOS=$${platform%/*} GOARCH=$${platform#*/} $(static) -o /dev/null ./cmd/kubectl-herald; done
	test -z "$$(gofmt -l .)"
	go test .
	@for module in tools tools/actionlint tools/hugo e2e/kubernetes e2e/kind/coredns e2e/metallb e2e/contour .; do (set -x; go -C $$module mod tidy -diff); done
	@# As it is built, so that what it imports is compiled once.
	CGO_ENABLED=0 go -C e2e/kubernetes vet -trimpath ./conformance

.PHONY: lint
lint: toolchain ## Run the linters and the format check of .golangci.yaml, and the linter of workflows
	$(tool) golangci-lint run ./...
	@# The same on every machine, whether or not it has shellcheck.
	go tool -modfile=tools/actionlint/go.mod actionlint -shellcheck= -pyflakes=

.PHONY: vulnerabilities
vulnerabilities: toolchain ## Look for known vulnerabilities in the code that Herald's programs call; needs vuln.go.dev
	$(tool) govulncheck ./cmd/...

.PHONY: drift
drift: toolchain
	@rm -rf build/_generated
	@$(tool) controller-gen object crd paths=./api/... output:crd:dir=build/_generated/crds output:object:dir=build/_generated/api
	@diff -r -x kustomization.yaml build/_generated/crds manifests/crds && diff build/_generated/api/zz_generated.deepcopy.go api/v1alpha1/ || \
		{ echo "Generated files are not what api/ says (above: < should be, > is): run make generate and commit what changes." >&2; exit 1; }
	@$(render) | diff - manifests/herald.yaml || \
		{ echo "manifests/herald.yaml is not what manifests/base says (above: < should be, > is): run make generate and commit what changes." >&2; exit 1; }
	@$(render_rules) | diff - manifests/monitoring/prometheusrule.yaml || \
		{ echo "manifests/monitoring/prometheusrule.yaml is not what alerts.yaml says (above: < should be, > is): run make generate and commit what changes." >&2; exit 1; }
	@$(call render_chart,build/_generated/chart)
	@diff -r build/_generated/chart/crds manifests/charts/herald/crds && diff -r build/_generated/chart/files manifests/charts/herald/files || \
		{ echo "The chart is not what manifests/ says (above: < should be, > is): run make generate and commit what changes." >&2; exit 1; }
	@go test -run '^TestReference$$' ./cmd/... | { grep -v '^ok ' || true; }

# After a run of tests that fails, its failures are printed again, for the output of the other tests may be long.
failures_last := 2>&1 | tee build/test.log || { printf '\nWhat failed:\n'; grep -aE -A 12 '^ *--- FAIL|DATA RACE|^panic:' build/test.log | cut -c1-600 || true; exit 1; }

.PHONY: test
test: root packages build kubernetes helm ## Run all Go tests with the race detector, those in network namespaces among them; needs root
	@e2e/lab/packages.sh browser
	@# The programs themselves, too, are watched for races while the stories run; one found ends them. They
	@# do not linger at their end, as such programs do otherwise, for their leader election would go on.
	CGO_ENABLED=1 go build -race -o build/race/ ./cmd/...
	@rm -rf build/failures
	@$(owned)
	HERALD_REQUIRE_ROOT=1 HERALD_RACE=1 GORACE='halt_on_error=1 atexit_sleep_ms=0' go test -race -count=1 -p 1 -timeout 45m ./... $(failures_last)

.PHONY: demo
demo: root packages build kubernetes ## Show Herald at work in a cluster of network namespaces; needs root
	@$(static) -o $(bin)/ ./e2e/demo
	@$(owned); exec $(bin)/demo

.PHONY: recording
recording: root packages build kubernetes ## Record the demo into docs/pictures, for the README; needs root
	@$(static) -o $(bin)/ ./e2e/demo ./e2e/demo/recording
	@script --quiet --return --command "stty cols 96 rows 34; TERM=xterm-256color exec $(bin)/demo" --log-out build/demo.log --log-timing build/demo.timing </dev/null
	@$(bin)/recording build/demo.log build/demo.timing docs/pictures/demo.cast docs/pictures/demo.svg

# Stories that are told of the lab by make test, and here of kind, and those that need kubelets and containers.
stories := TestAClientReachesAService|TestUsersManifests|TestChangesUnderLoad|TestWhatFollowsTheDeathOfANode|TestUninstall|TestHelm|TestQuickStart|TestTheClusterForContributors|TestShownCommandsOnKind|TestPodsRollUnderPolicyLocal
# Long ones, which are told of kind by make soak. make test tells the first two of the lab, and make e2e short forms of the last three.
long_stories := TestNodesComeAndGo|TestPeersThatCannotWork|TestTwoClassesSideBySide|TestIPv6Only|TestQuickStart|TestPodsRollUnderPolicyLocal|TestWhatFollowsTheDeathOfANode
# Stories with the real MetalLB, which takes minutes to build. make e2e runs them, and so does make test where MetalLB is built.
metallb_stories := TestMetalLBHandsOver|TestMetalLBIsTakenOver

.PHONY: e2e
e2e: root packages build kubernetes kind helm metallb ## Run the demo as without a terminal, the moves from MetalLB, and the stories on a cluster of kind; needs root
	@$(static) -o $(bin)/ ./e2e/demo
	@$(bin)/demo </dev/null 2>&1 | tee build/demo.txt
	@tail -n 1 build/demo.txt | grep -q '^demo: ok' || { echo "The demo did not end in a line that begins with 'demo: ok'; build/demo.txt has all it said." >&2; exit 1; }
	@rm -rf build/failures
	HERALD_REQUIRE_ROOT=1 go test -v -count=1 -run '^($(metallb_stories))$$' ./e2e $(failures_last)
	HERALD_REQUIRE_ROOT=1 HERALD_CLUSTER=kind go test -count=1 -timeout 30m -run '^($(stories))$$' ./e2e $(failures_last)

.PHONY: e2e-clusters
e2e-clusters: root kind ## Test that clusters of kind come up in each family, and leave nothing behind; needs root
	HERALD_REQUIRE_ROOT=1 HERALD_KIND=1 go test -count=1 -timeout 20m ./e2e/kind

# Which of them is given with modes=bgp, for example.
modes := bgp l2

.PHONY: conformance
conformance: root packages build kubernetes kind ## Run Kubernetes' own load-balancer tests on a cluster of kind, with BGP and on L2 (modes=...): docs/conformance.md; needs root
	@e2e/lab/packages.sh conformance
	@cd e2e/kubernetes && $(static) -o ../../$(bin)/ k8s.io/kubernetes/test/images/agnhost github.com/onsi/ginkgo/v2/ginkgo
	@cd e2e/kubernetes && CGO_ENABLED=0 go test -c -trimpath -ldflags "$(kubernetes_ldflags)" -o ../../$(bin)/e2e.test ./conformance
	@$(static) -o $(bin)/ ./e2e/conformance
	@e2e/conformance/agnhost.sh $(bin)/agnhost build/conformance/agnhost
	@$(bin)/conformance $(modes)

.PHONY: bench
bench: root packages build kubernetes metallb ## Measure: allocation, ARP, BGP against real routers, the lab; needs root
	@e2e/lab/packages.sh bench
	@$(static) -o $(bin)/ ./e2e/gobgp
	HERALD_REQUIRE_ROOT=1 go test -run '^$$' -bench . -benchmem -p 1 -timeout 30m ./ipam ./provider/... ./speaker/...
	@# A round in the lab is long enough to be one; that of 10,000 Services takes ten minutes on two cores.
	HERALD_REQUIRE_ROOT=1 go test -run '^$$' -bench . -benchtime 1x -p 1 -timeout 60m ./e2e/...

.PHONY: soak
soak: root packages build kubernetes kind ## Look for what is rare, for an hour and a half: random segments, fuzzing, ten minutes with all cores busy, pods that roll; needs root
	HERALD_RUNS=3000 go test -count=1 -run 'TestOneOwner|TestOneMAC' -timeout 2h ./speaker/segment
	for target in FuzzFrame FuzzReceive FuzzReadDatagram FuzzReadAnswer; do \
		go test -run '^$$' -fuzz "^$$target$$" -fuzztime 3m ./speaker/segment; done
	HERALD_REQUIRE_ROOT=1 HERALD_SOAK=10m go test -count=1 -timeout 1h -run 'TestBusyProcessorsCauseNoDeath' ./e2e
	HERALD_REQUIRE_ROOT=1 HERALD_SOAK=10m HERALD_CLUSTER=kind go test -count=1 -timeout 1h -run '^($(long_stories))$$' ./e2e
	HERALD_REQUIRE_ROOT=1 go test -run '^$$' -bench 'Busy/100ms' -benchtime 600x -timeout 1h ./speaker/bfd # 600 seconds

##### A kind cluster for work

.PHONY: e2e-up
e2e-up: root kind ## Stand up a kind cluster that stays, in an enclave; needs root
	@$(bin)/cluster up

.PHONY: e2e-shell
e2e-shell: root ## Open a shell beside that cluster, with kubectl, docker and kind
	@$(bin)/cluster shell

.PHONY: e2e-down
e2e-down: root ## Take that cluster away
	@$(bin)/cluster down

##### What the targets above rest on

.PHONY: toolchain
toolchain:
	@command -v go >/dev/null || { echo "There is no go in PATH: install the Go that go.mod names, from https://go.dev/dl, and with sudo keep it there: sudo env PATH=\"\$$PATH\" make ..." >&2; exit 1; }
	@go list -m >/dev/null || { echo "$$(go version 2>/dev/null || echo This Go) is too old: install the Go that go.mod names, from https://go.dev/dl, or let it fetch that itself: GOTOOLCHAIN=auto" >&2; exit 1; }

.PHONY: root
root:
	@test "$$(id -u)" = 0 || { echo "This makes network namespaces, which needs root: sudo env PATH=\"\$$PATH\" make $(MAKECMDGOALS)" >&2; exit 1; }
