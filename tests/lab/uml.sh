#!/bin/sh
# uml.sh FOLDER KERNEL-TESTS SHAPER [WORDS]: runs the test binary in user-mode Linux, with this machine's files
# as a read-only root. LAB_APPEND: more words for the kernel. The stage is made below FOLDER and removed.
# The console is standard output.
set -eu
. "$(dirname "$0")/modules.sh"
folder=$1 tests=$2 shaper=$3
shift 3
modules=$(echo /usr/lib/uml/modules/*)
stage=$(mktemp -d "$folder/uml.XXXXXX")
trap 'rm -rf "$stage"' EXIT
trap 'exit 1' INT TERM
cp "$tests" "$stage/kernel-tests"
[ -z "$shaper" ] || cp "$shaper" "$stage/shaper"
cp "$(dirname "$0")/init.sh" "$stage/init.sh"
modules_in_order "$modules" $lab_modules | sed "s|^|$modules/|" >"$stage/modules"
modules_in_order "$modules" $lab_carriers | sed "s|^|$modules/|" >"$stage/carriers"
echo "$@" >"$stage/words"
# Standard input must be something that can be polled: /dev/null is not.
linux.uml root=/dev/root rootfstype=hostfs rootflags=/ ro init="$stage/init.sh" mem=1G quiet \
    con=null con0=fd:0,fd:1 uml_dir="$stage/" umid=lab \
    lab_stage="$stage" SHAPER_LAB="$SHAPER_LAB" ${LAB_APPEND:-} </dev/zero
