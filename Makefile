# Every command that people and CI run. `make` alone lists them.

CARGO     ?= cargo
TOOLCHAIN := .toolchain
PROFILE   := debug
BIN       := $(or $(CARGO_TARGET_DIR),target)/$(PROFILE)
RELEASE   := $(or $(CARGO_TARGET_DIR),target)/release
SKIPS     := $(CURDIR)/out/skips.txt
SECONDS   := 600

.PHONY: help build release toolchain programs contract vm test test-quick test-vm loom demo demo-sharing stress samples gpu-test bench bench-primitives bench-fairness bench-torch torch docs lint fmt clean

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Builds everything for testing: server, shim, softgpu, pxctl, the sample runner.
	$(CARGO) build --workspace

release: ## Builds everything for use, into target/release.
	$(CARGO) build --release --workspace

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
	@if command -v shellcheck > /dev/null; then shellcheck tools/*.sh tests/vm/*.sh .ci/run; fi
	@if command -v cargo-deny > /dev/null; then $(CARGO) deny check licenses bans sources; fi

fmt: ## Formats the sources.
	$(CARGO) fmt --all

clean: ## Removes what was built; .toolchain stays.
	$(CARGO) clean
	rm -rf out
