//! Every parser of sealed bytes and of key texts under a name: what the targets in `fuzz/` feed,
//! and what a test feeds again with the inputs that are kept there. Compiled for these two alone.

use crate::keyring::Keyring;
use crate::object::{HEADER_BYTES, ObjectCipher, ObjectKind};
use crate::schedule_key::ScheduleKey;
use crate::slot::{open_slot_with_key, slot_lock};

/// Takes any bytes.
pub type Parser = fn(&[u8]);

/// All parsers, each with the name of its folder of inputs.
pub const PARSERS: &[(&str, Parser)] = &[
    ("header", header),
    ("slot", slot),
    ("keyring", keyring),
    ("key_text", key_text),
];

fn key() -> ScheduleKey {
    ScheduleKey::from_bytes([42; 32])
}

/// The header of an object.
///
/// # Panics
///
/// When one opens that would be written in another way.
pub fn header(bytes: &[u8]) {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return;
    };
    let keyring = Keyring::first(&key(), "");
    for kind in [
        ObjectKind::DataPack,
        ObjectKind::IndexSegment,
        ObjectKind::Pin,
    ] {
        if let Ok(cipher) = ObjectCipher::open(&keyring, kind, header) {
            let origin = cipher.origin();
            let again =
                origin.and_then(|(epoch, salt)| ObjectCipher::recall(&keyring, kind, epoch, &salt));
            assert_eq!(again.as_ref().map(ObjectCipher::header), Ok(header));
        }
    }
}

/// A slot. Passwords are not stretched: that is slow by purpose.
pub fn slot(bytes: &[u8]) {
    let _lock = slot_lock(bytes);
    drop(open_slot_with_key(bytes, &key()));
}

/// An opened keyring.
///
/// # Panics
///
/// When it is written in another way than it was read.
pub fn keyring(bytes: &[u8]) {
    if let Ok(keyring) = Keyring::decode(bytes) {
        assert_eq!(&**keyring.encode(), bytes);
    }
}

/// The text of a schedule key.
///
/// # Panics
///
/// When the same key is not read from the text that it writes.
pub fn key_text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(key) = ScheduleKey::parse(&text) {
        assert_eq!(ScheduleKey::parse(key.to_text().reveal()), Ok(key));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_kept_input_is_parsed_without_a_panic() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, parser) in PARSERS {
            let folder = corpus.join(name);
            let inputs = std::fs::read_dir(&folder)
                .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let mut count = 0;
            for input in inputs {
                parser(&std::fs::read(input.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{} is empty", folder.display());
        }
    }
}
