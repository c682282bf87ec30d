//! The verbs: back up, restore, list, check, forget. They compose settings, keys, sources,
//! destinations and the engine; they know neither systemd, nor a terminal, nor the controller.

mod credential;
mod place;

pub use credential::{CredentialError, S3Credential};
pub use place::{PlaceError, StorePlace, open_place};
