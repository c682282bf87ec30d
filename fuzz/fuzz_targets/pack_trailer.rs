//! Opened trailers of packs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| repository::foreign::pack_trailer(bytes));
