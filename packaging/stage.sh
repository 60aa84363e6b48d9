#!/bin/sh
# stage.sh FOLDER: all files of a package below FOLDER, where a package puts them; `make` has built the program.
# Cargo.toml lists what is taken from there. BUILT, if it is given, is the program instead.
set -eu
stage=$1
rm -rf "$stage"
make -s install DESTDIR="$stage" PREFIX=/usr UNITS=/usr/lib/systemd/system ${BUILT:+BUILT="$BUILT"}
strip "$stage/usr/bin/shaper"
cargo run -q --example documents -- "$stage/usr/share"
gzip -9n "$stage"/usr/share/man/man*/*
doc=$stage/usr/share/doc/shaper
install -d "$doc/docs" "$doc/examples/policies/recipes" "$stage/etc/shaper/policies.d"
install -m 644 README.md ARCHITECTURE.md LICENSE-MIT LICENSE-APACHE SECURITY.md "$doc"
install -m 644 docs/*.md "$doc/docs"
touch "$stage/etc/shaper/policies.d/.keep"
gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
install -m 644 policies/*.yaml "$doc/examples/policies"
install -m 644 policies/recipes/*.yaml "$doc/examples/policies/recipes"
install -d "$doc/examples/prometheus" "$doc/examples/ansible"
install -m 644 contrib/grafana-board.json contrib/shaper.rules.yml "$doc/examples/prometheus"
cp -R contrib/ansible/. "$doc/examples/ansible"
chmod -R u=rwX,go=rX "$doc/examples/ansible"
# Not in force: an administrator copies what he wants.
for file in systemd/*.conf systemd/shaper.cron packaging/pam; do
    sed 's|/usr/local/bin|/usr/bin|' "$file" >"$doc/examples/$(basename "$file")"
done
chmod 644 "$doc"/examples/*.* "$doc"/examples/pam
