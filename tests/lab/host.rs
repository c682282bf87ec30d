//! One host: a Debian system with systemd as its first process, in a container.
//!
//! Commands never get the capability to set the clock: the kernel has one clock, and a host that could set it would set
//! that of this machine. A host made with [`crate::HostBuilder::movable_clock`] has one of its own to move.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{self, wait_until};
use crate::fault::{Doing, Fault, Result};
use crate::image::Distro;
use crate::lab::Shared;
use crate::network::Rate;
use crate::process;

/// How long a host may take to boot, also on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(90);
/// How long a host may take to power off.
const POWER_OFF_MAX: Duration = Duration::from_secs(60);
/// How long one command may take on a host.
const COMMAND_SECS_MAX: &str = "600";
/// What a command on a host may not do, so that no test can harm this machine. `sys_time` guards its clock.
const FORBIDDEN: &str =
    "--bounding-set=-sys_time,-sys_module,-sys_rawio,-sys_pacct,-sys_boot,-wake_alarm,-syslog";

/// A host of a lab. Several may be driven from several threads at once.
#[derive(Debug)]
pub struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: String,
    pub(crate) distro: Distro,
    pub(crate) address: Ipv4Addr,
    pub(crate) directory: PathBuf,
    pub(crate) launch: Vec<String>,
    pub(crate) launcher: Mutex<Option<Child>>,
}

impl Host {
    /// Gives the name, which is also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the release that it runs.
    #[must_use]
    pub fn distro(&self) -> Distro {
        self.distro
    }

    /// Gives its address on the lab's network.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Boots it and waits until systemd has started everything.
    ///
    /// # Errors
    ///
    /// When it runs already or does not come up; the error holds its console.
    pub fn up(&self) -> Result<()> {
        self.start()?;
        self.wait_up()
    }

    /// Begins to boot it, without waiting.
    ///
    /// # Errors
    ///
    /// When it runs already or the container cannot be started.
    pub fn start(&self) -> Result<()> {
        let mut launcher = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        if launcher.is_some() {
            return Err(Fault::new(format!(
                "starting {}: it runs already",
                self.name
            )));
        }
        let console = fs::File::create(self.directory.join("console"))
            .doing(|| format!("starting {}", self.name))?;
        let errors = console
            .try_clone()
            .doing(|| format!("starting {}", self.name))?;
        let child = Command::new("setsid")
            .args(&self.launch)
            .stdin(Stdio::null())
            .stdout(console)
            .stderr(errors)
            .spawn()
            .doing(|| format!("starting {}", self.name))?;
        *launcher = Some(child);
        Ok(())
    }

    /// Waits until systemd has started everything it was to start.
    ///
    /// # Errors
    ///
    /// When the host dies or takes too long; the error holds its console.
    pub fn wait_up(&self) -> Result<()> {
        let waited = wait_until("the end of booting", BOOT_MAX, || {
            if self.has_ended()? {
                return Err(Fault::new("the container ended"));
            }
            let Some(leader) = self.find_leader() else {
                return Ok(false);
            };
            if !process::root(leader).join("run/systemd/private").exists() {
                return Ok(false);
            }
            let state = self.run("systemctl is-system-running")?;
            let state = String::from_utf8_lossy(&state.stdout);
            Ok(["running", "degraded"].contains(&state.trim()))
        });
        waited.doing(|| format!("booting {}; its console:\n{}", self.name, self.console()))
    }

    /// Tells whether its container runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.has_ended().is_ok_and(|ended| !ended)
    }

    /// Gives its first process, as this machine numbers it.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn leader(&self) -> Result<u32> {
        self.find_leader()
            .doing(|| format!("finding the first process of {}: it is off", self.name))
    }

    /// Runs a shell script on it as root and gives what it wrote.
    ///
    /// # Errors
    ///
    /// When the host is off or the script ends with another code than 0; the error holds all output.
    pub fn sh(&self, script: &str) -> Result<String> {
        command::finish_as(script, &mut self.command(&["bash", "-c", script])?)
            .doing(|| format!("on {}", self.name))
    }

    /// Runs a shell script on it as root, whatever code it ends with.
    ///
    /// # Errors
    ///
    /// When the host is off.
    pub fn run(&self, script: &str) -> Result<Output> {
        command::capture(&mut self.command(&["bash", "-c", script])?)
    }

    /// Prepares a command that runs on it as root; the caller gives it its streams.
    ///
    /// # Errors
    ///
    /// When the host is off.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        // The shell joins the lab's control group, so that whatever it leaves behind is removed with the lab.
        let join = "while [ \"$1\" != -- ]; do echo $$ >\"$1/cgroup.procs\"; shift; done; shift; exec \"$@\"";
        let leader = self.leader()?;
        let mut command = Command::new("bash");
        command.args(["-c", join, "enter"]);
        command.args(self.shared.record.group("shell")?).arg("--");
        command.args([
            "timeout",
            "--foreground",
            "--kill-after=5",
            COMMAND_SECS_MAX,
        ]);
        command.args(enter_words(leader));
        command.args(words);
        Ok(command)
    }

    /// Waits until a condition about it holds.
    ///
    /// # Errors
    ///
    /// When it does not hold in time, naming `what`.
    pub fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        wait_until(what, deadline, || condition(self)).doing(|| format!("on {}", self.name))
    }

    /// Waits until a shell script on it ends with code 0.
    ///
    /// # Errors
    ///
    /// When it does not in time.
    pub fn wait_for(&self, script: &str, deadline: Duration) -> Result<()> {
        self.wait_until(script, deadline, |host| {
            Ok(host.run(script)?.status.success())
        })
    }

    /// Writes a file with mode 0644, owned by root; makes the directories above it. The host may run or be off.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let target = self.outside(path);
        let write = || {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&target, bytes.as_ref())
        };
        write().doing(|| format!("writing {path} on {}", self.name))
    }

    /// Copies a file of this machine to it, as [`Host::put`] does.
    ///
    /// # Errors
    ///
    /// When either side fails.
    pub fn put_file(&self, path: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).doing(|| format!("reading {}", from.display()))?;
        self.put(path, bytes)
    }

    /// Reads a file. The host may run, or be off if the file was written on it.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        fs::read(self.outside(path)).doing(|| format!("reading {path} on {}", self.name))
    }

    /// Reboots it cleanly and waits until it is up again, with everything on its disk kept.
    ///
    /// # Errors
    ///
    /// When it does not come up again.
    pub fn reboot(&self) -> Result<()> {
        let before = self.leader()?;
        self.sh("systemctl reboot")?;
        self.wait_until("the reboot", POWER_OFF_MAX, |host| {
            if host.has_ended()? {
                return Err(Fault::new(format!(
                    "the container ended instead:\n{}",
                    host.console()
                )));
            }
            Ok(host.find_leader().is_some_and(|leader| leader != before))
        })?;
        self.wait_up()
    }

    /// Powers it off cleanly and waits for the end.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn power_off(&self) -> Result<()> {
        self.sh("systemctl poweroff")?;
        self.wait_gone()
    }

    /// Kills it in an instant: no process gets to know. What was written stays, synced or not.
    ///
    /// # Errors
    ///
    /// When it is off.
    pub fn kill(&self) -> Result<()> {
        let leader = i32::try_from(self.leader()?).doing(|| "reading a process id")?;
        let leader = Pid::from_raw(leader).doing(|| "reading a process id")?;
        kill_process(leader, Signal::KILL).doing(|| format!("killing {}", self.name))?;
        self.wait_gone()
    }

    /// Cuts its power: what its disk ([`crate::HostBuilder::disk`]) had not been told to sync is lost. Boot it with [`Host::up`].
    ///
    /// # Errors
    ///
    /// When it is off or has no disk of its own.
    pub fn power_cut(&self) -> Result<()> {
        let disk = self.directory.join("disk.img");
        let after = self.directory.join("disk.after");
        // The image holds what the host's kernel has written out by now; the copy is the disk after the cut.
        let copy = [disk.as_os_str(), after.as_os_str()];
        process::stop_host(&self.shared.record.group(&self.name)?);
        command::run(
            "cp",
            &[["--sparse=always".as_ref()].as_slice(), &copy].concat(),
        )
        .doing(|| format!("cutting the power of {}", self.name))?;
        self.kill()?;
        fs::rename(&after, &disk).doing(|| format!("cutting the power of {}", self.name))
    }

    /// Pulls its network cable out; it sees the carrier go.
    ///
    /// # Errors
    ///
    /// When the network refuses.
    pub fn unplug(&self) -> Result<()> {
        self.shared.switch.set_carrier(&self.name, "down")
    }

    /// Puts its network cable in again.
    ///
    /// # Errors
    ///
    /// When the network refuses.
    pub fn plug(&self) -> Result<()> {
        self.shared.switch.set_carrier(&self.name, "up")
    }

    /// Lets everything it sends and is sent vanish without a sign.
    ///
    /// # Errors
    ///
    /// When the network refuses.
    pub fn cut(&self) -> Result<()> {
        self.shared.switch.cut(&self.name)
    }

    /// Undoes [`Host::cut`].
    ///
    /// # Errors
    ///
    /// When it is not cut.
    pub fn heal(&self) -> Result<()> {
        self.shared.switch.heal(&self.name)
    }

    /// Sets how fast its cable is.
    ///
    /// # Errors
    ///
    /// When the network refuses.
    pub fn set_rate(&self, rate: Rate) -> Result<()> {
        self.shared.switch.set_rate(&self.name, rate)
    }

    /// Sets how many seconds its clock is ahead of this machine's (negative: behind); at once, for every program.
    ///
    /// # Errors
    ///
    /// When it was not made with [`crate::HostBuilder::movable_clock`].
    pub fn shift_clock(&self, seconds: i64) -> Result<()> {
        // Written by a system call, because a store into a mapped page tells no watcher.
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(self.outside("/etc/lab-clock"))
            .doing(|| format!("moving the clock of {}", self.name))?;
        file.write_all(&seconds.to_ne_bytes())
            .doing(|| format!("moving the clock of {}", self.name))
    }

    /// Gives what its console has shown since it was started.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read_to_string(self.directory.join("console")).unwrap_or_default()
    }

    /// Gives the journal of one unit, for the message of a failed test.
    #[must_use]
    pub fn journal(&self, unit: &str) -> String {
        let script = format!("journalctl --no-pager -o short-precise -u '{unit}'");
        self.sh(&script)
            .unwrap_or_else(|fault| format!("{fault:?}"))
    }

    /// Gives where a path of the host is on this machine.
    fn outside(&self, path: &str) -> PathBuf {
        let path = path.trim_start_matches('/');
        match self.find_leader() {
            Some(leader) => process::root(leader).join(path),
            None => self.directory.join("upper").join(path),
        }
    }

    fn find_leader(&self) -> Option<u32> {
        let launcher = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        process::first_of_namespace(launcher.as_ref()?.id())
    }

    fn has_ended(&self) -> Result<bool> {
        let mut launcher = self.launcher.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(child) = launcher.as_mut() else {
            return Ok(true);
        };
        let ended = child
            .try_wait()
            .doing(|| format!("waiting for {}", self.name))?
            .is_some();
        if ended {
            *launcher = None;
        }
        Ok(ended)
    }

    fn wait_gone(&self) -> Result<()> {
        self.wait_until("the end of its container", POWER_OFF_MAX, Self::has_ended)
    }
}

/// Gives the words that start a command on the host with this first process, without what could harm this machine.
#[must_use]
pub fn enter_words(leader: u32) -> Vec<String> {
    let enter = format!("nsenter --target {leader} --all setpriv {FORBIDDEN} --inh-caps=-all --");
    let clean = "env --chdir=/root -i HOME=/root LANG=C.UTF-8 TERM=xterm-256color";
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    [&enter, clean, path]
        .iter()
        .flat_map(|words| words.split(' '))
        .map(ToOwned::to_owned)
        .collect()
}
