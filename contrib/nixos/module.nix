# A module for NixOS: imports = [ .../contrib/nixos/module.nix ]. UNTESTED: no test runs it.
#   services.shaper = { enable = true; policy = { version = 1; links.eth0 = "950mbit"; users.bob = "20mbit"; }; };
{ config, lib, pkgs, ... }:
let
  cfg = config.services.shaper;
  yaml = pkgs.formats.yaml { };
in
{
  options.services.shaper = {
    enable = lib.mkEnableOption "per-user network shaping";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      description = "The package with the program and its units.";
    };
    policy = lib.mkOption {
      type = yaml.type;
      description = "The policy, as shaper.yaml(5) has it.";
    };
  };
  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    # A file of its own: a symbolic link would lead through folders that others may write to.
    environment.etc."shaper/policies.yaml" = {
      source = yaml.generate "policies.yaml" cfg.policy;
      mode = "0644";
    };
    systemd.packages = [ cfg.package ];
    # The daemon follows the file by itself, and keeps the policy before where the file is refused.
    systemd.services.shaper.wantedBy = [ "multi-user.target" ];
  };
}
