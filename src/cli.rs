//! The command line, as clap types. One screen of help for each command, taught by example.

mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::status::MetricsFormat;
use values::{end, instance_name, interval, metrics_format, percent, protocol, seconds, to_a_week};

/// Per-user network caps that hold.
///
/// shaper reads bandwidth policies from a YAML file, builds the HTB classes and filters for them,
/// and puts each user's processes into a net_cls cgroup, so that each user's packets land in the
/// right class. Running it twice changes nothing; a failed run puts back what was there before.
#[derive(Debug, Parser)]
#[command(name = "shaper", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  shaper init --write                       start from what this host has
  shaper check                              is the policy good?
  shaper plan                               what would apply change?
  shaper apply                              make it so (by hand or from cron: apply -q)
  shaper watch                              the daemon: apply, and keep it so
  shaper status                             who gets what, and how much they sent
  shaper why bob                            which line of the policy claims bob
  shaper run bob -- rsync -a /data host:    run a command inside bob's class
  shaper clear                              remove everything that shaper made

Exit status:
  0  done, or already in sync       3  plan --exit-code: there are changes;
                                       top --exit-over: it was passed;
                                       status: nothing is shaped
  1  the kernel or system refused;  4  another run holds the lock, a change
     what was there before is back     waits to be confirmed, or the daemon
  2  usage or policy error;            keeps another policy
     nothing was touched            5  done, except steps that would disturb
                                       others (apply --allow-disruption)
                                    128+n  interrupted by signal n, and undone";

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Shape in another network namespace: a name (ip netns), a path, or a process id
    #[arg(long, global = true, value_name = "NAME|PATH|PID")]
    pub netns: Option<String>,
    /// The instance: its directory below the net_cls hierarchy [default: shaper]
    #[arg(long, global = true, value_name = "NAME", value_parser = instance_name)]
    pub cgroup: Option<String>,
    /// How long to wait for another run to finish
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub wait: Duration,
    /// Print nothing unless something differed; what stays wrong once a day
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say what is being done (twice: each message to the kernel); RUST_LOG overrides it
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Print one JSON document instead of text, also for errors
    #[arg(long, global = true)]
    pub json: bool,
}

/// The default place of the policy.
pub const DEFAULT_FILE: &str = "/etc/shaper/policies.yaml";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read and check a policy; touch nothing
    #[command(after_help = "\
Examples:
  shaper check policies.yaml
  shaper check --offline - < policies.yaml  no account and no link of this host is asked for")]
    Check {
        /// The policy; - is standard input [default: the daemon's, else /etc/shaper/policies.yaml;
        /// with --offline always that]
        file: Option<PathBuf>,
        /// Without accounts and links of this host (for CI, or another host's policy)
        #[arg(long)]
        offline: bool,
        /// An unknown account or unix group is a warning
        #[arg(long)]
        skip_unknown: bool,
    },
    /// Show what apply would change
    #[command(after_help = "\
Examples:
  shaper plan policies.yaml
  shaper plan --tc                          as the commands that the steps equal
  shaper plan -q --exit-code                for scripts: status 3 when there are changes
  shaper plan --at '2026-12-24 23:00'       what would hold then")]
    Plan {
        /// The policy; - is standard input
        #[arg(default_value = DEFAULT_FILE)]
        file: PathBuf,
        /// As the tc and shell commands that the steps equal, for the namespace that --netns names
        #[arg(long)]
        tc: bool,
        /// Exit with 3 when there are changes
        #[arg(long)]
        exit_code: bool,
        /// As it would be then, "2026-12-24 23:00" in the host's zone
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// An unknown account or unix group is a warning
        #[arg(long)]
        skip_unknown: bool,
        /// Plan to replace a root qdisc that somebody else made
        #[arg(long)]
        takeover: bool,
    },
    /// Make the kernel match the policy
    #[command(after_help = "\
Examples:
  shaper apply policies.yaml
  shaper apply --confirm 60                 over ssh: back again in a minute unless confirmed
  shaper apply -q --skip-unknown            from cron: speaks only when something differed
  shaper apply --dry-run                    the same as plan

On a terminal over ssh it asks before it shapes the link by which you are connected
for the first time.")]
    Apply(Apply),
    /// Keep a change that `apply --confirm` made
    Confirm,
    /// Edit a policy: a copy, the editor, check, plan, apply
    #[command(after_help = "\
Examples:
  shaper edit                               the daemon's policy, else /etc/shaper/policies.yaml
  shaper edit /etc/shaper/policies.d/lab.yaml
  SHAPER_EDITOR='code --wait' shaper edit   else $VISUAL, $EDITOR, sensible-editor or vi

Shows what would change before it asks, and the file is replaced only by a text that holds. Where a
daemon follows the file, the daemon applies it. Over ssh a change is made on trial, and taken back
after a minute without a word. What was typed and not saved is kept for the next edit. A file that
does not exist begins as init would write it.")]
    Edit(Edit),
    /// Apply, and keep it so: the daemon
    #[command(after_help = "\
Examples:
  shaper watch --skip-unknown               what the systemd unit runs
  shaper watch policies.yaml                in a terminal; Ctrl-C ends it, and shaping stays

Places users' processes the moment they log in, follows the policy file as it changes (also on
SIGHUP), shapes links that come later, and repairs what others change.")]
    Watch {
        /// The policy
        #[arg(default_value = DEFAULT_FILE)]
        file: PathBuf,
        /// An unknown account or unix group is a warning, and keeps its class if it has one
        #[arg(long)]
        skip_unknown: bool,
        /// Replace a root qdisc that somebody else made
        #[arg(long)]
        takeover: bool,
        /// How long an account of `everyone` or `each` keeps its class without a process
        #[arg(long, value_name = "SECONDS", value_parser = to_a_week, default_value = "60")]
        grace: Duration,
        /// Also while another daemon keeps this instance
        #[arg(long)]
        despite_daemon: bool,
        /// End once the policy, or the last good one, is in force: a service's first build, with
        /// more privileges than the daemon has
        #[arg(long)]
        once: bool,
    },
    /// Show who has which class, rates and counters
    #[command(after_help = "\
Examples:
  shaper status
  shaper status bob --json
  shaper status --group students
  shaper status --rules
  shaper status --interval 5                what goes now, as top has it
  shaper status --metrics                   totals for Prometheus

A rate with ~ in front was not written: it is a share of what the written ones leave.")]
    Status(StatusOptions),
    /// Show who uses the links now
    #[command(after_help = "\
Examples:
  shaper top                                live; ? shows the keys
  shaper top --once                         one table, of one second
  shaper top --json --interval 10           a line of JSON every 10 seconds
  shaper top --once --exit-over 90%         for scripts: status 3 where somebody is above

UP and DOWN are link-layer bits, as the policy's rates are.")]
    Top(Top),
    /// Say what this host has and lacks for shaping, and the cure; change nothing
    #[command(after_help = "\
Examples:
  shaper doctor                             before the first apply, or when something is odd
  shaper doctor --json                      {\"checks\":[{\"id\",\"state\",\"what\",\"cure\"}]}

Exit status: 0 fine, 3 warnings, 1 errors.")]
    Doctor {
        /// The policy, - for standard input [default: the daemon's, else the one applied last, else
        /// /etc/shaper/policies.yaml]
        file: Option<PathBuf>,
    },
    /// Say what is in force for a user, process, guest or class, and which line says so
    #[command(after_help = "\
Examples:
  shaper why bob
  shaper why 4711                           a process, or if there is none, a uid (uid:, pid:)
  shaper why web-1                          a container; also vnet3, a network namespace, 10.8.0.5
  shaper why 1:1a                           a class; also everyone, default, unshaped
  shaper why ann --to 10.1.2.3:443          where the packets of a connection of ann's go
  shaper why 10.1.2.3:53 --proto udp        of a connection of nobody's in particular")]
    Why(WhyOptions),
    /// Run a command inside a user's class, as the caller
    #[command(after_help = "\
Example:
  shaper run backup -- rsync -a /srv host:/srv

The command keeps the caller's uid and stays in the class, also across apply. Exits with the
command's own status; 125 when shaper itself fails, 126 when the command cannot be run, 127 when it
is not found.")]
    Run {
        /// A name in the policy, or an account
        #[arg(value_hint = ValueHint::Username)]
        user: String,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<std::ffi::OsString>,
    },
    /// Put running processes into a user's class, to stay there
    #[command(after_help = "\
Example:
  shaper attach backup 4711 4712

Their threads, their open connections and what they start later come along. `shaper release` undoes it.")]
    Attach {
        /// A name in the policy, or an account
        #[arg(value_hint = ValueHint::Username)]
        user: String,
        /// Process ids
        #[arg(required = true, value_name = "PID")]
        pids: Vec<i32>,
    },
    /// Undo attach: processes go back to where the policy has them
    #[command(after_help = "\
Examples:
  shaper release 4711
  shaper release backup                     all that run, attach and login put into backup's class

A process goes into the class of whoever claims it, or into none. What it started before stays where
it is: name that too, or the user.")]
    Release {
        /// Names in the policy, accounts, or process ids
        #[arg(required = true, value_name = "USER|PID", value_hint = ValueHint::Username)]
        subjects: Vec<String>,
        /// The policy that says whose they are [default: the daemon's, else
        /// /etc/shaper/policies.yaml]
        #[arg(short, long)]
        file: Option<PathBuf>,
    },
    /// Put a session into its user's class as it begins: for pam_exec
    #[command(after_help = "\
Example, in /etc/pam.d/sshd, for hosts without the daemon:
  session optional pam_exec.so quiet type=open_session /usr/local/bin/shaper login

Makes a class for an account of `everyone` or `each` first. The session stays in it, also across
apply; whoever the session becomes (su, sudo) too.")]
    Login {
        /// The policy
        #[arg(default_value = DEFAULT_FILE)]
        file: PathBuf,
    },
    /// Show what was used of quotas
    #[command(after_help = "\
Examples:
  shaper usage                              of all who have a quota
  shaper usage ann students                 of a user and of a group; also everyone
  shaper usage --period month --json

OF is the volume with what was granted, ANEW when it begins anew, HOLDS the step that
follows from it (without the daemon: from the next apply on).")]
    Usage(UsageOptions),
    /// Grant more than a quota's volume
    #[command(after_help = "\
Examples:
  shaper grant ann 50GiB                    until each period ends in which it is granted
  shaper grant students 1TB --until '2026-12-24 23:00'

It counts for each of the user's quotas. The daemon puts it in force at once, without one the next
apply does.")]
    Grant {
        /// A name in the policy, an account, or everyone
        #[arg(value_hint = ValueHint::Username)]
        user: String,
        /// How much more: 50GiB, 1TB
        #[arg(allow_hyphen_values = true)]
        bytes: String,
        /// Until then, "2026-12-24 23:00" in the host's zone, also beyond the period's end
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Count anew what a user has used of quotas
    #[command(after_help = "\
Example:
  shaper quota reset ann

All that was used until now counts no more; what was granted stays. The daemon puts it in force at
once, without one the next apply does.")]
    Quota {
        /// What to do with it
        #[arg(value_name = "reset")]
        change: QuotaChange,
        /// A name in the policy, an account, or everyone
        #[arg(value_hint = ValueHint::Username)]
        user: String,
    },
    /// Remove everything that shaper made
    Clear {
        /// Also when that drops somebody else's classes under shaper's root
        #[arg(long)]
        allow_disruption: bool,
        /// Also while the daemon keeps the policy, and will bring everything back
        #[arg(long)]
        despite_daemon: bool,
    },
    /// Print a commented starter policy from what this host has
    #[command(after_help = "\
Examples:
  shaper init                               what the policy could be
  shaper init --write                       into /etc/shaper/policies.yaml, if there is none yet")]
    Init {
        /// Write it to FILE, which must not exist; `-` is none [default: /etc/shaper/policies.yaml]
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = DEFAULT_FILE)]
        write: Option<PathBuf>,
    },
}

/// What `shaper quota` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QuotaChange {
    /// Count anew from now on
    Reset,
}

/// Which quotas `shaper usage` shows.
#[derive(Clone, Debug, Args)]
pub struct UsageOptions {
    /// Only of these: names in the policy, accounts, or everyone
    #[arg(value_name = "USER", value_hint = ValueHint::Username)]
    pub users: Vec<String>,
    /// Only quotas of this period: day, week, month, 30d, 12h
    #[arg(long, value_name = "PERIOD")]
    pub period: Option<String>,
}

/// What `shaper apply` may do.
#[derive(Clone, Debug, Args)]
pub struct Apply {
    /// The policy; - is standard input
    #[arg(default_value = DEFAULT_FILE)]
    pub file: PathBuf,
    /// Show the steps and perform none
    #[arg(long)]
    pub dry_run: bool,
    /// Replace a root qdisc that somebody else made
    #[arg(long)]
    pub takeover: bool,
    /// Also perform steps that drop or delay somebody's packets (plan names them)
    #[arg(long)]
    pub allow_disruption: bool,
    /// Put back what was there before unless `shaper confirm` comes in time
    #[arg(long, value_name = "SECONDS", value_parser = to_a_week)]
    pub confirm: Option<Duration>,
    /// Also a policy that was taken back before
    #[arg(long)]
    pub force: bool,
    /// An unknown account or unix group is a warning, and keeps its class if it has one
    #[arg(long)]
    pub skip_unknown: bool,
    /// Also while the daemon keeps another policy, and will undo this one
    #[arg(long)]
    pub despite_daemon: bool,
    /// Ask nothing before a first build over ssh
    #[arg(short, long)]
    pub yes: bool,
}

/// What `shaper edit` edits, and what its apply may do.
#[derive(Clone, Debug, Args)]
pub struct Edit {
    /// The policy, or one of its drop-ins [default: the daemon's, else /etc/shaper/policies.yaml]
    pub file: Option<PathBuf>,
    /// Replace a root qdisc that somebody else made
    #[arg(long)]
    pub takeover: bool,
    /// Also perform steps that drop or delay somebody's packets (the plan names them)
    #[arg(long)]
    pub allow_disruption: bool,
    /// An unknown account or unix group is a warning, and keeps its class if it has one
    #[arg(long)]
    pub skip_unknown: bool,
}

/// What `shaper why` is asked about.
#[derive(Clone, Debug, Args)]
pub struct WhyOptions {
    /// A name in the policy, an account, a process id, a systemd unit, a guest (guest:NAME where
    /// something else has the name, too), a class, or the other end of a connection; left out,
    /// yourself
    #[arg(
        value_name = "SUBJECT",
        value_hint = ValueHint::Username,
        default_value = "",
        hide_default_value = true
    )]
    pub subject: String,
    /// The other end of a connection of the subject's
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = end)]
    pub to: Option<SocketAddr>,
    /// The host's own end of the connection; a port 0 is any port
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = end)]
    pub from: Option<SocketAddr>,
    /// The connection's protocol
    #[arg(long, value_name = "NAME|NUMBER", value_parser = protocol, default_value = "tcp")]
    pub proto: u8,
    /// The policy
    #[arg(short, long, default_value = DEFAULT_FILE)]
    pub file: PathBuf,
}

/// What `shaper status` shows.
#[derive(Clone, Debug, Args)]
pub struct StatusOptions {
    /// Only these users
    #[arg(value_name = "USER", value_hint = ValueHint::Username)]
    pub users: Vec<String>,
    /// Only what is below this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// How many packets each rule has matched, too
    #[arg(long)]
    pub rules: bool,
    /// What goes now: two readings, so long apart
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    pub interval: Option<Duration>,
    /// Metrics for Prometheus [possible values: prometheus, openmetrics]
    #[arg(long, value_name = "FORMAT", value_parser = metrics_format)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "prometheus")]
    #[arg(conflicts_with_all = ["users", "group", "rules", "interval"])]
    pub metrics: Option<MetricsFormat>,
    /// Metrics of so many users only, those with the most bytes
    #[arg(long, value_name = "N", requires = "metrics")]
    pub top: Option<usize>,
    /// Answer the HTTP request on standard input
    #[arg(long, hide = true, requires = "metrics")]
    pub http: bool,
}

/// What `shaper top` shows, and for how long.
#[derive(Clone, Debug, Args)]
pub struct Top {
    /// One table, of one interval
    #[arg(long)]
    pub once: bool,
    /// How long each reading is compared with the one before
    #[arg(long, value_name = "SECONDS", value_parser = interval, default_value = "1")]
    pub interval: Duration,
    /// End with status 3 once a link, group or user uses more than this of what it may
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub exit_over: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for words in [["shaper", "--json", "check"], ["shaper", "check", "--json"]] {
            assert!(Cli::try_parse_from(words).unwrap().global.json);
        }
    }
}
