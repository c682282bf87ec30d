//! One writer per domain on a server: runs, forgetting and pruning of a schedule take turns.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use model::ScheduleName;

/// The right to write to a schedule's domain, until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct DomainLock {
    _file: File,
}

impl DomainLock {
    /// Waits for the right. The kernel gives it back when its holder dies.
    pub(crate) fn take(cache: &Path, schedule: &ScheduleName) -> io::Result<Self> {
        std::fs::create_dir_all(cache)?;
        let path = cache.join(crate::backup::lock_name(schedule));
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        file.lock()?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn writers_of_one_schedule_take_turns() {
        let directory = tempfile::tempdir().unwrap();
        let name = ScheduleName::new("nightly").unwrap();
        let first = DomainLock::take(directory.path(), &name).unwrap();
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let second = DomainLock::take(directory.path(), &name).unwrap();
                sender.send("second").unwrap();
                drop(second);
            });
            let other = ScheduleName::new("hourly").unwrap();
            drop(DomainLock::take(directory.path(), &other).unwrap());
            assert!(receiver.try_recv().is_err());
            drop(first);
            assert_eq!(receiver.recv().unwrap(), "second");
        });
    }
}
