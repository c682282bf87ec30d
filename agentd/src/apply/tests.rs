//! What apply promises, on a systemd in memory.

use std::fs;
use std::path::Path;

use model::{Instant, ScheduleName, ServerName};
use protocol::control::{ApplyOutcome, ControlReply, ControlRequest, DriftKind, SystemStatus};
use protocol::{CertificateHash, Generation, JoinRecord, PROTOCOL_VERSION, SigningKey};
use settings::units::{drop_in, timer_unit};

use super::engine::{Engine, Inbox};
use super::error::ApplyError;
use super::fake::Fake;
use super::server::{Peer, answer, peer, uid_of};

const NOON: &str = "2026-11-20T12:00:00Z";
const LOCAL: &str = "[destination.local]\nkind = \"local\"\npath = \"/srv/backup\"\n";

struct Machine {
    root: tempfile::TempDir,
    host: Fake,
}

fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).unwrap()
}

fn at(text: &str) -> Instant {
    text.parse().unwrap()
}

fn schedule(name: &str, when: &str) -> String {
    format!("[schedule.{name}]\nscope = \"web\"\nwhen = \"{when}\"\ndestinations = [\"local\"]\n")
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Fake::new(root.path(), at(NOON));
        let machine = Self { root, host };
        machine.write("etc/backstay/destinations.d/local.toml", LOCAL);
        machine
    }

    /// A machine on which these schedules are applied.
    fn with(schedules: &[(&str, &str)]) -> Self {
        let machine = Self::new();
        machine.schedules(schedules);
        machine.apply().unwrap();
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn schedules(&self, all: &[(&str, &str)]) {
        let text: String = all
            .iter()
            .map(|(name, when)| schedule(name, when))
            .collect();
        self.write("etc/backstay/schedules.d/all.toml", &text);
    }

    fn drop_in(&self, schedule: &str) -> std::path::PathBuf {
        let path = drop_in(&timer_unit(&name(schedule)));
        self.host.paths.units().join(path)
    }

    fn apply(&self) -> Result<ApplyOutcome, ApplyError> {
        let engine = Engine::new(&self.host, &self.host.paths);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(engine.apply(Inbox::Take))
    }

    fn status(&self) -> SystemStatus {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let asked = ControlRequest::Status {};
        let paths = &self.host.paths;
        match runtime.block_on(answer(&self.host, paths, Peer::Agent, asked)) {
            ControlReply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that matters of the machine: files of units, links, timers.
    fn picture(&self) -> String {
        let mut lines = Vec::new();
        tree(&self.host.paths.units(), &mut lines);
        for (name, next) in self.host.armed() {
            lines.push(format!("{name} waits for {next:?}"));
        }
        lines.push(format!("fired {:?}", self.host.fired.borrow()));
        lines.join("\n")
    }

    fn send(&self, generation: &Generation, key: &SigningKey) {
        let text = generation.seal(key).to_text();
        self.write("var/lib/backstay/inbox/next.json", &text);
    }

    fn join(&self) {
        let record = JoinRecord {
            protocol: PROTOCOL_VERSION,
            agent: agent_key().public().agent_id(),
            server_name: ServerName::new("web1").unwrap(),
            controller: controller_key().public(),
            host: "controller:8443".to_owned(),
            certificate: CertificateHash::of(b"certificate"),
            joined_at: at(NOON),
        };
        let text = serde_json::to_string(&record).unwrap();
        self.write("var/lib/backstay/identity/join.json", &text);
    }
}

fn tree(directory: &Path, lines: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(directory)
        .map(|all| all.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            tree(&path, lines);
        } else {
            let text = fs::read_to_string(&path).unwrap_or_default();
            lines.push(format!("{}\n{text}", path.file_name().unwrap().display()));
        }
    }
}

fn controller_key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn agent_key() -> SigningKey {
    SigningKey::from_seed(&[2; 32])
}

fn generation(number: u64, toml: &str) -> Generation {
    Generation {
        protocol: PROTOCOL_VERSION,
        agent: agent_key().public().agent_id(),
        number,
        issued_at: at(NOON),
        previous: None,
        toml: toml.to_owned(),
    }
}

#[test]
fn a_second_apply_of_the_same_text_does_nothing() {
    let machine = Machine::with(&[("a", "daily 02:00"), ("b", "hourly")]);
    assert_eq!(machine.host.reloads.get(), 1);
    let (steps, picture) = (machine.host.steps.get(), machine.picture());
    let outcome = machine.apply().unwrap();
    assert_eq!(outcome.unchanged, 2);
    assert!(!outcome.reloaded);
    assert_eq!(machine.host.steps.get(), steps, "not one change");
    assert_eq!(machine.picture(), picture);
}

#[test]
fn a_thousand_schedules_become_timers_with_one_reload() {
    let names: Vec<String> = (0..1000).map(|n| format!("s{n}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "daily 02:00")).collect();
    let machine = Machine::with(&all);
    assert_eq!(machine.host.reloads.get(), 1);
    assert_eq!(machine.host.armed().len(), 1000);
}

#[test]
fn an_edited_calendar_does_not_fire_at_once() {
    let machine = Machine::with(&[("a", "daily 05:00")]);
    machine.host.now.set(at("2026-11-21T05:00:00Z"));
    machine.host.reboot();
    machine.host.fired.borrow_mut().clear();
    machine.host.now.set(at("2026-11-21T12:00:00Z"));
    machine.schedules(&[("a", "daily 09:30")]);
    let outcome = machine.apply().unwrap();
    assert_eq!(outcome.changed, [name("a")]);
    assert_eq!(*machine.host.fired.borrow(), []);
    assert_eq!(
        machine.host.next(&name("a")),
        Some(at("2026-11-22T09:30:00Z"))
    );
}

#[test]
fn a_cut_between_any_two_steps_is_made_good() {
    let before = [
        ("kept", "hourly"),
        ("edited", "daily 05:00"),
        ("gone", "daily 06:00"),
    ];
    let after = [
        ("kept", "hourly"),
        ("edited", "daily 09:30"),
        ("new", "daily 07:00"),
    ];
    let expected = {
        let machine = Machine::with(&before);
        machine.schedules(&after);
        machine.apply().unwrap();
        machine.picture()
    };
    for reboots in [false, true] {
        let mut cuts = 0;
        loop {
            let machine = Machine::with(&before);
            machine.schedules(&after);
            machine.host.fuel.set(Some(cuts));
            let whole = machine.apply().is_ok();
            machine.host.fuel.set(None);
            if reboots {
                machine.host.reboot();
            }
            machine
                .apply()
                .unwrap_or_else(|error| panic!("after cut {cuts}: {}", error.chain()));
            assert_eq!(
                machine.picture(),
                expected,
                "after cut {cuts}, reboot {reboots}"
            );
            let steps = machine.host.steps.get();
            machine.apply().unwrap();
            assert_eq!(machine.host.steps.get(), steps, "settled after cut {cuts}");
            if whole {
                break;
            }
            cuts += 1;
        }
        assert!(cuts > 20, "only {cuts} places to cut");
    }
}

#[test]
fn a_deleted_drop_in_is_written_again_and_its_dead_timer_armed() {
    let machine = Machine::with(&[("a", "daily 02:00")]);
    fs::remove_file(machine.drop_in("a")).unwrap();
    machine.host.read_again();
    assert!(!machine.host.is_armed(&name("a")));
    let outcome = machine.apply().unwrap();
    let kinds: Vec<DriftKind> = outcome.repaired.iter().map(|d| d.kind).collect();
    assert_eq!(kinds, [DriftKind::Deleted, DriftKind::Disarmed]);
    assert!(machine.host.is_armed(&name("a")));
    assert!(outcome.reloaded);
    let again = machine.apply().unwrap();
    assert_eq!(again.repaired, []);
}

/// That it is written under the lock is what the machine in memory asserts at each step.
#[test]
fn a_status_with_news_is_written_down_while_no_apply_writes() {
    let machine = Machine::with(&[("nightly", "daily 02:00")]);
    fs::remove_file(machine.drop_in("nightly")).unwrap();
    let steps = machine.host.steps.get();
    let drift = machine.status().drift;
    assert_eq!(drift[0].kind, DriftKind::Deleted);
    assert!(machine.host.steps.get() > steps);
}

#[test]
fn an_edited_drop_in_is_put_right() {
    let machine = Machine::with(&[("a", "daily 02:00")]);
    let picture = machine.picture();
    let text = fs::read_to_string(machine.drop_in("a")).unwrap();
    fs::write(machine.drop_in("a"), text.replace("02:00", "03:00")).unwrap();
    machine.host.read_again();
    let outcome = machine.apply().unwrap();
    assert_eq!(outcome.repaired[0].kind, DriftKind::Edited);
    assert_eq!(machine.picture(), picture);
}

#[test]
fn what_an_administrator_decides_stays() {
    let all = [
        ("masked", "hourly"),
        ("disabled", "hourly"),
        ("stopped", "hourly"),
        ("own", "hourly"),
    ];
    let machine = Machine::with(&all);
    let units = machine.host.paths.units();
    let null = Path::new("/dev/null");
    std::os::unix::fs::symlink(null, units.join("backstay-job@masked.timer")).unwrap();
    fs::remove_file(
        machine
            .host
            .paths
            .wants()
            .join("backstay-job@disabled.timer"),
    )
    .unwrap();
    for name_text in ["masked", "disabled", "stopped"] {
        machine.host.stop(&name(name_text));
    }
    let own = units.join("backstay-job@own.timer.d/override.conf");
    fs::write(&own, "[Timer]\nOnCalendar=\nOnCalendar=daily\n").unwrap();
    let stranger = units.join("backstay-job@own.timer.d/notes.txt");
    fs::write(&stranger, "x").unwrap();
    let picture = machine.picture();
    let outcome = machine.apply().unwrap();
    let mut kinds: Vec<DriftKind> = outcome.held.iter().map(|d| d.kind).collect();
    kinds.sort();
    assert_eq!(
        kinds,
        [
            DriftKind::Overridden,
            DriftKind::Masked,
            DriftKind::Disabled,
            DriftKind::Stopped
        ]
    );
    assert_eq!(outcome.repaired, []);
    assert_eq!(machine.picture(), picture);
    // Another schedule changes nothing about it.
    machine.schedules(&[&all[..], &[("new", "hourly")]].concat());
    machine.apply().unwrap();
    for name_text in ["masked", "disabled", "stopped"] {
        assert!(!machine.host.is_armed(&name(name_text)), "{name_text}");
    }
    assert!(machine.host.is_armed(&name("new")));
}

#[test]
fn foreign_files_are_never_touched() {
    let machine = Machine::new();
    let foreign = [
        "etc/systemd/system/backstay-job@web.timer.d/50-backstay.conf",
        "etc/systemd/system/backstay-job@a.timer.d/50-backstay.conf",
        "etc/systemd/system/other.timer.d/50-backstay.conf",
        "etc/systemd/system/backstay-dump@x.service.d/50-backstay.conf",
    ];
    for path in foreign {
        machine.write(path, "[Timer]\nOnCalendar=yearly\n");
    }
    machine.schedules(&[("a", "hourly")]);
    let outcome = machine.apply().unwrap();
    assert_eq!(outcome.held.len(), 2);
    for path in foreign {
        let text = fs::read_to_string(machine.root.path().join(path)).unwrap();
        assert_eq!(text, "[Timer]\nOnCalendar=yearly\n", "{path}");
    }
    // Out of the way, ours comes.
    fs::remove_file(machine.drop_in("a")).unwrap();
    machine.apply().unwrap();
    assert!(machine.host.is_armed(&name("a")));
}

#[test]
fn a_removed_schedule_leaves_nothing_but_its_key() {
    let machine = Machine::with(&[("a", "hourly"), ("b", "hourly")]);
    let key = fs::read(machine.host.paths.key(&name("b"))).unwrap();
    machine.schedules(&[("a", "hourly")]);
    let outcome = machine.apply().unwrap();
    assert_eq!(outcome.removed, [name("b")]);
    assert!(!machine.drop_in("b").parent().unwrap().exists());
    assert!(
        !machine
            .host
            .paths
            .wants()
            .join("backstay-job@b.timer")
            .exists()
    );
    assert!(!machine.host.paths.stamp(&name("b")).exists());
    machine.schedules(&[("a", "hourly"), ("b", "hourly")]);
    assert_eq!(machine.apply().unwrap().keys_made, []);
    assert_eq!(fs::read(machine.host.paths.key(&name("b"))).unwrap(), key);
}

#[test]
fn what_the_checker_complains_about_changes_nothing() {
    let machine = Machine::with(&[("a", "daily 02:00")]);
    let picture = machine.picture();
    machine.schedules(&[("a", "daily 03:00")]);
    *machine.host.checker_says.borrow_mut() = "Unknown key name 'Foo'".to_owned();
    let error = machine.apply().unwrap_err();
    assert!(matches!(error, ApplyError::Rejected(_)), "{error}");
    assert_eq!(machine.picture(), picture);
}

#[test]
fn faults_of_the_configuration_change_nothing_and_show_in_the_status() {
    let machine = Machine::with(&[("a", "daily 02:00")]);
    let picture = machine.picture();
    machine.schedules(&[("a", "daily 99:00"), ("b", "hourly")]);
    assert!(matches!(machine.apply(), Err(ApplyError::Configuration(_))));
    assert_eq!(machine.picture(), picture);
    let status = machine.host.paths.generations().join("status.json");
    let text = fs::read_to_string(status).unwrap();
    assert!(text.contains("99:00"), "{text}");
    assert!(text.contains("\"armed\":true"), "{text}");
}

#[test]
fn a_generation_comes_into_force_and_five_are_kept() {
    let machine = Machine::new();
    machine.join();
    for number in 1..=8 {
        let when = format!("daily 0{number}:00");
        machine.send(
            &generation(number, &schedule("synced", &when)),
            &controller_key(),
        );
        let outcome = machine.apply().unwrap();
        assert_eq!(outcome.generation, Some(number));
        assert_eq!(outcome.refused, None);
    }
    assert_eq!(
        machine.host.next(&name("synced")),
        Some(at("2026-11-21T08:00:00Z"))
    );
    let kept = fs::read_dir(machine.host.paths.generations()).unwrap();
    let kept = kept.filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|e| e == "toml")
    });
    assert_eq!(kept.count(), 5);
    assert_eq!(fs::read_dir(machine.host.paths.inbox()).unwrap().count(), 0);
}

#[test]
fn bad_generations_are_refused_by_name_and_the_last_good_stays() {
    let machine = Machine::new();
    machine.join();
    let good = schedule("synced", "daily 02:00");
    machine.send(&generation(5, &good), &controller_key());
    machine.apply().unwrap();
    let picture = machine.picture();
    let mut foreign = generation(6, &good);
    foreign.agent = controller_key().public().agent_id();
    machine.write("etc/backstay/guard.toml", "schedules_max = 1\n");
    let two = format!("{good}{}", schedule("more", "hourly"));
    for (sent, key, code) in [
        (generation(4, &good), controller_key(), "older"),
        (generation(5, "# other\n"), controller_key(), "forked"),
        (generation(6, &good), agent_key(), "wrong_key"),
        (foreign, controller_key(), "other_agent"),
        (
            generation(6, &schedule("x", "never")),
            controller_key(),
            "invalid",
        ),
        (generation(6, &two), controller_key(), "invalid"),
    ] {
        machine.send(&sent, &key);
        let outcome = machine.apply().unwrap();
        let refused = outcome.refused.unwrap();
        assert_eq!(refused.code, code, "{}", refused.message);
        assert_eq!(outcome.generation, Some(5));
        assert_eq!(machine.picture(), picture, "{code}");
        assert!(
            machine
                .host
                .paths
                .generations()
                .join("rejected.json")
                .exists()
        );
    }
    machine.write("etc/backstay/guard.toml", "allow = [\"run\"]\n");
    machine.send(&generation(6, &good), &controller_key());
    assert_eq!(
        machine.apply().unwrap().refused.unwrap().code,
        "not_allowed"
    );
}

#[test]
fn another_controller_is_not_obeyed_until_root_says_so() {
    let machine = Machine::new();
    machine.join();
    machine.send(&generation(1, &schedule("a", "hourly")), &controller_key());
    machine.apply().unwrap();
    let path = machine.host.paths.join_record();
    let mut record: JoinRecord = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record.controller = agent_key().public();
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    machine.send(&generation(2, ""), &agent_key());
    let refused = machine.apply().unwrap().refused.unwrap();
    assert_eq!(refused.code, "other_controller");
    assert!(machine.host.is_armed(&name("a")));
    // Joining anew, as root, pins the other one, which counts its generations by itself.
    let pin = crate::pin::Pin {
        agent: record.agent,
        controller: record.controller,
    };
    let pinned = crate::pin::path(machine.host.paths.root());
    fs::write(pinned, serde_json::to_vec(&pin).unwrap()).unwrap();
    machine.send(&generation(1, &schedule("b", "hourly")), &agent_key());
    let outcome = machine.apply().unwrap();
    assert_eq!((outcome.generation, outcome.refused), (Some(1), None));
    assert!(machine.host.is_armed(&name("b")) && !machine.host.is_armed(&name("a")));
}

#[test]
fn a_generation_that_systemd_does_not_follow_is_rolled_back() {
    let machine = Machine::new();
    machine.join();
    let old = [
        schedule("a", "daily 02:00"),
        schedule("gone", "daily 04:00"),
    ]
    .concat();
    machine.send(&generation(1, &old), &controller_key());
    machine.apply().unwrap();
    let armed = machine.host.armed();
    *machine.host.wrong.borrow_mut() = Some(name("new"));
    let new = [schedule("a", "daily 03:00"), schedule("new", "daily 05:00")].concat();
    machine.send(&generation(2, &new), &controller_key());
    let error = machine.apply().unwrap_err();
    assert!(
        matches!(error, ApplyError::RolledBack(_)),
        "{}",
        error.chain()
    );
    assert_eq!(machine.host.armed(), armed);
    assert!(!machine.drop_in("new").exists());
    let text = fs::read_to_string(machine.host.paths.generations().join("rejected.json")).unwrap();
    assert!(text.contains("apply_failed"), "{text}");
    // It does not come back by itself.
    let outcome = machine.apply().unwrap();
    assert_eq!((outcome.generation, outcome.reloaded), (Some(1), false));
    assert_eq!(machine.host.armed(), armed);
}

#[test]
fn only_root_and_the_agent_may_ask() {
    let root = tempfile::tempdir().unwrap();
    let passwd = root.path().join("passwd");
    fs::write(
        &passwd,
        "root:x:0:0::/:\nbackstay:x:990:990::/:\nbackstay-reader:x:991:991::/:\n",
    )
    .unwrap();
    let agent = uid_of("backstay", &passwd);
    assert_eq!(agent, Some(990));
    assert_eq!(peer(0, agent), Some(Peer::Root));
    assert_eq!(peer(990, agent), Some(Peer::Agent));
    assert_eq!(peer(991, agent), None);
    assert_eq!(peer(1000, None), None);
}
