//! The packages install on a bare host of either release, start what they should, and leave when told to.

use lab::{Distro, Lab, Package, Result};

#[test]
fn packages_install_on_both_releases_and_nothing_fails() -> Result<()> {
    let lab = Lab::new()?;
    for distro in Distro::ALL {
        let host = lab.host(distro.suite()).distro(distro).boot()?;
        host.install(&[Package::Agent, Package::Ctl, Package::Controller])?;
        for unit in [
            "backstay-apply.socket",
            "backstay-dump.socket",
            "backstay-load.socket",
            "backstay-schedules.target",
        ] {
            assert_eq!(
                host.sh(&format!("systemctl is-active {unit}"))?,
                "active\n",
                "{unit}"
            );
        }
        assert_eq!(host.sh("systemctl --failed --no-legend --plain")?, "");
        let verified = host.sh("systemd-analyze verify --man=no /usr/lib/systemd/system/backstay-*@.service 2>&1 || true")?;
        assert_eq!(verified, "", "{}", distro.suite());
        host.reboot()?;
        assert_eq!(host.sh("systemctl --failed --no-legend --plain")?, "");
    }
    Ok(())
}

#[test]
fn configuration_and_state_are_closed_to_others() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("web").boot()?;
    host.install(&Package::SERVER)?;
    host.sh("useradd mallory")?;
    for path in [
        "/etc/backstay/schedules.d",
        "/etc/backstay/destinations.d",
        "/var/lib/backstay/identity",
        "/var/lib/backstay/credstore",
        "/var/lib/backstay/ledger",
    ] {
        assert!(
            host.run(&format!("test -d {path}"))?.status.success(),
            "{path} is there"
        );
        let read = host.run(&format!("runuser -u mallory -- ls {path}"))?;
        assert!(!read.status.success(), "{path} is closed");
    }
    let talk = host.run(
        "runuser -u mallory -- socat -u OPEN:/dev/null UNIX-CONNECT:/run/backstay/apply.sock",
    )?;
    assert!(!talk.status.success());
    Ok(())
}

#[test]
fn purge_removes_timers_and_leaves_repositories() -> Result<()> {
    let lab = Lab::new()?;
    let server = lab::Server::install(lab.host("web").boot()?)?;
    server
        .host
        .sh("useradd --create-home acme; echo hello > /home/acme/hello")?;
    server.add_local("local", "/srv/backup")?;
    server.configure(
        "/etc/backstay/schedules.d/nightly.toml",
        "[schedule.nightly]\nscope = \"web\"\nwhen = \"daily 02:00\"\ndestinations = [\"local\"]\n",
    )?;
    server.apply()?;
    let host = &server.host;
    assert_eq!(
        host.sh("systemctl is-active backstay-job@nightly.timer")?,
        "active\n"
    );
    assert_eq!(
        server.run_now("nightly", std::time::Duration::from_secs(60))?["state"],
        "ok"
    );
    let stored = host.sh("cd /srv/backup && find . -type f | sort | xargs sha256sum")?;
    assert!(stored.lines().count() > 2, "{stored}");

    host.sh("DEBIAN_FRONTEND=noninteractive dpkg --purge backstay-agent backstay-ctl")?;
    assert_eq!(
        host.sh("systemctl list-units --all --no-legend --plain 'backstay*'")?,
        ""
    );
    assert_eq!(host.sh("find /etc/systemd /var/lib/systemd /usr/lib/systemd /run/systemd/system -name '*backstay*'")?, "");
    assert_eq!(
        host.sh("cd /srv/backup && find . -type f | sort | xargs sha256sum")?,
        stored
    );
    Ok(())
}
