//! `credential set`: what this server needs to reach a destination, asked for and kept encrypted.

use std::path::PathBuf;

use clap::Subcommand;
use model::{DestinationName, Exit};
use protocol::control::ControlRequest;

use crate::control;
use crate::credentials;
use crate::problem::Problem;
use crate::screen::{Screen, plain};
use crate::secrets;
use crate::server::Server;

/// What to do with credentials.
#[derive(Debug, Subcommand)]
pub enum CredentialVerb {
    /// Ask for the access key of an S3 destination and keep it, encrypted for this machine
    ///
    /// Access key id and secret access key are read from the terminal, or as two lines from
    /// standard input; never from the command line, where every process could see them.
    Set {
        /// Which destination
        #[arg(value_name = "DESTINATION")]
        destination: DestinationName,
        /// Read it from this file instead: two lines, or TOML with access_key_id and
        /// secret_access_key; "-" reads standard input to its end
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
}

/// Does what was asked with a credential.
///
/// # Errors
///
/// When nothing was given, or it cannot be encrypted and stored; a former credential then stays.
pub fn credential(
    server: &Server,
    verb: &CredentialVerb,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let CredentialVerb::Set { destination, from } = verb;
    server.as_root("storing a credential")?;
    server.installed()?;
    let credential = match from {
        Some(path) => secrets::access_key(path)?,
        None => secrets::ask_access_key()?,
    };
    let text = credential.to_text();
    let name = format!("destination-{destination}");
    let path = server.credential_store().join(format!("{name}.cred"));
    credentials::encrypt(&name, text.reveal().as_bytes(), &path)?;
    // The units of schedules load it only once they are told to.
    control::apply(server, &ControlRequest::Apply { dry_run: false }).map_err(|problem| {
        problem
            .cause(format!(
                "the credential is stored in {}, but the units do not load it yet",
                path.display()
            ))
            .hint("backstayctl apply")
    })?;
    if screen.is_json() {
        screen.json(&serde_json::json!({ "credential": name, "stored_in": path }))?;
    } else {
        screen.line(&[plain(format!(
            "Stored the credential of destination {destination} in {}.",
            path.display()
        ))])?;
        screen.line(&[plain("It is used from the next run on.")])?;
    }
    Ok(Exit::Done)
}
