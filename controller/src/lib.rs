//! The controller: API, state and dashboard. It holds no key and no credential of a backup.

mod agents;
mod api;
mod authorize;
mod certificate;
mod cli;
mod config;
mod dashboard;
mod events;
mod live;
mod password;
mod problem;
mod schedule;
mod server;
mod store;
mod throttle;

pub use cli::main;
pub use config::{Config, ConfigError};
pub use server::{Controller, StartError};

use model::Instant;

/// Gives the wall clock's time.
fn now() -> Instant {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Gives random bytes from the kernel.
fn random<const N: usize>() -> Result<[u8; N], problem::Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| problem::Problem::internal("drawing random bytes", &error))?;
    Ok(bytes)
}
