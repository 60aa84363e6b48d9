#!/bin/sh
# run.sh [check]: all tests, with nextest where it is installed; those marked as ignored need root, and this is root.
# check: the tests that need no root, as anybody. The others run in cells (the binaries `kernel` and `cli`), are marked
# as ignored, or are called so.
set -eu
what=${1:-all}
if command -v cargo-nextest >/dev/null; then
    case $what in
    check) cargo nextest run --no-fail-fast -E 'not (binary(kernel) | binary(cli) | test(needs_root))' ;;
    *) cargo nextest run --no-fail-fast --run-ignored all ;;
    esac
    cargo test --doc --quiet
elif [ "$what" = check ]; then
    tests=$(ls tests/*.rs tests/*/main.rs | sed 's|^tests/||; s|/main\.rs$||; s|\.rs$||' | grep -vx -e kernel -e cli)
    # Unquoted: one word for each.
    cargo test --no-fail-fast --lib --bins $(printf ' --test %s' $tests) -- --skip needs_root
    cargo test --doc --quiet
else
    cargo test --no-fail-fast -- --include-ignored
fi
