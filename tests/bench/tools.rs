//! The programs that are compared: where they are, and how each is told to do the same work.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Doing, Result, command};

use crate::measure::Step;
use crate::sets::make_directory;

/// A password that protects nothing but the bench's own repositories.
const PASSWORD: &str = "only-for-the-bench";

/// A backup program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Backstay,
    Restic,
    Rustic,
    Borg,
}

/// What a tool is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Init,
    Backup,
    Restore,
    Verify,
    /// Keep the newest snapshot and delete what only the others need.
    Tidy,
}

impl Tool {
    pub(crate) const ALL: [Self; 4] = [Self::Backstay, Self::Restic, Self::Rustic, Self::Borg];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Backstay => "backstay",
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg => "borg",
        }
    }
}

/// A tool that was found, with a place to work in.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    pub(crate) tool: Tool,
    pub(crate) version: String,
    program: String,
    environment: Vec<(String, String)>,
    home: PathBuf,
}

impl Bench {
    /// Finds the tool below `bench/peers`, and Backstay where `BACKSTAYCTL` says; `None` when it is not there.
    ///
    /// # Errors
    ///
    /// When it is there and does not run.
    pub(crate) fn find(tool: Tool, bench: &Path, work: &Path) -> Result<Option<Self>> {
        let peers = bench.join("peers");
        let program = match tool {
            Tool::Backstay => env::var_os("BACKSTAYCTL").map(PathBuf::from),
            Tool::Restic => Some(peers.join("restic/usr/bin/restic")),
            Tool::Rustic => Some(peers.join("rustic/bin/rustic")),
            Tool::Borg => Some(peers.join("borg/usr/bin/borg")),
        };
        let Some(program) = program.filter(|program| program.exists()) else {
            return Ok(None);
        };
        let home = work.join(tool.name());
        make_directory(&home)?;
        let mut environment = vec![
            ("HOME".to_owned(), home.display().to_string()),
            (
                "XDG_CACHE_HOME".to_owned(),
                home.join("cache").display().to_string(),
            ),
        ];
        if tool == Tool::Borg {
            let python = peers.join("borg/usr/lib/python3/dist-packages");
            environment.push(("PYTHONPATH".to_owned(), python.display().to_string()));
            environment.push(("BORG_PASSPHRASE".to_owned(), PASSWORD.to_owned()));
            environment.push(("BORG_BASE_DIR".to_owned(), home.display().to_string()));
        }
        let mut found = Self {
            tool,
            version: String::new(),
            program: program.display().to_string(),
            environment,
            home,
        };
        found.version = found.ask_version()?;
        fs::write(found.password(), PASSWORD).doing(|| "writing the password")?;
        Ok(Some(found))
    }

    fn ask_version(&self) -> Result<String> {
        let argument = if self.tool == Tool::Restic {
            "version"
        } else {
            "--version"
        };
        let mut asked = Command::new(&self.program);
        asked
            .arg(argument)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let said = command::finish(&mut asked)?;
        let is_number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
        let words = said
            .split_whitespace()
            .map(|word| word.trim_start_matches('v'));
        Ok(words
            .clone()
            .find(|word| is_number(word))
            .unwrap_or("?")
            .to_owned())
    }

    /// Where its repository is.
    pub(crate) fn repository(&self) -> PathBuf {
        self.home.join("repository")
    }

    fn password(&self) -> PathBuf {
        self.home.join("password")
    }

    /// Where it restores to.
    pub(crate) fn target(&self) -> PathBuf {
        self.home.join("restored")
    }

    /// Gives what it leaves when a round is over: with the next one it begins as if it had never run.
    pub(crate) fn leaves(&self) -> [PathBuf; 4] {
        let [cache, least] = ["cache", "least"].map(|name| self.home.join(name));
        [self.repository(), self.target(), cache, least]
    }

    /// Gives the command that does what the first backup of a tree must do at least.
    pub(crate) fn least(&self, tree: &Path) -> Step {
        let program = env::var("BACKSTAY_CEILING").unwrap_or_default();
        let output = self.home.join("least").display().to_string();
        Step {
            words: vec![program, tree.display().to_string(), output],
            environment: Vec::new(),
            directory: "/".to_owned(),
        }
    }

    /// Gives the commands that do a piece of work; `number` counts the snapshots from 1.
    pub(crate) fn steps(&self, work: Work, tree: &Path, number: usize) -> Vec<Step> {
        let (repository, target) = (
            self.repository().display().to_string(),
            self.target().display().to_string(),
        );
        let password = self.password().display().to_string();
        let tree = tree.display().to_string();
        let commands: Vec<Vec<String>> = match self.tool {
            Tool::Backstay => {
                let key = self.home.join("key").display().to_string();
                let at = format!("--repo {repository} --key-file {key}");
                vec![match work {
                    Work::Init => words(&format!("repo init {at}")),
                    Work::Backup => words(&format!("repo backup {tree} {at}")),
                    Work::Restore => words(&format!("repo restore latest --to {target} {at}")),
                    Work::Verify => words(&format!("repo verify {at}")),
                    Work::Tidy => words(&format!(
                        "repo forget --keep-last 1 --prune --grace 0s --trash 0s {at}"
                    )),
                }]
            }
            Tool::Restic => {
                let at = format!("--quiet --repo {repository} --password-file {password}");
                vec![match work {
                    Work::Init => words(&format!("init {at}")),
                    Work::Backup => words(&format!("backup {tree} {at}")),
                    Work::Restore => words(&format!("restore latest --target {target} {at}")),
                    Work::Verify => words(&format!("check --read-data {at}")),
                    Work::Tidy => words(&format!("forget --keep-last 1 --prune {at}")),
                }]
            }
            Tool::Rustic => {
                let at = format!(
                    "--no-progress --log-level warn --repository {repository} --password-file {password}"
                );
                vec![match work {
                    Work::Init => words(&format!("{at} init")),
                    Work::Backup => words(&format!("{at} backup {tree}")),
                    Work::Restore => words(&format!("{at} restore latest {target}")),
                    Work::Verify => words(&format!("{at} check --read-data")),
                    Work::Tidy => words(&format!(
                        "{at} forget --keep-last 1 --prune --instant-delete"
                    )),
                }]
            }
            Tool::Borg => match work {
                Work::Init => vec![words(&format!("init --encryption repokey {repository}"))],
                Work::Backup => vec![words(&format!(
                    "create --compression zstd,3 {repository}::a{number} {tree}"
                ))],
                Work::Restore => vec![words(&format!("extract {repository}::a{number}"))],
                Work::Verify => vec![words(&format!("check --verify-data {repository}"))],
                Work::Tidy => vec![
                    words(&format!("prune --keep-last 1 {repository}")),
                    words(&format!("compact {repository}")),
                ],
            },
        };
        // borg restores into the directory that it is started in.
        let directory = if work == Work::Restore && self.tool == Tool::Borg {
            target
        } else {
            "/".to_owned()
        };
        let step = |arguments: Vec<String>| Step {
            words: std::iter::once(self.program.clone())
                .chain(arguments)
                .collect(),
            environment: self.environment.clone(),
            directory: directory.clone(),
        };
        commands.into_iter().map(step).collect()
    }
}

/// No path of the bench holds a space.
fn words(text: &str) -> Vec<String> {
    text.split(' ').map(ToOwned::to_owned).collect()
}
