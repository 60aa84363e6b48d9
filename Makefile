# The whole life of the project. `make` and `make check` are for anybody; `make test` and `make demo` work as root on
# a fresh Debian machine that has cargo and make: what else is needed is installed, and said.

LAB := target/lab
TEST_PACKAGES := gcc libc6-dev iproute2 python3 python3-jsonschema ansible-core strace user-mode-linux \
	qemu-system-x86 cpio busybox-static kmod \
	openssh-server openssh-client cgroup-tools systemd sudo cron iputils-ping iptables \
	wireguard-go wireguard-tools nftables docker.io tmux prometheus slirp4netns xz-utils podman netavark lxc passt rootlesskit uidmap \
	openvswitch-switch mmdebstrap e2fsprogs man-db tzdata

# rustup's place, also where this shell was started before it was there.
export PATH := $(PATH):$(HOME)/.cargo/bin
# Under sudo, the caller's Rust where root has none; and a folder of root's own below target, so that nothing of root's
# stands in the way of the caller's next `make`.
ifneq ($(filter-out root,$(SUDO_USER)),)
CALLERS := $(shell getent passwd $(SUDO_USER) | cut -d: -f6)
ifeq ($(shell PATH='$(PATH)'; command -v cargo),)
export PATH := $(PATH):$(CALLERS)/.cargo/bin
export RUSTUP_HOME := $(CALLERS)/.rustup
endif
export CARGO_TARGET_DIR := $(CURDIR)/target/root
# What was made belongs to the caller, who can then delete it and make it again.
HAND_OVER = chown -Rh "$(SUDO_USER):" target
# The caller's next `make` writes beside root's folder, whatever was made here.
$(shell [ -e target ] || { mkdir target && chown "$(SUDO_USER):" target; })
endif

# `make nightly`, hours long; each of these may be given: `make nightly RUNS=1 TRANSITIONS=100`.
# How often the whole suite runs, to find tests that fail now and then.
RUNS := 5
# Random policies, and where the random numbers start.
TRANSITIONS := 20000
SEED = $$(date +%Y%m%d)
# Turns of all properties, each with random cases of its own.
PROPERTY_TURNS := 50
# Edits while datagrams of users and of a guest arrive.
ARRIVING_EDITS := 200
# Applies while all comes and goes, and seconds of a daemon beside it.
CHURN_APPLIES := 10000
CHURN_SECONDS := 3600
# The guard is killed at one in so many of its hundred system calls; at most 25, so that it is killed a few times.
GUARD_EVERY := 1
# Updates are ended at one in so many of their steps.
FAULTS_EVERY := 1
# Processes beside which the daemon costs little; as many as the machine has room for, at most.
CROWD := 50000
# Users whose three years of random use are held against a plain sum.
QUOTA_USERS := 10000
# How many `doctor` looks at.
DOCTOR_USERS := 10000
# Turns with an NSS module that starts threads.
NSS_TURNS := 50

# The tools that make packages, for those targets alone.
CARGO_DEB := 3.8.0
CARGO_GENERATE_RPM := 0.21.1

.PHONY: build install uninstall check test nightly rust tools demo bench bless clean-lab lab-kernel lab-newest fmt clippy
.PHONY: deb rpm package package-test

build: rust
	cargo build --release
ifneq ($(filter-out $(CURDIR)/%,$(CARGO_TARGET_DIR)),)
	@# Where `make install` looks, whose environment is another.
	install -D -m 755 "$(CARGO_TARGET_DIR)/release/shaper" target/release/shaper
endif
	@$(HAND_OVER)

rust:
	@sh tests/rust.sh

# Style, lints, and every test that needs no root: two minutes or so.
check: fmt clippy
	sh tests/run.sh check

# Everything: what `make check` does, real traffic on this kernel, and what the lab's kernels alone show. Debian's
# packages are fetched and unpacked while the lints compile.
test: tools fmt
	@$(MAKE) --no-print-directory -j2 clippy lab-kernel
	sh tests/run.sh

# What `make test` does for a minute, for hours, with other numbers each day; and all of it, a few times.
nightly: tools lab-kernel
	@sh tests/rust.sh
	for turn in $$(seq $(PROPERTY_TURNS)); do \
	    PROPTEST_RNG_SEED=$(SEED)$$turn cargo test --quiet --lib || exit; done
	SHAPER_TRANSITIONS=$(TRANSITIONS) SHAPER_SEED=$(SEED) cargo test --test kernel -- transitions
	SHAPER_ARRIVING_EDITS=$(ARRIVING_EDITS) cargo test --test kernel -- what_arrives_is_neither
	SHAPER_CHURN_APPLIES=$(CHURN_APPLIES) SHAPER_CHURN_WATCH=$(CHURN_SECONDS) cargo test --test kernel -- churn::applies
	SHAPER_GUARD_EVERY=$(GUARD_EVERY) SHAPER_NSS_TURNS=$(NSS_TURNS) cargo test --test kernel -- guard:: nss::
	SHAPER_FAULTS_EVERY=$(FAULTS_EVERY) SHAPER_CROWD=$(CROWD) cargo test --test kernel -- faults:: a_crowd
	SHAPER_QUOTA_USERS=$(QUOTA_USERS) cargo test --lib -- quota::tests::years
	SHAPER_DOCTOR_USERS=$(DOCTOR_USERS) cargo test --test cli -- thousands_of_users
	$(MAKE) lab-newest
	SHAPER_NIGHT=1 cargo test --test kernel -- --nightly --skip lab::newest
	SHAPER_NIGHT=1 cargo test --test cli -- ansible::over_ssh
	$(MAKE) package-test
	SHAPER_PROMETHEUS=1 cargo test --test cli -- metrics::
	sh tests/run.sh $(RUNS)

fmt:
	@sh tests/rust.sh rustfmt
	cargo fmt --check

clippy:
	@sh tests/rust.sh clippy
	cargo clippy --all-targets -- -D warnings

tools:
	@sh tests/tools.sh $(TEST_PACKAGES)

lab-kernel: tools
	@sh tests/lab/kernel.sh $(LAB)
	@sh tests/boot/root.sh $(LAB)

# The newest cloud kernel of this Debian, which `make nightly` boots as well.
lab-newest: tools
	@sh tests/lab/kernel.sh $(LAB)/newest newest
	@sh tests/rust.sh
	SHAPER_NIGHT=1 cargo test --test kernel -- lab::newest

demo:
	@sh tests/tools.sh gcc libc6-dev iproute2
	@sh tests/rust.sh
	cargo build
	cargo test --quiet --test kernel --no-run
	@cargo test --quiet --test kernel -- --demo

# What was built, into place: never builds, so it needs no Rust, and enables nothing (see README). DESTDIR is for
# packages; UNITS is where the units go.
PREFIX := /usr/local
UNITS := /etc/systemd/system
UNIT_FILES := shaper.service run-shaper-net_cls.mount run-shaper-cgroup.mount shaper-apply.service shaper-apply.timer \
	shaper-metrics.socket shaper-metrics@.service shaper-textfile.service shaper-textfile.timer
SCHEMAS := share/shaper/policy.schema.json share/shaper/drop-in.schema.json
BUILT = $(firstword $(shell ls -t target/release/shaper target/root/release/shaper 2>/dev/null))
# systemd reads its files again, where it runs and they are its own.
RELOAD = [ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
install:
	@[ -n "$(BUILT)" ] || { echo "Nothing is built yet: run \`make\` first (as yourself), then \`sudo make install\`" >&2; exit 1; }
	@[ -z "$$(find src Cargo.toml Cargo.lock -newer "$(BUILT)" 2>/dev/null | head -n 1)" ] || \
		echo "Note: $(BUILT) is older than the sources; \`make\` builds it anew" >&2
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" = 0 ] || { echo "This writes to $(PREFIX) and $(UNITS): sudo make install" >&2; exit 1; }
	install -D -m 755 "$(BUILT)" "$(DESTDIR)$(PREFIX)/bin/shaper"
	@for schema in $(SCHEMAS); do \
		echo "install $(DESTDIR)$(PREFIX)/$$schema"; \
		install -D -m 644 "$$schema" "$(DESTDIR)$(PREFIX)/$$schema" || exit 1; \
	done
	install -d "$(DESTDIR)$(UNITS)"
	@for unit in $(UNIT_FILES); do \
		echo "install $(DESTDIR)$(UNITS)/$$unit"; \
		sed 's|/usr/local/bin|$(PREFIX)/bin|' systemd/$$unit >"$(DESTDIR)$(UNITS)/$$unit" && \
		chmod 644 "$(DESTDIR)$(UNITS)/$$unit" || exit 1; \
	done
	@$(RELOAD)

# What `make install` put there. Shaping stays in the kernel (`shaper clear` first takes it away), and so does
# /etc/shaper.
uninstall:
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" = 0 ] || { echo "This deletes from $(PREFIX) and $(UNITS): sudo make uninstall" >&2; exit 1; }
	@[ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || \
		systemctl disable --now shaper.service shaper-apply.timer shaper-metrics.socket shaper-textfile.timer 2>/dev/null || true
	rm -f "$(DESTDIR)$(PREFIX)/bin/shaper" $(foreach unit,$(UNIT_FILES),"$(DESTDIR)$(UNITS)/$(unit)")
	rm -f $(foreach schema,$(SCHEMAS),"$(DESTDIR)$(PREFIX)/$(schema)")
	@# What others have put there stays.
	[ ! -d "$(DESTDIR)$(PREFIX)/share/shaper" ] || \
		rmdir --ignore-fail-on-non-empty "$(DESTDIR)$(PREFIX)/share/shaper"
	@$(RELOAD)

# target/debian/shaper_*.deb and target/generate-rpm/shaper-*.rpm: the program, units (not enabled), man pages,
# completions, examples, licences.
package: build
	sh packaging/stage.sh "$(CURDIR)/target/package"
	@$(HAND_OVER)

deb: package
	@[ -x target/tools/bin/cargo-deb ] || cargo install --quiet --locked --root target/tools cargo-deb@$(CARGO_DEB)
	PATH="$(CURDIR)/target/tools/bin:$$PATH" CARGO_TARGET_DIR="$(CURDIR)/target" cargo deb --no-build --no-strip
	@$(HAND_OVER)

rpm: package
	@[ -x target/tools/bin/cargo-generate-rpm ] || \
		cargo install --quiet --locked --root target/tools cargo-generate-rpm@$(CARGO_GENERATE_RPM)
	PATH="$(CURDIR)/target/tools/bin:$$PATH" CARGO_TARGET_DIR="$(CURDIR)/target" cargo generate-rpm
	@$(HAND_OVER)

# Both, in a clean Debian root.
package-test: deb rpm
	@sh tests/tools.sh mmdebstrap rpm2cpio cpio man-db
	sh tests/packages.sh

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
