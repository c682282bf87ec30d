//! What a job reads before it works.

use std::path::Path;

use model::Instant;
use settings::{Problems, Schedule, Settings};

/// Reads the configuration in force.
pub(super) fn load() -> Result<Settings, Problems> {
    crate::configuration::load(Path::new("/"))
}

/// Gives the instant since which a schedule's timer is armed.
pub(super) fn armed_since(schedule: &Schedule) -> Option<Instant> {
    crate::configuration::armed_since(Path::new("/"), schedule)
}

/// Gives the server's name in the fleet, else its host name.
pub(super) fn host_name(settings: &Settings) -> String {
    match &settings.agent.server {
        Some(name) => name.to_string(),
        None => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
    }
}
