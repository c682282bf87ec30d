//! Asking a person: secrets without echo, and confirmations that are typed.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use model::{Exit, Secret};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::problem::Problem;

/// The longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Reads one secret line from standard input: without echo on a terminal, as it comes from a pipe.
///
/// # Errors
///
/// When standard input ends before a line, or the line is too long.
pub fn secret(question: &str) -> Result<Secret, Problem> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return line(question).map(Secret::new);
    }
    ask(question)?;
    let unusual = |error: rustix::io::Errno| {
        Problem::new(Exit::Failed, "cannot hide what is typed").because(&error)
    };
    let before = tcgetattr(&stdin).map_err(unusual)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &hidden).map_err(unusual)?;
    let typed = line(question);
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before).map_err(unusual);
    // The line end that was typed was hidden too.
    ask("\n")?;
    restored?;
    typed.map(Secret::new)
}

/// Asks for a new secret, on a terminal twice.
///
/// # Errors
///
/// As [`secret`], and when the two differ.
pub fn new_secret(question: &str) -> Result<Secret, Problem> {
    let first = secret(question)?;
    if io::stdin().is_terminal() && secret("Again: ")?.reveal() != first.reveal() {
        let what = "what was typed differs; nothing was changed";
        return Err(Problem::new(Exit::Usage, what));
    }
    Ok(first)
}

/// Reads one line from standard input; the question is shown only on a terminal.
///
/// # Errors
///
/// As [`secret`].
pub fn open(question: &str) -> Result<String, Problem> {
    if io::stdin().is_terminal() {
        ask(question)?;
    }
    line(question)
}

/// Asks for a word to be typed again before something that cannot be taken back.
///
/// # Errors
///
/// When something else was typed, or nobody is there to ask.
pub fn confirm(what: &str, word: &str) -> Result<(), Problem> {
    if !io::stdin().is_terminal() {
        return Err(Problem::new(
            Exit::Usage,
            format!("{what} needs to be confirmed, and standard input is not a terminal"),
        )
        .hint("add --yes"));
    }
    ask(&format!("{what}.\nType {word} to go on: "))?;
    if line("the confirmation")?.trim() == word {
        Ok(())
    } else {
        Err(Problem::new(
            Exit::Interrupted,
            "not confirmed; nothing was changed",
        ))
    }
}

fn ask(question: &str) -> Result<(), Problem> {
    let mut stream = io::stderr();
    stream.write_all(question.as_bytes())?;
    stream.flush()?;
    Ok(())
}

fn line(question: &str) -> Result<String, Problem> {
    let mut text = String::new();
    let what = question.trim_end().trim_end_matches(':').to_owned();
    let wrong =
        |cause: &str| Problem::new(Exit::Usage, format!("cannot read {what:?}")).cause(cause);
    io::stdin()
        .lock()
        .take(LINE_BYTES_MAX)
        .read_line(&mut text)
        .map_err(|error| wrong(&error.to_string()))?;
    if !text.ends_with('\n') && u64::try_from(text.len()).unwrap_or(u64::MAX) >= LINE_BYTES_MAX {
        return Err(wrong("the line is longer than 64 KiB"));
    }
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err(wrong("nothing was given"));
    }
    Ok(text.to_owned())
}
