//! `backstay-agentd join`: binds this server to the controller of a join code, which comes in by
//! standard input. `backstayctl join` calls it as root.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::{Exit, Secret};
use protocol::{
    JoinAnswer, JoinCode, JoinCodeError, JoinError, JoinRecord, JoinRequest, Nonce, PublicKey,
};
use serde::Deserialize;
use thiserror::Error;

use super::client::{self, CallError, Pinned};
use super::identity::{self, Identity, IdentityError};
use super::{Places, facts};
use crate::pin::Pin;

const CODE_BYTES_MAX: u64 = 4096;
const TIME_MAX: Duration = Duration::from_secs(30);

/// Says why this server did not join. Nothing was kept, except where it says so.
#[derive(Debug, Error)]
pub enum JoinFailure {
    /// The code cannot be read from standard input.
    #[error("reading the join code from standard input")]
    Input(#[source] std::io::Error),
    /// The code is not one.
    #[error("the join code cannot be used")]
    Code(#[from] JoinCodeError),
    /// The server is joined already.
    #[error("this server has joined {host} already, as {name}; nothing was changed")]
    Joined {
        /// The controller.
        host: String,
        /// The server's name there.
        name: String,
    },
    /// The identity cannot be read or kept.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The controller did not answer or refused.
    #[error("joining the controller at {host}")]
    Call {
        /// The controller.
        host: String,
        /// Why.
        #[source]
        source: CallError,
    },
    /// Whoever answers is not the controller of the code.
    #[error("whoever answers at {host} is not believed; nothing was told")]
    Proof {
        /// The address.
        host: String,
        /// Why.
        #[source]
        source: JoinError,
    },
    /// The answer cannot be read.
    #[error("the answer of {host} is not understood")]
    Answer {
        /// The address.
        host: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The joining is kept, but nothing that the controller sends will be obeyed.
    #[error(
        "joined, but {path} cannot be written, so that nothing of this controller is obeyed yet; join again as root with --anew"
    )]
    Pin {
        /// The file that says which controller is obeyed.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system refused something.
    #[error("preparing to join")]
    System(#[source] std::io::Error),
}

impl JoinFailure {
    const fn exit(&self) -> Exit {
        match self {
            Self::Input(_) | Self::Code(_) => Exit::Usage,
            Self::Call {
                source: CallError::Offline(_) | CallError::Busy { .. },
                ..
            } => Exit::Unreachable,
            _ => Exit::Failed,
        }
    }
}

/// Reads the code, joins, and says so. With `anew`, a server that is joined already joins again.
#[must_use]
#[expect(
    clippy::print_stderr,
    reason = "backstayctl shows it to the person who joins"
)]
pub fn main(anew: bool) -> Exit {
    let places = Places::below(Path::new("/"));
    let joined = read_code().and_then(|code| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(JoinFailure::System)?;
        runtime.block_on(join(&places, code.reveal(), anew))
    });
    match joined {
        Ok(record) => {
            eprintln!("Joined {} as {}.", record.host, record.server_name);
            eprintln!("Fingerprint: {}", fingerprint(&places).unwrap_or_default());
            Exit::Done
        }
        Err(failure) => {
            eprintln!("Error: {}", crate::log::chain(&failure));
            failure.exit()
        }
    }
}

fn fingerprint(places: &Places) -> Option<String> {
    let key = identity::key(&places.state("identity")).ok()?;
    Some(key.public().fingerprint())
}

fn read_code() -> Result<Secret, JoinFailure> {
    let mut text = String::new();
    std::io::stdin()
        .take(CODE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(JoinFailure::Input)?;
    Ok(Secret::new(text))
}

#[derive(Deserialize)]
struct Greeting {
    key: PublicKey,
}

/// Joins the controller of `code`: both sides prove that they know it.
///
/// # Errors
///
/// `JoinFailure`; the same code may be used again until it worked once.
pub async fn join(places: &Places, code: &str, anew: bool) -> Result<JoinRecord, JoinFailure> {
    let dir = places.state("identity");
    let code = JoinCode::parse(code)?;
    if let Some(known) = Identity::read(&dir)?
        && !anew
    {
        return Err(JoinFailure::Joined {
            host: known.record.host,
            name: known.record.server_name.into(),
        });
    }
    let host = code.host().to_owned();
    let call = |source| JoinFailure::Call {
        host: host.clone(),
        source,
    };
    let proof = |source| JoinFailure::Proof {
        host: host.clone(),
        source,
    };
    let unread = |source| JoinFailure::Answer {
        host: host.clone(),
        source,
    };
    let verifier = Arc::new(Pinned::new(None));
    let http = client::http(Arc::clone(&verifier)).map_err(call)?;
    let url = format!("https://{host}/agent/v1/join");
    let greeting = client::answer(http.get(&url).timeout(TIME_MAX))
        .await
        .map_err(call)?;
    let greeting: Greeting = serde_json::from_slice(&greeting).map_err(unread)?;
    if greeting.key.hash() != code.controller() {
        return Err(proof(JoinError::WrongController));
    }
    let key = identity::key(&dir)?;
    let request = JoinRequest::new(&code, &key, nonce()?, facts::host(places));
    let body = serde_json::to_vec(&request).map_err(unread)?;
    let answer = client::answer(http.post(&url).timeout(TIME_MAX).body(body))
        .await
        .map_err(call)?;
    let answer: JoinAnswer = serde_json::from_slice(&answer).map_err(unread)?;
    let seen = verifier
        .seen()
        .ok_or_else(|| proof(JoinError::Intercepted))?;
    let record = answer.verify(&request, &code, &seen).map_err(proof)?;
    Identity::keep(&dir, &record)?;
    pin(places, &record)?;
    Ok(record)
}

/// Lets the root halves of the agent obey this controller from now on, and no other.
fn pin(places: &Places, record: &JoinRecord) -> Result<(), JoinFailure> {
    let pin = Pin {
        agent: record.agent,
        controller: record.controller,
    };
    let path = crate::pin::path(&places.root);
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    serde_json::to_vec(&pin)
        .map_err(std::io::Error::from)
        .and_then(|text| identity::write(directory, &name, &text))
        .map_err(|source| JoinFailure::Pin { path, source })
}

fn nonce() -> Result<Nonce, JoinFailure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(std::io::Error::other)
        .map_err(JoinFailure::System)?;
    Ok(Nonce::from_bytes(bytes))
}
