//! Stored objects from header to tail.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| repository::foreign::object(bytes));
