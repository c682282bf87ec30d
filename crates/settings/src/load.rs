//! From fragments on disk to one validated whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use model::{DestinationName, ScheduleName};

use crate::agent::Agent;
use crate::calendar::Zone;
use crate::destination::{Credential, Destination};
use crate::guard::Guard;
use crate::problem::{Problem, Problems};
use crate::reader::{FRAGMENT_LENGTH_MAX, Fragment, Section, suggest};
use crate::schedule::{Origin, Schedule};

/// A drop-in directory may hold this many files.
const FILES_MAX: usize = 10_000;

/// Where the files of people are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// The directory with `agent.toml`, `guard.toml`, `schedules.d` and `destinations.d`.
    pub etc: PathBuf,
    /// The text of the accepted generation with its number, when there is one.
    pub generation: Option<(u64, String)>,
}

impl Folders {
    /// Names the installed places below `root` (`/` outside tests), without a generation.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            etc: root.join("etc/backstay"),
            generation: None,
        }
    }
}

/// Everything a server is told to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// This agent.
    pub agent: Agent,
    /// What a controller may never ask.
    pub guard: Guard,
    /// All schedules, local and synced.
    pub schedules: BTreeMap<ScheduleName, Schedule>,
    /// All destinations, local and synced.
    pub destinations: BTreeMap<DestinationName, Destination>,
    /// The number of the generation that is merged in.
    pub generation: Option<u64>,
}

impl Guard {
    /// Reads the guard file alone; without one, the ordinary bounds hold.
    ///
    /// # Errors
    ///
    /// Every fault of the file: then nothing is to be allowed.
    pub fn load(folders: &Folders) -> Result<Self, Problems> {
        let mut merge = Merge::default();
        let guard = merge.one(&folders.etc.join("guard.toml"), Self::read);
        Problems::none_or(merge.problems)?;
        Ok(guard.unwrap_or_default())
    }
}

/// What a generation's text holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Generation {
    /// Its schedules.
    pub schedules: BTreeMap<ScheduleName, Schedule>,
    /// Its destinations.
    pub destinations: BTreeMap<DestinationName, Destination>,
}

impl Settings {
    /// Reads and merges everything; a file that is absent says nothing.
    ///
    /// # Errors
    ///
    /// Every fault of every file, unreadable files included. Nothing is half taken.
    pub fn load(folders: &Folders) -> Result<Self, Problems> {
        let mut merge = Merge::default();
        let agent = folders.etc.join("agent.toml");
        let mut settings = Self {
            agent: merge.one(&agent, Agent::read).unwrap_or_default(),
            guard: merge
                .one(&folders.etc.join("guard.toml"), Guard::read)
                .unwrap_or_default(),
            generation: folders.generation.as_ref().map(|(number, _)| *number),
            ..Self::default()
        };
        let zone = settings.agent.zone.clone();
        for directory in ["schedules.d", "destinations.d"] {
            for path in merge.files_in(&folders.etc.join(directory)) {
                if let Some(text) = merge.read(&path) {
                    merge.fragment(&path.display().to_string(), &text, &zone, false);
                }
            }
        }
        if let Some((number, text)) = &folders.generation {
            merge.fragment(&format!("generation {number}"), text, &zone, true);
        }
        merge.check_references();
        if let Err(broken) = settings
            .guard
            .check(merge.schedules.values(), merge.destinations.values())
        {
            merge.problems.extend_from_slice(broken.all());
        }
        Problems::none_or(merge.problems)?;
        settings.schedules = merge.schedules;
        settings.destinations = merge.destinations;
        Ok(settings)
    }

    /// Gives the schedules whose timers are to be armed.
    pub fn enabled(&self) -> impl Iterator<Item = &Schedule> {
        self.schedules.values().filter(|schedule| schedule.enabled)
    }

    /// Gives the destinations of a schedule, in its order.
    pub fn destinations_of<'s>(
        &'s self,
        schedule: &'s Schedule,
    ) -> impl Iterator<Item = &'s Destination> {
        let all = schedule.destinations.iter();
        all.filter_map(|name| self.destinations.get(name))
    }
}

/// Reads a text of schedules and destinations without a server around it, as a controller does
/// before it sends it. `name` is what faults show. Destinations that a schedule names may be the
/// server's own, so only those of the text are looked at.
///
/// # Errors
///
/// Every fault of the text.
pub fn parse_generation(name: &str, text: &str) -> Result<Generation, Problems> {
    let mut merge = Merge::default();
    merge.fragment(name, text, &Zone::utc(), true);
    Problems::none_or(merge.problems)?;
    Ok(Generation {
        schedules: merge.schedules,
        destinations: merge.destinations,
    })
}

#[derive(Default)]
struct Merge {
    schedules: BTreeMap<ScheduleName, Schedule>,
    destinations: BTreeMap<DestinationName, Destination>,
    /// Names whose table had a fault: they are there, but not to be looked at.
    faulty_destinations: Vec<DestinationName>,
    /// True when a text could not be read as a whole: what is absent may be in it.
    is_incomplete: bool,
    problems: Vec<Problem>,
}

impl Merge {
    fn fault(&mut self, path: &Path, message: String) {
        self.is_incomplete = true;
        self.problems.push(Problem {
            file: path.display().to_string(),
            line: None,
            key: String::new(),
            message,
        });
    }

    fn read(&mut self, path: &Path) -> Option<String> {
        match read_bounded(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.fault(path, format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// Reads one file that is not made of named tables.
    fn one<T>(&mut self, path: &Path, read: impl FnOnce(Section<'_, '_>) -> T) -> Option<T> {
        let text = self.read(path)?;
        let file = path.display().to_string();
        let fragment = Fragment::new(&file, &text);
        let table = fragment.parse();
        let value = read(Section::root(&fragment, &table));
        self.problems.extend(fragment.into_problems());
        Some(value)
    }

    /// Lists the `.toml` files of a drop-in directory by name.
    fn files_in(&mut self, directory: &Path) -> Vec<PathBuf> {
        let found = fs::read_dir(directory).and_then(|entries| {
            let mut files = Vec::new();
            for entry in entries.take(FILES_MAX) {
                let path = entry?.path();
                let hidden = path
                    .file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                if path.extension().is_some_and(|end| end == "toml") && !hidden {
                    files.push(path);
                }
            }
            files.sort();
            Ok(files)
        });
        match found {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.fault(directory, format!("cannot be listed: {error}"));
                Vec::new()
            }
        }
    }

    /// Reads the schedules and destinations of one text into the whole.
    fn fragment(&mut self, file: &str, text: &str, zone: &Zone, synced: bool) {
        let fragment = Fragment::new(file, text);
        let table = fragment.parse();
        self.is_incomplete |= fragment.has_faults();
        let mut root = Section::root(&fragment, &table);
        for (name, section) in root.named_tables("schedule") {
            match ScheduleName::new(name) {
                Err(error) => section.fault_here(error.to_string()),
                Ok(name) => self.schedule(name, section, zone, (file, synced)),
            }
        }
        for (name, section) in root.named_tables("destination") {
            match DestinationName::new(name) {
                Err(error) => section.fault_here(error.to_string()),
                Ok(name) => self.destination(name, section, (file, synced)),
            }
        }
        root.finish();
        self.problems.extend(fragment.into_problems());
    }

    fn schedule(
        &mut self,
        name: ScheduleName,
        section: Section<'_, '_>,
        zone: &Zone,
        (file, synced): (&str, bool),
    ) {
        let origin = Origin {
            file: file.to_owned(),
            line: section.line(),
            synced,
        };
        if let Some(other) = self.schedules.get(&name) {
            section.fault_here(twice(&other.origin));
        } else if let Some(schedule) = Schedule::read(name.clone(), section, zone, origin) {
            self.schedules.insert(name, schedule);
        }
    }

    fn destination(
        &mut self,
        name: DestinationName,
        section: Section<'_, '_>,
        (file, synced): (&str, bool),
    ) {
        let origin = Origin {
            file: file.to_owned(),
            line: section.line(),
            synced,
        };
        if let Some(other) = self.destinations.get(&name) {
            section.fault_here(twice(&other.origin));
        } else if let Some(found) = Destination::read(name.clone(), section, origin) {
            self.destinations.insert(name, found);
        } else {
            self.faulty_destinations.push(name);
        }
    }

    /// Checks that every destination that a schedule names is there, and that no two credentials
    /// of one job get one name.
    fn check_references(&mut self) {
        let known: Vec<&str> = self
            .destinations
            .keys()
            .map(DestinationName::as_str)
            .collect();
        let mut found = Vec::new();
        for schedule in self.schedules.values() {
            let mut say = |message: String| {
                found.push(Problem {
                    file: schedule.origin.file.clone(),
                    line: Some(schedule.origin.line),
                    key: format!("schedule.{}.destinations", schedule.name),
                    message,
                });
            };
            let mut credentials: BTreeMap<String, &Credential> = BTreeMap::new();
            for name in &schedule.destinations {
                let Some(destination) = self.destinations.get(name) else {
                    if !self.is_incomplete && !self.faulty_destinations.contains(name) {
                        say(absent(name.as_str(), &known));
                    }
                    continue;
                };
                let Some(id) = destination.credential_id() else {
                    continue;
                };
                let other = credentials.insert(id, &destination.credential);
                if other.is_some_and(|other| *other != destination.credential) {
                    say(format!(
                        "the file credential of {name} takes the name of another destination's sealed credential; rename one"
                    ));
                }
            }
        }
        self.problems.extend(found);
    }
}

fn absent(name: &str, known: &[&str]) -> String {
    match suggest(name, known) {
        Some(like) => format!("there is no destination {name:?}; did you mean {like:?}?"),
        None if known.is_empty() => {
            format!("there is no destination {name:?}; no destination is defined yet")
        }
        None => format!(
            "there is no destination {name:?}; known are {}",
            known.join(", ")
        ),
    }
}

fn twice(other: &Origin) -> String {
    format!(
        "is defined twice: here and in {}:{}",
        other.file, other.line
    )
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let file = fs::File::open(path)?;
    let mut text = String::new();
    let bound = u64::try_from(FRAGMENT_LENGTH_MAX).unwrap_or(u64::MAX);
    // One byte more, so that a file at the bound and one beyond it differ.
    file.take(bound.saturating_add(1))
        .read_to_string(&mut text)?;
    Ok(text)
}
