#!/bin/sh
# All tests, with nextest where it is installed; those marked as ignored need root, and this is root.
set -eu
if command -v cargo-nextest >/dev/null; then
    cargo nextest run --no-fail-fast --run-ignored all
    cargo test --doc --quiet
else
    cargo test --no-fail-fast -- --include-ignored
fi
