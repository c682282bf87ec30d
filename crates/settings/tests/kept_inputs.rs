//! Inputs that fuzzing found worth keeping are read without a panic.

use std::path::Path;

#[test]
fn every_kept_input_is_parsed_without_a_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/settings");
    let mut count = 0;
    for input in std::fs::read_dir(&folder).unwrap() {
        let bytes = std::fs::read(input.unwrap().path()).unwrap();
        drop(settings::parse_generation(
            "kept.toml",
            &String::from_utf8_lossy(&bytes),
        ));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}
