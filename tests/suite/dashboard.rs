//! The dashboard in a real browser: first run, a server added, a schedule made and run, its log read, a restore.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::{Controller, Lab, Result, controller};

use crate::fleet::prepared;

const JOURNEY_MAX: Duration = Duration::from_secs(420);

#[test]
fn a_person_goes_from_first_run_to_restore_without_a_complaint_of_the_browser() -> Result<()> {
    let lab = Lab::new()?;
    let hosts = [lab.host("controller").create()?, lab.host("web").create()?];
    lab.up_all(&hosts.each_ref())?;
    let [first, second] = hosts;
    let controller = Controller::install(first)?;
    let server = prepared(second)?;
    // Long enough to be seen moving: compressing it takes seconds, noise alone would be stored in less than one.
    server.host.sh(
        "head -c 750000000 /dev/urandom | base64 -w 0 > /home/acme/www/large; \
         chown acme: /home/acme/www/large",
    )?;
    let address = controller.host.forward(controller::PORT, None)?;

    let shots = shots_directory();
    let directory = tempfile::tempdir().unwrap();
    let join_file = directory.path().join("join");
    let settings = serde_json::json!({
        "url": format!("https://{address}"), "setup_token": controller.setup_token()?,
        "user": controller::USER, "password": controller::PASSWORD, "server": "web",
        "join_file": join_file, "schedule": "nightly", "scope": "Web", "destinations": ["local"],
        "restore": "/var/tmp/restored", "shots": shots,
    });
    let settings_file = directory.path().join("settings.json");
    fs::write(&settings_file, settings.to_string()).unwrap();
    let log = fs::File::create(directory.path().join("log")).unwrap();
    let mut journey = Command::new("npm")
        .args(["run", "--silent", "e2e"])
        .current_dir(root().join("controller/ui"))
        .env("BACKSTAY_E2E", &settings_file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let read_log = || fs::read_to_string(directory.path().join("log")).unwrap();
    let mut has_joined = false;
    let mut status = None;
    let watched = lab::wait_until("the journey's end", JOURNEY_MAX, || {
        if !has_joined && join_file.exists() {
            // What the page shows is what an administrator types.
            let line = fs::read_to_string(&join_file).unwrap();
            server.host.sh(line.trim().trim_start_matches("sudo "))?;
            has_joined = true;
        }
        status = journey.try_wait().unwrap();
        Ok(status.is_some())
    });
    if status.is_none() {
        journey.kill().unwrap();
        journey.wait().unwrap();
    }
    watched?;
    assert!(
        status.is_some_and(|status| status.success()),
        "{}",
        read_log()
    );
    assert!(has_joined);
    server
        .host
        .sh("test -n \"$(find /var/tmp/restored -name page-7)\"")
        .map(drop)
}

/// Gives where screenshots are kept: below the build's directory, so that they outlive the test.
fn shots_directory() -> PathBuf {
    let directory = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join("screenshots");
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}
