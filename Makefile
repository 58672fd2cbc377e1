# Everything here needs Go and nothing else. Tools are run at exact versions
# through the Go command.

GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.7.0
FUZZTIME    ?= 30s

# Packages in which several goroutines work on shared memory.
CONCURRENT = ./runtime/... ./backend/lattigo/... ./backend/kernels/... ./backend/clear/...

# Where it has to build besides here: other processors, other systems. Not on riscv64:
# there chewxy/math32, which gorgonia.org/tensor needs, lacks a file.
PLATFORMS = linux/arm64 linux/ppc64le darwin/arm64 windows/amd64

.PHONY: all demo build test test-long lint cross bench fuzz generate clean

all: build

# demo: compile, encrypt, run, decrypt. DIGIT=3 chooses another picture.
DIGIT ?= 7
demo:
	@GO="$(GO)" sh models/demo.sh $(DIGIT)

build:
	$(GO) build -o bin/home ./cmd/home

# test: all packages once, the arithmetic again without vector kernels, the concurrent
# packages and the kernels again under the race detector, which checks pointers too.
test:
	$(GO) build ./...
	$(GO) test -timeout 20m ./...
	HOME_KERNELS=portable $(GO) test -timeout 20m -short ./backend/lattigo/...
	$(GO) test -timeout 20m -race -short $(CONCURRENT)

# test-long: more samples, larger networks, whole data sets.
test-long:
	HOME_LONG=1 $(GO) test -timeout 6h -count 1 ./...

# lint: formatting, go vet, staticcheck as staticcheck.conf says, and other platforms.
lint: cross
	@unformatted=$$(gofmt -l . ); if [ -n "$$unformatted" ]; then echo "gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# cross: everything builds without cgo, and go vet passes on other platforms, tests
# included.
cross:
	CGO_ENABLED=0 $(GO) build ./...
	@set -e; for p in $(PLATFORMS); do \
		echo "go vet on $$p"; \
		GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 $(GO) vet ./...; \
	done

# bench: the table of home bench, on one core.
bench: build
	bin/home bench

# fuzz: every fuzz target in turn. FUZZTIME=1000000x runs each a million times.
fuzz:
	@set -e; for file in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$file); do \
			echo "== $$target in $$(dirname $$file)"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$(dirname $$file); \
		done; \
	done

# generate: draw the sample digits again.
generate:
	$(GO) generate ./...

clean:
	rm -rf bin
