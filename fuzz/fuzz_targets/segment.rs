//! Index segments: fences and blocks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| repository::foreign::segment(bytes));
