//! Derivation: BLAKE3 with one context string per purpose (`docs/format.md`, first section).

use zeroize::Zeroizing;

/// A derived or random key, wiped when dropped.
pub(crate) type Key = Zeroizing<[u8; 32]>;

/// Derives 32 bytes for `purpose`.
pub(crate) fn derive(purpose: &str, material: &[u8]) -> Key {
    let mut out = Key::default();
    expand(purpose, material, out.as_mut());
    out
}

/// Derives a cipher key and a commitment for `purpose`.
pub(crate) fn derive_pair(purpose: &str, parts: &[&[u8]]) -> (Key, [u8; 32]) {
    let mut hasher = hasher(purpose);
    for part in parts {
        hasher.update(part);
    }
    let mut output = hasher.finalize_xof();
    let (mut key, mut commitment) = (Key::default(), [0; 32]);
    output.fill(key.as_mut());
    output.fill(&mut commitment);
    (key, commitment)
}

/// Fills `out` with derived bytes for `purpose`.
pub(crate) fn expand(purpose: &str, material: &[u8], out: &mut [u8]) {
    hasher(purpose).update(material).finalize_xof().fill(out);
}

fn hasher(purpose: &str) -> blake3::Hasher {
    blake3::Hasher::new_derive_key(&format!("backstay v1 {purpose}"))
}
