//! Where the agent's log goes: standard error, which systemd hands to the journal.
//!
//! Not the journal's own socket: what a process sends there just before it ends may be written
//! down after it is gone, and then belongs to no unit, so that `journalctl -u` does not show why a
//! unit failed. Standard error is a stream whose unit is known from the start.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Begins logging for this process. `BACKSTAY_LOG` takes a filter such as `debug`.
pub(crate) fn begin() {
    let filter = EnvFilter::try_from_env("BACKSTAY_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,zbus=warn,hyper=warn,reqwest=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    let plain = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // systemd sets the variable for what it connects to the journal.
    let begun = if std::env::var_os("JOURNAL_STREAM").is_some() {
        let prioritised = plain.with_ansi(false).event_format(Prioritised);
        registry.with(prioritised).try_init()
    } else {
        registry.with(plain).try_init()
    };
    // Another logger is there already only in tests, which then keep theirs.
    begun.unwrap_or_default();
}

/// One event as systemd reads it: each line begins with its syslog priority (sd-daemon(3)). Time
/// and program are the journal's to add.
struct Prioritised;

impl<S, N> FormatEvent<S, N> for Prioritised
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        text.lines()
            .try_for_each(|line| writeln!(writer, "<{priority}>{line}"))
    }
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
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_begins_with_its_priority() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Prioritised);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!("systemd says:\n<7>not known");
            tracing::warn!(unit = "a.timer", "put right");
            tracing::info!("applied");
            tracing::debug!("looked");
        });
        let said = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        insta::assert_snapshot!(said, @r#"
        <3>systemd says:
        <3><7>not known
        <4>put right unit="a.timer"
        <6>applied
        <7>looked
        "#);
    }

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
