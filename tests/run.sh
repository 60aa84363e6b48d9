#!/bin/sh
# All tests, with nextest where it is installed.
set -eu
if command -v cargo-nextest >/dev/null; then
    cargo nextest run --no-fail-fast
    cargo test --doc --quiet
else
    cargo test --no-fail-fast
fi
