#!/bin/sh
# run.sh [check | TIMES]: all tests, with nextest where it is installed; those marked as ignored need root, and this
# is root.
# check: the tests that need no root, as anybody. The others run in cells (the binaries `kernel` and `cli`), need the
# machine's own hierarchy (`net_cls`), are marked as ignored, or are called so.
# TIMES: all of them that often, without a second chance for any; at the end, which failed in which run.
# Properties are tried with the same random cases each time, so that a test which fails does so for what changed; each of
# TIMES with others.
set -eu
what=${1:-all}
export PROPTEST_RNG_SEED="${PROPTEST_RNG_SEED:-1}"

# everything [NEXTEST-OPTION...]: .config/nextest.toml says what may run at once, in four threads for each processor.
everything() {
    if command -v cargo-nextest >/dev/null; then
        cargo nextest run --profile whole --test-threads $((4 * $(nproc))) --no-fail-fast --run-ignored all "$@"
    else
        cargo test --no-fail-fast -- --include-ignored
    fi
}

# failures LOG: the tests that a run's output calls failed, as nextest or cargo's own harness says it.
failures() {
    sed 's/\x1b\[[0-9;]*m//g' "$1" | awk '
        / \[ *[0-9.]+s\] / && $1 ~ /^(FAIL|TIMEOUT|SIG[A-Z]+|ABORT|LEAK-FAIL|EXECFAIL)$/ { print $NF }
        $1 == "test" && $3 == "..." && $4 == "FAILED" && $0 !~ /^ / { print $2 }' | sort -u
}

case $what in
all)
    everything
    ! command -v cargo-nextest >/dev/null || cargo test --doc --quiet
    ;;
check)
    # Neither built nor run: binaries whose every test needs root.
    tests=$(ls tests/*.rs tests/*/main.rs | sed 's|^tests/||; s|/main\.rs$||; s|\.rs$||' |
        grep -vx -e kernel -e cli -e net_cls)
    # Unquoted: one word for each.
    targets="--lib --bins $(printf ' --test %s' $tests)"
    if command -v cargo-nextest >/dev/null; then
        cargo nextest run --no-fail-fast $targets -E 'not test(needs_root)'
    else
        cargo test --no-fail-fast $targets -- --skip needs_root
    fi
    cargo test --doc --quiet
    ;;
*)
    logs=${CARGO_TARGET_DIR:-target}/nightly
    rm -rf "$logs"
    mkdir -p "$logs"
    second=
    ! command -v cargo-nextest >/dev/null || second=--retries=0
    for run in $(seq "$what"); do
        # A boot of the lab gives its tests a second chance, too.
        PROPTEST_RNG_SEED=$(date +%s) SHAPER_AGAIN=0 everything $second >"$logs/run-$run.log" 2>&1 && status=0 || status=$?
        failures "$logs/run-$run.log" | sed "s/$/ $run/" >>"$logs/failed"
        # A run that never came to its tests has no test that failed.
        [ $status = 0 ] || failures "$logs/run-$run.log" | grep -q . || echo "(no test at all) $run" >>"$logs/failed"
        echo "run $run of $what: exit status $status; all that it said is in $logs/run-$run.log"
    done
    [ -s "$logs/failed" ] || exit 0
    echo "Not every run passed every test:"
    awk '{ run = $NF; sub(/ [0-9]+$/, ""); runs[$0] = runs[$0] " " run }
        END { for (test in runs) print "  " test ": failed in run" runs[test] }' "$logs/failed" | sort
    exit 1
    ;;
esac
