//! Sealing to an epoch for whoever may read, by someone who may not: X25519 (RFC 7748), one key
//! pair for each object (`docs/format.md`, "Suites 3 and 4").

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::derive::{Key, derive};

/// Gives the public half of the key that objects of an epoch are sealed to.
pub(crate) fn public_of(data_key: &Key) -> Key {
    Zeroizing::new(PublicKey::from(&secret_of(data_key)).to_bytes())
}

/// Gives the public half of an object's own pair.
pub(crate) fn own_public(random: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*random)).to_bytes()
}

/// Gives the root key of a new object from its random bytes, as its writer has them.
pub(crate) fn root_for_writer(random: &[u8; 32], epoch_public: &Key, id_key: &Key) -> Option<Key> {
    let secret = StaticSecret::from(*random);
    root(
        (&secret, &own_public(random)),
        (epoch_public, epoch_public),
        id_key,
    )
}

/// Gives the root key of a stored object from its own public key.
pub(crate) fn root_for_reader(own: &[u8; 32], data_key: &Key, id_key: &Key) -> Option<Key> {
    root(
        (&secret_of(data_key), own),
        (own, &public_of(data_key)),
        id_key,
    )
}

fn secret_of(data_key: &Key) -> StaticSecret {
    StaticSecret::from(*derive("read key", data_key.as_ref()))
}

/// `secret` meets `other`; both public keys and the id key are part of the result. `None` when the
/// other key is one of those that give the same secret with every key.
fn root(
    (secret, own): (&StaticSecret, &[u8; 32]),
    (other, epoch): (&[u8; 32], &[u8; 32]),
    id_key: &Key,
) -> Option<Key> {
    let shared = secret.diffie_hellman(&PublicKey::from(*other));
    if !shared.was_contributory() {
        return None;
    }
    let mut material = Zeroizing::new(Vec::with_capacity(128));
    for part in [shared.as_bytes(), own, epoch, &**id_key] {
        material.extend_from_slice(part);
    }
    Some(derive("sealed object key", &material))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writer_and_reader_agree_and_nobody_else() {
        let (data, id) = (Key::new([1; 32]), Key::new([2; 32]));
        let public = public_of(&data);
        let written = root_for_writer(&[3; 32], &public, &id).unwrap();
        let own = own_public(&[3; 32]);
        assert_eq!(root_for_reader(&own, &data, &id).unwrap(), written);
        let other = Key::new([9; 32]);
        assert!(root_for_reader(&own, &other, &id).unwrap() != written);
        assert!(root_for_reader(&own, &data, &other).unwrap() != written);
        assert!(root_for_reader(&[0; 32], &data, &id).is_none());
        insta::assert_snapshot!(data_encoding::HEXLOWER.encode(&*public), @"ebbec7829e6bd0c0f8a77284941cb7616e9fff04e4dae80db4ff331d3b414f6e");
        insta::assert_snapshot!(data_encoding::HEXLOWER.encode(&*written), @"3dd4ec1f7bb65d2bb364585562d0c1f5c11bd9717fa7d38cf10f93c3e7e08fb9");
    }
}
