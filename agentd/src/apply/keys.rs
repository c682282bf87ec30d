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
use super::host::Host;
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
    let mut sealed_keys = Vec::with_capacity(names.len());
    for name in &names {
        let failed = |detail: String| ApplyError::Key {
            schedule: name.to_string(),
            detail,
        };
        let mut key = Zeroizing::new([0u8; KEY_LENGTH]);
        getrandom::fill(key.as_mut_slice()).map_err(|error| failed(error.to_string()))?;
        let sealed = host
            .seal(&format!("schedule-{name}"), key.as_slice())
            .await
            .map_err(failed)?;
        sealed_keys.push((paths.key(name), sealed));
    }
    files::replace_all(host, &sealed_keys, 0o600)?;
    Ok(names)
}
