//! Contents of entries and lists of chunks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| repository::foreign::content(bytes));
