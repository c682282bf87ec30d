//! Time and chance, handed in so that tests decide them.

use model::Instant;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Gives the present.
    fn now(&self) -> Instant;
}

/// Gives unpredictable bytes.
pub trait Entropy: Send + Sync {
    /// Fills the buffer with unpredictable bytes.
    fn fill(&self, bytes: &mut [u8]);
}
