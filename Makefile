# The whole life of the project. Works as root on a fresh Debian machine that has cargo and make;
# what else is needed is installed, and said.

LAB := target/lab
TEST_PACKAGES := iproute2 strace user-mode-linux qemu-system-x86 cpio busybox-static kmod openssh-server openssh-client cgroup-tools systemd

# Random policies of one run of `make nightly`, and where its random numbers start.
TRANSITIONS := 20000
SEED = $$(date +%Y%m%d)

.PHONY: build install test nightly tools demo bench bless clean-lab lab-kernel fmt clippy

build:
	cargo build --release

# Everything: style, lints, unit and golden tests, real traffic on this kernel, and the same on the
# lab's kernels.
test: tools fmt clippy lab-kernel
	sh tests/run.sh

# What `make test` does for a minute, for most of an hour, with other numbers each day.
nightly: tools
	SHAPER_TRANSITIONS=$(TRANSITIONS) SHAPER_SEED=$(SEED) cargo test --test kernel -- transitions

fmt:
	cargo fmt --check

clippy:
	cargo clippy --all-targets -- -D warnings

tools:
	@sh tests/tools.sh $(TEST_PACKAGES)

lab-kernel: tools
	@sh tests/lab/kernel.sh $(LAB)

demo:
	@sh tests/tools.sh iproute2
	cargo build
	cargo test --quiet --test kernel --no-run
	@cargo test --quiet --test kernel -- --demo

# Enables nothing: see README.
PREFIX := /usr/local
UNITS := /etc/systemd/system
install: build
	install -D -m 755 target/release/shaper $(DESTDIR)$(PREFIX)/bin/shaper
	install -d $(DESTDIR)$(UNITS)
	for unit in shaper.service run-shaper-net_cls.mount shaper-apply.service shaper-apply.timer; do \
		sed 's|/usr/local/bin|$(PREFIX)/bin|' systemd/$$unit >$(DESTDIR)$(UNITS)/$$unit || exit 1; \
	done

# Writes benches/RESULTS.md. The other tools are for comparison: without them it says so.
bench:
	@sh tests/tools.sh iproute2 python3-venv fireqos
	@[ -x target/tcconfig/bin/tcset ] || { python3 -m venv target/tcconfig && \
		target/tcconfig/bin/pip install --quiet tcconfig; } || echo "tcconfig could not be installed"
	cargo bench --bench policy
	cargo bench --bench packets
	cargo bench --bench apply

# Writes the golden files anew; review them as text.
bless:
	INSTA_UPDATE=always SHAPER_BLESS=1 cargo test --lib --bins --test golden

clean-lab:
	rm -rf $(LAB)
