//! Where the files of `docs/ARCHITECTURE.md` are, below a root that tests choose.

use std::path::{Path, PathBuf};

use model::ScheduleName;

/// The places that apply reads and writes.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
}

impl Paths {
    pub(crate) fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Units and drop-ins of this host.
    pub(crate) fn units(&self) -> PathBuf {
        self.root.join("etc/systemd/system")
    }

    /// Units and drop-ins that are forgotten at reboot.
    pub(crate) fn volatile_units(&self) -> PathBuf {
        self.root.join("run/systemd/system")
    }

    /// The link that an enabled timer has.
    pub(crate) fn wants(&self) -> PathBuf {
        self.units().join("backstay-schedules.target.wants")
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.root.join("var/lib/backstay").join(name)
    }

    pub(crate) fn generations(&self) -> PathBuf {
        self.state("generations")
    }

    pub(crate) fn inbox(&self) -> PathBuf {
        self.state("inbox")
    }

    pub(crate) fn join_record(&self) -> PathBuf {
        self.state("identity/join.json")
    }

    /// The encrypted key of a schedule.
    pub(crate) fn key(&self, name: &ScheduleName) -> PathBuf {
        self.state("credstore")
            .join(format!("schedule-{name}.cred"))
    }

    /// Where systemd notes when a timer elapsed last.
    pub(crate) fn stamp(&self, name: &ScheduleName) -> PathBuf {
        self.root
            .join("var/lib/systemd/timers")
            .join(format!("stamp-{}", settings::units::timer_unit(name)))
    }

    /// Turns a path of this host into where it is below the root.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}
