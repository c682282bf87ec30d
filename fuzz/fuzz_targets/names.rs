//! Object names as listings give them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| repository::foreign::names(bytes));
