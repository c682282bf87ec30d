//! Lets systemd's checker read new units beside the templates, before they are in force.
//!
//! Its exit status is not enough: unknown keys and bad values are only said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;

use settings::units::{drop_in, unit_of};

use super::error::ApplyError;
use super::host::Host;
use super::paths::Paths;

/// Drop-ins by path below a unit directory.
type DropIns = BTreeMap<String, String>;

/// Checks the drop-ins that are to be written.
///
/// # Errors
///
/// `Rejected` with systemd's own words.
pub(crate) async fn verify<H: Host>(
    host: &H,
    paths: &Paths,
    all: &DropIns,
) -> Result<(), ApplyError> {
    let sample = sample(all);
    if said(host, paths, &sample).await?.is_empty() {
        return Ok(());
    }
    // The sample's units are not the real ones: the message has to name those.
    match said(host, paths, all).await? {
        said if said.is_empty() => Ok(()),
        said => Err(ApplyError::Rejected(said)),
    }
}

/// Gives one unit of each kind, with every different text among the drop-ins of its kind.
///
/// A thousand timers differ in few lines, and what systemd says of a line does not depend on the
/// instance that it stands in.
fn sample(all: &DropIns) -> DropIns {
    let mut kinds: BTreeMap<(&str, &str), (&str, BTreeSet<&str>)> = BTreeMap::new();
    for (path, body) in all {
        let Some(unit) = unit_of(path) else { continue };
        let kind = kind_of(unit);
        let (_, bodies) = kinds.entry(kind).or_insert((unit, BTreeSet::new()));
        bodies.insert(body);
    }
    let mut sample = DropIns::new();
    for (unit, bodies) in kinds.into_values() {
        for (number, body) in bodies.into_iter().enumerate() {
            let path = match number {
                0 => drop_in(unit),
                _ => format!("{unit}.d/60-{number:06}.conf"),
            };
            sample.insert(path, body.to_owned());
        }
    }
    sample
}

/// Gives template and type of a unit. A template itself is a kind of its own.
fn kind_of(unit: &str) -> (&str, &str) {
    let (template, instance) = unit.split_once('@').unwrap_or((unit, ""));
    match instance.rsplit_once('.') {
        Some(("", _)) | None => (unit, ""),
        Some((_, suffix)) => (template, suffix),
    }
}

async fn said<H: Host>(host: &H, paths: &Paths, files: &DropIns) -> Result<String, ApplyError> {
    let directory = paths.generations().join("verify");
    let clean = || match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(ApplyError::file("remove", &directory)(error))
        }
        _ => Ok(()),
    };
    clean()?;
    let mut units = BTreeSet::new();
    for (path, body) in files {
        let file = directory.join(path);
        let parent = file.parent().unwrap_or(&directory);
        fs::create_dir_all(parent).map_err(ApplyError::file("make", parent))?;
        fs::write(&file, body).map_err(ApplyError::file("write", &file))?;
        if let Some((unit, _)) = path.split_once(".d/") {
            units.insert(unit.to_owned());
        }
    }
    if units.is_empty() {
        return Ok(String::new());
    }
    let units: Vec<String> = units.into_iter().collect();
    let said = host.verify(&directory, &units).await;
    clean()?;
    Ok(said?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_has_every_text_of_a_kind_once_and_one_unit_for_it() {
        let timer = |name: &str, line: &str| {
            let body = format!("[Timer]\nOnCalendar={line}\n");
            (drop_in(&format!("backstay-job@{name}.timer")), body)
        };
        let all = DropIns::from([
            timer("a", "daily"),
            timer("b", "daily"),
            timer("c", "hourly"),
            (drop_in("backstay-job@a.service"), "[Service]\n".to_owned()),
            (drop_in("backstay-job@.service"), "[Service]\n".to_owned()),
        ]);
        let sample = sample(&all);
        let paths: Vec<&str> = sample.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "backstay-job@.service.d/40-backstay.conf",
                "backstay-job@a.service.d/50-backstay.conf",
                "backstay-job@a.timer.d/50-backstay.conf",
                "backstay-job@a.timer.d/60-000001.conf",
            ]
        );
        assert!(sample.values().any(|body| body.contains("hourly")));
    }
}
