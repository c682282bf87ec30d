//! Backstay's Debian packages: where they are, and how a host gets them. Promises are tested on what they install.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::fault::{Doing, Fault, Result};
use crate::host::Host;

/// One of the three packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// The agent of a server.
    Agent,
    /// The command for people.
    Ctl,
    /// The controller with its dashboard.
    Controller,
}

impl Package {
    /// What a server has.
    pub const SERVER: [Self; 2] = [Self::Agent, Self::Ctl];

    /// Gives the package's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "backstay-agent",
            Self::Ctl => "backstay-ctl",
            Self::Controller => "backstay-controller",
        }
    }

    /// Gives the package's file: in `BACKSTAY_DEBS`, or in `dist/` of this tree.
    ///
    /// # Errors
    ///
    /// When it was not built, or more than one version is there.
    pub fn file(self) -> Result<PathBuf> {
        let directory = env::var_os("BACKSTAY_DEBS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist"),
            PathBuf::from,
        );
        let prefix = format!("{}_", self.name());
        let entries = fs::read_dir(&directory).doing(|| {
            format!(
                "looking for packages in {}; run make deb",
                directory.display()
            )
        })?;
        let mut files: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&prefix) && name.ends_with(".deb")
            })
            .collect();
        match (files.pop(), files.is_empty()) {
            (Some(file), true) => Ok(file),
            _ => Err(Fault::new(format!(
                "looking for one {prefix}*.deb in {}; run make deb",
                directory.display()
            ))),
        }
    }
}

impl Host {
    /// Installs packages as an administrator would, and waits until what they started has started.
    ///
    /// # Errors
    ///
    /// When a package is missing or its installation fails; the error holds what dpkg said.
    pub fn install(&self, packages: &[Package]) -> Result<()> {
        let mut paths = Vec::new();
        for package in packages {
            let path = format!("/root/{}.deb", package.name());
            self.put_file(&path, &package.file()?)?;
            paths.push(path);
        }
        self.sh(&format!(
            "DEBIAN_FRONTEND=noninteractive dpkg --install {}",
            paths.join(" ")
        ))
        .map(drop)
        .doing(|| format!("installing packages on {}", self.name()))
    }
}
