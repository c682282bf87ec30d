//! `credential set`: what this server needs to reach a destination, asked for and kept encrypted.

use clap::Subcommand;
use model::{DestinationName, Exit};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::credentials;
use crate::problem::Problem;
use crate::prompt;
use crate::screen::{Screen, plain};
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
    },
}

/// The text of a credential (`docs/ARCHITECTURE.md`, "Credentials").
#[derive(Serialize)]
struct AccessKey<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
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
    let CredentialVerb::Set { destination } = verb;
    server.as_root("storing a credential")?;
    server.installed()?;
    let id = prompt::open("Access key id: ")?;
    let secret = prompt::secret("Secret access key: ")?;
    let text = Zeroizing::new(text_of(id.trim(), secret.reveal().trim())?);
    let name = format!("destination-{destination}");
    let path = server.credential_store().join(format!("{name}.cred"));
    credentials::encrypt(&name, text.as_bytes(), &path)?;
    if screen.is_json() {
        screen.json(&serde_json::json!({ "credential": name, "stored_in": path }))?;
    } else {
        screen.line(&[plain(format!(
            "Stored the credential of destination {destination} in {}.",
            path.display()
        ))])?;
        screen.line(&[plain(
            "It is used from the next run on; 'backstayctl apply' makes it known to new schedules.",
        )])?;
    }
    Ok(Exit::Done)
}

fn text_of(id: &str, secret: &str) -> Result<String, Problem> {
    if id.is_empty() || secret.is_empty() {
        return Err(Problem::new(
            Exit::Usage,
            "access key id and secret access key must not be empty",
        ));
    }
    toml::to_string(&AccessKey {
        access_key_id: id,
        secret_access_key: secret,
    })
    .map_err(|error| Problem::new(Exit::Failed, "cannot write the credential").because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_toml_and_survives_quotes() {
        let text = text_of("id", "a\"b\\c").unwrap();
        let read: toml::Table = text.parse().unwrap();
        assert_eq!(read["access_key_id"].as_str(), Some("id"));
        assert_eq!(read["secret_access_key"].as_str(), Some("a\"b\\c"));
    }

    #[test]
    fn an_empty_secret_is_refused() {
        assert_eq!(text_of("id", "").unwrap_err().exit(), Exit::Usage);
    }
}
