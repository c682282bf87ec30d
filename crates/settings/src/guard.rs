//! `guard.toml`: what a controller may never ask of this server. Only root writes it.

use std::path::{Component, Path, PathBuf};

use model::ScheduleName;
use toml::de::DeValue;

use crate::destination::{Destination, Place, absolute_path};
use crate::problem::{Problem, Problems};
use crate::reader::{Section, list, number, text, truth, word};
use crate::schedule::{Keep, Schedule, keep_rules};

/// Something that a controller may be allowed to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Send schedules and destinations.
    Generations,
    /// Start a run.
    Run,
    /// Restore onto this server.
    Restore,
    /// List and check snapshots.
    Browse,
}

/// What the guard file says. The default allows what an ordinary fleet needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// What a controller may ask.
    pub allow: Vec<Permission>,
    /// Hosts that synced destinations may name; `*` stands for any characters.
    pub destination_hosts: Vec<String>,
    /// Directories below which synced local destinations may lie.
    pub destination_paths: Vec<PathBuf>,
    /// What synced schedules must keep at least.
    pub keep_min: Keep,
    /// How many synced schedules there may be.
    pub schedules_max: u32,
    /// Directories below which a controller may restore.
    pub restore_paths: Vec<PathBuf>,
    /// Whether a controller may restore over what is there.
    pub restore_in_place: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            allow: vec![
                Permission::Generations,
                Permission::Run,
                Permission::Restore,
                Permission::Browse,
            ],
            destination_hosts: vec!["*".to_owned()],
            destination_paths: vec![PathBuf::from("/srv"), PathBuf::from("/var/backups")],
            keep_min: Keep::default(),
            schedules_max: 1000,
            restore_paths: ["/var/lib/backstay/restored", "/srv", "/var/tmp"]
                .map(PathBuf::from)
                .into(),
            restore_in_place: true,
        }
    }
}

impl Guard {
    /// True when a controller may ask this.
    #[must_use]
    pub fn allows(&self, permission: Permission) -> bool {
        self.allow.contains(&permission)
    }

    /// True when a controller may restore into this directory: by its name, without links.
    #[must_use]
    pub fn allows_restore_into(&self, directory: &Path) -> bool {
        let plain = directory
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let below = |allowed: &PathBuf| directory.starts_with(allowed);
        directory.is_absolute() && plain && self.restore_paths.iter().any(below)
    }

    pub(crate) fn read(mut root: Section<'_, '_>) -> Self {
        let usual = Self::default();
        let permissions = list(word(&[
            ("generations", Permission::Generations),
            ("run", Permission::Run),
            ("restore", Permission::Restore),
            ("browse", Permission::Browse),
        ]));
        let keep_min = root.table("keep_min").map(|mut table| {
            let keep = keep_rules(&mut table);
            table.finish();
            keep
        });
        let guard = Self {
            allow: root.get("allow", permissions).unwrap_or(usual.allow),
            destination_hosts: root
                .get("destination_hosts", list(host))
                .unwrap_or(usual.destination_hosts),
            destination_paths: root
                .get("destination_paths", list(absolute_path))
                .unwrap_or(usual.destination_paths),
            keep_min: keep_min.unwrap_or(usual.keep_min),
            schedules_max: root
                .get("schedules_max", number(0, 10_000))
                .unwrap_or(usual.schedules_max),
            restore_paths: root
                .get("restore_paths", list(absolute_path))
                .unwrap_or(usual.restore_paths),
            restore_in_place: root
                .get("restore_in_place", truth)
                .unwrap_or(usual.restore_in_place),
        };
        root.finish();
        guard
    }

    /// Checks what a controller sent against the bounds of this file.
    ///
    /// # Errors
    ///
    /// Every bound that is broken, at the place in the generation that breaks it.
    pub fn check<'s>(
        &self,
        schedules: impl IntoIterator<Item = &'s Schedule>,
        destinations: impl IntoIterator<Item = &'s Destination>,
    ) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let mut count = 0u32;
        for schedule in schedules.into_iter().filter(|s| s.origin.synced) {
            count = count.saturating_add(1);
            self.check_keep(schedule, &mut problems);
            if count == self.schedules_max.saturating_add(1) {
                problems.push(at(
                    schedule,
                    String::new(),
                    format!("guard.toml allows {} schedules", self.schedules_max),
                ));
            }
        }
        for destination in destinations.into_iter().filter(|d| d.origin.synced) {
            if let Err(why) = self.check_place(&destination.place) {
                problems.push(Problem {
                    file: destination.origin.file.clone(),
                    line: Some(destination.origin.line),
                    key: format!("destination.{}", destination.name),
                    message: why,
                });
            }
        }
        Problems::none_or(problems)
    }

    fn check_keep(&self, schedule: &Schedule, problems: &mut Vec<Problem>) {
        let (keep, least) = (&schedule.keep, &self.keep_min);
        for (name, given, least) in [
            ("last", keep.last, least.last),
            ("hourly", keep.hourly, least.hourly),
            ("daily", keep.daily, least.daily),
            ("weekly", keep.weekly, least.weekly),
            ("monthly", keep.monthly, least.monthly),
            ("yearly", keep.yearly, least.yearly),
            ("min", keep.min, least.min),
        ] {
            let Some(least) = least else { continue };
            if given.unwrap_or(0) < least {
                let why = format!("guard.toml asks for {name} = {least} or more");
                problems.push(at(schedule, ".keep".to_owned(), why));
            }
        }
        for (name, given, least) in [
            ("within", keep.within_secs, least.within_secs),
            ("min_age", keep.min_age_secs, least.min_age_secs),
        ] {
            if let Some(least) = least
                && given.unwrap_or(0) < least
            {
                let text = crate::quantity::seconds_text(least);
                let why = format!("guard.toml asks for {name} = \"{text}\" or more");
                problems.push(at(schedule, ".keep".to_owned(), why));
            }
        }
        self.check_limits(schedule, problems);
    }

    /// A limit undoes every rule, so it may not lie below what the guard wants kept.
    fn check_limits(&self, schedule: &Schedule, problems: &mut Vec<Problem>) {
        let (keep, least) = (&schedule.keep, &self.keep_min);
        let counts = [
            least.last,
            least.hourly,
            least.daily,
            least.weekly,
            least.monthly,
            least.yearly,
        ];
        // Each rule may keep others.
        let all = counts.into_iter().flatten().fold(0, u32::saturating_add);
        let floor = least.max.unwrap_or(all);
        if let Some(max) = keep.max
            && max < floor
        {
            let why = format!("guard.toml asks for max = {floor} or more");
            problems.push(at(schedule, ".keep".to_owned(), why));
        }
        if let Some(within) = least.within_secs
            && keep.max.is_some()
            && least.max.is_none()
            && keep.min_age_secs.unwrap_or(0) < within
        {
            let text = crate::quantity::seconds_text(within);
            let why = format!("guard.toml asks for min_age = \"{text}\" or more beside max");
            problems.push(at(schedule, ".keep".to_owned(), why));
        }
        let Some(max_age) = keep.max_age_secs else {
            return;
        };
        let why = match least.max_age_secs {
            Some(least) if max_age < least => {
                let text = crate::quantity::seconds_text(least);
                format!("guard.toml asks for max_age = \"{text}\" or more")
            }
            None if *least != Keep::default() => "guard.toml asks to keep snapshots of any age; \
                 max_age in its keep_min says how old is old enough"
                .to_owned(),
            _ => return,
        };
        problems.push(at(schedule, ".keep".to_owned(), why));
    }

    fn check_place(&self, place: &Place) -> Result<(), String> {
        if let Place::Local { path } = place {
            let below = |allowed: &PathBuf| path.starts_with(Path::new(allowed));
            return if self.destination_paths.iter().any(below) {
                Ok(())
            } else {
                Err(format!(
                    "guard.toml does not allow a controller to name the directory {}",
                    path.display()
                ))
            };
        }
        let host = place.host().unwrap_or_default().to_ascii_lowercase();
        // The port is compared only when the pattern names one.
        let name = host
            .rsplit_once(':')
            .map_or(host.as_str(), |(name, _)| name);
        let allowed = |pattern: &String| {
            let pattern = pattern.to_ascii_lowercase();
            matches(&pattern, &host) || matches(&pattern, name)
        };
        if self.destination_hosts.iter().any(allowed) {
            Ok(())
        } else {
            Err(format!(
                "guard.toml does not allow a controller to name the host {host}"
            ))
        }
    }
}

fn at(schedule: &Schedule, key: String, message: String) -> Problem {
    let name: &ScheduleName = &schedule.name;
    Problem {
        file: schedule.origin.file.clone(),
        line: Some(schedule.origin.line),
        key: format!("schedule.{name}{key}"),
        message,
    }
}

fn host(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.*:[]".contains(&b);
    if !name.is_empty() && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(format!(
            "{name:?} is not a host; write for example \"s3.example.net\" or \"*.example.net\""
        ))
    }
}

/// True when a pattern with `*` for any characters covers the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            let ends = (0..=rest.len()).filter(|&n| rest.is_char_boundary(n));
            ends.into_iter()
                .any(|n| rest.get(n..).is_some_and(|end| matches(tail, end)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_patterns_cover_whole_names() {
        assert!(matches("*", "s3.example.net"));
        assert!(matches("*.example.net", "s3.example.net"));
        assert!(!matches("*.example.net", "s3.example.net.evil.org"));
        assert!(!matches("s3.example.net", "xs3.example.net"));
        assert!(matches("s*.e*.net", "s3.example.net"));
    }

    #[test]
    fn restores_stay_below_the_named_directories() {
        let guard = Guard::default();
        for (path, allowed) in [
            ("/srv", true),
            ("/srv/a/b", true),
            ("/srvx", false),
            ("/srv/../root", false),
            ("/root/.ssh", false),
            ("srv/a", false),
            ("", false),
        ] {
            assert_eq!(
                guard.allows_restore_into(Path::new(path)),
                allowed,
                "{path}"
            );
        }
    }
}
