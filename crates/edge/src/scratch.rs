//! Scratch: room outside memory for what one operation outgrows. Nothing in it outlives the
//! operation, and nothing in it is needed by another.

use std::fmt;
use std::io;

/// Where scratch files can be made.
pub trait Scratch: Send + Sync + fmt::Debug {
    /// Makes an empty file that has no name and is gone once it is dropped.
    ///
    /// # Errors
    ///
    /// Whatever keeps the file from being made.
    fn create(&self) -> io::Result<Box<dyn ScratchFile>>;
}

/// One scratch file.
pub trait ScratchFile: Send + Sync + fmt::Debug {
    /// Writes all bytes at an offset, in bytes from the beginning.
    ///
    /// # Errors
    ///
    /// Whatever keeps them from being written; a part may be.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills the buffer from an offset.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the file ends before, and whatever else keeps it from being read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}
