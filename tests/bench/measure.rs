//! What a command costs: wall time by the monotonic clock, processor time and peak memory as the kernel counts them for
//! a process and all that it waited for.
//!
//! The kernel sums this up over all children of a process. So each command is started by a process of its own:
//! `backstay-bench measure PROGRAM …` starts one command and writes what it cost as its last line.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lab::{Doing, Fault, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// What one command cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cost {
    pub(crate) wall_secs: f64,
    pub(crate) cpu_secs: f64,
    /// The largest resident set of one process of it.
    pub(crate) peak_bytes: u64,
}

impl Cost {
    /// Puts two commands that follow each other together.
    pub(crate) fn then(self, next: Self) -> Self {
        Self {
            wall_secs: self.wall_secs + next.wall_secs,
            cpu_secs: self.cpu_secs + next.cpu_secs,
            peak_bytes: self.peak_bytes.max(next.peak_bytes),
        }
    }
}

/// A command that is ready to run.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) words: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) directory: String,
}

impl Step {
    /// Runs it and says what it cost.
    ///
    /// # Errors
    ///
    /// When it ends with another code than 0; the error holds what it wrote.
    pub(crate) fn run(&self) -> Result<Cost> {
        let own = std::env::current_exe().doing(|| "finding this program")?;
        let output = Command::new(own)
            .arg("measure")
            .args(&self.words)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()
            .doing(|| format!("starting {}", self.words.join(" ")))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = || {
            Fault::new(format!(
                "running {}: {}\n{said}{}",
                self.words.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ))
        };
        if !output.status.success() {
            return Err(error());
        }
        said.lines().last().and_then(parse).ok_or_else(error)
    }
}

fn parse(line: &str) -> Option<Cost> {
    let mut numbers = line.split(' ');
    let mut next = || numbers.next()?.parse::<f64>().ok();
    let (wall_secs, cpu_secs) = (next()?, next()?);
    Some(Cost {
        wall_secs,
        cpu_secs,
        peak_bytes: numbers.next()?.parse().ok()?,
    })
}

/// Runs one command as the only child of this process and writes what it cost.
pub(crate) fn measure(words: &[String]) -> Result<ExitCode> {
    let (program, arguments) = words.split_first().doing(|| "reading the command")?;
    let start = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .doing(|| format!("starting {program}"))?;
    let wall = start.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).doing(|| "asking what the command cost")?;
    let cpu = seconds(usage.user_time()) + seconds(usage.system_time());
    // Linux counts in KiB.
    let peak = u64::try_from(usage.max_rss()).unwrap_or(0) * 1024;
    println!("{:.6} {:.6} {peak}", wall.as_secs_f64(), cpu.as_secs_f64());
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

fn seconds(time: TimeVal) -> Duration {
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec())) + Duration::from_micros(part(time.tv_usec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_follow_each_other_take_the_sum_and_the_larger_peak() {
        let first = parse("1.500000 2.000000 4096").unwrap();
        let both = first.then(parse("0.500000 1.000000 1024").unwrap());
        assert_eq!(both, parse("2.000000 3.000000 4096").unwrap());
        assert_eq!(parse("1.5 x 4096"), None);
    }
}
