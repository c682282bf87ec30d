//! A server's file system in a temporary directory, and `backstayctl` run on it.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ledger::Ledger;
use model::RunRecord;
use protocol::control::{ControlReply, ControlRequest};
use tempfile::TempDir;

/// A server below a temporary directory.
pub(crate) struct Host {
    root: TempDir,
}

impl Host {
    /// A server without an agent.
    pub(crate) fn empty() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// A server where the agent is installed but never ran.
    pub(crate) fn with_agent() -> Self {
        let host = Self::empty();
        host.write("usr/lib/backstay/backstay-agentd", "");
        host
    }

    /// Writes a file of the server.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Gives the path of a file of the server, as this machine sees it.
    pub(crate) fn path(&self, path: &str) -> String {
        self.root.path().join(path).display().to_string()
    }

    /// Puts ended runs into the ledger.
    pub(crate) fn add_runs(&self, records: &[RunRecord]) {
        add_runs(self.root.path(), records);
    }

    /// Serves one question at the apply socket, as the agent's service would.
    pub(crate) fn answer(
        &self,
        reply: impl FnOnce(ControlRequest) -> ControlReply + Send + 'static,
    ) -> std::thread::JoinHandle<()> {
        self.write("run/backstay/.here", "");
        let path = self.root.path().join("run/backstay/apply.sock");
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let mut text =
                serde_json::to_vec(&reply(serde_json::from_str(&line).unwrap())).unwrap();
            text.push(b'\n');
            stream.write_all(&text).unwrap();
        })
    }

    /// Prepares the command; times are shown in UTC.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstayctl"));
        command
            .arg("--root")
            .arg(self.root.path())
            .args(arguments)
            .env("TZ", "UTC")
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        command
    }

    /// Runs the command and shows all that it said, with its exit code.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.shown(&self.command(arguments).output().unwrap())
    }

    /// Shows output with the temporary directory taken out.
    pub(crate) fn shown(&self, output: &Output) -> String {
        let mut text = String::new();
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                writeln!(
                    text,
                    "--- {name}\n{}",
                    String::from_utf8_lossy(bytes).trim_end()
                )
                .unwrap();
            }
        }
        writeln!(text, "--- exit {}", output.status.code().unwrap()).unwrap();
        text.replace(&self.root.path().display().to_string(), "")
    }
}

/// Puts ended runs into the ledger of the server below `root`.
pub(crate) fn add_runs(root: &Path, records: &[RunRecord]) {
    let folder = root.join("var/lib/backstay/ledger");
    std::fs::create_dir_all(&folder).unwrap();
    let mut ledger = Ledger::open(&folder.join("ledger.db")).unwrap();
    for record in records {
        let until = record.started_at;
        ledger
            .add_finished(&record.schedule, std::slice::from_ref(record), until)
            .unwrap();
    }
}
