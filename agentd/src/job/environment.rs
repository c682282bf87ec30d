//! What systemd tells a job, and where a job finds its files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ledger::Boot;
use model::{Instant, RunId, Secret};
use rustix::time::{ClockId, clock_gettime};

/// In it the units say which boot this is: `/proc/sys` is hidden from them by `ProcSubset=pid`.
const BOOT_VARIABLE: &str = "BACKSTAY_BOOT";

/// The paths of an installed agent. Tests move them below a directory of their own.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Above everything else.
    pub(crate) root: PathBuf,
    /// Ledger and outbox.
    pub(crate) ledger: PathBuf,
    /// What repositories' indexes say; may be deleted.
    pub(crate) cache: PathBuf,
    /// The socket of the dump service.
    pub(crate) dump_socket: PathBuf,
    /// The socket of the load service.
    pub(crate) load_socket: PathBuf,
}

impl Paths {
    /// The paths below `/`.
    pub(crate) fn installed() -> Self {
        Self {
            root: "/".into(),
            ledger: "/var/lib/backstay/ledger/ledger.db".into(),
            cache: "/var/cache/backstay".into(),
            dump_socket: "/run/backstay/dump.sock".into(),
            load_socket: "/run/backstay/load.sock".into(),
        }
    }
}

/// What systemd tells a job in its environment; none of it is secret.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    /// The run's id: systemd's invocation id, or a random one outside of systemd.
    pub(crate) id: RunId,
    /// The timer that started the job, when one did.
    pub(crate) timer: Option<String>,
    /// When the machine booted.
    pub(crate) booted_at: Option<Instant>,
    /// The same of the kernel, which in a container is that of the machine below.
    pub(crate) kernel_booted_at: Instant,
    /// The kernel's id of this boot.
    pub(crate) boot_id: String,
    /// Where systemd put the credentials of this unit.
    pub(crate) credentials: Option<PathBuf>,
}

impl Invocation {
    /// Reads the environment of this process.
    pub(crate) fn read(now: Instant) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let id = variable("INVOCATION_ID").and_then(|text| text.parse().ok());
        Self {
            id: id.unwrap_or_else(random_id),
            timer: variable("TRIGGER_UNIT").filter(|unit| unit.ends_with(".timer")),
            booted_at: booted_at(now),
            kernel_booted_at: now.plus_secs(-up_secs()),
            boot_id: variable(BOOT_VARIABLE).unwrap_or_default(),
            credentials: variable("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }

    /// Gives what the ledger notes of this boot.
    pub(crate) fn boot(&self) -> Option<Boot> {
        Some(Boot {
            id: self.boot_id.clone(),
            // It moves when the clock does, also in a container.
            at: self.kernel_booted_at,
            began_at: self.booted_at?,
        })
    }

    /// Reads one credential of this unit.
    pub(crate) fn credential(&self, name: &str) -> io::Result<Vec<u8>> {
        let directory = self.credentials.as_deref().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "systemd gave this unit no credentials",
            )
        })?;
        bounded(&directory.join(name))
    }

    /// Reads one credential that is text.
    pub(crate) fn secret(&self, name: &str) -> io::Result<Secret> {
        let text = String::from_utf8(self.credential(name)?)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))?;
        Ok(Secret::new(text))
    }
}

/// Credentials are small; systemd itself allows 1 MiB for all of a unit.
const CREDENTIAL_BYTES_MAX: u64 = 64 * 1024;

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(CREDENTIAL_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > CREDENTIAL_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is longer than 64 KiB",
        ));
    }
    Ok(bytes)
}

fn random_id() -> RunId {
    let mut bytes = [0; 16];
    // Without entropy the id is the process and the time: unique on this server.
    if getrandom::fill(&mut bytes).is_err() {
        let seed = u128::from(std::process::id()) << 64 | u128::from(now_micros().unsigned_abs());
        bytes = seed.to_be_bytes();
    }
    RunId::from_bytes(bytes)
}

fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// Gives for how long the kernel is up: `/proc/uptime` is hidden by `ProcSubset=pid`, the clock is not.
fn up_secs() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec
}

fn booted_at(now: Instant) -> Option<Instant> {
    let up = up_secs();
    let up = container_age_secs().map_or(up, |age| age.clamp(0, up));
    Some(now.plus_secs(-up))
}

/// Tells for how long this container is up, if it is one: the kernel only knows of the machine below.
fn container_age_secs() -> Option<i64> {
    // systemd writes it when it begins (<https://systemd.io/CONTAINER_INTERFACE>).
    let begun = rustix::fs::stat("/run/systemd/container").ok()?.st_mtime;
    // The clock that stamped the file.
    Some(
        clock_gettime(ClockId::Realtime)
            .tv_sec
            .saturating_sub(begun),
    )
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemClock;

impl edge::Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::from_micros(now_micros())
    }
}

/// The kernel's random numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemEntropy;

impl edge::Entropy for SystemEntropy {
    #[expect(
        clippy::panic,
        reason = "a key made without entropy would be worse than no backup"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            panic!("the kernel gives no random numbers: {error}");
        }
    }
}
