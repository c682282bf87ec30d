//! The machine that this program runs on: systemd over D-Bus, its checker, its credentials.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use model::{Instant, ScheduleName};
use settings::units::{drop_in, schedule_of, timer_unit};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zbus::OwnedObjectPath;
use zbus::OwnedVariant;
use zbus::export::futures_core::Stream;
use zbus::proxy::CacheProperties;

use super::error::ApplyError;
use super::host::{Elapses, Host, JOBS_IN_FLIGHT_MAX, UnitState, Unsealed, Verb};

/// Longest wait for one batch of systemd jobs.
const JOBS_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest run of a program of systemd.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(120);
/// Programs that encrypt at one time.
const SEALERS_MAX: usize = 8;
/// Signals that may wait to be read: each job of a batch and of others at the same time.
const QUEUE_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(8191);
/// Output of a program that is kept for the message.
const SAID_MAX: usize = 4000;

/// Unit name, description, load, active and sub state, followed unit, path, job id, type and path.
type ListedUnit = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// Type, link and target of a change that enabling or disabling made.
type LinkChange = (String, String, String);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn enable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<LinkChange>)>;
    fn disable_unit_files(&self, files: &[&str], runtime: bool) -> zbus::Result<Vec<LinkChange>>;
    fn list_units_by_patterns(
        &self,
        states: &[&str],
        patterns: &[&str],
    ) -> zbus::Result<Vec<ListedUnit>>;

    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

/// systemd as it runs here.
pub(crate) struct System {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
}

fn failed(doing: &str) -> impl FnOnce(zbus::Error) -> ApplyError + '_ {
    move |error| ApplyError::Systemd {
        doing: doing.to_owned(),
        detail: error.to_string(),
    }
}

impl System {
    /// Connects to the system bus.
    pub(crate) async fn connect() -> Result<Self, ApplyError> {
        let doing = "be reached over the system bus";
        let connection = zbus::connection::Builder::system()
            .max_queued(QUEUE_MAX)
            .method_timeout(PROGRAM_TIMEOUT)
            .build()
            .await
            .map_err(failed(doing))?;
        let manager = ManagerProxy::builder(&connection)
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .map_err(failed(doing))?;
        // Without it systemd sends no signals about jobs.
        manager.subscribe().await.map_err(failed(doing))?;
        Ok(Self {
            connection,
            manager,
        })
    }

    async fn enqueue(&self, verb: Verb, unit: &str) -> zbus::Result<OwnedObjectPath> {
        match verb {
            Verb::Start => self.manager.start_unit(unit, "replace").await,
            Verb::Stop => self.manager.stop_unit(unit, "replace").await,
            Verb::Restart => self.manager.restart_unit(unit, "replace").await,
        }
    }

    /// Does one batch and waits until systemd has finished each job.
    async fn batch(
        &self,
        verb: Verb,
        units: &[String],
        failures: &mut BTreeMap<String, String>,
    ) -> Result<(), ApplyError> {
        let doing = "tell which jobs it finished";
        let mut signals = self
            .manager
            .receive_job_removed()
            .await
            .map_err(failed(doing))?;
        let mut waiting = BTreeMap::new();
        for unit in units {
            match self.enqueue(verb, unit).await {
                Ok(job) => {
                    waiting.insert(job.to_string(), unit.clone());
                }
                Err(error) => {
                    failures.insert(unit.clone(), error.to_string());
                }
            }
        }
        let all = async {
            while !waiting.is_empty() {
                let Some(signal) = poll_fn(|cx| Pin::new(&mut signals).poll_next(cx)).await else {
                    return Err(zbus::Error::Failure("the bus is gone".to_owned()));
                };
                let arguments = signal.args()?;
                if let Some(unit) = waiting.remove(arguments.job.as_str())
                    && arguments.result != "done"
                {
                    failures.insert(unit, format!("the job ended as {}", arguments.result));
                }
            }
            Ok(())
        };
        match timeout(JOBS_TIMEOUT, all).await {
            Ok(result) => result.map_err(failed(doing)),
            Err(_) => {
                for unit in waiting.into_values() {
                    let why = format!("the job did not end within {}s", JOBS_TIMEOUT.as_secs());
                    failures.insert(unit, why);
                }
                Ok(())
            }
        }
    }
}

impl Host for System {
    fn now(&self) -> Instant {
        Instant::from_micros(jiff::Timestamp::now().as_microsecond())
    }

    fn step(&self, what: &str) -> Result<(), ApplyError> {
        tracing::trace!("{what}");
        Ok(())
    }

    async fn timers(&self) -> Result<BTreeMap<ScheduleName, UnitState>, ApplyError> {
        let units = self
            .manager
            .list_units_by_patterns(&[], &["backstay-job@*.timer"])
            .await
            .map_err(failed("list the timers"))?;
        let states = units.into_iter().filter_map(|unit| {
            let name = schedule_of(&drop_in(&unit.0))?;
            let state = UnitState {
                load: unit.2,
                active: unit.3,
                sub: unit.4,
            };
            Some((name, state))
        });
        Ok(states.collect())
    }

    async fn elapses(&self, names: &[&ScheduleName]) -> Result<Vec<Elapses>, ApplyError> {
        let mut waiting = names.iter().map(|name| timer_unit(name)).enumerate();
        let mut tasks = JoinSet::new();
        let mut all = vec![Elapses::default(); names.len()];
        loop {
            // Several questions under way: a thousand round trips in turn would take seconds.
            while tasks.len() < JOBS_IN_FLIGHT_MAX
                && let Some((position, unit)) = waiting.next()
            {
                let connection = self.connection.clone();
                tasks.spawn(async move {
                    let answer = elapses(&connection, &unit).await;
                    answer
                        .map(|elapses| (position, elapses))
                        .map_err(failed(&format!("say when {unit} elapses")))
                });
            }
            let Some(task) = tasks.join_next().await else {
                return Ok(all);
            };
            let ended = |error: tokio::task::JoinError| ApplyError::Systemd {
                doing: "say when timers elapse".to_owned(),
                detail: error.to_string(),
            };
            let (position, answer) = task.map_err(ended)??;
            if let Some(place) = all.get_mut(position) {
                *place = answer;
            }
        }
    }

    async fn enable(&self, units: &[String]) -> Result<(), ApplyError> {
        if units.is_empty() {
            return Ok(());
        }
        let units: Vec<&str> = units.iter().map(String::as_str).collect();
        let done = self.manager.enable_unit_files(&units, false, false).await;
        done.map(drop).map_err(failed("enable timers"))
    }

    async fn disable(&self, units: &[String]) -> Result<(), ApplyError> {
        if units.is_empty() {
            return Ok(());
        }
        let units: Vec<&str> = units.iter().map(String::as_str).collect();
        let done = self.manager.disable_unit_files(&units, false).await;
        done.map(drop).map_err(failed("disable timers"))
    }

    async fn reload(&self) -> Result<(), ApplyError> {
        self.manager.reload().await.map_err(failed("reload"))
    }

    async fn change(
        &self,
        verb: Verb,
        units: &[String],
    ) -> Result<BTreeMap<String, String>, ApplyError> {
        let mut failures = BTreeMap::new();
        for batch in units.chunks(JOBS_IN_FLIGHT_MAX) {
            self.batch(verb, batch, &mut failures).await?;
        }
        Ok(failures)
    }

    async fn verify(&self, directory: &Path, units: &[String]) -> Result<String, ApplyError> {
        // Without /etc: what an administrator added beside our files is not ours to judge.
        let path = format!(
            "{}:/usr/local/lib/systemd/system:/usr/lib/systemd/system:/lib/systemd/system",
            directory.display()
        );
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .args(units)
            .env("SYSTEMD_UNIT_PATH", path)
            .env("SYSTEMD_LOG_TARGET", "console")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = finish("systemd-analyze", output).await?;
        let mut said = output.stderr;
        said.extend_from_slice(&output.stdout);
        let mut said = String::from_utf8_lossy(&said).trim().to_owned();
        if said.is_empty() && !output.status.success() {
            said = format!("it ended with {}", output.status);
        }
        Ok(shorten(said))
    }

    async fn seal_all(&self, secrets: Vec<Unsealed>) -> Result<Vec<Vec<u8>>, (String, String)> {
        let count = secrets.len();
        let mut waiting = secrets.into_iter().enumerate();
        let mut tasks = JoinSet::new();
        let mut sealed = vec![Vec::new(); count];
        loop {
            while tasks.len() < SEALERS_MAX
                && let Some((position, (name, secret))) = waiting.next()
            {
                tasks.spawn(async move {
                    let result = seal(&name, secret.as_slice()).await;
                    (position, name, result)
                });
            }
            match tasks.join_next().await {
                None => return Ok(sealed),
                Some(Err(error)) => return Err((String::new(), error.to_string())),
                Some(Ok((_, name, Err(why)))) => return Err((name, why)),
                Some(Ok((position, _, Ok(bytes)))) => {
                    if let Some(place) = sealed.get_mut(position) {
                        *place = bytes;
                    }
                }
            }
        }
    }
}

/// Asks for both elapses of a timer in one call.
async fn elapses(connection: &zbus::Connection, unit: &str) -> zbus::Result<Elapses> {
    let reply = connection
        .call_method(
            Some("org.freedesktop.systemd1"),
            object_path(unit),
            Some("org.freedesktop.DBus.Properties"),
            "GetAll",
            &("org.freedesktop.systemd1.Timer",),
        )
        .await?;
    let body = reply.body();
    let all: HashMap<String, OwnedVariant> = body.deserialize()?;
    // 0 stands for "not armed" and "never".
    let instant = |name: &str| {
        let micros = u64::try_from(all.get(name)?).ok()?;
        let micros = i64::try_from(micros).ok().filter(|&m| m > 0);
        micros.map(Instant::from_micros)
    };
    Ok(Elapses {
        next: instant("NextElapseUSecRealtime"),
        last: instant("LastTriggerUSec"),
    })
}

/// Lets systemd encrypt one secret, which goes in by standard input.
async fn seal(name: &str, secret: &[u8]) -> Result<Vec<u8>, String> {
    // The host's own key, never a TPM: a mainboard that is replaced must not take the
    // backups with it.
    let child = Command::new("systemd-creds")
        .args(["encrypt", "--with-key=host"])
        .arg(format!("--name={name}"))
        .args(["-", "-"])
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| format!("systemd-creds does not start: {error}"))?;
    let mut input = child.stdin.take();
    let work = async {
        if let Some(mut input) = input.take() {
            input.write_all(secret).await?;
            input.shutdown().await?;
        }
        child.wait_with_output().await
    };
    let output = finish("systemd-creds", work)
        .await
        .map_err(|error| error.to_string())?;
    if output.status.success() && !output.stdout.is_empty() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(shorten(format!("{}: {said}", output.status)))
}

/// Gives the object of a unit: each byte that is not a letter or digit becomes `_` and its number.
fn object_path(unit: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    for (position, byte) in unit.bytes().enumerate() {
        let plain = byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && position > 0);
        if plain {
            path.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(path, "_{byte:02x}");
        }
    }
    path
}

async fn finish(
    program: &'static str,
    work: impl Future<Output = std::io::Result<std::process::Output>>,
) -> Result<std::process::Output, ApplyError> {
    let failed = |detail: String| ApplyError::Program { program, detail };
    match timeout(PROGRAM_TIMEOUT, work).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "it did not end within {}s",
            PROGRAM_TIMEOUT.as_secs()
        ))),
    }
}

fn shorten(mut text: String) -> String {
    if text.len() > SAID_MAX {
        let end = (0..=SAID_MAX)
            .rev()
            .find(|&end| text.is_char_boundary(end))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_systemd_does() {
        assert_eq!(
            object_path("backstay-job@a.b-1.timer"),
            "/org/freedesktop/systemd1/unit/backstay_2djob_40a_2eb_2d1_2etimer"
        );
    }
}
