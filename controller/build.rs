//! Puts the built dashboard where the program embeds it from, each file with a gzip form beside it.
//!
//! It never builds the dashboard: that is `npm run build` in `controller/ui`. Without a built one
//! the program holds a page that says so.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const NOTICE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Backstay controller</title>
<h1>The dashboard is not part of this build</h1>
<p>The controller runs and its API answers. To have the dashboard, run <code>npm ci</code> and
<code>npm run build</code> in <code>controller/ui</code>, then build the controller again.</p>
</html>
";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=ui/dist");
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .ok_or(io::ErrorKind::NotFound)
    };
    let to = variable("OUT_DIR")?.join("dashboard");
    let from = variable("CARGO_MANIFEST_DIR")?.join("ui/dist");
    match fs::remove_dir_all(&to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(&to)?;
    if from.join("index.html").is_file() {
        copy(&from, &to)
    } else {
        put(&to.join("index.html"), NOTICE.as_bytes())
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            put(&target, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)?;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes)?;
    let packed = packer.finish()?;
    // Pictures and fonts are packed already.
    if packed.len() < bytes.len() {
        let mut name = path.as_os_str().to_owned();
        name.push(".gz");
        fs::write(PathBuf::from(name), packed)?;
    }
    Ok(())
}
