//! Opened keyrings.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sealing::foreign::keyring(bytes));
