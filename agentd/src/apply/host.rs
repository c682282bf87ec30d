//! The edge to the machine: what apply asks of systemd, so that tests can answer instead.

use std::collections::BTreeMap;
use std::path::Path;

use model::{Instant, ScheduleName};
use zeroize::Zeroizing;

use super::error::ApplyError;

/// The most systemd jobs that are under way at one time: with 512 unfinished ones systemd 252
/// loses its bus connection.
pub(crate) const JOBS_IN_FLIGHT_MAX: usize = 64;

/// How a unit stands, in systemd's words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UnitState {
    /// `loaded`, `not-found`, `bad-setting`, `masked`.
    pub(crate) load: String,
    /// `active`, `inactive`, `failed`.
    pub(crate) active: String,
    /// `waiting`, `running`, `elapsed`, `dead`, `failed`.
    pub(crate) sub: String,
}

/// When a timer elapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Elapses {
    pub(crate) next: Option<Instant>,
    pub(crate) last: Option<Instant>,
}

/// What is asked of a list of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
}

/// A secret and the name that it will open under.
pub(crate) type Unsealed = (String, Zeroizing<[u8; 32]>);

/// A machine with systemd.
pub(crate) trait Host {
    /// Gives the time.
    fn now(&self) -> Instant;

    /// Comes before each change of a file, so that tests can cut the work there.
    fn step(&self, what: &str) -> Result<(), ApplyError>;

    /// Gives the state of each loaded timer of ours.
    async fn timers(&self) -> Result<BTreeMap<ScheduleName, UnitState>, ApplyError>;

    /// Says when loaded timers elapse, in the same order.
    async fn elapses(&self, names: &[&ScheduleName]) -> Result<Vec<Elapses>, ApplyError>;

    /// Makes the links of units.
    async fn enable(&self, units: &[String]) -> Result<(), ApplyError>;

    /// Removes the links of units.
    async fn disable(&self, units: &[String]) -> Result<(), ApplyError>;

    /// Lets systemd read its files again.
    async fn reload(&self) -> Result<(), ApplyError>;

    /// Starts, stops or restarts units, at most [`JOBS_IN_FLIGHT_MAX`] at one time, and gives
    /// those that did not succeed with the reason.
    async fn change(
        &self,
        verb: Verb,
        units: &[String],
    ) -> Result<BTreeMap<String, String>, ApplyError>;

    /// Lets systemd's checker read units with the drop-ins below `directory`; gives what it says.
    async fn verify(&self, directory: &Path, units: &[String]) -> Result<String, ApplyError>;

    /// Encrypts secrets for this machine, each under its name; the results are in the same order.
    /// An error names the one that failed.
    async fn seal_all(&self, secrets: Vec<Unsealed>) -> Result<Vec<Vec<u8>>, (String, String)>;
}
