//! The root half of the agent: verifies configuration, writes units, talks to systemd.
//!
//! It has no network and no capability. What it may be asked is in `protocol::control`.

mod bus;
mod engine;
mod error;
mod files;
mod generations;
mod host;
mod keys;
mod observe;
mod paths;
mod plan;
mod server;
mod status;
mod verify;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use model::Exit;

use bus::System;
use engine::{Engine, Inbox};
use error::ApplyError;
use paths::Paths;

/// Serves the apply socket until nobody asks.
#[must_use]
pub fn main() -> Exit {
    let paths = Paths::below("/");
    let listener = match listener(&paths) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("cannot listen on the apply socket: {error}");
            return Exit::Failed;
        }
    };
    run(async {
        let system = System::connect().await?;
        server::serve(&system, &paths, listener)
            .await
            .map_err(ApplyError::file("serve", Path::new("the apply socket")))?;
        Ok(Exit::Done)
    })
}

/// Finishes an apply that was cut and puts right what was changed by hand, once.
#[must_use]
pub fn reconcile() -> Exit {
    let paths = Paths::below("/");
    run(async {
        let system = System::connect().await?;
        let engine = Engine::new(&system, &paths);
        let outcome = engine.apply(Inbox::Leave).await?;
        for drift in &outcome.repaired {
            tracing::warn!(unit = drift.unit, "put right: {}", drift.detail);
        }
        for drift in &outcome.held {
            tracing::info!(unit = drift.unit, "left as it is: {}", drift.detail);
        }
        Ok(Exit::Done)
    })
}

/// Takes the socket that systemd hands over as standard input; started by hand, makes its own.
fn listener(paths: &Paths) -> io::Result<UnixListener> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    if rustix::net::sockopt::socket_acceptconn(&input).unwrap_or(false) {
        return Ok(UnixListener::from(input));
    }
    let path = paths.inside(Path::new("/run/backstay/apply.sock"));
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{} is served already", path.display()),
        ));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // Only root, until systemd's own socket with its group is back.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn run(work: impl Future<Output = Result<Exit, ApplyError>>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return Exit::Failed;
        }
    };
    result.unwrap_or_else(|error| {
        tracing::error!("{}", error.chain());
        match error {
            ApplyError::Configuration(problems) => {
                for problem in problems.all() {
                    tracing::error!("{problem}");
                }
                Exit::BadConfiguration
            }
            _ => Exit::Failed,
        }
    })
}
