//! The network half of the agent: fetches generations and commands, delivers results.
//!
//! Backups do not need it: timers and jobs go on while it is stopped, and so does everything else
//! on the server. It has no right to read customers' files and no capability. Rules:
//! `docs/protocol.md`.

mod backoff;
mod client;
mod commands;
mod deliver;
mod facts;
mod house;
mod identity;
mod join;
mod local;
mod noticed;
mod wait;
mod watch;

pub use join::{JoinFailure, join as join_with, main as join};

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ledger::{Ledger, LedgerError};
use model::{Exit, Instant};
use sd_notify::NotifyState;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

pub use client::CallError;
pub use identity::IdentityError;

use client::Client;
use identity::Identity;
use noticed::Noticed;

/// The longest wait between two attempts to reach a controller that is away.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The note in the ledger that says how long the controller holds a watch, in seconds.
const POLL_NOTE: &str = "poll_secs";

/// Says why the daemon ends or an action of it failed.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A call to the controller failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The operating system refused something.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The controller answered something that is not part of the protocol.
    #[error("the controller's answer is not understood: {0}")]
    Answer(String),
}

impl DaemonError {
    fn system(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }
}

/// Where things are; `/` outside tests.
#[derive(Debug, Clone)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    /// Names the installed places below `root`.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn state(&self, name: &str) -> PathBuf {
        self.root.join("var/lib/backstay").join(name)
    }

    fn apply_socket(&self) -> PathBuf {
        self.root.join("run/backstay/apply.sock")
    }

    fn ledger(&self) -> PathBuf {
        self.state("ledger/ledger.db")
    }
}

/// What all loops share. One thread, so plain cells do.
struct Shared {
    places: Places,
    identity: Identity,
    client: Client,
    ledger: RefCell<Ledger>,
    /// The number of the outbox stream's last row that the controller said it has.
    delivered: Cell<Option<i64>>,
    stream: String,
    /// Something is to tell: results, ends of commands, progress.
    tell: Notify,
    /// The server may have changed: look and report.
    look: Notify,
    /// The controller answered: whoever waits to try again may do so now.
    reached: Notify,
    /// How long the controller holds a watch.
    poll: Cell<Option<Duration>>,
    /// A unit was changed by hand: it is to be put right.
    repair: Cell<bool>,
    /// What is said about commands beside what the ledger says.
    said: RefCell<Vec<protocol::CommandReport>>,
    /// Why the newest generation was not even handed to `apply`.
    refused: RefCell<Option<protocol::GenerationReport>>,
}

/// Runs until it is told to stop.
#[must_use]
pub fn main() -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the daemon cannot start");
            return Exit::Failed;
        }
    };
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, run(Places::below(Path::new("/")))) {
        Ok(()) => Exit::Done,
        Err(error) => {
            tracing::error!("the daemon ends: {}", crate::log::chain(&error));
            Exit::Failed
        }
    }
}

/// Runs the daemon below `root` until a signal, or until the server is joined anew.
///
/// # Errors
///
/// `DaemonError` when ledger or identity cannot be used; systemd starts it again.
pub async fn run(places: Places) -> Result<(), DaemonError> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(DaemonError::system("waiting for SIGTERM"))?;
    let mut noticed = Noticed::open(&places)?;
    notify(&[NotifyState::Ready, NotifyState::Status("not joined")]);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        done = serve(places, &mut noticed) => done,
    }
}

async fn serve(places: Places, noticed: &mut Noticed) -> Result<(), DaemonError> {
    // Without a ledger the joining below says so.
    let mut ledger = Ledger::open(&places.ledger()).ok();
    let identity = loop {
        if let Some(identity) = Identity::read(&places.state("identity"))? {
            break identity;
        }
        tracing::info!("this server has joined no controller; waiting for backstayctl join");
        if let Some(ledger) = &mut ledger {
            house::tidy(ledger, &places.root, house::Audience::Nobody);
        }
        tokio::select! {
            noticed = noticed.identity() => noticed?,
            () = wait::pause(house::TIDY_EVERY) => {}
        }
    };
    drop(ledger);
    let status = format!("controller {}", identity.record.host);
    notify(&[NotifyState::Status(&status)]);
    let shared = Rc::new(Shared::open(places, identity)?);
    tokio::select! {
        ended = watch::run(&shared) => ended,
        ended = deliver::run(&shared) => ended,
        ended = facts::run(&shared) => ended,
        ended = noticed.run(&shared) => ended,
        ended = house::run(&shared) => ended,
        ended = hang_ups(&shared) => ended,
        ended = watchdog() => ended,
    }
}

impl Shared {
    fn open(places: Places, identity: Identity) -> Result<Self, DaemonError> {
        let mut ledger = Ledger::open(&places.ledger())?;
        commands::end_half_started(&mut ledger)?;
        let stream = stream(&mut ledger)?;
        let poll = ledger.note(POLL_NOTE)?.and_then(|text| text.parse().ok());
        let client = Client::new(&identity)?;
        let shared = Self {
            places,
            client,
            identity,
            ledger: RefCell::new(ledger),
            delivered: Cell::new(None),
            stream,
            tell: Notify::new(),
            look: Notify::new(),
            reached: Notify::new(),
            poll: Cell::new(poll.map(Duration::from_secs)),
            repair: Cell::new(false),
            said: RefCell::default(),
            refused: RefCell::default(),
        };
        shared.tell.notify_one();
        shared.look.notify_one();
        Ok(shared)
    }

    /// Calls the controller; takes a higher boot number when it asks for one.
    async fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, DaemonError> {
        if self.client.boot() == 0 {
            self.begin_boot(0)?;
        }
        let first = self.client.call(method, path, body.clone()).await;
        let answer = match first {
            Err(CallError::StaleBoot { known }) => {
                self.begin_boot(known)?;
                self.client.call(method, path, body).await
            }
            other => other,
        }?;
        self.reached.notify_waiters();
        Ok(answer)
    }

    /// Gives the longest wait between two attempts: what waited for the network is to be told
    /// within two polls, and connecting takes a while too.
    fn retry_max(&self) -> Duration {
        self.poll.get().unwrap_or(RETRY_MAX).min(RETRY_MAX)
    }

    /// Notes how long the controller holds a watch; also for the time after a restart without it.
    fn set_poll(&self, secs: u32) -> Result<(), DaemonError> {
        let poll = Duration::from_secs(secs.into());
        // Zero is said by a controller that stops.
        if secs > 0 && self.poll.get() != Some(poll) {
            self.ledger
                .borrow()
                .set_note(POLL_NOTE, &secs.to_string())?;
            self.poll.set(Some(poll));
        }
        Ok(())
    }

    /// Takes a boot number higher than any that this agent or its controller knows.
    fn begin_boot(&self, known: u64) -> Result<(), DaemonError> {
        const NOTE: &str = "boot";
        let ledger = self.ledger.borrow();
        let last: u64 = ledger
            .note(NOTE)?
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let clock = u64::try_from(now().micros()).unwrap_or(0);
        let boot = last.max(known).saturating_add(1).max(clock);
        ledger.set_note(NOTE, &boot.to_string())?;
        self.client.begin_boot(boot);
        Ok(())
    }
}

/// Gives the name of this ledger's outbox stream, and makes it at the first start.
fn stream(ledger: &mut Ledger) -> Result<String, DaemonError> {
    const NOTE: &str = "outbox_stream";
    if let Some(stream) = ledger.note(NOTE)? {
        return Ok(stream);
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(std::io::Error::other)
        .map_err(DaemonError::system("drawing random bytes"))?;
    let stream = data_encoding::HEXLOWER.encode(&bytes);
    ledger.set_note(NOTE, &stream)?;
    Ok(stream)
}

async fn hang_ups(shared: &Shared) -> Result<(), DaemonError> {
    let mut hang_up =
        signal(SignalKind::hangup()).map_err(DaemonError::system("waiting for SIGHUP"))?;
    while hang_up.recv().await.is_some() {
        shared.tell.notify_one();
        shared.look.notify_one();
        shared.reached.notify_waiters();
    }
    Ok(())
}

async fn watchdog() -> Result<(), DaemonError> {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    loop {
        notify(&[NotifyState::Watchdog]);
        tokio::time::sleep(period / 2).await;
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

fn now() -> Instant {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
