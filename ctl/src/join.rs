//! `join`: binds this server to a controller. The agent's own program does it, because the
//! identity that it makes is the agent's; the code goes in by standard input.

use std::io::Write as _;
use std::process::{Command, Stdio};

use clap::Args;
use model::{Exit, Secret};
use protocol::JoinCode;

use crate::problem::Problem;
use crate::prompt;
use crate::server::Server;

/// How to join.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// The one-line code that the dashboard shows under "Add server"; asked for when not given,
    /// so that it need not stay in the shell's history
    ///
    /// "-" reads it from standard input. A code is good once, for an hour.
    code: Option<String>,
    /// Join although this server has joined a controller before
    #[arg(long)]
    anew: bool,
}

/// Joins the controller that the code names.
///
/// # Errors
///
/// When the code is damaged, or the agent could not join; its own message says why.
pub fn join(server: &Server, arguments: &JoinArguments) -> Result<Exit, Problem> {
    server.as_root("joining a controller")?;
    server.installed()?;
    let code = match arguments.code.as_deref() {
        Some(code) if code != "-" => Secret::new(code.to_owned()),
        _ => prompt::secret("Join code: ")?,
    };
    JoinCode::parse(code.reveal()).map_err(|error| {
        Problem::new(Exit::Usage, "cannot use the join code")
            .because(&error)
            .hint("make a fresh code in the dashboard: Servers, Add server")
    })?;
    let agent = server.agent();
    let failed = |error: std::io::Error| {
        Problem::new(Exit::Failed, format!("cannot run {} join", agent.display())).because(&error)
    };
    let mut child = Command::new(&agent)
        .arg("join")
        .args(arguments.anew.then_some("--anew"))
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(format!("{}\n", code.reveal().trim()).as_bytes())
            .map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    // The agent's own exit codes are those of the same document.
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Exit::ALL
        .into_iter()
        .find(|exit| Some(exit.code()) == code)
        .unwrap_or(Exit::Failed))
}
