//! Rows of opened blocks of index segments.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| repository::foreign::segment_rows(bytes));
