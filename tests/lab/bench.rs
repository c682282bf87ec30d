//! Backstay beside restic: the same site on the same host, to the same disk, one after the other.

use std::path::Path;
use std::time::{Duration, Instant};

use lab::{Doing, Host, Lab, Result, Server, Site};

/// What is measured, in order; each step is done by both programs before the next.
const STEPS: [&str; 4] = ["first backup", "unchanged", "1 % changed", "restore"];
const RESTIC: &str = "restic --quiet --repo /srv/restic --password-file /root/password";
const SCHEDULE: &str =
    "[schedule.bench]\nscope = \"web\"\nwhen = \"monthly 1 02:00\"\ndestinations = [\"local\"]\n";

/// Measures and prints a table with ratios; above 1 Backstay took longer.
pub(crate) fn run() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab
        .host("bench")
        .show(Path::new("/usr/bin/restic"), "/usr/local/bin/restic")
        .boot()?;
    let server = Server::install(host)?;
    let host = &server.host;
    let site = Site::set_up(host, "acme", "acme.example")?;
    // Only programs that are measured are to work.
    host.sh("systemctl stop nginx mariadb 'php*-fpm'")?;
    server.add_local("local", "/srv/backstay")?;
    server.configure("/etc/backstay/schedules.d/bench.toml", SCHEDULE)?;
    server.apply()?;
    host.sh(&format!(
        "head -c 24 /dev/urandom | base64 > /root/password; {RESTIC} init"
    ))?;
    let size =
        host.sh("find /home/acme -type f | wc -l; du -sm --apparent-size /home/acme | cut -f1")?;
    let (files, mebibytes) = size.trim().split_once('\n').doing(|| "reading the size")?;
    println!("{files} files, {mebibytes} MiB, to a directory on the same disk\n");
    println!("{:<14}{:>12}{:>12}{:>8}", "", "backstay", "restic", "ratio");

    for step in STEPS {
        if step == "1 % changed" {
            host.sh(&format!(
                "find {} -name '*.php' | sort | awk 'NR % 100 == 0' | while read -r file; do echo '// changed' >> \"$file\"; done",
                site.root
            ))?;
        }
        let (ours, theirs) = if step == "restore" {
            (
                "backstayctl restore bench --to /var/tmp/backstay".to_owned(),
                format!("{RESTIC} restore latest --target /var/tmp/restic"),
            )
        } else {
            (
                "backstayctl schedule run bench".to_owned(),
                format!("{RESTIC} backup /home/acme"),
            )
        };
        let (ours, theirs) = (measure(host, &ours)?, measure(host, &theirs)?);
        println!(
            "{step:<14}{:>10.2} s{:>10.2} s{:>8.2}",
            ours.as_secs_f64(),
            theirs.as_secs_f64(),
            ours.as_secs_f64() / theirs.as_secs_f64()
        );
    }
    let stored = host.sh("du -sm /srv/backstay /srv/restic")?;
    println!("\nstored, in MiB:\n{stored}");
    Ok(())
}

/// Takes the time of a command, with what it wrote on disk at its end.
fn measure(host: &Host, script: &str) -> Result<Duration> {
    host.sh("sync -f /srv")?;
    let start = Instant::now();
    host.sh(&format!("{script} > /dev/null; sync -f /srv"))?;
    Ok(start.elapsed())
}
