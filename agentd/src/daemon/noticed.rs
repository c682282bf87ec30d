//! What happens on the server, told by the kernel: nothing here polls.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::{DaemonError, Places, Shared, wait};

/// Directories of drop-ins that are watched at most.
const DROP_INS_MAX: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A job has something to tell.
    Wake,
    /// Join record or key.
    Identity,
    /// What people write.
    Configuration,
    /// What apply keeps. Only some of it is news: the status is written whenever it is asked for,
    /// and looking because of it would never end.
    Generations,
    /// Units of systemd.
    Units,
}

/// The watches.
pub(super) struct Noticed {
    queue: AsyncFd<OwnedFd>,
    watches: HashMap<i32, Kind>,
    units: Vec<PathBuf>,
}

impl Noticed {
    pub(super) fn open(places: &Places) -> Result<Self, DaemonError> {
        let system = |doing: &'static str| DaemonError::system(doing);
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .map_err(io::Error::from)
            .and_then(wait::on)
            .map_err(system("preparing to watch files"))?;
        let mut noticed = Self {
            queue,
            watches: HashMap::new(),
            units: vec![
                places.root.join("etc/systemd/system"),
                places.root.join("run/systemd/system"),
            ],
        };
        let wake = places.ledger().with_file_name("wake");
        touch(&wake).map_err(DaemonError::system(format!("making {}", wake.display())))?;
        noticed.add(&wake, Kind::Wake);
        noticed.add(&places.state("identity"), Kind::Identity);
        let etc = places.root.join("etc/backstay");
        for path in [
            etc.clone(),
            etc.join("schedules.d"),
            etc.join("destinations.d"),
        ] {
            noticed.add(&path, Kind::Configuration);
        }
        noticed.add(&places.state("generations"), Kind::Generations);
        noticed.add_units();
        Ok(noticed)
    }

    /// Watches a path when it is there; a directory that is not has nothing to notice.
    fn add(&mut self, path: &Path, kind: Kind) {
        let settled = WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::DELETE_SELF;
        let flags = match kind {
            // Apply writes beside and renames: what comes before the rename is no news.
            Kind::Generations => settled,
            _ => settled | WatchFlags::CLOSE_WRITE | WatchFlags::CREATE | WatchFlags::MOVED_FROM,
        };
        match inotify::add_watch(self.queue.get_ref(), path, flags) {
            Ok(watch) => {
                self.watches.insert(watch, kind);
            }
            Err(error) => tracing::debug!(path = %path.display(), %error, "not watched"),
        }
    }

    /// Watches the unit directories, and in them the directories of ours.
    fn add_units(&mut self) {
        for directory in self.units.clone() {
            self.add(&directory, Kind::Units);
            let Ok(entries) = std::fs::read_dir(&directory) else {
                continue;
            };
            for entry in entries.flatten().take(DROP_INS_MAX) {
                let ours = entry
                    .file_name()
                    .as_encoded_bytes()
                    .starts_with(b"backstay-");
                if ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    self.add(&entry.path(), Kind::Units);
                }
            }
        }
    }

    /// Waits until the identity changes.
    pub(super) async fn identity(&mut self) -> Result<(), DaemonError> {
        loop {
            if self.next().await?.contains(&Kind::Identity) {
                return Ok(());
            }
        }
    }

    /// Passes on what happens, until the server is joined anew.
    pub(super) async fn run(&mut self, shared: &Shared) -> Result<(), DaemonError> {
        loop {
            let kinds = self.next().await?;
            if kinds.contains(&Kind::Wake) {
                shared.tell.notify_one();
            }
            if kinds.contains(&Kind::Units) {
                shared.repair.set(true);
                self.add_units();
            }
            if kinds.contains(&Kind::Units) || kinds.contains(&Kind::Configuration) {
                shared.look.notify_one();
            }
            if kinds.contains(&Kind::Identity) && shared.is_joined_anew() {
                tracing::info!("this server was joined anew; starting over");
                return Ok(());
            }
        }
    }

    async fn next(&mut self) -> Result<Vec<Kind>, DaemonError> {
        let system = |doing: &'static str| DaemonError::system(doing);
        loop {
            let mut ready = self
                .queue
                .readable()
                .await
                .map_err(system("waiting for watched files"))?;
            let read = ready.try_io(|queue| read(queue.get_ref(), &self.watches));
            match read {
                Ok(kinds) => return kinds.map_err(system("reading what was noticed")),
                Err(_would_block) => {}
            }
        }
    }
}

impl Shared {
    fn is_joined_anew(&self) -> bool {
        super::identity::Identity::read(&self.places.state("identity"))
            .is_ok_and(|now| now.is_none_or(|now| now.record != self.identity.record))
    }
}

fn touch(path: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map(drop)
}

/// Reads every event that waits.
fn read(queue: &OwnedFd, watches: &HashMap<i32, Kind>) -> io::Result<Vec<Kind>> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(queue, &mut buffer);
    let mut kinds = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let kind = if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    Some(Kind::Units)
                } else {
                    watches.get(&event.wd()).copied()
                };
                let name = event.file_name().map(CStr::to_bytes).unwrap_or_default();
                let kind = match kind {
                    Some(Kind::Generations) => is_news(name).then_some(Kind::Configuration),
                    kind => kind,
                };
                kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
            }
            Err(error) if error == rustix::io::Errno::WOULDBLOCK && !kinds.is_empty() => {
                return Ok(kinds);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// True for the files of apply that change when the configuration in force does.
fn is_news(name: &[u8]) -> bool {
    [
        &b"applied.json"[..],
        b"rejected.json",
        b"current",
        b"in-force",
    ]
    .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_status_that_is_asked_for_is_no_news() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::below(root.path());
        let generations = places.state("generations");
        for directory in [&generations, &places.state("ledger")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let noticed = Noticed::open(&places).unwrap();
        let news = || read(noticed.queue.get_ref(), &noticed.watches);
        let replace = |name: &str| {
            let beside = generations.join(format!("{name}.tmp"));
            std::fs::write(&beside, "{}").unwrap();
            std::fs::rename(beside, generations.join(name)).unwrap();
        };
        replace("status.json");
        assert_eq!(news().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        replace("applied.json");
        assert_eq!(news().unwrap(), [Kind::Configuration]);
        std::fs::remove_file(generations.join("applied.json")).unwrap();
        assert_eq!(news().unwrap(), [Kind::Configuration]);
    }
}
