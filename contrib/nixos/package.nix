# The package for NixOS: pkgs.callPackage ./package.nix { }. UNTESTED: no test runs it.
{ lib, rustPlatform, coreutils, util-linux }:
rustPlatform.buildRustPackage {
  pname = "shaper";
  version = "0.1.0";
  src = lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  # Tests need root, network namespaces and net_cls.
  doCheck = false;
  # As a package's: `make install` writes below DESTDIR, and units name programs by their whole paths.
  postInstall = ''
    mkdir -p target/release
    cp $out/bin/shaper target/release/shaper
    make install BUILT=target/release/shaper DESTDIR=$out PREFIX= UNITS=/lib/systemd/system
    for unit in $out/lib/systemd/system/*; do
      sed -i -e 's|/bin/shaper|'$out'&|g' -e 's|/bin/mkdir|${coreutils}&|g' -e 's|/bin/kill|${util-linux}&|g' "$unit"
    done
  '';
  meta.mainProgram = "shaper";
  meta.license = with lib.licenses; [ mit asl20 ];
}
