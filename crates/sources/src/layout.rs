//! What of a hosting layout cannot be used. The layout itself is [`settings::HostingLayout`].

use safefs::PatternError;
use thiserror::Error;

/// Stands for an account's home directory.
pub(crate) const HOME: &str = "{home}";

/// Stands for an account's user name.
pub(crate) const USER: &str = "{user}";

/// Says that a layout or selection cannot be used.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A pattern cannot be read.
    #[error("reading the pattern {pattern:?}")]
    Pattern {
        /// As it was given.
        pattern: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// A path has to be absolute and free of `..`.
    #[error("{0:?} is not an absolute path without '.' and '..'")]
    Relative(String),
}

impl LayoutError {
    pub(crate) fn of(pattern: &[u8]) -> impl FnOnce(PatternError) -> Self {
        let pattern = model::escape(pattern);
        move |source| Self::Pattern { pattern, source }
    }
}
