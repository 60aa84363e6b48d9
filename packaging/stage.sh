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
# What they speak of is elsewhere here: examples below examples/, the program in /usr/bin. Of a link to what is in no
# package its words stay.
for document in "$doc"/*.md "$doc"/docs/*.md; do
    sed -i -z -E \
        -e 's#\]\((\.\./)?policies#](\1examples/policies#g' \
        -e 's#\]\((\.\./)?contrib/ansible#](\1examples/ansible#g' \
        -e 's#\[([^]]*)\]\((\.\./)?(CONTRIBUTING|benches|tests)[^)]*\)#\1#g' \
        -e 's#`systemd/([a-z-]+\.conf|shaper\.cron)`#`examples/\1`#g' \
        -e 's#`contrib/`#`examples/prometheus`#g; s#contrib/ansible#examples/ansible#g' \
        -e 's#/usr/local/bin/shaper login#/usr/bin/shaper login#g' "$document"
done
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
