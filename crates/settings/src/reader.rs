//! Reads tables of a TOML fragment key by key and collects every fault on the way.

use std::cell::RefCell;

use model::ByteCount;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::Problem;
use crate::quantity;

/// A fragment may hold this many bytes.
pub(crate) const FRAGMENT_LENGTH_MAX: usize = 8 << 20;

/// A key is close enough to be suggested from this similarity on (Jaro-Winkler).
const SUGGEST_FROM: f64 = 0.8;

/// One TOML text with the name that faults show.
pub(crate) struct Fragment<'t> {
    pub(crate) file: &'t str,
    pub(crate) text: &'t str,
    /// Offsets of all line ends: a thousand schedules ask for a line ten thousand times.
    line_ends: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Fragment<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self {
            file,
            text,
            line_ends: ends.map(|(offset, _)| offset).collect(),
            problems: RefCell::new(Vec::new()),
        }
    }

    /// Parses the text; faults of syntax are recorded, and nothing of such a text is used.
    pub(crate) fn parse(&self) -> Spanned<DeTable<'t>> {
        if self.text.len() > FRAGMENT_LENGTH_MAX {
            self.report(
                None,
                "",
                format!("is larger than {FRAGMENT_LENGTH_MAX} bytes"),
            );
            return Spanned::new(0..0, DeTable::new());
        }
        let (table, errors) = DeTable::parse_recoverable(self.text);
        if errors.is_empty() {
            return table;
        }
        for error in errors {
            let line = error.span().map(|span| self.line_at(span.start));
            self.report(line, "", format!("is not TOML: {}", error.message()));
        }
        // What was saved from a broken text would only cause faults that are none.
        Spanned::new(0..0, DeTable::new())
    }

    pub(crate) fn report(&self, line: Option<usize>, key: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            message: message.into(),
        });
    }

    /// True when a fault was recorded; after [`Fragment::parse`], when the text is not TOML.
    pub(crate) fn has_faults(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    pub(crate) fn line_at(&self, offset: usize) -> usize {
        self.line_ends.partition_point(|&end| end < offset) + 1
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// One table of a fragment while it is read.
pub(crate) struct Section<'f, 't> {
    fragment: &'f Fragment<'t>,
    table: &'f DeTable<'t>,
    path: String,
    line: usize,
    known: Vec<&'static str>,
}

impl<'f, 't> Section<'f, 't> {
    pub(crate) fn root(fragment: &'f Fragment<'t>, table: &'f Spanned<DeTable<'t>>) -> Self {
        Self {
            fragment,
            table: table.get_ref(),
            path: String::new(),
            line: 1,
            known: Vec::new(),
        }
    }

    /// Gives the line on which the table begins.
    pub(crate) const fn line(&self) -> usize {
        self.line
    }

    /// True when a key is there, whatever it says.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Reports a fault of one key, at its line when the key is there.
    pub(crate) fn fault(&self, key: &str, message: impl Into<String>) {
        let line = self.entry(key).map_or(self.line, |(line, _)| line);
        self.fragment
            .report(Some(line), &self.path_of(key), message);
    }

    /// Reports a fault of the table as a whole.
    pub(crate) fn fault_here(&self, message: impl Into<String>) {
        self.fragment.report(Some(self.line), &self.path, message);
    }

    fn entry(&self, key: &str) -> Option<(usize, &'f DeValue<'t>)> {
        let (name, value) = self
            .table
            .iter()
            .find(|(name, _)| name.get_ref().as_ref() == key)?;
        let line = self.fragment.line_at(name.span().start);
        Some((line, value.get_ref()))
    }

    /// Reads a key that may be absent; a fault is recorded and counts as absent.
    pub(crate) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(key);
        let (_, value) = self.entry(key)?;
        match read(value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.fault(key, why);
                None
            }
        }
    }

    /// Reads a key that must be there; `example` shows how to write it.
    pub(crate) fn need<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&DeValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        if self.entry(key).is_none() {
            self.fault(key, format!("is missing; write for example {example}"));
        }
        self.get(key, read)
    }

    /// Reads a table below this one.
    pub(crate) fn table(&mut self, key: &'static str) -> Option<Section<'f, 't>> {
        self.known.push(key);
        let (line, value) = self.entry(key)?;
        self.below(key, line, value)
    }

    /// Reads each table below a table of names, as in `[schedule.nightly]`.
    pub(crate) fn named_tables(&mut self, key: &'static str) -> Vec<(String, Section<'f, 't>)> {
        let Some(all) = self.table(key) else {
            return Vec::new();
        };
        let names = all.table.iter();
        names
            .filter_map(|(name, value)| {
                let line = all.fragment.line_at(name.span().start);
                let text = name.get_ref().to_string();
                let section = all.below(&text, line, value.get_ref())?;
                Some((text, section))
            })
            .collect()
    }

    fn below(&self, key: &str, line: usize, value: &'f DeValue<'t>) -> Option<Section<'f, 't>> {
        let Some(table) = value.as_table() else {
            let why = format!("is {}; a table belongs here", kind_of(value));
            self.fragment.report(Some(line), &self.path_of(key), why);
            return None;
        };
        Some(Section {
            fragment: self.fragment,
            table,
            path: self.path_of(key),
            line,
            known: Vec::new(),
        })
    }

    /// Reports every key that was not asked for.
    pub(crate) fn finish(self) {
        for (name, _) in self.table {
            let key = name.get_ref().as_ref();
            if self.known.contains(&key) {
                continue;
            }
            let line = self.fragment.line_at(name.span().start);
            let message = match suggest(key, &self.known) {
                Some(known) => format!("unknown key; did you mean {known:?}?"),
                None => format!("unknown key; known are {}", self.known.join(", ")),
            };
            self.fragment
                .report(Some(line), &self.path_of(key), message);
        }
    }
}

/// Finds the known word that is most like a wrong one.
pub(crate) fn suggest<'k>(wrong: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|word| (strsim::jaro_winkler(wrong, word), *word))
        .filter(|(likeness, _)| *likeness >= SUGGEST_FROM)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

/// Says in a few words what stands somewhere.
const fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Reads text.
pub(crate) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value.as_str() {
        Some(text) if text.len() <= 4096 => Ok(text.to_owned()),
        Some(_) => Err("is longer than 4096 bytes".to_owned()),
        None => Err(format!(
            "is {}; text in quotes belongs here",
            kind_of(value)
        )),
    }
}

/// Reads true or false.
pub(crate) fn truth(value: &DeValue<'_>) -> Result<bool, String> {
    let wrong = || format!("is {}; true or false belongs here", kind_of(value));
    value.as_bool().ok_or_else(wrong)
}

/// Reads a whole number within bounds.
pub(crate) fn number(low: u32, high: u32) -> impl Fn(&DeValue<'_>) -> Result<u32, String> {
    move |value| {
        let Some(integer) = value.as_integer() else {
            return Err(format!(
                "is {}; a number from {low} to {high} belongs here",
                kind_of(value)
            ));
        };
        u32::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| (low..=high).contains(number))
            .ok_or_else(|| format!("{} is not between {low} and {high}", integer.as_str()))
    }
}

/// Reads a duration in seconds.
pub(crate) fn duration(value: &DeValue<'_>) -> Result<u64, String> {
    if let Some(integer) = value.as_integer() {
        let bare = integer.as_str();
        return Err(format!(
            "{bare} has no unit; write for example \"{bare}m\", \"{bare}h\" or \"{bare}d\""
        ));
    }
    quantity::seconds(&text(value)?)
}

/// Reads a size.
pub(crate) fn size(value: &DeValue<'_>) -> Result<ByteCount, String> {
    if let Some(integer) = value.as_integer() {
        let bare = integer.as_str();
        return Err(format!(
            "{bare} has no unit; write for example \"{bare}MiB\" or \"{bare}GiB\""
        ));
    }
    quantity::bytes(&text(value)?)
}

/// Reads a list whose elements are read by `one`.
pub(crate) fn list<T>(
    one: impl Fn(&DeValue<'_>) -> Result<T, String>,
) -> impl Fn(&DeValue<'_>) -> Result<Vec<T>, String> {
    move |value| {
        let Some(array) = value.as_array() else {
            return Err(format!("is {}; a list in [ ] belongs here", kind_of(value)));
        };
        if array.len() > 4096 {
            return Err("has more than 4096 elements".to_owned());
        }
        array.iter().map(|element| one(element.get_ref())).collect()
    }
}

/// Reads one of a few words.
pub(crate) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let given = text(value)?;
        if let Some((_, found)) = words.iter().find(|(word, _)| *word == given) {
            return Ok(*found);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Err(match suggest(&given, &known) {
            Some(word) => format!("{given:?} is not known; did you mean {word:?}?"),
            None => format!("{given:?} is not known; use one of {}", known.join(", ")),
        })
    }
}
