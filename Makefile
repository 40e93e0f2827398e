# The commands of this repository. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO      ?= go
BIN     := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# dvdcli starts once per mount: it is built without what it does not use of its
# libraries, a converter of Markdown and HTTP/2.
DVDCLI_TAGS := urfave_cli_no_docs,nethttpomithttp2
STATIC  := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

# The race detector needs a C compiler; without one the tests run all the same.
RACE := if command -v gcc >/dev/null; then race=-race; else race=; echo "no gcc: running without the race detector" >&2; fi

# Debian packages that only tests need: real volume plugins and file systems.
TEST_PACKAGES := rclone fuse3 e2fsprogs gcc libc6-dev zookeeper

.PHONY: help build demo test test-long lint bench packages clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## build bin/dvdcli, bin/isolator-bridge, bin/dvdi-framework
	@mkdir -p $(BIN)
	$(STATIC) -tags '$(DVDCLI_TAGS)' -o $(BIN)/dvdcli ./dvdcli
	$(STATIC) -o $(BIN)/isolator-bridge ./isolator-bridge
	$(STATIC) -o $(BIN)/dvdi-framework ./framework

demo: build ## a stateful task survives the loss of its host, on an embedded Mesos (KEEP=1 leaves it up)
	@mkdir -p $(BIN)
	@$(STATIC) -o $(BIN)/volume-plugin ./examples/volume-plugin
	@$(STATIC) -o $(BIN)/demo ./examples/demo
	@exec $(BIN)/demo --bin $(BIN) --app examples/hello-volume.json $(if $(KEEP),--keep)

test: packages ## all tests with the race detector (installs Debian packages when root)
	$(GO) vet ./...
	@$(RACE); $(GO) test $$race -timeout 14m ./...

test-long: packages ## the exhaustive versions of the tests: crash sweeps, model tests, fault schedules
	@$(RACE); DVDI_LONG=1 $(GO) test $$race -timeout 170m ./...

lint: ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool -modfile=internal/tools/go.mod staticcheck ./...

bench: ## benchmarks, reported as ratios taken in one run
	$(GO) test -run '^$$' -bench . -benchtime 1x ./...

packages:
	@missing=""; for p in $(TEST_PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing"; \
		DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; \
		apt-get install -y -q --no-install-recommends $$missing >/dev/null 2>&1 || { apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends $$missing >/dev/null; }; \
	else \
		echo "missing Debian packages:$$missing" >&2; \
		echo "the tests that need them are skipped; install them with: sudo apt-get install$$missing" >&2; \
	fi

clean: ## remove what was built
	rm -rf $(BIN)
