//! The lab keeps its own promises: what a test does to a host happens to that host, and nothing is left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::{Distro, Lab, Result};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn hosts_of_both_releases_boot_without_failed_units_and_reach_each_other() -> Result<()> {
    let lab = Lab::new()?;
    let hosts = [
        lab.host("old").distro(Distro::Bookworm).create()?,
        lab.host("new").distro(Distro::Trixie).create()?,
    ];
    lab.up_all(&[&hosts[0], &hosts[1]])?;
    for (host, systemd) in hosts.iter().zip(["252", "257"]) {
        assert_eq!(host.sh("systemctl --failed --no-legend --plain")?, "");
        assert!(
            host.sh("systemctl --version")?
                .starts_with(&format!("systemd {systemd}"))
        );
        assert_eq!(host.sh("hostname")?.trim(), host.name());
    }
    hosts[0].sh("ping -c1 -W5 new")?;
    hosts[1].sh("ping -c1 -W5 old")?;
    Ok(())
}

#[test]
fn cut_link_drops_everything_and_healed_link_passes_it() -> Result<()> {
    let lab = Lab::new()?;
    let one = lab.host("one").boot()?;
    let two = lab.host("two").boot()?;
    let three = lab.host("three").boot()?;
    let reaches = |from: &lab::Host, to: &str| -> Result<bool> {
        Ok(from.run(&format!("ping -c1 -W1 {to}"))?.status.success())
    };

    one.cut()?;
    assert!(!reaches(&one, "two")? && !reaches(&two, "one")?);
    assert!(!one.sh("ip link show eth0")?.contains("NO-CARRIER"));
    one.heal()?;
    one.wait_for("ping -c1 -W1 two", SOON)?;

    lab.part(&one, &two)?;
    assert!(!reaches(&one, "two")? && reaches(&one, "three")? && reaches(&two, "three")?);
    lab.rejoin(&one, &two)?;
    two.wait_for("ping -c1 -W1 one", SOON)?;

    three.unplug()?;
    three.wait_for("ip link show eth0 | grep -q NO-CARRIER", SOON)?;
    three.plug()?;
    three.wait_for("ping -c1 -W1 one", SOON)
}

#[test]
fn slow_link_is_slow() -> Result<()> {
    let lab = Lab::new()?;
    let one = lab.host("one").boot()?;
    let two = lab.host("two").boot()?;
    one.sh("head -c 500000 /dev/zero > /srv/half; systemd-run -q --unit=serve socat TCP-LISTEN:9000,fork,reuseaddr OPEN:/srv/half")?;
    let fetch = "timeout 1 socat -u TCP:one:9000,retry=20,interval=0.05 - | wc -c";
    assert_eq!(two.sh(fetch)?.trim(), "500000");
    one.set_rate(lab::Rate::Megabits(1))?;
    assert_ne!(two.sh(fetch)?.trim(), "500000");
    one.set_rate(lab::Rate::Unlimited)?;
    assert_eq!(two.sh(fetch)?.trim(), "500000");
    Ok(())
}

#[test]
fn reboot_keeps_files_journal_address_and_machine_id() -> Result<()> {
    let lab = Lab::new()?;
    for distro in Distro::ALL {
        let host = lab.host(distro.suite()).distro(distro).boot()?;
        host.sh("echo kept > /var/lib/note")?;
        let machine = host.sh("cat /etc/machine-id")?;
        let boot = host.sh("cat /proc/sys/kernel/random/boot_id")?;
        host.reboot()?;
        assert_eq!(host.sh("cat /var/lib/note")?, "kept\n");
        assert_eq!(host.sh("cat /etc/machine-id")?, machine);
        assert_ne!(host.sh("cat /proc/sys/kernel/random/boot_id")?, boot);
        assert_eq!(
            host.sh("journalctl --list-boots | grep -cE '^ *(-1|0) '")?
                .trim(),
            "2"
        );
        let address = host.address().to_string();
        assert!(host.sh("ip -4 -o addr show eth0")?.contains(&address));
    }
    Ok(())
}

#[test]
fn host_that_was_off_or_killed_boots_with_what_it_wrote() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("one").boot()?;
    host.sh("echo one > /var/lib/note")?;
    host.power_off()?;
    assert!(!host.is_running());
    host.put("/var/lib/more", "while off")?;
    host.up()?;
    assert_eq!(
        host.sh("cat /var/lib/note /var/lib/more")?,
        "one\nwhile off"
    );

    // A stop script shows that the kill is one: it must not run.
    host.sh("systemd-run -q --unit=witness -p ExecStopPost='touch /var/lib/stopped' sleep infinity; echo two > /var/lib/note")?;
    host.kill()?;
    host.up()?;
    assert_eq!(
        host.sh("cat /var/lib/note; ls /var/lib/stopped 2>/dev/null || true")?,
        "two\n"
    );
    Ok(())
}

#[test]
fn power_cut_keeps_what_was_synced_and_loses_what_was_not() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("one").disk("/var/lib/state", 64).boot()?;
    host.sh("cd /var/lib/state && echo safe > synced && sync synced . && echo lost > unsynced")?;
    host.power_cut()?;
    host.up()?;
    assert_eq!(host.sh("cat /var/lib/state/synced")?, "safe\n");
    assert_eq!(
        host.sh("cat /var/lib/state/unsynced 2>/dev/null || true")?,
        ""
    );
    Ok(())
}

#[test]
fn moved_clock_moves_timers_inside_and_nothing_outside() -> Result<()> {
    let lab = Lab::new()?;
    for distro in Distro::ALL {
        let host = lab
            .host(distro.suite())
            .distro(distro)
            .movable_clock()
            .boot()?;
        host.put(
            "/etc/systemd/system/far.service",
            "[Service]\nType=oneshot\nExecStart=touch /run/fired\n",
        )?;
        host.put(
            "/etc/systemd/system/far.timer",
            "[Timer]\nOnCalendar=2061-01-01 00:00:00 UTC\nAccuracySec=1us\n",
        )?;
        host.sh("systemctl daemon-reload; systemctl start far.timer; test ! -e /run/fired")?;
        let seconds = 40 * 365 * 86_400;
        host.shift_clock(seconds)?;
        host.wait_for("test -e /run/fired", SOON)?;
        let inside = lab::process::number(&host.sh("date +%s")?)?;
        let outside = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(inside.abs_diff(outside + 40 * 365 * 86_400) < 60);
    }
    Ok(())
}

#[test]
fn nothing_on_a_host_may_set_the_clock_of_the_machine() -> Result<()> {
    const CAP_SYS_TIME: u32 = 25;
    let lab = Lab::new()?;
    let host = lab.host("one").boot()?;
    let bounds = "sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status";
    let inside = format!("systemd-run -q --wait --pipe {bounds}");
    for script in [
        bounds,
        inside.as_str(),
        "sed -n 's/^CapBnd:[[:space:]]*//p' /proc/1/status",
    ] {
        let text = host.sh(script)?;
        let capabilities = u64::from_str_radix(text.trim(), 16).unwrap();
        assert_eq!(capabilities >> CAP_SYS_TIME & 1, 0, "{script}");
    }
    Ok(())
}

#[test]
fn dropped_lab_leaves_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let id = lab.id().to_owned();
    let host = lab.host("one").disk("/var/lib/state", 64).boot()?;
    host.sh("setsid sleep 1000 >/dev/null 2>&1 & echo started")?;
    assert!(!traces_of(&id).is_empty());
    drop(host);
    drop(lab);
    assert_eq!(traces_of(&id), Vec::<String>::new());
    Ok(())
}

#[test]
fn guard_removes_the_lab_of_a_process_that_was_killed() -> Result<()> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_backstay-lab"))
        .arg("up")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let id = line.split([' ', ':']).nth(1).unwrap().to_owned();
    assert!(traces_of(&id).len() > 3, "{line}");
    process.kill().unwrap();
    process.wait().unwrap();
    lab::wait_until("the guard to remove the lab", SOON, || {
        Ok(traces_of(&id).is_empty())
    })
}

/// Lists everything on this machine that bears a lab's id.
fn traces_of(id: &str) -> Vec<String> {
    let mut traces = Vec::new();
    for place in [
        "/run/netns",
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/systemd",
    ] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let path = entry.path().display().to_string();
            traces.extend(path.contains(id).then_some(path));
        }
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        let is_process = entry.file_name().to_string_lossy().parse::<u32>().is_ok();
        traces.extend((is_process && command.contains(id)).then_some(command));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    traces.extend(
        mounts
            .lines()
            .filter(|line| line.contains(id) && !line.contains("/run/netns"))
            .map(ToOwned::to_owned),
    );
    let directory = lab::machine::cache_directory().join("lab/runs").join(id);
    traces.extend(directory.exists().then(|| directory.display().to_string()));
    traces
}
