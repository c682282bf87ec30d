//! The S3 server of the lab serves, on a host and on loopback, and only to who has the key.

use std::process::Command;

use lab::{Garage, Lab, Result};

/// Puts an object, gets it back, and tells how a wrong secret is answered.
fn round_trip(garage: &Garage) -> String {
    let sign = format!(
        "aws:amz:{}:s3 -H x-amz-content-sha256:UNSIGNED-PAYLOAD",
        garage.region
    );
    let url = format!("{}/{}/hello", garage.endpoint, garage.bucket);
    let user = format!("{}:{}", garage.access_key, garage.secret_key);
    let wrong = format!("{}:{}", garage.access_key, "0".repeat(64));
    format!(
        "curl -sf --aws-sigv4 {sign} --user {user} -T /etc/hostname {url} && \
         curl -sf --aws-sigv4 {sign} --user {user} {url} && \
         curl -s -o /dev/null -w '%{{http_code}}' --aws-sigv4 {sign} --user {wrong} {url}"
    )
}

#[test]
fn bucket_on_a_host_is_reached_from_another_host() -> Result<()> {
    let lab = Lab::new()?;
    let store = lab.host("store").garage()?.boot()?;
    let web = lab.host("web").boot()?;
    let garage = Garage::start_on(&store, "backups")?;
    assert_eq!(web.sh(&round_trip(&garage))?, "web\n403");
    store.reboot()?;
    web.wait_for(&round_trip(&garage), std::time::Duration::from_secs(20))
}

#[test]
fn bucket_on_loopback_is_reached_from_this_machine() -> Result<()> {
    let garage = Garage::start_here("backups")?;
    let output = Command::new("bash")
        .args(["-c", &round_trip(&garage)])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).ends_with("\n403"),
        "{output:?}"
    );
    Ok(())
}
