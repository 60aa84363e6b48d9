#!/bin/sh
# rust.sh [COMPONENT...]: whether Rust is here, as new as Cargo.toml's rust-version asks, with a linker and a target
# folder that can be written to. Says what is not so and the cure, before cargo says something obscure.
# COMPONENT: rustfmt, clippy; installed where rustup can.
set -eu
needed=$(sed -n 's/^rust-version *= *"\(.*\)"$/\1/p' Cargo.toml)
cure="rustup has it (https://rustup.rs, or Debian's package \`rustup\`): rustup toolchain install stable && rustup default stable"
fail() {
    echo "$1" >&2
    exit 1
}
# at_least VERSION: whether that is at least the version that is needed.
at_least() {
    echo "$1 $needed" | awk '{ split($1, have, /[.-]/); split($2, need, /[.-]/)
        for (i = 1; i <= 3; i++) if (have[i] + 0 != need[i] + 0) exit have[i] + 0 < need[i] + 0 }'
}
for program in cargo rustc; do
    command -v $program >/dev/null || fail "There is no $program here, and shaper needs Rust $needed or newer to be built; $cure"
    # rustup's own word for it (no toolchain is chosen, say) is the reason, where there is no version.
    said=$($program --version 2>&1) || fail "$(command -v $program) does not run: $said; $cure"
    version=$(echo "$said" | awk 'NR == 1 {print $2}')
    at_least "$version" || fail "shaper needs Rust $needed or newer to be built, and $(command -v $program) is $version; $cure"
done
command -v cc >/dev/null || fail "There is no linker \`cc\` here, which Rust needs to build programs; on Debian: apt-get install gcc libc6-dev"
target=${CARGO_TARGET_DIR:-target}
for folder in "$target" "$target/release" "$target/debug"; do
    [ ! -e "$folder" ] || [ -w "$folder" ] || fail \
        "$folder belongs to $(stat -c %U "$folder"), who built here before, and $(id -un) may not write to it; cure: sudo chown -R $(id -un) $target"
done
for component in "$@"; do
    case $component in rustfmt) word=fmt ;; *) word=$component ;; esac
    cargo $word --version >/dev/null 2>&1 && continue
    echo "Installing what is missing: $component"
    rustup component add $component >/dev/null 2>&1 || fail \
        "\`cargo $word\` is missing, and rustup cannot install it; with a distribution's Rust, install its package of that name"
done
