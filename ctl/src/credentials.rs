//! Secrets that rest on this server: files encrypted by `systemd-creds`, bound to their name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use model::Exit;
use zeroize::Zeroizing;

use crate::problem::Problem;

/// The longest credential that is read, in bytes; systemd allows 1 MiB for a whole unit.
const BYTES_MAX: u64 = 64 * 1024;

/// Encrypts `secret` under `name` into `path`, whole or not at all.
///
/// # Errors
///
/// When `systemd-creds` is missing or refuses, or the file cannot be written.
pub fn encrypt(name: &str, secret: &[u8], path: &Path) -> Result<(), Problem> {
    let what = format!("cannot store credential {name}");
    let arguments = [
        "encrypt".to_owned(),
        format!("--name={name}"),
        "-".into(),
        "-".into(),
    ];
    let sealed = run(&what, &arguments, secret)?;
    write_private(path, &sealed).map_err(|error| {
        Problem::new(Exit::Failed, what)
            .cause(format!("writing {}", path.display()))
            .because(&error)
            .hint("backstayctl init")
    })
}

/// Decrypts what [`encrypt`] or the agent stored.
///
/// # Errors
///
/// When the file is missing, was encrypted on another machine or under another name.
pub fn decrypt(name: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let what = format!("cannot read credential {name}");
    let mut sealed = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX).read_to_end(&mut sealed))
        .map_err(|error| {
            Problem::new(Exit::Failed, what.clone())
                .cause(format!("reading {}", path.display()))
                .because(&error)
        })?;
    let arguments = [
        "decrypt".to_owned(),
        format!("--name={name}"),
        "-".into(),
        "-".into(),
    ];
    run(&what, &arguments, &sealed).map(Zeroizing::new)
}

fn run(what: &str, arguments: &[String], input: &[u8]) -> Result<Vec<u8>, Problem> {
    let failed = |error: io::Error| {
        Problem::new(Exit::Failed, what)
            .cause("running systemd-creds")
            .because(&error)
    };
    let mut child = Command::new("systemd-creds")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Both texts are far smaller than a pipe, so neither side waits for the other.
    let written = match child.stdin.take() {
        Some(mut stdin) => stdin.write_all(input),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Problem::new(Exit::Failed, what).cause(format!("systemd-creds: {said}")));
    }
    written.map_err(failed)?;
    Ok(output.stdout)
}

/// Writes a file that only root can read, by rename.
///
/// # Errors
///
/// When a step fails; the former file is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
