//! Where the agent's log goes: the journal under systemd, standard error elsewhere.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Begins logging for this process. `BACKSTAY_LOG` takes a filter such as `debug`.
pub(crate) fn begin() {
    let filter = EnvFilter::try_from_env("BACKSTAY_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,zbus=warn,hyper=warn,reqwest=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let begun = match tracing_journald::layer() {
        Ok(journal) if under_systemd => registry
            .with(journal.with_field_prefix(Some("BACKSTAY".to_owned())))
            .try_init(),
        _ => registry
            .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
            .try_init(),
    };
    // Another logger is there already only in tests, which then keep theirs.
    begun.unwrap_or_default();
}

/// Joins an error and its causes into one line. A cause that says nothing new is left out:
/// SQLite's errors repeat their own text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        let news = text.rsplit(": ").next().unwrap_or(&text);
        if !line.ends_with(news) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_cause_is_said_once() {
        let inner = io::Error::other("Error code 8: attempt to write a readonly database");
        let outer = edge::SourceError {
            operation: "tracking",
            object: "a schedule: attempt to write a readonly database".into(),
            class: model::ErrorClass::Never,
            source: inner.into(),
        };
        let said = "tracking a schedule: attempt to write a readonly database";
        assert_eq!(chain(&outer), said);
        let new = edge::SourceError {
            source: io::Error::other("disk full").into(),
            ..outer
        };
        assert_eq!(chain(&new), format!("{said}: disk full"));
    }
}
