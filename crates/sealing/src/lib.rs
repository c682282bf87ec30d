//! Keys, chunk names and authenticated encryption of the repository format.
//!
//! Everything here is pure: random bytes are handed in. The rules are written in
//! `docs/format.md`, "Keys" and "Sealed objects".

mod derive;
#[cfg(any(test, feature = "foreign"))]
pub mod foreign;
mod keyring;
mod naming;
mod object;
mod rights;
mod root;
mod schedule_key;
mod seal_key;
mod slot;
#[cfg(test)]
mod vectors;

pub use keyring::{Keyring, KeyringError};
pub use naming::{ChunkId, ChunkKind, ChunkNamer, TreeHasher};
pub use object::{
    HEADER_BYTES, ObjectCipher, ObjectError, ObjectKind, PART_OVERHEAD_BYTES, TRAILER_PART,
    epoch_number, open_single, seal_single, sealed_by,
};
pub use rights::{Right, Rights};
pub use schedule_key::{KeyTextError, ScheduleKey, SlotName};
pub use slot::{
    PasswordCost, SLOT_BYTES_MAX, SlotError, SlotLock, open_slot_with_key, open_slot_with_password,
    seal_slot_for_key, seal_slot_for_password, slot_lock,
};
