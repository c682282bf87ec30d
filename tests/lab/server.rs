//! A server with agent and `backstayctl`, driven as an administrator drives it.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value read by a name that it lacks gives null"
)]

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::command;
use crate::fault::{Doing, Fault, Result};
use crate::garage::Garage;
use crate::host::Host;
use crate::packages::Package;

/// A server with the packages of a server.
#[derive(Debug)]
pub struct Server {
    /// The host that it is.
    pub host: Host,
}

impl Server {
    /// Installs agent and ctl on a host.
    ///
    /// # Errors
    ///
    /// When a package does not install.
    pub fn install(host: Host) -> Result<Self> {
        host.install(&Package::SERVER)?;
        Ok(Self { host })
    }

    /// Runs `backstayctl` with `--json` and gives what it answers.
    ///
    /// # Errors
    ///
    /// When it ends with another code than 0; the error holds its words.
    pub fn ctl(&self, words: &str) -> Result<Value> {
        let text = self.host.sh(&format!("backstayctl --json {words}"))?;
        serde_json::from_str(&text).doing(|| format!("reading what {words} answers: {text}"))
    }

    /// Lets `backstayctl init` look at the server and give dumps their right on the database.
    ///
    /// # Errors
    ///
    /// When something is missing on the server.
    pub fn init(&self) -> Result<()> {
        self.host.sh("backstayctl init").map(drop)
    }

    /// Joins the controller that a code names.
    ///
    /// # Errors
    ///
    /// When it cannot join.
    pub fn join(&self, code: &str) -> Result<()> {
        self.feed(&["backstayctl", "join", "-"], code)
            .doing(|| format!("joining {}", self.host.name()))
    }

    /// Writes a configuration file as an administrator would: readable by the agent, by nobody else.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn configure(&self, path: &str, text: &str) -> Result<()> {
        self.host.put(path, text)?;
        self.host
            .sh(&format!(
                "chown root:backstay '{path}'; chmod 0640 '{path}'"
            ))
            .map(drop)
    }

    /// Makes a directory a destination called `name`.
    ///
    /// # Errors
    ///
    /// When it cannot be made or configured.
    pub fn add_local(&self, name: &str, directory: &str) -> Result<()> {
        self.host.sh(&format!(
            "install -d -m 0700 -o backstay-reader -g backstay-reader {directory}"
        ))?;
        self.configure(
            &format!("/etc/backstay/destinations.d/{name}.toml"),
            &format!("[destination.{name}]\nkind = \"local\"\npath = \"{directory}\"\ncredential = \"none\"\n"),
        )
    }

    /// Makes a bucket a destination called `name`, and keeps its secret as a systemd credential.
    ///
    /// # Errors
    ///
    /// When it cannot be configured.
    pub fn add_s3(&self, name: &str, garage: &Garage) -> Result<()> {
        let (endpoint, bucket, region) = (&garage.endpoint, &garage.bucket, garage.region);
        let path = self.host.name();
        self.configure(
            &format!("/etc/backstay/destinations.d/{name}.toml"),
            &format!(
                "[destination.{name}]\nkind = \"s3\"\nendpoint = \"{endpoint}\"\nbucket = \"{bucket}\"\npath = \"{path}\"\n\
                 region = \"{region}\"\npath_style = true\ncredential = \"sealed:{name}\"\n"
            ),
        )?;
        let secret = format!(
            "access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
            garage.access_key, garage.secret_key
        );
        self.feed(
            &["backstayctl", "credential", "set", name, "--from", "-"],
            &secret,
        )
    }

    /// Brings systemd to what the configuration says.
    ///
    /// # Errors
    ///
    /// When the configuration is refused.
    pub fn apply(&self) -> Result<Value> {
        self.ctl("apply")
    }

    /// Gives the runs of a schedule, newest first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn history(&self, schedule: &str) -> Result<Vec<Value>> {
        let runs = self.ctl(&format!("history --schedule {schedule} --limit 10000"))?;
        match runs {
            Value::Array(runs) => Ok(runs),
            other => Err(Fault::new(format!("reading the history: {other}"))),
        }
    }

    /// Starts a run now and waits until its record is finished; gives it.
    ///
    /// # Errors
    ///
    /// When it does not end in time. A run that failed is no error here: look at its state.
    pub fn run_now(&self, schedule: &str, deadline: Duration) -> Result<Value> {
        let before = self.history(schedule)?.len();
        let seconds = deadline.as_secs();
        let said = self.host.run(&format!(
            "timeout {seconds} backstayctl schedule run {schedule} 2>&1"
        ))?;
        let mut run = Value::Null;
        let waited = self.host.wait_until("the run's record", deadline, |_| {
            let runs = self.history(schedule)?;
            let newest = runs.first().cloned().unwrap_or_default();
            let is_new = runs.len() > before;
            run = newest;
            Ok(is_new && run["state"] != "running")
        });
        waited.doing(|| {
            format!(
                "running {schedule}; ctl said:\n{}\nthe history: {:?}\nthe journal:\n{}",
                String::from_utf8_lossy(&said.stdout),
                self.history(schedule),
                self.host
                    .journal(&format!("backstay-job@{schedule}.service"))
            )
        })?;
        Ok(run)
    }

    /// Runs a program on the host with `input` on its standard input.
    ///
    /// # Errors
    ///
    /// When it ends with another code than 0; the error holds its words.
    pub fn feed(&self, words: &[&str], input: &str) -> Result<()> {
        // Through a file in memory, so that what may be a secret is in no argument.
        self.host.put("/run/lab-input", input)?;
        let script = format!("{} < /run/lab-input", words.join(" "));
        let mut command = self.host.command(&["bash", "-c", &script])?;
        command.stderr(Stdio::piped());
        let done = command::finish_as(&script, &mut command);
        self.host.sh("rm -f /run/lab-input")?;
        done.map(drop)
    }
}
