//! The apply socket: how anything is done as root, also while the agent's daemon is dead, because
//! systemd holds the socket.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use model::Exit;
use protocol::control::{
    ApplyOutcome, CONTROL_REPLY_BYTES_MAX, ControlReply, ControlRequest, SystemStatus,
};

use crate::problem::Problem;
use crate::server::{Server, not_allowed};

/// How long an answer may take: an apply of a thousand schedules waits for systemd.
const ANSWERS_WITHIN: Duration = Duration::from_secs(300);

/// Lets the agent apply, or say what it would do.
///
/// # Errors
///
/// When the socket cannot be used, or the agent refused; what was in force then stays.
pub fn apply(server: &Server, request: &ControlRequest) -> Result<ApplyOutcome, Problem> {
    match ask(server, request)? {
        ControlReply::Applied(outcome) => Ok(outcome),
        other => Err(unexpected(&other)),
    }
}

/// Lets systemd start the unit that a `start-` word names.
///
/// # Errors
///
/// As [`apply`].
pub fn start(server: &Server, request: &ControlRequest) -> Result<String, Problem> {
    match ask(server, request)? {
        ControlReply::Started { unit } => Ok(unit),
        other => Err(unexpected(&other)),
    }
}

/// Asks how timers stand.
///
/// # Errors
///
/// When the socket cannot be used.
pub fn status(server: &Server) -> Result<SystemStatus, Problem> {
    match ask(server, &ControlRequest::Status {})? {
        ControlReply::Status(status) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

fn ask(server: &Server, request: &ControlRequest) -> Result<ControlReply, Problem> {
    server.installed()?;
    let path = server.apply_socket();
    let mut stream = UnixStream::connect(&path).map_err(|error| no_socket(&path, &error))?;
    let line = exchange(&mut stream, request).map_err(|error| {
        Problem::new(
            Exit::Unreachable,
            "the agent's apply service does not answer",
        )
        .cause(format!("speaking with {}", path.display()))
        .because(&error)
        .hint("journalctl -u backstay-apply -n 50")
    })?;
    let reply = serde_json::from_slice(&line).map_err(|error| {
        Problem::new(Exit::Failed, "cannot understand the agent's answer")
            .because(&error)
            .hint("are backstay-agent and backstay-ctl of the same version? dpkg -l 'backstay-*'")
    })?;
    match reply {
        ControlReply::Failed {
            code,
            message,
            problems,
        } => Err(refused(&code, &message, &problems)),
        reply => Ok(reply),
    }
}

fn exchange(stream: &mut UnixStream, request: &ControlRequest) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.shutdown(Shutdown::Write)?;
    let bound = u64::try_from(CONTROL_REPLY_BYTES_MAX).unwrap_or(u64::MAX);
    let mut reply = Vec::new();
    BufReader::new(stream.take(bound)).read_until(b'\n', &mut reply)?;
    if reply.is_empty() {
        return Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "it ended without an answer",
        ));
    }
    Ok(reply)
}

fn no_socket(path: &std::path::Path, error: &io::Error) -> Problem {
    if error.kind() == ErrorKind::PermissionDenied {
        return not_allowed("asking the agent");
    }
    Problem::new(Exit::Unreachable, "cannot reach the agent's apply service")
        .cause(format!("connecting to {}", path.display()))
        .because(error)
        .hint("systemctl start backstay-apply.socket")
}

/// Gives the problem that a refusal is; each frozen word has one exit code.
fn refused(code: &str, message: &str, problems: &[String]) -> Problem {
    let mut lines = message.lines();
    let what = lines.next().unwrap_or("the agent refused").to_owned();
    let exit = match code {
        "bad_configuration" => Exit::BadConfiguration,
        "busy" => Exit::Busy,
        _ => Exit::Failed,
    };
    let problem = lines.chain(problems.iter().map(String::as_str)).fold(
        Problem::new(exit, model::escape(what.as_bytes())),
        |problem, cause| problem.cause(model::escape(cause.trim().as_bytes())),
    );
    match code {
        "bad_configuration" => {
            problem.hint("what was applied before stays in force; backstayctl validate")
        }
        "no_schedule" => problem.hint("backstayctl schedule list"),
        "not_allowed" => problem.hint("only root may ask this: use sudo"),
        "busy" => problem.hint("another apply is under way: try again when it has ended"),
        "rolled_back" => {
            problem.hint("what was in force is in force again; journalctl -u backstay-apply -n 50")
        }
        _ => problem.hint("journalctl -u backstay-apply -n 50"),
    }
}

fn unexpected(reply: &ControlReply) -> Problem {
    let word = match reply {
        ControlReply::Applied(_) => "applied",
        ControlReply::Started { .. } => "started",
        ControlReply::Status(_) => "status",
        ControlReply::Failed { .. } => "failed",
    };
    Problem::new(
        Exit::Failed,
        format!("the agent gave another answer: {word}"),
    )
    .hint("are backstay-agent and backstay-ctl of the same version? dpkg -l 'backstay-*'")
}
