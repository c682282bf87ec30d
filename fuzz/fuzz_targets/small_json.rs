//! The repository object, condemned packs, pins.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| repository::foreign::small_json(bytes));
