//! A restore whose unit is stopped leaves everything as it is, says so, and is done when it is asked for again.

use lab::{Lab, Result, Server, fingerprint};

use crate::fleet::{RUN_MAX, prepared};

const FILE: &str = "/etc/backstay/schedules.d/test.toml";
const NIGHTLY: &str = "[schedule.nightly]\nscope = \"web\"\nwhen = \"daily 12:00\"\ndestinations = [\"local\"]\nenabled = false\n";

/// Asks for a restore, waits until it has begun to write below the directory $1, and stops its unit; prints what the
/// one who asked is told, and with what exit code. There are so many files that it takes a while.
const CUT: &str = r#"
set -u
place=$1; shift
backstayctl restore nightly "$@" >/run/told 2>&1 &
asked=$!
end=$((SECONDS + 60))
until compgen -G "$place/.backstay-*" >/dev/null; do
    [ $SECONDS -lt $end ] || { echo "the restore never began"; exit 1; }
done
systemctl stop backstay-restore@nightly
wait $asked
echo "exit $?" >>/run/told
cat /run/told
"#;

/// Stops a restore; what it says must tell what was done and what to do.
fn cut(server: &Server, place: &str, arguments: &str) -> Result<()> {
    let told = server
        .host
        .sh(&format!("bash /root/cut {place} {arguments}"))?;
    let wanted = "nothing was put in place: ask for the restore again";
    assert!(told.contains(wanted), "{told}");
    assert!(!told.contains("exit 0"), "{told}");
    Ok(())
}

#[test]
fn stopped_restore_puts_nothing_in_place_and_is_asked_for_again() -> Result<()> {
    let lab = Lab::new()?;
    let server = prepared(lab.host("web").boot()?)?;
    let host = &server.host;
    host.put("/root/cut", CUT)?;
    host.sh(
        "set -e; cd /home/acme; install -d -o acme many; seq 60000 | split -l 1 -a 5 -d - many/; \
         chown -R acme: many",
    )?;
    server.configure(FILE, NIGHTLY)?;
    server.apply()?;
    let run = server.run_now("nightly", RUN_MAX)?;
    assert_eq!(run["state"], "ok", "{run}");
    let saved = fingerprint(host, "/home/acme")?;
    host.sh("rm -r /home/acme/many; echo other > /home/acme/www/page-7; chown acme: /home/acme/www/page-7")?;
    let damaged = fingerprint(host, "/home/acme")?;

    cut(&server, "/home", "--in-place --yes")?;
    assert_eq!(fingerprint(host, "/home/acme")?, damaged);
    host.sh("! compgen -G '/home/.backstay-*'")?;
    host.sh("backstayctl restore nightly --in-place --yes")?;
    assert_eq!(fingerprint(host, "/home/acme")?, saved);

    // What is restored elsewhere goes on with what is there.
    host.sh("install -d /root/out")?;
    cut(&server, "/root/out", "--to /root/out")?;
    host.sh("! test -e /root/out/acme.1000; backstayctl restore nightly --to /root/out")?;
    assert_eq!(
        fingerprint(host, "/root/out/acme.1000/files/home/acme")?,
        saved
    );
    host.sh("! compgen -G '/root/out/.backstay-*'").map(drop)
}
