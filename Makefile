# Every command that people and CI run. `make` alone lists them.

CARGO     ?= cargo
TOOLCHAIN := .toolchain
PROFILE   := debug
BIN       := $(or $(CARGO_TARGET_DIR),target)/$(PROFILE)
RELEASE   := $(or $(CARGO_TARGET_DIR),target)/release
SKIPS     := $(CURDIR)/out/skips.txt
SECONDS   := 600

# Of `make install`: where to, what (`make release` builds it), and where pxctl goes.
DESTDIR   ?=
PREFIX    ?= /usr/local
BUILT     ?= $(RELEASE)
PXCTL     ?= $(PREFIX)/bin
INTO      := $(DESTDIR)$(PREFIX)
# A file of packaging/ with the prefix in its place: source, mode, target.
place      = install -d $(dir $(3)) && sed 's|@PREFIX@|$(PREFIX)|g' packaging/$(1) > $(3) && chmod $(2) $(3)
# A file that an operator may have changed stays.
settings   = test -e $(2) || install -D -m $(3) packaging/$(1) $(2)

.PHONY: help build release install install-server install-guest deb toolchain programs contract vm test test-quick test-vm test-packages loom demo demo-sharing stress samples gpu-test gpu-pack bench bench-primitives bench-fairness bench-torch torch docs lint fmt clean

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Builds everything for testing: server, shim, softgpu, pxctl, the sample runner.
	$(CARGO) build --workspace

release: ## Builds everything for use, into target/release.
	$(CARGO) build --release --workspace

install: install-server install-guest ## Installs host and guest: make release, then [DESTDIR=…] [PREFIX=/usr/local]; or one: install-server, install-guest.

install-server:
	@test -x $(BUILT)/pxos-server || { echo "$(BUILT)/pxos-server is missing: run make release" >&2; exit 1; }
	install -D -m 755 $(BUILT)/pxos-server $(INTO)/bin/pxos-server
	install -D -m 755 $(BUILT)/pxctl $(DESTDIR)$(PXCTL)/pxctl
	install -D -m 644 $(BUILT)/libpxsoft.so $(INTO)/lib/pxos/libpxsoft.so
	$(call settings,server.toml,$(DESTDIR)/etc/pxos/server.toml,640)
	$(call place,pxos-server.service,644,$(INTO)/lib/systemd/system/pxos-server.service)
	$(call place,pxos-server.tmpfiles,644,$(INTO)/lib/tmpfiles.d/pxos-server.conf)
	$(call place,pxos-server.init,755,$(DESTDIR)/etc/init.d/pxos-server)
	$(call place,pxos-server.logrotate,644,$(DESTDIR)/etc/logrotate.d/pxos-server)
	install -d $(INTO)/share/doc/pxos-server
	install -m 644 docs/*.md $(INTO)/share/doc/pxos-server

# The shim lies where ldconfig does not look: it calls itself libcuda.so.1, and a link of that name would be made beside it.
install-guest:
	@test -f $(BUILT)/libpxshim.so || { echo "$(BUILT)/libpxshim.so is missing: run make release" >&2; exit 1; }
	install -D -m 644 $(BUILT)/libpxshim.so $(INTO)/lib/pxos/libpxshim.so
	install -d $(INTO)/lib/pxos/cuda
	ln -sf ../libpxshim.so $(INTO)/lib/pxos/cuda/libcuda.so.1
	ln -sf libcuda.so.1 $(INTO)/lib/pxos/cuda/libcuda.so
	@if [ -f $(BUILT)/libpxnvml.so ]; then set -x; \
	  install -m 644 $(BUILT)/libpxnvml.so $(INTO)/lib/pxos/libpxnvml.so && \
	  ln -sf ../libpxnvml.so $(INTO)/lib/pxos/cuda/libnvidia-ml.so.1; fi
	install -D -m 755 $(BUILT)/pxctl $(DESTDIR)$(PXCTL)/pxctl
	install -D -m 644 shim/include/pxos.h $(INTO)/include/pxos.h
	$(call settings,client.toml,$(DESTDIR)/etc/pxos/client.toml,644)
	$(call place,60-pxos-guest.rules,644,$(INTO)/lib/udev/rules.d/60-pxos-guest.rules)
	$(call place,pxos-guest-mux.service,644,$(INTO)/lib/systemd/system/pxos-guest-mux.service)
	$(call place,pxos-guest-tls.service,644,$(INTO)/lib/systemd/system/pxos-guest-tls.service)
	$(call settings,pxos-guest.default,$(DESTDIR)/etc/default/pxos-guest,644)
	$(call place,pxos-guest.environment,644,$(INTO)/lib/environment.d/60-pxos-guest.conf)
	$(call place,pxos-guest.profile,644,$(DESTDIR)/etc/profile.d/pxos-guest.sh)
	install -d $(INTO)/share/doc/pxos-guest
	install -m 644 docs/guests.md docs/primitives.md $(INTO)/share/doc/pxos-guest

deb: release ## Builds the Debian packages pxos-server and pxos-guest, into out/packages.
	@packaging/deb.sh --from $(RELEASE)

toolchain: ## Installs nvcc 13.0 from PyPI into .toolchain (about 250 MB).
	@tools/toolchain.sh --dir $(TOOLCHAIN) > /dev/null

programs: toolchain ## Builds the sample programs of tests/cuda-samples with nvcc, into out/samples.
	@$(MAKE) --no-print-directory -C tests/cuda-samples

contract: programs ## Links one program with every CUDA runtime from 11.8 to 13.5.
	@tools/toolchain.sh --dir $(TOOLCHAIN) --contract > /dev/null
	@$(MAKE) --no-print-directory -C tests/cuda-samples contract

vm: ## Prepares a kernel, an initramfs and a vsock device for real guests, into .toolchain/vm.
	@tests/vm/parts.sh --dir $(TOOLCHAIN)/vm

test-vm: build programs vm ## Boots real guests (QEMU) and runs programs, transports and faults in them.
	@mkdir -p out && rm -f $(SKIPS)
	PXOS_SKIPS=$(SKIPS) $(CARGO) nextest run -p pxos-vm-tests
	@if [ -s $(SKIPS) ]; then echo "Skipped here:"; sort -u $(SKIPS); fi

test-packages: build programs ## Installs the packages in clean Debian 12 and 13 roots, uses, upgrades, purges them (root, debootstrap; [SUITES=bookworm]).
	@tests/packaging/run.sh --from $(BIN) $(SUITES)

test: build contract ## The whole test suite, on the software device; real guests too where QEMU is.
	@mkdir -p out && rm -f $(SKIPS)
	@$(MAKE) --no-print-directory vm || echo "no parts for real guests: their tests are skipped"
	PXOS_SKIPS=$(SKIPS) $(CARGO) nextest run --workspace
	@if [ -s $(SKIPS) ]; then echo "Skipped here:"; sort -u $(SKIPS); fi

test-quick: build ## Its quick part: table, wire, shim, server, runtime contract, pxctl.
	$(CARGO) nextest run -p pxos-protocol -p pxos-guest -p pxos-shim -p pxos-nvml -p pxos-cudart -p pxos-server -p pxctl -p pxos-client

gpu-test: build contract ## The same scenarios on this machine's GPU.
	@mkdir -p out && rm -f $(SKIPS)
	PXOS_TEST_DRIVER=auto PXOS_SKIPS=$(SKIPS) $(CARGO) nextest run -p pxos-harness -p pxos-cudart -p pxos-primitives
	@if [ -s $(SKIPS) ]; then echo "Skipped here:"; sort -u $(SKIPS); fi

gpu-pack: ## Packs binaries, tests and programs for another machine that has a GPU (tools/gpu-machine.sh), into out.
	@tools/gpu-machine.sh pack

loom: ## Tries the ring's control words in every order that two processors can bring them into.
	RUSTFLAGS="--cfg loom" $(CARGO) test --release --target-dir target/loom -p pxos-protocol --lib transport::words

demo: build programs ## Runs CUDA programs through shim and server on whatever device is there.
	@tools/demo.sh $(BIN)

demo-sharing: build ## Three VMs share a device at 50/30/20 % with memory quotas; shows pxctl top and a table.
	@$(MAKE) --no-print-directory -C benches
	@tools/demo-sharing.sh $(BIN)

stress: build programs ## Two guests for ten minutes over each transport: right results, nothing left. SECONDS=… for another time.
	PXOS_STRESS_SECONDS=$(SECONDS) $(CARGO) nextest run -p pxos-harness --test stress --success-output final

samples: build ## Runs built CUDA programs directly and remoted: make samples DIR=folder [ONLY=glob] [JSON=file].
	@test -n "$(DIR)" || { echo "make samples DIR=folder-of-built-programs [ONLY=glob] [JSON=file]" >&2; exit 2; }
	@tools/samples.sh $(BIN) "$(DIR)" $(if $(ONLY),--only '$(ONLY)') $(if $(JSON),--json '$(JSON)') $(SAMPLES_ARGS)

bench: release toolchain ## Measures native against remoted, and shows the ratios.
	@$(MAKE) --no-print-directory -C benches
	@tools/bench.sh $(RELEASE) $(BENCH_ARGS)

bench-primitives: release toolchain ## Measures primitives against hand-written CUDA on the GPU.
	@$(MAKE) --no-print-directory -C benches
	@tools/bench-primitives.sh $(RELEASE) $(BENCH_ARGS)

bench-fairness: release toolchain ## Measures how guests share a device: FAIRNESS_ARGS=--quick for two minutes.
	@$(MAKE) --no-print-directory -C benches
	@tools/fairness.sh $(RELEASE) $(FAIRNESS_ARGS)

bench-torch: release ## Measures PyTorch natively and remoted: PYTHON=interpreter TORCH_ARGS=--quick.
	@tools/bench-torch.sh $(RELEASE) $(TORCH_ARGS)

torch: release ## Compares PyTorch, CuPy, JAX and others, natively and remoted: PYTHON=interpreter TORCH_ARGS=….
	@tools/torch.sh $(RELEASE) $(TORCH_ARGS)

docs: ## Writes the generated pages of docs/ anew.
	PXOS_REGENERATE=1 $(CARGO) nextest run -p pxos-protocol --test api_support
	PXOS_REGENERATE=1 $(CARGO) nextest run -p pxos-nvml --test exports

lint: ## Formatting, clippy of everything, documentation; warnings refused.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-Dwarnings -Arustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --document-private-items --quiet
	@if command -v shellcheck > /dev/null; then shellcheck -x tools/*.sh tests/vm/*.sh tests/packaging/*.sh packaging/*.sh packaging/pxos-server.init packaging/debian/*inst packaging/debian/*rm .ci/run; fi
	@if command -v cargo-deny > /dev/null; then $(CARGO) deny check licenses bans sources; fi

fmt: ## Formats the sources.
	$(CARGO) fmt --all

clean: ## Removes what was built; .toolchain stays.
	$(CARGO) clean
	rm -rf out
