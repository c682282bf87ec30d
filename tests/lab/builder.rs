//! How a host is put together before it boots for the first time.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::command;
use crate::fault::{Doing, Result};
use crate::garage::{self, Garage};
use crate::host::Host;
use crate::image::{CLOCK_LIBRARY, Distro, Image};
use crate::lab::Shared;
use crate::record::namespace_name;

const LAUNCH: &str = include_str!("assets/launch.sh");
const CLOCK_BYTES: usize = 4096;

/// What a new host is to be. Made by [`crate::Lab::host`].
#[derive(Debug)]
#[must_use]
pub struct HostBuilder {
    shared: Arc<Shared>,
    name: String,
    distro: Distro,
    has_movable_clock: bool,
    disk: Option<(String, u32)>,
    binds: Vec<String>,
}

impl HostBuilder {
    pub(crate) fn new(shared: Arc<Shared>, name: &str) -> Self {
        Self {
            shared,
            name: name.to_owned(),
            distro: Distro::Bookworm,
            has_movable_clock: false,
            disk: None,
            binds: Vec::new(),
        }
    }

    /// Sets the release; Debian 12 unless set.
    pub fn distro(mut self, distro: Distro) -> Self {
        self.distro = distro;
        self
    }

    /// Gives it a clock of its own, for [`Host::shift_clock`].
    pub fn movable_clock(mut self) -> Self {
        self.has_movable_clock = true;
        self
    }

    /// Puts `path` on a disk of its own, which fills up and for which [`Host::power_cut`] tells the truth.
    pub fn disk(mut self, path: &str, mebibytes: u32) -> Self {
        self.disk = Some((path.to_owned(), mebibytes));
        self
    }

    /// Shows a file or directory of this machine at `path`, for reading only.
    pub fn show(mut self, source: &Path, path: &str) -> Self {
        let source = source.display();
        self.binds.push(format!("--bind-ro={source}:{path}"));
        self
    }

    /// Puts `path` on a small file system in memory.
    pub fn memory(mut self, path: &str, mebibytes: u32) -> Self {
        self.binds
            .push(format!("--tmpfs={path}:size={mebibytes}M,mode=0755"));
        self
    }

    /// Gives it the S3 server's program, for [`Garage::start_on`].
    ///
    /// # Errors
    ///
    /// When the program cannot be built.
    pub fn garage(self) -> Result<Self> {
        let program = Garage::ensure()?;
        Ok(self.show(&program, garage::ON_HOST))
    }

    /// Makes the host, without booting it.
    ///
    /// # Errors
    ///
    /// When the name is taken, or the image, network or disk cannot be made.
    pub fn create(self) -> Result<Host> {
        let image = Image::ensure(self.distro)?;
        let directory = self.shared.record.host_directory(&self.name);
        let address = self.shared.add(&self.name)?;
        for part in ["upper/etc", "work", "merged", "disk"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).doing(|| format!("making {}", path.display()))?;
        }
        let host = Host {
            launch: self.launch(&directory, image.root())?,
            shared: self.shared.clone(),
            name: self.name.clone(),
            distro: self.distro,
            address,
            directory,
            launcher: Mutex::new(None),
        };
        self.furnish(&host)
            .doing(|| format!("furnishing {}", self.name))?;
        Ok(host)
    }

    /// Makes the host and boots it.
    ///
    /// # Errors
    ///
    /// As [`HostBuilder::create`] and [`Host::up`].
    pub fn boot(self) -> Result<Host> {
        let host = self.create()?;
        host.up()?;
        Ok(host)
    }

    fn furnish(&self, host: &Host) -> Result<()> {
        let id = command::run("cat", &["/proc/sys/kernel/random/uuid"])?;
        host.put("/etc/machine-id", id.replace('-', ""))?;
        host.put("/etc/hostname", format!("{}\n", self.name))?;
        if self.has_movable_clock {
            host.put("/etc/lab-clock", vec![0; CLOCK_BYTES])?;
            host.put("/etc/ld.so.preload", format!("/{CLOCK_LIBRARY}\n"))?;
        }
        if let Some((_, mebibytes)) = &self.disk {
            let image = host.directory.join("disk.img");
            let image = image.to_string_lossy();
            command::run("truncate", &["-s", &format!("{mebibytes}M"), &image])?;
            command::run("mkfs.ext4", &["-q", "-F", "-m0", &image])?;
        }
        Ok(())
    }

    fn launch(&self, directory: &Path, image: &Path) -> Result<Vec<String>> {
        let id = self.shared.record.id();
        let mut words: Vec<String> = ["unshare", "--mount", "bash", "-c", LAUNCH, "launch"]
            .map(ToOwned::to_owned)
            .to_vec();
        words.push(directory.display().to_string());
        words.push(image.display().to_string());
        for group in self.shared.record.group(&self.name)? {
            words.push(group.display().to_string());
        }
        words.push("--".to_owned());
        words.push(format!("--machine={id}-{}", self.name));
        words.push(format!("--hostname={}", self.name));
        words.push(format!(
            "--network-namespace-path=/run/netns/{}",
            namespace_name(id, &self.name)
        ));
        let fixed = "--register=no --keep-unit --console=pipe --resolv-conf=off --timezone=off --link-journal=no \
                     --capability=CAP_NET_ADMIN";
        words.extend(fixed.split_whitespace().map(ToOwned::to_owned));
        let names = self.shared.record.names_file();
        words.push(format!("--bind-ro={}:/etc/hosts", names.display()));
        if let Some((path, _)) = &self.disk {
            words.push(format!(
                "--bind={}:{path}",
                directory.join("disk").display()
            ));
        }
        words.extend(self.binds.iter().cloned());
        Ok(words)
    }
}
