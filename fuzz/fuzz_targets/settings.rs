//! Schedules and destinations as people and controllers write them.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| drop(settings::parse_generation("fuzz.toml", text)));
