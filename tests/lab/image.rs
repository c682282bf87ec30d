//! Root file systems of hosts: built once for each Debian release, then only read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::command;
use crate::fault::{Doing, Fault, Result};
use crate::machine;

const FINISH: &str = include_str!("assets/image.sh");
const CLOCK: &str = include_str!("assets/clock.c");

/// What every image holds: a bootable system, tools of the tests, and the hosting set.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "polkitd",
    "systemd-container",
    "iproute2",
    "iputils-ping",
    "procps",
    "psmisc",
    "sqlite3",
    "e2fsprogs",
    "btrfs-progs",
    "curl",
    "ca-certificates",
    "kmod",
    "passwd",
    "adduser",
    "socat",
    "attr",
    "acl",
    "openssl",
    "less",
    "tzdata",
    "python3-minimal",
    "mariadb-server",
    "nginx",
    "php-fpm",
    "php-cli",
    "php-mysql",
    "wordpress",
];

/// The theme that WordPress of a release begins with; a package of its own.
const fn theme(distro: Distro) -> &'static str {
    match distro {
        Distro::Bookworm => "wordpress-theme-twentytwentythree",
        Distro::Trixie => "wordpress-theme-twentytwentyfive",
    }
}

/// Where in an image the library is that makes a host's clock movable.
pub(crate) const CLOCK_LIBRARY: &str = "usr/local/lib/lab-clock.so";

/// A Debian release that hosts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Distro {
    /// Debian 12, systemd 252.
    Bookworm,
    /// Debian 13, systemd 257.
    Trixie,
}

impl Distro {
    /// Every release that we promise to work on.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// Gives the release's name in Debian's archive.
    #[must_use]
    pub const fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// Gives the version of PHP, which is part of its units' names.
    #[must_use]
    pub const fn php(self) -> &'static str {
        match self {
            Self::Bookworm => "8.2",
            Self::Trixie => "8.4",
        }
    }
}

/// A built image.
#[derive(Debug, Clone)]
pub struct Image {
    root: PathBuf,
}

impl Image {
    /// Gives the image of a release; builds it first when this machine does not have it.
    ///
    /// Other builders of the same release are waited for. A build that is cut leaves nothing that is taken for an image.
    ///
    /// # Errors
    ///
    /// When the packages cannot be had or the cache directory cannot be written.
    pub fn ensure(distro: Distro) -> Result<Self> {
        let images = machine::cache_directory().join("lab/images");
        let root = images.join(format!("{}-{}", distro.suite(), content_hash(distro)));
        if root.is_dir() {
            return Ok(Self { root });
        }
        fs::create_dir_all(&images).doing(|| format!("making {}", images.display()))?;
        let lock = images.join(format!("{}.lock", distro.suite()));
        let _lock = File::create(&lock)
            .and_then(|file| file.lock().map(|()| file))
            .doing(|| format!("locking {}", lock.display()))?;
        if !root.is_dir() {
            build(distro, &images, &root)
                .doing(|| format!("building the image of {}", distro.suite()))?;
        }
        Ok(Self { root })
    }

    /// Gives the image's directory. Nobody may write there.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn content_hash(distro: Distro) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in PACKAGES.iter().chain(&[theme(distro), FINISH, CLOCK]) {
        hasher.update(part.as_bytes());
        hasher.update(b"\0");
    }
    hasher.finalize().to_hex().chars().take(16).collect()
}

fn build(distro: Distro, images: &Path, root: &Path) -> Result<()> {
    let unfinished = images.join(format!("{}.unfinished", distro.suite()));
    remove_tree(&unfinished)?;
    let source = format!("deb {} {} main", archive()?, distro.suite());
    command::run(
        "mmdebstrap",
        &[
            "--quiet",
            "--variant=minbase",
            &format!("--include={},{}", PACKAGES.join(","), theme(distro)),
            distro.suite(),
            &unfinished.to_string_lossy(),
            &source,
        ],
    )?;
    compile_clock(&unfinished)?;
    let script = ["-c", FINISH, "image", &unfinished.to_string_lossy()];
    command::run("bash", &script)?;
    fs::rename(&unfinished, root).doing(|| format!("publishing {}", root.display()))
}

fn compile_clock(root: &Path) -> Result<()> {
    let directory = tempfile::tempdir().doing(|| "making a directory to compile in")?;
    let source = directory.path().join("clock.c");
    fs::write(&source, CLOCK).doing(|| "writing the movable clock's source")?;
    let flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"];
    let mut arguments: Vec<_> = flags.iter().map(PathBuf::from).collect();
    arguments.extend([root.join(CLOCK_LIBRARY), source]);
    command::run("gcc", &arguments).map(drop)
}

/// Gives the Debian archive that this machine itself installs from.
fn archive() -> Result<String> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let listed = command::run(
        "apt-get",
        &["indextargets", "--format", format, "Created-By: Packages"],
    )?;
    listed
        .lines()
        .find_map(|line| line.strip_prefix("Debian|Debian|"))
        .map(ToOwned::to_owned)
        .ok_or_else(|| {
            Fault::new("finding this machine's Debian archive: apt knows none; run apt-get update")
        })
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
