//! A second run stores what changed, and little else.

use lab::{Lab, Result};

use crate::fleet::{RUN_MAX, prepared};

#[test]
fn unchanged_run_stores_under_64_kib_and_one_appended_line_under_256_kib() -> Result<()> {
    let lab = Lab::new()?;
    let server = prepared(lab.host("web").boot()?)?;
    let host = &server.host;
    host.sh(
        "install -d -o acme /home/acme/www/many; cd /home/acme/www/many; \
             for i in $(seq 3000); do seq $i $((i + 300)) > file-$i; done; chown -R acme: .",
    )?;
    server.configure(
        "/etc/backstay/schedules.d/nightly.toml",
        "[schedule.nightly]\nscope = \"web\"\nwhen = \"daily 02:00\"\ndestinations = [\"local\"]\n",
    )?;
    server.apply()?;
    let stored = |run: &serde_json::Value| -> u64 {
        assert_eq!(run["state"], "ok", "{run}");
        run["copies"][0]["stored_bytes"].as_u64().unwrap()
    };
    let first = stored(&server.run_now("nightly", RUN_MAX)?);
    let second = stored(&server.run_now("nightly", RUN_MAX)?);
    host.sh("echo one more line >> /home/acme/www/many/file-1234")?;
    let third = stored(&server.run_now("nightly", RUN_MAX)?);
    println!("stored: first {first}, unchanged {second}, one line {third} bytes");
    assert!(first > 200_000, "{first}");
    assert!(second < 64 << 10, "{second}");
    assert!(third < 256 << 10, "{third}");
    assert!(third > 0);
    Ok(())
}
