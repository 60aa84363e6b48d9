//! One function for each subcommand: what it prints, and with which status it ends.

mod apply;
mod clear;
mod daemon;
mod init;
mod login;
mod output;
mod plan;
mod release;
mod report;
mod run;
mod status;
mod watch;
mod why;

use std::io;
use std::path::Path;

pub use output::{Output, color};

use crate::apply::{ApplyOptions, Options, Request, Session};
use crate::cli::{Cli, Command, Global};
use crate::failure::Failure;
use crate::host::Kernel;
use crate::model::BuildOptions;
use crate::policy::{Diagnostic, Policy, Severity};
use crate::sys::netns::Target;

impl Output {
    /// Adds the policy's warnings, drawn for people, to standard error; with --json they are in the
    /// document. With --quiet they come only beside other output, and notes ([`Severity::Info`])
    /// not at all.
    fn warn(&mut self, policy: &Policy, warnings: &[Diagnostic], global: &Global) {
        if global.json || (global.quiet && self.stdout.is_empty()) {
            return;
        }
        let said = |warning: &&Diagnostic| !global.quiet || warning.severity == Severity::Warning;
        let warnings: Vec<Diagnostic> = warnings.iter().filter(said).cloned().collect();
        self.stderr.push_str(&plan::draw(policy, &warnings, color(&io::stderr())));
    }
}

/// Enters the network namespace that the command line names and opens the kernel there.
fn open(global: &Global) -> Result<Kernel, Failure> {
    let target = global.netns.as_deref().map(Target::new);
    Ok(Kernel::open_at(target.as_ref(), global.cgroup.as_deref())?)
}

/// A policy on the kernel that the command line names.
fn session(global: &Global, file: &Path, options: Options) -> Result<(Session, Request), Failure> {
    let policy = crate::apply::read(file)?;
    Ok((Session::new(open(global)?), Request::new(policy, options)))
}

/// What the command line allows a run to do.
fn may(global: &Global, disrupt: bool) -> ApplyOptions {
    ApplyOptions { disrupt, wait: global.wait, ..ApplyOptions::default() }
}

/// Does what the command line says.
pub fn dispatch(cli: &Cli) -> Result<Output, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Check { file, offline, skip_unknown } => {
            let options = BuildOptions {
                offline: *offline,
                skip_unknown: *skip_unknown,
                ..BuildOptions::default()
            };
            plan::check(global, file, options)
        }
        Command::Plan { file, tc, exit_code, skip_unknown, takeover } => {
            let options =
                Options { skip_unknown: *skip_unknown, takeover: *takeover, ..Options::default() };
            let show = plan::Show { tc: *tc, exit_code: *exit_code };
            plan::plan(global, file, options, show)
        }
        Command::Apply {
            file,
            dry_run,
            takeover,
            allow_disruption,
            confirm,
            force,
            skip_unknown,
            despite_daemon,
        } => {
            let options =
                Options { skip_unknown: *skip_unknown, takeover: *takeover, ..Options::default() };
            match dry_run {
                true => plan::plan(global, file, options, plan::Show::default()),
                false => {
                    let may = may(global, *allow_disruption);
                    let may = ApplyOptions { confirm: *confirm, force: *force, ..may };
                    apply::apply(global, file, options, may, *despite_daemon)
                }
            }
        }
        Command::Confirm => apply::confirm(global),
        Command::Watch { file, skip_unknown, takeover, grace, despite_daemon } => {
            let options =
                Options { skip_unknown: *skip_unknown, takeover: *takeover, ..Options::default() };
            watch::watch(global, file, options, *grace, *despite_daemon)
        }
        Command::Login { file } => {
            let options = Options { skip_unknown: true, ..Options::default() };
            login::login(global, file, options)
        }
        Command::Status { users, group, rules } => {
            status::status(global, users, group.as_deref(), *rules)
        }
        Command::Why { subject, file } => why::why(global, subject, file),
        Command::Run { user, command } => Err(run::run(global, user, command)),
        Command::Attach { user, pids } => run::attach(global, user, pids),
        Command::Release { subjects, file } => release::release(global, subjects, file.as_deref()),
        Command::Clear { allow_disruption, despite_daemon } => {
            clear::clear(global, may(global, *allow_disruption), *despite_daemon)
        }
        Command::Init => init::init(global),
    }
}
