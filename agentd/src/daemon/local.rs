//! The apply socket: how the daemon gets anything done as root.

use std::path::Path;
use std::time::Duration;

use protocol::control::{CONTROL_REPLY_BYTES_MAX, ControlReply, ControlRequest};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// An apply of a thousand schedules takes seconds; a hung one must not hold the daemon for ever.
const TIME_MAX: Duration = Duration::from_secs(300);

/// Says how a word to `apply` failed; it may be said again.
#[derive(Debug, Error)]
pub(super) enum LocalError {
    /// The socket cannot be used.
    #[error("speaking to the apply socket")]
    Socket(#[source] std::io::Error),
    /// The answer is not one.
    #[error("reading the answer of the apply socket")]
    Answer(#[source] serde_json::Error),
    /// No answer in time.
    #[error("the apply socket did not answer within {} s", TIME_MAX.as_secs())]
    Late,
}

/// Says one word and gives the answer.
pub(super) async fn say(
    socket: &Path,
    request: &ControlRequest,
) -> Result<ControlReply, LocalError> {
    tokio::time::timeout(TIME_MAX, exchange(socket, request))
        .await
        .map_err(|_| LocalError::Late)?
}

async fn exchange(socket: &Path, request: &ControlRequest) -> Result<ControlReply, LocalError> {
    let mut line = serde_json::to_vec(request).map_err(LocalError::Answer)?;
    line.push(b'\n');
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(LocalError::Socket)?;
    stream.write_all(&line).await.map_err(LocalError::Socket)?;
    let bound = u64::try_from(CONTROL_REPLY_BYTES_MAX).unwrap_or(u64::MAX);
    let mut answer = Vec::new();
    BufReader::new(stream.take(bound))
        .read_until(b'\n', &mut answer)
        .await
        .map_err(LocalError::Socket)?;
    serde_json::from_slice(&answer).map_err(LocalError::Answer)
}
