//! Programs of this machine: run to the end, with a bound on time, and an error that shows what they said.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::fault::{Doing, Fault, Result};

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(40);

/// Runs a program to its end and gives its standard output.
///
/// # Errors
///
/// When it cannot be started or ends with another code than 0; the error holds what it wrote.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    finish(&mut command)
}

/// Runs a prepared command to its end and gives its standard output.
///
/// # Errors
///
/// As [`run`].
pub fn finish(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    finish_as(&shown, command)
}

/// Does what [`finish`] does, with other words for the command in the error.
///
/// # Errors
///
/// As [`run`].
pub fn finish_as(words: &str, command: &mut Command) -> Result<String> {
    let output = capture(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Fault::new(format!(
        "running {words}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    )))
}

/// Runs a prepared command to its end, whatever code it ends with.
///
/// # Errors
///
/// When it cannot be started.
pub fn capture(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .doing(|| format!("starting {}", shown(command)))
}

/// Waits until `condition` holds.
///
/// # Errors
///
/// When it does not hold after `deadline`, naming `what`; or the condition's own error.
pub fn wait_until(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    loop {
        if condition()? {
            return Ok(());
        }
        if start.elapsed() > deadline {
            return Err(Fault::new(format!(
                "waiting for {what}: not so after {deadline:?}"
            )));
        }
        thread::sleep(POLL);
    }
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_program_shows_what_it_wrote() {
        let fault = run("sh", &["-c", "echo out; echo err >&2; exit 7"]).unwrap_err();
        let text = fault.to_string();
        assert!(text.contains("exit status: 7\nout\nerr"), "{text}");
    }

    #[test]
    fn waiting_ends_at_its_deadline() {
        let fault = wait_until("rain", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert!(fault.to_string().contains("waiting for rain"));
    }
}
