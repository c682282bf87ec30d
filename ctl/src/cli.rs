//! What can be typed.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use model::{Exit, ScheduleName};

use crate::apply;
use crate::browse::{self, LsArguments, SnapshotsArguments};
use crate::configuration::{self, ValidateArguments};
use crate::credential::{self, CredentialVerb};
use crate::history::{self, HistoryArguments};
use crate::init::{self, InitArguments};
use crate::join::{self, JoinArguments};
use crate::key::{self, KeyVerb};
use crate::pages;
use crate::problem::Problem;
use crate::repo::{self, RepoVerb};
use crate::restore::{self, RestoreArguments};
use crate::run::{self, RunArguments};
use crate::schedule;
use crate::screen::{Color, Screen};
use crate::server::Server;
use crate::status::{self, StatusArguments};

/// Set up, watch and restore the backups of a server.
///
/// On a server most verbs need root. With --repo and --key-file, backups are read straight from
/// where they are stored, on any machine, with neither an agent nor a controller.
#[derive(Debug, Parser)]
#[command(name = "backstayctl", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Answer with one JSON document instead of tables
    #[arg(long, global = true)]
    json: bool,
    /// Use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// Look at the server whose disk is mounted here, from a rescue system
    #[arg(
        long,
        global = true,
        default_value = "/",
        hide_default_value = true,
        value_name = "DIR"
    )]
    root: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check what the agent needs here and put it right, the account for database dumps too
    Init(InitArguments),
    /// Bind this server to a controller
    Join(JoinArguments),
    /// Show the server on one page: what runs, what is due, what went wrong
    Status(StatusArguments),
    /// Show schedules, and start one
    #[command(subcommand)]
    Schedule(ScheduleVerb),
    /// Show what apply would change, and change nothing
    Plan,
    /// Bring systemd's timers to what the configuration says
    Apply,
    /// Check configuration files and show every fault with its line
    Validate(ValidateArguments),
    /// Show runs: when, how they ended, how much was read and stored
    History(HistoryArguments),
    /// Show which snapshots there are
    Snapshots(SnapshotsArguments),
    /// Show what is in a snapshot
    Ls(LsArguments),
    /// Restore a snapshot or a part of it
    Restore(RestoreArguments),
    /// Back up, restore and look after a repository with its key alone
    ///
    /// No agent and no controller are needed, on any machine. Do not write by hand to what a
    /// schedule's runs write to meanwhile.
    #[command(subcommand)]
    Repo(RepoVerb),
    /// Show the key that opens a schedule's backups, or give it another one
    #[command(subcommand)]
    Key(KeyVerb),
    /// Keep what this server needs to reach a destination
    #[command(subcommand)]
    Credential(CredentialVerb),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// Where to
        directory: PathBuf,
    },
    /// Write the completion script of a shell
    #[command(hide = true)]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ScheduleVerb {
    /// Show all schedules: what, when, where to, when due next, how the last run ended
    List,
    /// Show one schedule as it is understood, and when it is due
    Show {
        /// Which schedule
        #[arg(value_name = "SCHEDULE")]
        name: ScheduleName,
    },
    /// Back up now, without waiting for the due time
    Run(RunArguments),
}

/// Runs the verb and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut screen = Screen::new(arguments.global.json, arguments.global.color);
    let server = Server::new(arguments.global.root.clone());
    let exit = match run(arguments.verb, &server, &mut screen) {
        Ok(exit) => exit,
        Err(problem) => {
            screen.complain(&problem);
            problem.exit()
        }
    };
    ExitCode::from(exit.code())
}

fn run(verb: Verb, server: &Server, screen: &mut Screen) -> Result<Exit, Problem> {
    match verb {
        Verb::Init(arguments) => init::init(server, &arguments, screen),
        Verb::Snapshots(arguments) => browse::snapshots(server, &arguments, screen),
        Verb::Ls(arguments) => browse::ls(server, &arguments, screen),
        Verb::Restore(arguments) => restore::restore(server, &arguments, screen),
        Verb::Repo(verb) => repo::repo(&verb, screen),
        Verb::Key(verb) => key::key(server, &verb, screen),
        Verb::Join(arguments) => join::join(server, &arguments),
        Verb::Status(arguments) => status::status(server, &arguments, screen),
        Verb::Plan => apply::plan(server, screen),
        Verb::Apply => apply::apply(server, screen),
        Verb::Schedule(ScheduleVerb::Run(arguments)) => run::run(server, &arguments, screen),
        Verb::Schedule(ScheduleVerb::List) => schedule::list(server, screen),
        Verb::Schedule(ScheduleVerb::Show { name }) => schedule::show(server, &name, screen),
        Verb::Validate(arguments) => configuration::validate(server, &arguments, screen),
        Verb::History(arguments) => history::history(server, &arguments, screen),
        Verb::Credential(verb) => credential::credential(server, &verb, screen),
        Verb::Man { directory } => pages::man(Arguments::command(), &directory),
        Verb::Completions { shell } => pages::completions(Arguments::command(), shell, screen),
    }
}
