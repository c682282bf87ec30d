//! Garage: a real S3 server for tests, built once from its source and kept in the cache.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::command::{self, wait_until};
use crate::fault::{Doing, Fault, Result};
use crate::host::Host;
use crate::machine;

const VERSION: &str = "2.5.0";
const READY_MAX: Duration = Duration::from_secs(30);
const CONFIGURATION: &str = "/etc/garage.toml";
/// Where the program is shown on a host that serves S3; see [`crate::HostBuilder::garage`].
pub(crate) const ON_HOST: &str = "/usr/local/bin/garage";
/// The port that S3 is served on.
const PORT: u16 = 3900;

/// An S3 server with one bucket and one key pair, on a host of the lab or on this machine's loopback.
#[derive(Debug)]
pub struct Garage {
    /// Where S3 is reached, as a URL without a path.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: &'static str,
    /// The bucket.
    pub bucket: String,
    /// The public half of the key pair.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
    /// The process and its files, when it runs on this machine.
    local: Option<(Child, tempfile::TempDir)>,
}

impl Garage {
    /// Gives the program; builds it first when this machine does not have it, which takes minutes.
    ///
    /// # Errors
    ///
    /// When it cannot be built.
    pub fn ensure() -> Result<PathBuf> {
        let root = machine::cache_directory().join("garage");
        let program = root.join("bin/garage");
        if !program.is_file() {
            let root = root.to_string_lossy();
            let arguments = [
                "install",
                "--quiet",
                "--locked",
                "--root",
                &root,
                "--version",
                VERSION,
            ];
            let features = [
                "--no-default-features",
                "--features",
                "bundled-libs,sqlite",
                "garage",
            ];
            command::run("cargo", &[arguments.as_slice(), &features].concat())
                .doing(|| "building garage")?;
        }
        Ok(program)
    }

    /// Starts it as a service on a host that was made with [`crate::HostBuilder::garage`].
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_on(host: &Host, bucket: &str) -> Result<Self> {
        host.put(
            CONFIGURATION,
            configuration("/var/lib/garage", "0.0.0.0", [PORT, 3901]),
        )?;
        host.put(
            "/etc/systemd/system/garage.service",
            format!("[Service]\nExecStart={ON_HOST} -c {CONFIGURATION} server\nEnvironment=RUST_LOG=garage=warn\n\
                     [Install]\nWantedBy=multi-user.target\n"),
        )?;
        host.sh("systemctl daemon-reload; systemctl enable --quiet --now garage")?;
        let call = |words: &str| host.sh(&format!("{ON_HOST} -c {CONFIGURATION} {words}"));
        let (access_key, secret_key) = set_up(bucket, call)?;
        Ok(Self {
            endpoint: format!("http://{}:{PORT}", host.address()),
            region: "garage",
            bucket: bucket.to_owned(),
            access_key,
            secret_key,
            local: None,
        })
    }

    /// Starts it on this machine's loopback, on free ports; it ends when the value is dropped.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_here(bucket: &str) -> Result<Self> {
        let program = Self::ensure()?;
        let directory = tempfile::tempdir().doing(|| "making a directory for garage")?;
        let ports = [free_port()?, free_port()?];
        let file = directory.path().join("garage.toml");
        let data = directory.path().to_string_lossy().into_owned();
        fs::write(&file, configuration(&data, "127.0.0.1", ports))
            .doing(|| "configuring garage")?;
        let errors =
            fs::File::create(directory.path().join("log")).doing(|| "making garage's log")?;
        let child = Command::new(&program)
            .arg("-c")
            .arg(&file)
            .arg("server")
            .env("RUST_LOG", "garage=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .doing(|| "starting garage")?;
        let mut garage = Self {
            endpoint: format!("http://127.0.0.1:{}", ports[0]),
            region: "garage",
            bucket: bucket.to_owned(),
            access_key: String::new(),
            secret_key: String::new(),
            local: Some((child, directory)),
        };
        let call = |words: &str| {
            let mut command = Command::new(&program);
            command.arg("-c").arg(&file).args(words.split(' '));
            command::finish(&mut command)
        };
        (garage.access_key, garage.secret_key) = set_up(bucket, call)?;
        Ok(garage)
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.local {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Gives the one node a place in the layout, and makes bucket and key.
fn set_up(bucket: &str, call: impl Fn(&str) -> Result<String>) -> Result<(String, String)> {
    let mut node = String::new();
    wait_until("garage to answer", READY_MAX, || {
        let Ok(answer) = call("node id -q") else {
            return Ok(false);
        };
        node = answer
            .split('@')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        Ok(call("status").is_ok())
    })?;
    call(&format!("layout assign -z lab -c 1G {node}"))?;
    call("layout apply --version 1")?;
    wait_until("garage to serve its layout", READY_MAX, || {
        Ok(call(&format!("bucket create {bucket}")).is_ok()
            || call(&format!("bucket info {bucket}")).is_ok())
    })?;
    let key = call("key create lab")?;
    let field = |name: &str| {
        key.lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .map(|value| value.trim().to_owned())
            .ok_or_else(|| Fault::new(format!("reading garage's new key: no {name:?} in it")))
    };
    let (access, secret) = (field("Key ID:")?, field("Secret key:")?);
    call(&format!(
        "bucket allow --read --write --owner {bucket} --key {access}"
    ))?;
    Ok((access, secret))
}

fn configuration(data: &str, address: &str, [s3, rpc]: [u16; 2]) -> String {
    // The secret joins nodes of one cluster; this cluster has one node and lives for one test.
    let secret = "5a".repeat(32);
    format!(
        "metadata_dir = \"{data}/meta\"\ndata_dir = \"{data}/data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{secret}\"\n\
         [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"{address}:{s3}\"\n"
    )
}

fn free_port() -> Result<u16> {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .doing(|| "finding a free port")
}
