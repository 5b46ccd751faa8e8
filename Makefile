# What one does with syncer; `make` lists it.

# Runs with Go 1.26; fetched as a module, so that nothing has to be installed.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# One throwaway Postgres server for all packages under test.
WITH_POSTGRES := bin/with-postgres --

# It ends the tests of a package that hang; no machine may need that long.
TIMEOUT := 60m

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## compile bin/syncer
	go build -o bin/syncer ./cmd/syncer

.PHONY: test
test: with-postgres ## run all tests with the race detector on a real Postgres
	@command -v $$(go env CC) >/dev/null || \
		{ echo 'The race detector needs a C compiler; install gcc and the headers of libc.' >&2; exit 1; }
	CGO_ENABLED=1 $(WITH_POSTGRES) go test -race -timeout $(TIMEOUT) ./...

.PHONY: test-long
test-long: with-postgres ## show fleets of up to eight processes, wrong clocks, hosts cut off; root, iproute2, some minutes
	CGO_ENABLED=1 $(WITH_POSTGRES) go test -race -tags long -timeout $(TIMEOUT) -run Long -v ./cmd/syncer/e2e

.PHONY: release-fixture
release-fixture: with-postgres ## keep today's schema, with example data and reports, for the upgrade test; VERSION=v0.1.0
	@test -n "$(VERSION)" || { echo 'usage: make release-fixture VERSION=v0.1.0' >&2; exit 2; }
	$(WITH_POSTGRES) go test -count=1 ./cmd/syncer/e2e -run '^TestReleases$$' -release $(VERSION)

.PHONY: fuzz
fuzz: with-postgres ## run each fuzz target for FUZZTIME (30s), one after the other; a quarter of an hour; FUZZ=Login: some of them
	@$(WITH_POSTGRES) .ci/fuzz

.PHONY: test-pooler
test-pooler: with-postgres ## show syncer behind a PgBouncer in transaction mode, which has to be installed
	$(WITH_POSTGRES) go test -tags pooler -timeout $(TIMEOUT) -run Pooler ./cmd/syncer/e2e

# Servers of other versions, as npm has them; see internal/dev/pgcluster/fetch-postgres.
POSTGRES_VERSIONS := 14.23.0-beta.17 16.14.0-beta.17 17.10.0-beta.17 18.4.0-beta.17
POSTGRES_TESTS := $(addprefix test-postgres-,$(POSTGRES_VERSIONS))

.PHONY: test-versions
test-versions: $(POSTGRES_TESTS) ## run what talks to Postgres on 14, 16, 17 and 18, fetched with npm into bin; Linux on x86-64

# All of migrations and repo; of the rest what differs in how it uses the database.
.PHONY: $(POSTGRES_TESTS)
$(POSTGRES_TESTS): test-postgres-%: with-postgres
	@echo "Postgres $*"
	SYNCER_PG_BIN=$$(internal/dev/pgcluster/fetch-postgres $*) && export SYNCER_PG_BIN && \
		$(WITH_POSTGRES) go test ./migrations ./repo && \
		$(WITH_POSTGRES) go test -run 'Backfill|Contradicted|Suspect|Frozen|Killed|Leave|Maintain|Ticks|Truth' ./jobs && \
		$(WITH_POSTGRES) go test ./internal/dev/lab && \
		$(WITH_POSTGRES) go test -run 'DatabaseRestart|FleetLoses|FrozenIn|Reader|Roles|Scripts' ./cmd/syncer/e2e

# What chaos and soak are told.
KILLS := 100
SEED := 0
SOAK := 20m

.PHONY: chaos
chaos: with-postgres ## kill daemons at work a hundred times (KILLS=…, SEED=…), for up to ten minutes, and look for what is lost
	$(WITH_POSTGRES) go test -count 1 -timeout $(TIMEOUT) -run '^TestChaos$$' -v ./cmd/syncer/e2e -kills $(KILLS) -seed $(SEED)

.PHONY: soak
soak: with-postgres ## let a daemon work for 20 minutes (SOAK=2h) while everything goes wrong, and see whether it grows
	$(WITH_POSTGRES) go test -count 1 -timeout 0 -tags soak -run '^TestSoak$$' -v ./cmd/syncer/e2e -soak $(SOAK)

.PHONY: test-browser
test-browser: with-postgres ## open the page of reports in a headless Chromium, which has to be installed
	$(WITH_POSTGRES) go test -tags browser -timeout $(TIMEOUT) -run InBrowser ./cmd/syncer/e2e

.PHONY: cover
cover: with-postgres ## run all tests, write bin/cover.html, print the share of statements tested
	$(WITH_POSTGRES) go test -timeout $(TIMEOUT) -coverpkg ./... -coverprofile bin/cover.out ./...
	go tool cover -html bin/cover.out -o bin/cover.html
	@go tool cover -func bin/cover.out | tail -n 1

.PHONY: lint
lint: ## check formatting, go vet, staticcheck
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || \
		{ echo "not formatted (make fmt):" $$unformatted >&2; exit 1; }
	go vet ./...
	go vet -tags browser ./cmd/syncer/e2e
	go vet -tags long ./cmd/syncer/e2e
	go vet -tags pooler ./cmd/syncer/e2e
	go vet -tags soak ./cmd/syncer/e2e
	go run $(STATICCHECK) ./...
	go run $(STATICCHECK) -tags long ./cmd/syncer/e2e
	go run $(STATICCHECK) -tags soak ./cmd/syncer/e2e
	go run $(STATICCHECK) -tags browser ./cmd/syncer/e2e
	go run $(STATICCHECK) -tags pooler ./cmd/syncer/e2e

# Its list of what is known comes from vuln.go.dev.
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: vuln
vuln: ## look for known vulnerabilities in what the program calls; needs vuln.go.dev
	go run $(GOVULNCHECK) ./...

.PHONY: licences
licences: ## list the licences of what the program is made of, in docs/licences.md
	go generate ./internal/dev/licences

.PHONY: check-deploy
check-deploy: ## check the unit and the manifests of deploy/; wants systemd installed, not running
	deploy/systemd/check
	cd deploy/schema && go vet ./... && go test -count=1 ./...

.PHONY: check-archive
check-archive: ## read archived files with DuckDB and Apache Arrow; downloads 600 MB and compiles C++ once, a minute and a half of CPU
	cd internal/archive/duckdb && go vet ./... && go test -count=1 ./...

.PHONY: dist
dist: ## build archives, deb and rpm packages, SBOMs and SHA256SUMS into bin/dist; three minutes
	deploy/packages/build

.PHONY: check-packages
check-packages: with-postgres ## build the packages twice, compare, check, install, start and purge them; as root, with lintian, rpmlint, rpm
	$(WITH_POSTGRES) deploy/packages/check

.PHONY: check-image
check-image: ## build the image without a daemon or a registry, and look at it; as root, with buildah and a static busybox
	deploy/docker/check

.PHONY: check-alerts
check-alerts: ## check the alert rules and when they fire, with promtool, which has to be installed (Debian: prometheus)
	promtool check rules deploy/prometheus/alerts.yml
	promtool test rules deploy/prometheus/alerts_test.yml

.PHONY: fmt
fmt: ## format the source
	gofmt -w .

.PHONY: demo
demo: ## show syncer at work for two minutes, on simulated backends; leaves nothing but bin/demo-report.html
	@go build -buildvcs=false -o bin/demo ./internal/dev/demo
	@bin/demo

.PHONY: demo-keep
demo-keep: ## the same, and keep it running to explore
	@go build -buildvcs=false -o bin/demo ./internal/dev/demo
	@bin/demo -keep

.PHONY: bench
bench: build ## measure speed and cost against their targets, for most of an hour; results in bin/bench-results
	@go build -buildvcs=false -o bin/bench ./internal/bench
	@bin/bench

.PHONY: bench-smoke
bench-smoke: build ## the same, small and once, in a minute: whether it works, not how fast it is
	@go build -buildvcs=false -o bin/bench ./internal/bench
	@bin/bench -smoke -out bin/bench-smoke
	@go build -buildvcs=false -o bin/bench-report ./internal/benchreport
	@bin/bench-report -users 1000 -days 8 -repeat 1 -lenient -output bin/bench-smoke/report.md

.PHONY: bench-report
bench-report: build ## measure what reports cost on a month of 50,000 users, against 3 s each; a quarter of an hour, and 10 GB of disk for that long
	@go build -buildvcs=false -o bin/bench-report ./internal/benchreport
	@bin/bench-report

.PHONY: bench-size
bench-size: ## measure how big the tables grow, and what sweeps write to the log; five minutes
	@go build -buildvcs=false -o bin/bench-size ./internal/benchsize
	@bin/bench-size

# The charts of the page of reports. The sums of the files stand in a test.
UPLOT := 1.6.32

.PHONY: uplot
uplot: ## fetch uPlot's files anew with npm, into internal/report/assets
	@mkdir -p bin
	cd bin && npm pack --silent uplot@$(UPLOT) >/dev/null && tar -xzf uplot-$(UPLOT).tgz && rm uplot-$(UPLOT).tgz
	cp bin/package/dist/uPlot.iife.min.js bin/package/dist/uPlot.min.css internal/report/assets/
	cp bin/package/LICENSE internal/report/assets/uPlot.LICENSE
	rm -r bin/package

.PHONY: clean
clean: ## remove what was built
	rm -rf bin

.PHONY: with-postgres
with-postgres:
	@go build -buildvcs=false -o bin/with-postgres ./internal/dev/pgcluster/cmd/with-postgres
