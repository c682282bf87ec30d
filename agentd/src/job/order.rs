//! What a restore may do, and by whose word. The ledger can be written by users that have less
//! rights than a restore, so what it says is only a wish.
//!
//! An order of the controller is believed when it carries the controller's signature, and is held
//! to `guard.toml`. Root's own order lies in a directory that only root can enter.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::Command;
use model::{Instant, ScheduleName};
use protocol::{CommandKind, Envelope, RestoreTarget};
use serde::Deserialize;
use settings::{Folders, Guard, Permission};

use super::requests::{RestoreBody, Target};

/// An order of root is longer only by mistake.
const ORDER_BYTES_MAX: u64 = 64 * 1024;

/// How long it is remembered that an order of the controller was obeyed; it lapses after a day.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The end of a file's name that remembers it.
const OBEYED: &str = "obeyed";

/// Who ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Root of this server.
    Root,
    /// The controller.
    Controller,
}

/// A restore that may be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) body: RestoreBody,
    pub(super) origin: Origin,
}

/// What `backstayctl` writes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RootOrder {
    schedule: ScheduleName,
    restore: RestoreBody,
}

/// What the daemon keeps of an order of the controller.
#[derive(Deserialize)]
struct Signed {
    envelope: Envelope,
}

/// Finds the order of a command below `root`, and makes sure that it is obeyed once.
pub(super) fn read(command: &Command, root: &Path, now: Instant) -> Result<Order, String> {
    match serde_json::from_str::<Signed>(&command.body) {
        Ok(signed) => of_controller(&signed.envelope, command, root, now),
        Err(_) => of_root(command, root),
    }
}

fn of_root(command: &Command, root: &Path) -> Result<Order, String> {
    let path = directory(root).join(format!("{}.json", command.id));
    let refused = |why: String| {
        format!(
            "reading root's order {}: {why}; nothing was restored",
            path.display()
        )
    };
    let mut text = Vec::new();
    let read = File::open(&path)
        .and_then(|file| file.take(ORDER_BYTES_MAX).read_to_end(&mut text))
        .and_then(|_| fs::remove_file(&path));
    read.map_err(|error| refused(error.to_string()))?;
    let order: RootOrder =
        serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
    if order.schedule != command.schedule {
        return Err(refused(format!("it is for schedule {}", order.schedule)));
    }
    Ok(Order {
        body: order.restore,
        origin: Origin::Root,
    })
}

fn of_controller(
    envelope: &Envelope,
    command: &Command,
    root: &Path,
    now: Instant,
) -> Result<Order, String> {
    let guard = Guard::load(&Folders::below(root))
        .map_err(|problems| format!("guard.toml cannot be read: {problems}"))?;
    if !guard.allows(Permission::Restore) {
        return Err("guard.toml does not allow a controller to restore".to_owned());
    }
    let pin = crate::pin::read(root)
        .map_err(|error| format!("reading which controller is obeyed: {error}"))?
        .ok_or("this server obeys no controller: join again with backstayctl join --anew")?;
    let order = protocol::Command::verify(envelope, &pin.controller)
        .map_err(|error| format!("the order is not the controller's: {error}"))?;
    if order.agent != pin.agent || order.id != command.id {
        return Err("the order is for another agent, or has another number".to_owned());
    }
    if order.expires_at < now {
        return Err("the order expired before it could begin".to_owned());
    }
    let CommandKind::Restore {
        schedule,
        snapshot,
        destination,
        target,
    } = order.kind
    else {
        return Err("the order is not a restore".to_owned());
    };
    if schedule != command.schedule {
        return Err(format!("the order is for schedule {schedule}"));
    }
    let target = bounded(target, &guard)?;
    remember(&directory(root), command)?;
    Ok(Order {
        body: RestoreBody {
            snapshot,
            destination: Some(destination),
            target,
            path: None,
        },
        origin: Origin::Controller,
    })
}

fn bounded(target: RestoreTarget, guard: &Guard) -> Result<Target, String> {
    match target {
        RestoreTarget::InPlace if guard.restore_in_place => Ok(Target::InPlace),
        RestoreTarget::InPlace => {
            Err("guard.toml does not allow a controller to restore in place".to_owned())
        }
        RestoreTarget::Directory(path) if guard.allows_restore_into(Path::new(&path)) => {
            Ok(Target::Directory(path))
        }
        RestoreTarget::Directory(_) => Err(
            "guard.toml does not allow a controller to restore into this directory: see restore_paths"
                .to_owned(),
        ),
    }
}

/// Remembers outside of the ledger that an order was obeyed: whoever can write the ledger could
/// show it again.
fn remember(directory: &Path, command: &Command) -> Result<(), String> {
    let path = directory.join(format!("{}.{OBEYED}", command.id));
    make_private(directory)
        .and_then(|()| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)?
                .sync_all()
        })
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => "the order was obeyed before".to_owned(),
            _ => format!("noting the order in {}: {error}", path.display()),
        })?;
    forget_old(directory);
    Ok(())
}

/// Removes old notes, and orders of root that nobody took. What fails is tried next time.
fn forget_old(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let age = entry
            .metadata()
            .and_then(|found| found.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > REMEMBERED) {
            fs::remove_file(entry.path()).unwrap_or_default();
        }
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn directory(root: &Path) -> PathBuf {
    root.join("var/lib/backstay/orders")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::CommandState;
    use model::{CommandId, SnapshotId};
    use protocol::SigningKey;

    const NOW: i64 = 1_000_000;

    struct Bench {
        root: tempfile::TempDir,
        controller: SigningKey,
    }

    impl Bench {
        fn new(guard: &str) -> Self {
            let root = tempfile::tempdir().unwrap();
            for path in ["etc/backstay", "var/lib/backstay/generations"] {
                fs::create_dir_all(root.path().join(path)).unwrap();
            }
            fs::write(root.path().join("etc/backstay/guard.toml"), guard).unwrap();
            let controller = SigningKey::from_seed(&[1; 32]);
            let pin = crate::pin::Pin {
                agent: agent(),
                controller: controller.public(),
            };
            let text = serde_json::to_vec(&pin).unwrap();
            fs::write(crate::pin::path(root.path()), text).unwrap();
            Self { root, controller }
        }

        fn read(&self, command: &Command) -> Result<Order, String> {
            read(command, self.root.path(), Instant::from_secs(NOW))
        }

        fn ordered(&self, target: &str) -> Result<Order, String> {
            self.read(&kept(&signed(target).seal(&self.controller)))
        }
    }

    fn agent() -> model::AgentId {
        SigningKey::from_seed(&[2; 32]).public().agent_id()
    }

    fn signed(target: &str) -> protocol::Command {
        protocol::Command {
            id: CommandId::from_bytes([7; 16]),
            agent: agent(),
            not_before: Instant::from_secs(NOW),
            expires_at: Instant::from_secs(NOW + 600),
            kind: CommandKind::Restore {
                schedule: "nightly".parse().unwrap(),
                snapshot: SnapshotId::from_bytes([5; 16]),
                destination: "offsite".parse().unwrap(),
                target: if target == "in_place" {
                    RestoreTarget::InPlace
                } else {
                    RestoreTarget::Directory(target.to_owned())
                },
            },
        }
    }

    fn kept(envelope: &Envelope) -> Command {
        in_ledger(serde_json::json!({ "envelope": envelope }).to_string())
    }

    fn in_ledger(body: String) -> Command {
        Command {
            id: CommandId::from_bytes([7; 16]),
            schedule: "nightly".parse().unwrap(),
            kind: "restore".into(),
            body,
            state: CommandState::Running,
            accepted_at: Instant::from_secs(NOW),
            expires_at: Instant::from_secs(NOW + 600),
            outcome: None,
        }
    }

    #[test]
    fn an_order_of_the_controller_is_obeyed_once() {
        let bench = Bench::new("");
        let order = bench.ordered("/srv/restored").unwrap();
        assert_eq!(order.origin, Origin::Controller);
        assert_eq!(order.body.target, Target::Directory("/srv/restored".into()));
        let again = bench.ordered("/srv/restored").unwrap_err();
        assert!(again.contains("obeyed before"), "{again}");
    }

    #[test]
    fn a_controller_restores_only_where_the_guard_lets_it() {
        for (guard, target, word) in [
            ("", "/root/.ssh", Some("restore_paths")),
            ("", "/srv/../root/.ssh", Some("restore_paths")),
            ("", "/srvx", Some("restore_paths")),
            ("", "srv", Some("restore_paths")),
            ("", "/var/lib/backstay/restored/a", None),
            (
                "restore_paths = [\"/opt\"]\n",
                "/srv/a",
                Some("restore_paths"),
            ),
            ("restore_paths = [\"/opt\"]\n", "/opt/a", None),
            ("", "in_place", None),
            ("restore_in_place = false\n", "in_place", Some("in place")),
            (
                "allow = [\"run\"]\n",
                "/srv/a",
                Some("does not allow a controller to restore"),
            ),
            ("alow = []\n", "/srv/a", Some("cannot be read")),
        ] {
            let found = Bench::new(guard).ordered(target);
            match word {
                None => drop(found.unwrap()),
                Some(word) => {
                    let why = found.unwrap_err();
                    assert!(why.contains(word), "{guard} {target}: {why}");
                }
            }
        }
    }

    #[test]
    fn what_was_only_written_into_the_ledger_is_not_obeyed() {
        let bench = Bench::new("");
        let stranger = SigningKey::from_seed(&[9; 32]);
        let forged = bench.read(&kept(&signed("/srv/a").seal(&stranger)));
        assert!(forged.unwrap_err().contains("not the controller's"));
        let mut other = signed("/srv/a");
        other.agent = stranger.public().agent_id();
        assert!(bench.read(&kept(&other.seal(&bench.controller))).is_err());
        let mut late = signed("/srv/a");
        late.expires_at = Instant::from_secs(NOW - 1);
        let late = bench.read(&kept(&late.seal(&bench.controller)));
        assert!(late.unwrap_err().contains("expired"));
        let plain = format!(
            r#"{{"snapshot":"{}","destination":null,"target":{{"directory":"/root/.ssh"}}}}"#,
            "05".repeat(16)
        );
        let plain = bench.read(&in_ledger(plain)).unwrap_err();
        assert!(plain.contains("root's order"), "{plain}");
        fs::remove_file(crate::pin::path(bench.root.path())).unwrap();
        assert!(bench.ordered("/srv/a").unwrap_err().contains("join"));
    }

    #[test]
    fn roots_own_order_is_not_bound_and_is_taken_once() {
        let bench = Bench::new("allow = []\n");
        let orders = directory(bench.root.path());
        make_private(&orders).unwrap();
        let text = format!(
            r#"{{"schedule":"nightly","restore":{{"snapshot":"{}","destination":null,"target":{{"directory":"/root/back"}},"path":null}}}}"#,
            "05".repeat(16)
        );
        let command = in_ledger("{}".into());
        fs::write(orders.join(format!("{}.json", command.id)), text).unwrap();
        let order = bench.read(&command).unwrap();
        assert_eq!(order.origin, Origin::Root);
        assert_eq!(order.body.target, Target::Directory("/root/back".into()));
        assert!(bench.read(&command).is_err());
    }
}
