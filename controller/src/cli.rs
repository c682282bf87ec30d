//! The command line of `backstay-controller`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use model::Exit;
use rusqlite::Connection;
use sd_notify::NotifyState;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Config;
use crate::problem::Problem;
use crate::server::{Controller, make_setup_url};
use crate::store::{self, Store};
use crate::{api, certificate};

/// The Backstay controller: API, history and dashboard of a fleet.
#[derive(Debug, Parser)]
#[command(name = "backstay-controller", version)]
struct Arguments {
    /// The configuration file
    #[arg(long, global = true, default_value = Config::PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve API and dashboard until told to stop; this is what no subcommand does
    Serve,
    /// Print a fresh one-time address for making the first user
    SetupToken,
    /// Print the OpenAPI document of the API
    Openapi,
}

/// Runs the subcommand and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Openapi) => print(&api::document()),
        None | Some(Command::Serve) => read(&arguments.config).and_then(|config| serve(&config)),
        Some(Command::SetupToken) => {
            read(&arguments.config).and_then(|config| setup_token(&config))
        }
    };
    let exit = match done {
        Ok(()) => Exit::Done,
        Err((exit, message)) => {
            complain(&message);
            exit
        }
    };
    ExitCode::from(exit.code())
}

type Failure = (Exit, String);

fn failed(error: &dyn std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    (Exit::Failed, text)
}

#[expect(
    clippy::print_stderr,
    reason = "a program says on standard error why it ends"
)]
fn complain(message: &str) {
    eprintln!("Error: {message}");
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| failed(&error))
}

fn read(path: &std::path::Path) -> Result<Config, Failure> {
    Config::read(path).map_err(|error| (Exit::BadConfiguration, failed(&error).1))
}

fn serve(config: &Config) -> Result<(), Failure> {
    start_log();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    runtime.block_on(async {
        let controller = Controller::start(config)
            .await
            .map_err(|error| failed(&error))?;
        tracing::info!(address = %controller.address(), "serving");
        if let Some(url) = controller.setup_url() {
            tracing::info!("make the first user at {url}");
        }
        notify(&[NotifyState::Ready]);
        wait_for_stop().await.map_err(|error| failed(&error))?;
        notify(&[NotifyState::Stopping]);
        controller.stop().await;
        Ok(())
    })
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

async fn wait_for_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    // systemd sets the variable for what it connects to the journal.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let started = match journal {
        Some(journal) => registry.with(journal).try_init(),
        None => registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
            .try_init(),
    };
    if let Err(error) = started {
        complain(&format!("the log cannot be started: {error}"));
    }
}

/// The service does not run as root: what root made in the state directory must be its own.
fn give_to_owner(dir: &std::path::Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(dir).map_err(|error| failed(&error))?;
    for name in ["controller.db", "controller.db-wal", "controller.db-shm"] {
        let path = dir.join(name);
        match std::fs::metadata(&path) {
            Ok(found) if found.uid() != owner.uid() => {
                std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))
                    .map_err(|error| failed(&error))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn setup_token(config: &Config) -> Result<(), Failure> {
    certificate::make_state_dir(&config.state_dir).map_err(|error| failed(&error))?;
    let host = config.public_host(config.listen.port());
    let make = move |c: &Connection| {
        if store::needs_setup(c)? {
            make_setup_url(c, &host)
        } else {
            Err(Problem::conflict(
                "set_up",
                "the first user exists already; sign in",
            ))
        }
    };
    let path = config.state_dir.join("controller.db");
    let store = Store::open(&path).map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| failed(&error))?;
    let url = runtime
        .block_on(store.write(make))
        .map_err(|problem| (Exit::Failed, problem.detail))?;
    give_to_owner(&config.state_dir)?;
    print(&format!("{url}\n"))
}
