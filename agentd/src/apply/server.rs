//! The apply socket: who asks, what is asked, one line each way.

use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::time::Duration;

use model::ScheduleName;
use protocol::control::{CONTROL_REQUEST_BYTES_MAX, ControlReply, ControlRequest};
use settings::units::service_unit;
use settings::{Folders, Guard, Permission};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::engine::{Engine, Inbox};
use super::error::ApplyError;
use super::host::{Host, Verb};
use super::paths::Paths;

/// Ends when nobody asked for this long; the socket starts it again.
const IDLE: Duration = Duration::from_secs(30);
/// A peer must have sent its line by then.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// uid 0: the owner of this server.
    Root,
    /// The agent, which speaks for the controller.
    Agent,
}

/// Finds out who may speak: uid 0 and the user `backstay`.
pub(crate) fn peer(uid: u32, agent_uid: Option<u32>) -> Option<Peer> {
    match uid {
        0 => Some(Peer::Root),
        uid if Some(uid) == agent_uid => Some(Peer::Agent),
        _ => None,
    }
}

/// Finds the uid of a system user in the user database's file, where sysusers puts it.
pub(crate) fn uid_of(user: &str, passwd: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(passwd).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Answers requests until nobody asks any more.
pub(crate) async fn serve<H: Host>(
    host: &H,
    paths: &Paths,
    listener: StdListener,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let agent = uid_of("backstay", &paths.inside(Path::new("/etc/passwd")));
    loop {
        // One after another: two applies could not run at one time anyway.
        match timeout(IDLE, listener.accept()).await {
            Err(_) => return Ok(()),
            Ok(Err(error)) => tracing::warn!("cannot accept a connection: {error}"),
            Ok(Ok((stream, _))) => {
                if let Err(error) = answer_one(host, paths, stream, agent).await {
                    tracing::warn!("a connection ended early: {error}");
                }
            }
        }
    }
}

async fn answer_one<H: Host>(
    host: &H,
    paths: &Paths,
    mut stream: UnixStream,
    agent: Option<u32>,
) -> std::io::Result<()> {
    let credentials = stream.peer_cred()?;
    let reply = match peer(credentials.uid(), agent) {
        None => refused("not_allowed", "only root and the agent may ask"),
        Some(peer) => match timeout(REQUEST_TIMEOUT, read_request(&mut stream)).await {
            Err(_) => refused("bad_request", "no request came"),
            Ok(Err(why)) => refused("bad_request", &why),
            Ok(Ok(request)) => {
                note(&request, credentials.uid());
                answer(host, paths, peer, request).await
            }
        },
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    timeout(REQUEST_TIMEOUT, async {
        stream.write_all(&line).await?;
        stream.shutdown().await
    })
    .await?
}

/// Says who asked for what. The daemon asks for the status with each report: that is no news.
fn note(request: &ControlRequest, uid: u32) {
    match request {
        ControlRequest::Status {} | ControlRequest::Apply { dry_run: true } => {
            tracing::debug!(uid, ?request, "asked");
        }
        _ => tracing::info!(uid, ?request, "asked"),
    }
}

async fn read_request(stream: &mut UnixStream) -> Result<ControlRequest, String> {
    let bound = u64::try_from(CONTROL_REQUEST_BYTES_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    BufReader::new(stream.take(bound.saturating_add(1)))
        .read_until(b'\n', &mut line)
        .await
        .map_err(|error| format!("the request cannot be read: {error}"))?;
    if line.len() > CONTROL_REQUEST_BYTES_MAX {
        return Err(format!(
            "the request is longer than {CONTROL_REQUEST_BYTES_MAX} bytes"
        ));
    }
    serde_json::from_slice(&line).map_err(|error| format!("the request is not understood: {error}"))
}

fn refused(code: &str, message: &str) -> ControlReply {
    ControlReply::Failed {
        code: code.to_owned(),
        message: message.to_owned(),
        problems: Vec::new(),
    }
}

/// Does what a peer asks.
pub(crate) async fn answer<H: Host>(
    host: &H,
    paths: &Paths,
    peer: Peer,
    request: ControlRequest,
) -> ControlReply {
    let engine = Engine::new(host, paths);
    let done = match request {
        ControlRequest::Apply { dry_run: true } => {
            engine.dry_run().await.map(ControlReply::Applied)
        }
        ControlRequest::Apply { dry_run: false } => {
            engine.apply(Inbox::Take).await.map(ControlReply::Applied)
        }
        ControlRequest::Reconcile {} => engine.apply(Inbox::Leave).await.map(ControlReply::Applied),
        ControlRequest::Status {} => engine.status().await.map(ControlReply::Status),
        ControlRequest::StartJob { name } => {
            start(&engine, peer, Permission::Run, "job", &name).await
        }
        ControlRequest::StartRestore { name } => {
            start(&engine, peer, Permission::Restore, "restore", &name).await
        }
        ControlRequest::StartBrowse { name } => {
            start(&engine, peer, Permission::Browse, "browse", &name).await
        }
    };
    done.unwrap_or_else(|error| {
        tracing::warn!("{}", error.chain());
        error.reply()
    })
}

async fn start<H: Host>(
    engine: &Engine<'_, H>,
    peer: Peer,
    permission: Permission,
    kind: &str,
    name: &ScheduleName,
) -> Result<ControlReply, ApplyError> {
    if peer == Peer::Agent {
        let guard =
            Guard::load(&Folders::below(engine.paths.root())).map_err(ApplyError::Configuration)?;
        if !guard.allows(permission) {
            return Err(ApplyError::NotAllowed(format!(
                "guard.toml does not allow the controller to start a {kind}"
            )));
        }
    }
    if !engine.applied()?.schedules.contains(name) {
        return Err(ApplyError::NoSchedule(name.to_string()));
    }
    let unit = service_unit(kind, name);
    let failed = engine
        .host
        .change(Verb::Start, std::slice::from_ref(&unit))
        .await?;
    match failed.into_iter().next() {
        None => Ok(ControlReply::Started { unit }),
        Some((unit, detail)) => Err(ApplyError::Systemd {
            doing: format!("start {unit}"),
            detail: format!("{detail}; `journalctl -u {unit}` says more"),
        }),
    }
}
