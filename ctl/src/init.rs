//! `init`: checks what the agent needs on this server and puts right what can be. Doing it again
//! changes nothing.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::Args;
use model::Exit;
use serde::Serialize;

use crate::configuration;
use crate::problem::Problem;
use crate::screen::{Screen, Tone, plain, toned};
use crate::server::Server;

/// The oldest systemd that has what the units use.
const SYSTEMD_MIN: u32 = 252;

/// The configuration that is written when there is none.
const AGENT_TOML: &str = include_str!("../starter/agent.toml");

/// The user that reads databases.
const DUMP_USER: &str = "backstay-dump";

/// The units that must be there for schedules to be applied and run.
const UNITS: [&str; 4] = [
    "backstay-apply.socket",
    "backstay-dump.socket",
    "backstay-load.socket",
    "backstay-schedules.target",
];

/// What to set up.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// Leave MariaDB alone: databases are then not backed up
    #[arg(long)]
    no_database: bool,
}

/// How one step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It was so already.
    Present,
    /// It was put right.
    Made,
    /// It does not apply here.
    Skipped,
    /// It is wrong.
    Failed,
}

/// One step, for people and programs.
#[derive(Debug, Serialize)]
struct Step {
    outcome: Outcome,
    what: String,
    hint: Option<String>,
}

impl Step {
    fn new(outcome: Outcome, what: impl Into<String>) -> Self {
        Self {
            outcome,
            what: what.into(),
            hint: None,
        }
    }

    fn failed(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            what: what.into(),
            hint: Some(hint.into()),
        }
    }
}

/// Sets this server up.
///
/// # Errors
///
/// When the caller is not root or the agent is not installed. A step that failed is shown, the
/// others are done all the same, and the exit code is 1.
pub fn init(
    server: &Server,
    arguments: &InitArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    server.as_root("setting up this server")?;
    server.installed()?;
    let steps = [
        systemd(),
        files(server),
        agent_toml(server),
        units(),
        database(server, arguments),
    ];
    let failed = steps.iter().any(|step| step.outcome == Outcome::Failed);
    if screen.is_json() {
        screen.json(&steps)?;
    } else {
        show(&steps, screen)?;
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn show(steps: &[Step], screen: &mut Screen) -> Result<(), Problem> {
    for step in steps {
        let (word, tone) = match step.outcome {
            Outcome::Present => ("ok     ", Tone::Good),
            Outcome::Made => ("made   ", Tone::Good),
            Outcome::Skipped => ("skipped", Tone::Faint),
            Outcome::Failed => ("FAILED ", Tone::Bad),
        };
        screen.line(&[toned(word, tone), plain("  "), plain(&step.what)])?;
        if let Some(hint) = &step.hint {
            screen.line(&[toned(format!("         Hint: {hint}"), Tone::Strong)])?;
        }
    }
    Ok(())
}

fn systemd() -> Step {
    let found = output("systemctl", &["--version"]).and_then(|text| version(&text));
    match found {
        Some(version) if version < SYSTEMD_MIN => Step::failed(
            format!("systemd {version} is older than {SYSTEMD_MIN}"),
            "Debian 12 or newer is needed",
        ),
        Some(_) if !Path::new("/run/systemd/system").exists() => Step::failed(
            "this machine was not booted with systemd",
            "timers need it; boot with systemd, then: backstayctl init",
        ),
        Some(version) => Step::new(Outcome::Present, format!("systemd {version}")),
        None => Step::failed("systemctl does not answer", "apt install systemd"),
    }
}

/// Reads `252` from `systemd 252 (252.39-1~deb12u1)`.
fn version(text: &str) -> Option<u32> {
    text.split_whitespace().nth(1)?.parse().ok()
}

fn files(server: &Server) -> Step {
    let folders = [
        server.credential_store(),
        server.generations(),
        server.identity(),
    ];
    let missing = |path: &&std::path::PathBuf| !path.is_dir();
    if !folders.iter().any(|path| missing(&path)) {
        return Step::new(Outcome::Present, "users and directories");
    }
    let made = succeeds("systemd-sysusers", &["backstay.conf"])
        && succeeds("systemd-tmpfiles", &["--create", "backstay.conf"]);
    match folders.iter().find(missing) {
        None if made => Step::new(Outcome::Made, "users and directories"),
        missing => Step::failed(
            format!(
                "cannot make {}",
                missing.map_or("users and directories".into(), |p| p.display().to_string())
            ),
            "systemd-sysusers backstay.conf && systemd-tmpfiles --create backstay.conf",
        ),
    }
}

fn agent_toml(server: &Server) -> Step {
    let path = server.configuration().join("agent.toml");
    if !path.exists() {
        if let Err(error) = write_configuration(&path) {
            return Step::failed(
                format!("cannot write {}: {error}", path.display()),
                "df -h /etc",
            );
        }
        return Step::new(Outcome::Made, path.display().to_string());
    }
    match configuration::load(server) {
        Ok(settings) => Step::new(
            Outcome::Present,
            format!(
                "configuration: {}, {}",
                crate::screen::counted(settings.schedules.len(), "schedule"),
                crate::screen::counted(settings.destinations.len(), "destination"),
            ),
        ),
        Err(_) => Step::failed("the configuration has faults", "backstayctl validate"),
    }
}

fn write_configuration(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, chown};
    // The folder beside it belongs to root and to the agent's group; the file will too.
    let group = std::fs::metadata(path.with_file_name("schedules.d"))?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(path)?;
    file.write_all(AGENT_TOML.as_bytes())?;
    file.sync_all()?;
    chown(
        path,
        None,
        Some(std::os::unix::fs::MetadataExt::gid(&group)),
    )
}

fn units() -> Step {
    let idle: Vec<&str> = UNITS
        .into_iter()
        .filter(|unit| !succeeds("systemctl", &["is-active", "--quiet", unit]))
        .collect();
    if idle.is_empty() {
        return Step::new(Outcome::Present, "units are active");
    }
    let mut arguments = vec!["enable", "--now", "--quiet"];
    arguments.extend(&idle);
    let names = idle.join(" ");
    if succeeds("systemctl", &arguments) {
        Step::new(Outcome::Made, format!("started {names}"))
    } else {
        Step::failed(
            format!("cannot start {names}"),
            format!("systemctl status {names}"),
        )
    }
}

fn database(server: &Server, arguments: &InitArguments) -> Step {
    if arguments.no_database {
        return Step::new(Outcome::Skipped, "MariaDB: as asked");
    }
    let socket = configuration::load(server)
        .ok()
        .and_then(|settings| settings.agent.hosting.mariadb_socket);
    let Some(socket) = socket else {
        return Step::new(Outcome::Skipped, "MariaDB: agent.toml names no socket");
    };
    if !socket.exists() {
        return no_database(&socket);
    }
    let at = format!("--socket={}", socket.display());
    if may_read(&at) {
        return Step::new(Outcome::Present, format!("MariaDB account {DUMP_USER}"));
    }
    match make_account(&at) {
        Ok(()) if may_read(&at) => Step::new(Outcome::Made, format!("MariaDB account {DUMP_USER}")),
        Ok(()) => Step::failed(
            format!("MariaDB does not let {DUMP_USER} in"),
            "is the plugin unix_socket active? mariadb -e 'SHOW PLUGINS'",
        ),
        Err(said) => Step::failed(
            format!("cannot make the MariaDB account {DUMP_USER}: {said}"),
            "backstayctl init needs MariaDB's root over the socket; check: mariadb -e 'SELECT 1'",
        ),
    }
}

/// Says what to do where no database server answers.
fn no_database(socket: &Path) -> Step {
    let installed = ["/usr/sbin/mariadbd", "/usr/sbin/mysqld"];
    if installed.iter().any(|program| Path::new(program).exists()) {
        return Step::failed(
            format!("MariaDB is installed, but there is no {}", socket.display()),
            "systemctl start mariadb && backstayctl init",
        );
    }
    Step {
        outcome: Outcome::Skipped,
        what: "MariaDB: there is no server on this machine".to_owned(),
        hint: Some(
            "scope full has no databases here; for a server elsewhere, write its mariadb_socket below [hosting] \
             in /etc/backstay/agent.toml"
                .to_owned(),
        ),
    }
}

/// True when the dumping user is let in and sees every database.
fn may_read(socket: &str) -> bool {
    let query =
        "SELECT 1 FROM information_schema.user_privileges WHERE privilege_type = 'SELECT' LIMIT 1";
    let arguments = [
        "-u",
        DUMP_USER,
        "--",
        "mariadb",
        socket,
        "--batch",
        "--skip-column-names",
        "-e",
        query,
    ];
    output("runuser", &arguments).is_some_and(|text| text.trim() == "1")
}

fn make_account(socket: &str) -> Result<(), String> {
    let mut child = Command::new("mariadb")
        .args([socket, "--user=root", "--batch"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("running mariadb: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let sql = ops::dump_account_sql().join(";\n");
        stdin
            .write_all(format!("{sql};\n").as_bytes())
            .map_err(|error| error.to_string())?;
    }
    let done = child
        .wait_with_output()
        .map_err(|error| error.to_string())?;
    if done.status.success() {
        Ok(())
    } else {
        Err(model::escape(done.stderr.trim_ascii()))
    }
}

fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    run(program, arguments).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    run(program, arguments).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_systemctl_says() {
        assert_eq!(version("systemd 252 (252.39-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(version("systemd 257 (257.13-1~deb13u1)"), Some(257));
        assert_eq!(version(""), None);
    }
}
