//! The command line of `backstay-agentd`. Units call it; people use `backstayctl`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use model::{Exit, ScheduleName};

use crate::{apply, daemon, job, log};

/// The Backstay agent. systemd starts it; people use backstayctl.
#[derive(Debug, Parser)]
#[command(name = "backstay-agentd", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sync with the controller: fetch generations and commands, deliver results
    Daemon,
    /// Join the controller of the code on standard input; backstayctl calls it
    #[command(hide = true)]
    Join {
        /// Join although this server has joined a controller before
        #[arg(long)]
        anew: bool,
    },
    /// Serve the apply socket: verify configuration, write units, talk to systemd
    Apply,
    /// Replay an unfinished apply and repair drift once; runs at boot
    Reconcile,
    /// Back up one schedule
    Run {
        /// Which schedule
        schedule: ScheduleName,
    },
    /// Record the end of a job that could not do so itself; runs after every job
    RecordEnd {
        /// Which schedule
        schedule: ScheduleName,
    },
    /// Do the restores that are queued for one schedule
    Restore {
        /// Which schedule
        schedule: ScheduleName,
    },
    /// Do the listings and checks that are queued for one schedule
    Browse {
        /// Which schedule
        schedule: ScheduleName,
    },
    /// Serve one database dump on standard input and output
    Dump,
    /// Serve one database load on standard input and output
    Load,
}

/// Runs the subcommand and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let command = Arguments::parse().command;
    // Standard error of `join` is for the person who types it.
    if !matches!(command, Command::Join { .. }) {
        log::begin();
    }
    let exit = match command {
        Command::Daemon => daemon::main(),
        Command::Join { anew } => daemon::join(anew),
        Command::Apply => apply::main(),
        Command::Reconcile => apply::reconcile(),
        Command::Run { schedule } => job::run(&schedule),
        Command::RecordEnd { schedule } => job::record_end(&schedule),
        Command::Restore { schedule } => job::restore(&schedule),
        Command::Browse { schedule } => job::browse(&schedule),
        Command::Dump => job::dump(),
        Command::Load => job::load(),
    };
    ExitCode::from(Exit::code(exit))
}
