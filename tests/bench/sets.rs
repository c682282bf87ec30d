//! The data sets: made once from Debian's packages and fixed seeds, kept below the cache, and copied for each bench.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use lab::{Doing, Fault, Result, command};

use crate::data::{self, Noise};

/// Accounts of the hosting set.
const ACCOUNT_COUNT: u64 = 15;
/// Of each account: files in its uploads, and mails.
const UPLOAD_COUNT: u64 = 560;
const MAIL_COUNT: u64 = 1_650;
const DUMP_BYTES: u64 = 3_000_000;

const MEDIA_COUNT: u64 = 20;
const MEDIA_BYTES: u64 = 100_000_000;

const BIG_DUMP_BYTES: u64 = 1_000_000_000;
const EDIT_COUNT: usize = 100;

/// One data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    Linux,
    Hosting,
    Media,
    Dumps,
}

impl Set {
    pub(crate) const ALL: [Self; 4] = [Self::Linux, Self::Hosting, Self::Media, Self::Dumps];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Hosting => "hosting",
            Self::Media => "media",
            Self::Dumps => "dumps",
        }
    }

    /// Makes the set if it is not there, and gives its directory.
    ///
    /// # Errors
    ///
    /// When a package is missing or the disk is full.
    pub(crate) fn ensure(self, bench: &Path) -> Result<PathBuf> {
        let done = bench.join("sets").join(self.name());
        if done.exists() {
            return Ok(done);
        }
        let partial = bench.join("sets").join(format!("{}.part", self.name()));
        remove(&partial)?;
        make_directory(&partial)?;
        match self {
            Self::Linux => linux(bench, &partial)?,
            Self::Hosting => hosting(bench, &partial)?,
            Self::Media => media(&partial)?,
            Self::Dumps => dumps(&partial)?,
        }
        fs::rename(&partial, &done).doing(|| format!("finishing {}", done.display()))?;
        Ok(done)
    }

    /// Changes the copy of a set as a day would: a line at the end of every hundredth file; of the dumps, some rows.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub(crate) fn change(self, set: &Path, copy: &Path, round: usize) -> Result<()> {
        if self == Self::Dumps {
            return put_dump(set, copy, "edited.sql");
        }
        let mut files = files_of(copy)?;
        files.sort();
        for path in files.iter().skip(50.min(files.len() / 2)).step_by(100) {
            let doing = || format!("changing {}", path.display());
            let mut file = File::options().append(true).open(path).doing(doing)?;
            writeln!(file, "// changed in round {round}").doing(doing)?;
        }
        Ok(())
    }

    /// Brings the copy back to where a round begins.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub(crate) fn begin(self, set: &Path, copy: &Path) -> Result<()> {
        match self {
            Self::Dumps => put_dump(set, copy, "dump.sql"),
            Self::Linux | Self::Hosting | Self::Media => Ok(()),
        }
    }

    /// Copies the set, without what only [`Set::change`] needs.
    ///
    /// # Errors
    ///
    /// When the disk is full.
    pub(crate) fn copy(self, set: &Path, copy: &Path) -> Result<()> {
        make_directory(copy)?;
        match self {
            Self::Dumps => self.begin(set, copy),
            Self::Linux | Self::Hosting | Self::Media => {
                let (from, to) = (format!("{}/.", set.display()), copy.display().to_string());
                command::run("cp", &["-a", &from, &to]).map(drop)
            }
        }
    }
}

fn put_dump(set: &Path, copy: &Path, name: &str) -> Result<()> {
    let to = copy.join("dump.sql");
    // A new file, as a new dump is.
    remove(&to)?;
    fs::copy(set.join(name), &to)
        .map(drop)
        .doing(|| format!("writing {}", to.display()))
}

fn linux(bench: &Path, into: &Path) -> Result<()> {
    let unpacked = unpack(bench, "linux-source-", into)?;
    let sources = unpacked.join("usr/src");
    let archive = fs::read_dir(&sources).doing(|| format!("looking into {}", sources.display()))?;
    let archive = archive
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".tar.xz"))
        .doing(|| format!("finding the kernel's archive in {}", sources.display()))?;
    let (archive, to) = (archive.display().to_string(), into.display().to_string());
    command::run("tar", &["--no-same-owner", "-C", &to, "-xf", &archive])?;
    remove(&unpacked)
}

fn hosting(bench: &Path, into: &Path) -> Result<()> {
    let unpacked = unpack(bench, "wordpress_", into)?;
    let from = unpacked.join("usr/share/wordpress");
    for number in 1..=ACCOUNT_COUNT {
        let home = into.join(format!("home/user{number:02}"));
        let site = home.join("www/shop.example");
        make_directory(&site)?;
        let from = format!("{}/.", from.display());
        command::run("cp", &["-a", &from, &site.display().to_string()])?;
        let mut noise = Noise::new(&format!("backstay bench, account {number}"));
        uploads(&mut noise, &site.join("wp-content/uploads"))?;
        mails(&mut noise, &home.join("Maildir/cur"))?;
        let dump = home.join("backup.sql");
        let mut file = BufWriter::new(create(&dump)?);
        data::dump(&mut noise, DUMP_BYTES, &mut file)
            .and_then(|()| file.flush())
            .doing(|| format!("writing {}", dump.display()))?;
    }
    remove(&unpacked)
}

/// Pictures, most of them small, by month.
fn uploads(noise: &mut Noise, into: &Path) -> Result<()> {
    for number in 0..UPLOAD_COUNT {
        let month = into.join(format!("2025/{:02}", number % 12 + 1));
        if number < 12 {
            make_directory(&month)?;
        }
        let length = match noise.below(10) {
            0 => 100_000 + noise.below(250_000),
            1..4 => 20_000 + noise.below(60_000),
            _ => 3_000 + noise.below(20_000),
        };
        let bytes = noise.bytes(usize::try_from(length).unwrap_or(3_000));
        write(&month.join(format!("picture-{number}.jpg")), &bytes)?;
    }
    Ok(())
}

fn mails(noise: &mut Noise, into: &Path) -> Result<()> {
    make_directory(into)?;
    for number in 0..MAIL_COUNT {
        let text = data::mail(noise, number);
        let name = format!(
            "{}.M{number}P1.mx1,S={}:2,S",
            1_767_225_600 + number * 977,
            text.len()
        );
        write(&into.join(name), text.as_bytes())?;
    }
    Ok(())
}

fn media(into: &Path) -> Result<()> {
    for number in 0..MEDIA_COUNT {
        let mut noise = Noise::new(&format!("backstay bench, film {number}"));
        let bytes = noise.bytes(usize::try_from(MEDIA_BYTES).unwrap_or(0));
        write(&into.join(format!("film-{number:02}.mp4")), &bytes)?;
    }
    Ok(())
}

fn dumps(into: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    data::dump(
        &mut Noise::new("backstay bench, dump"),
        BIG_DUMP_BYTES,
        &mut bytes,
    )
    .doing(|| "making the dump")?;
    write(&into.join("dump.sql"), &bytes)?;
    data::edit_rows(&mut bytes, EDIT_COUNT);
    write(&into.join("edited.sql"), &bytes)
}

/// Unpacks the package whose file begins with `name`.
fn unpack(bench: &Path, name: &str, into: &Path) -> Result<PathBuf> {
    let packages = bench.join("packages");
    let listed =
        fs::read_dir(&packages).doing(|| format!("looking into {}", packages.display()))?;
    let package = listed
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|file| file.to_string_lossy().starts_with(name))
        })
        .ok_or_else(|| {
            Fault::new(format!(
                "finding the package {name}* in {}; make bench fetches it",
                packages.display()
            ))
        })?;
    let to = into.with_extension("unpacked");
    remove(&to)?;
    command::run(
        "dpkg-deb",
        &[
            "-x",
            &package.display().to_string(),
            &to.display().to_string(),
        ],
    )?;
    Ok(to)
}

/// Gives all regular files below a directory.
///
/// # Errors
///
/// When it cannot be read.
pub(crate) fn files_of(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    Ok(files)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).doing(|| format!("listing {}", directory.display()))?;
    for entry in entries {
        let entry = entry.doing(|| format!("listing {}", directory.display()))?;
        let kind = entry
            .file_type()
            .doing(|| format!("looking at {}", entry.path().display()))?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// What a tree holds: number of regular files and their bytes. A restore is compared by it.
///
/// # Errors
///
/// When the tree cannot be read.
pub(crate) fn extent(directory: &Path) -> Result<(u64, u64)> {
    let files = files_of(directory)?;
    let mut bytes = 0;
    for path in &files {
        bytes += path
            .metadata()
            .doing(|| format!("looking at {}", path.display()))?
            .len();
    }
    Ok((files.len() as u64, bytes))
}

/// Reads a tree, so that it is in the page cache.
///
/// # Errors
///
/// When it cannot be read.
pub(crate) fn warm(directory: &Path) -> Result<()> {
    let files = files_of(directory)?;
    for path in &files {
        let mut file = File::open(path).doing(|| format!("reading {}", path.display()))?;
        io::copy(&mut file, &mut io::sink()).doing(|| format!("reading {}", path.display()))?;
    }
    Ok(())
}

pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).doing(|| format!("making {}", path.display()))
}

/// Removes a file or a tree that may be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn create(path: &Path) -> Result<File> {
    File::create(path).doing(|| format!("making {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).doing(|| format!("writing {}", path.display()))
}
