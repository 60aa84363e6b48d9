//! One function for each subcommand: what it prints, and with which status it ends.

mod address;
mod apply;
mod clear;
mod counting;
mod daemon;
mod doctor;
mod edit;
mod first_build;
mod init;
mod instance;
mod login;
mod metrics;
mod moment;
mod output;
mod own;
mod own_why;
mod placed;
mod plan;
mod question;
mod release;
mod report;
mod run;
mod scope;
mod scrape;
mod ssh;
mod status;
mod top;
mod unchanged;
mod usage;
mod watch;
mod whom;
mod why;

pub use output::{Output, color};

use crate::apply::Options;
use crate::cli::{Cli, Command, QuotaChange};
use crate::failure::Failure;
use crate::model::BuildOptions;
use scope::may;

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
            plan::check(global, file.as_deref(), options)
        }
        Command::Plan { file, tc, exit_code, at, skip_unknown, takeover } => {
            let options =
                Options { skip_unknown: *skip_unknown, takeover: *takeover, ..Options::default() };
            let show = plan::Show { tc: *tc, exit_code: *exit_code };
            plan::plan(global, file, options, at.as_deref(), show)
        }
        Command::Apply(words) => apply::apply(global, words),
        Command::Confirm => apply::confirm(global),
        Command::Edit(words) => edit::edit(global, words),
        Command::Watch { file, skip_unknown, takeover, grace, despite_daemon, once } => {
            let options =
                Options { skip_unknown: *skip_unknown, takeover: *takeover, ..Options::default() };
            let watched = watch::Watched { grace: *grace, once: *once };
            watch::watch(global, file, options, watched, *despite_daemon)
        }
        Command::Login { file } => {
            let options = Options { skip_unknown: true, ..Options::default() };
            login::login(global, file, options)
        }
        Command::Status(options) => status::status(global, options),
        Command::Top(options) => top::top(global, options),
        Command::Doctor { file } => doctor::doctor(global, file.as_deref()),
        Command::Why(options) => own_why::why(global, options),
        Command::Run { user, command } => Err(run::run(global, user, command)),
        Command::Attach { user, pids } => run::attach(global, user, pids),
        Command::Release { subjects, file } => release::release(global, subjects, file.as_deref()),
        Command::Usage(options) => usage::usage(global, options),
        Command::Grant { user, bytes, until } => {
            usage::grant(global, user, bytes, until.as_deref())
        }
        Command::Quota { change: QuotaChange::Reset, user } => usage::reset(global, user),
        Command::Clear { allow_disruption, despite_daemon } => {
            clear::clear(global, may(global, *allow_disruption), *despite_daemon)
        }
        Command::Init { write } => init::init(global, write.as_deref()),
    }
}
