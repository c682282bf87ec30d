//! Tree pages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| repository::foreign::page(bytes));
