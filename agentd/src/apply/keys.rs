//! Schedule keys: made once, kept encrypted by systemd, never made again and never deleted.
//!
//! A key that is gone cannot be replaced: what it sealed would stay closed for ever. So a file in
//! a key's place, whatever it holds, is left alone, and a schedule that is removed keeps its key.

use std::collections::BTreeSet;
use std::fs;

use model::ScheduleName;
use zeroize::Zeroizing;

use super::error::ApplyError;
use super::files;
use super::host::{Host, Unsealed};
use super::paths::Paths;

/// Bytes of a schedule key.
const KEY_LENGTH: usize = 32;

/// Gives the schedules that have no key yet.
pub(crate) fn missing(paths: &Paths, schedules: &BTreeSet<ScheduleName>) -> Vec<ScheduleName> {
    let without = schedules
        .iter()
        .filter(|name| fs::symlink_metadata(paths.key(name)).is_err());
    without.cloned().collect()
}

/// Makes the keys that are missing and gives their schedules.
pub(crate) async fn make_missing<H: Host>(
    host: &H,
    paths: &Paths,
    schedules: &BTreeSet<ScheduleName>,
) -> Result<Vec<ScheduleName>, ApplyError> {
    let names = missing(paths, schedules);
    let failed = |(name, detail): (String, String)| ApplyError::Key {
        schedule: name.trim_start_matches("schedule-").to_owned(),
        detail,
    };
    let mut secrets: Vec<Unsealed> = Vec::with_capacity(names.len());
    for name in &names {
        let mut key = Zeroizing::new([0u8; KEY_LENGTH]);
        let id = format!("schedule-{name}");
        getrandom::fill(key.as_mut_slice())
            .map_err(|error| failed((id.clone(), error.to_string())))?;
        secrets.push((id, key));
    }
    let sealed = host.seal_all(secrets).await.map_err(failed)?;
    let paths = names.iter().map(|name| paths.key(name));
    let sealed_keys: Vec<_> = paths.zip(sealed).collect();
    files::replace_all(host, &sealed_keys, 0o600)?;
    Ok(names)
}
