//! The one error of the lab: what was being done, to which thing, and why it failed.

use std::error::Error;
use std::fmt;

/// What went wrong. `Debug` shows the whole chain, because a test that returns it is reported with `Debug`.
pub struct Fault {
    doing: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The lab's result; a test may return it.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    /// Makes a fault without a deeper cause.
    #[must_use]
    pub fn new(doing: impl Into<String>) -> Self {
        Self {
            doing: doing.into(),
            source: None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  because: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|error| error as &(dyn Error + 'static))
    }
}

/// Adds to an error what was being done.
pub trait Doing<T> {
    /// Wraps the error with the words that `doing` makes.
    ///
    /// # Errors
    ///
    /// The error itself, as the source of a [`Fault`].
    fn doing<W: Into<String>>(self, doing: impl FnOnce() -> W) -> Result<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for std::result::Result<T, E> {
    fn doing<W: Into<String>>(self, doing: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|error| Fault {
            doing: doing().into(),
            source: Some(error.into()),
        })
    }
}

impl<T> Doing<T> for Option<T> {
    fn doing<W: Into<String>>(self, doing: impl FnOnce() -> W) -> Result<T> {
        self.ok_or_else(|| Fault::new(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_every_cause() {
        let fault = std::fs::read("/nonexistent")
            .doing(|| "reading the list")
            .doing(|| "starting")
            .unwrap_err();
        let text = format!("{fault:?}");
        assert!(text.starts_with("starting\n  because: reading the list\n  because: No such file"));
    }
}
