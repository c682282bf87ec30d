//! Patterns of what a walk leaves out, matched in linear time against paths below the root.
//!
//! `*` and `?` stay within one name, `[a-z]` and `[!a-z]` stand for one byte, `**` for any number
//! of directories, `\` takes the next byte as it is. A pattern without `/` is matched against the
//! name alone, wherever it is; one with `/` against the whole path. A trailing `/` means
//! directories only. What is below an excluded directory is excluded with it.
//!
//! One name costs at most its length times that of the pattern: after a mismatch only the last
//! star is tried again, never an earlier one.

use thiserror::Error;

/// Longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4096;

/// Says why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Nothing to match.
    #[error("exclude pattern {0:?} is empty")]
    Empty(String),
    /// Longer than 4096 bytes.
    #[error("exclude pattern {0:?}… is longer than 4096 bytes")]
    TooLong(String),
    /// `[` without `]`.
    #[error("exclude pattern {0:?} has '[' without ']'")]
    OpenClass(String),
    /// A backslash at the end.
    #[error("exclude pattern {0:?} ends with a backslash")]
    OpenEscape(String),
    /// A component `.` or `..`, which no path has.
    #[error("exclude pattern {0:?} has a component '.' or '..'")]
    Climbs(String),
}

/// A set of patterns.
#[derive(Debug, Clone, Default)]
pub struct Excludes(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    parts: Vec<Part>,
    directories_only: bool,
}

#[derive(Debug, Clone)]
enum Part {
    /// `**`
    AnyDirectories,
    Name(Vec<Token>),
}

#[derive(Debug, Clone)]
enum Token {
    Byte(u8),
    AnyByte,
    AnyBytes,
    Class {
        ranges: Vec<(u8, u8)>,
        negated: bool,
    },
}

impl Excludes {
    /// Reads patterns.
    ///
    /// # Errors
    ///
    /// `PatternError` names the first pattern that cannot be used.
    pub fn new<P: AsRef<[u8]>>(patterns: &[P]) -> Result<Self, PatternError> {
        let read = |pattern: &P| Pattern::read(pattern.as_ref());
        Ok(Self(patterns.iter().map(read).collect::<Result<_, _>>()?))
    }

    /// True when there is no pattern.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when a pattern matches the path, given as names from the root down.
    #[must_use]
    pub fn matches(&self, path: &[&[u8]], is_directory: bool) -> bool {
        self.0
            .iter()
            .any(|pattern| (is_directory || !pattern.directories_only) && pattern.matches(path))
    }
}

/// A pattern for one name, without `/`.
#[derive(Debug, Clone)]
pub(crate) struct NamePattern(Vec<Token>);

impl NamePattern {
    pub(crate) fn new(pattern: &[u8]) -> Result<Self, PatternError> {
        let shown = || model::escape(pattern.get(..64).unwrap_or(pattern));
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong(shown()));
        }
        tokens(pattern, &shown).map(Self)
    }

    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        name_matches(&self.0, name)
    }

    /// Gives the name when only one matches.
    pub(crate) fn literal(&self) -> Option<Vec<u8>> {
        let byte = |token: &Token| match token {
            Token::Byte(byte) => Some(*byte),
            Token::AnyByte | Token::AnyBytes | Token::Class { .. } => None,
        };
        self.0.iter().map(byte).collect()
    }
}

impl Pattern {
    fn read(pattern: &[u8]) -> Result<Self, PatternError> {
        let shown = || model::escape(pattern.get(..64).unwrap_or(pattern));
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong(shown()));
        }
        let directories_only = pattern.ends_with(b"/");
        let mut parts = Vec::new();
        for name in pattern.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
            match name {
                b"**" => parts.push(Part::AnyDirectories),
                b"." | b".." => return Err(PatternError::Climbs(shown())),
                name => parts.push(Part::Name(tokens(name, &shown)?)),
            }
        }
        if parts.is_empty() {
            return Err(PatternError::Empty(shown()));
        }
        let anchored = pattern
            .strip_suffix(b"/")
            .unwrap_or(pattern)
            .contains(&b'/');
        if !anchored && matches!(parts.first(), Some(Part::Name(_))) {
            parts.insert(0, Part::AnyDirectories);
        }
        if matches!(parts.last(), Some(Part::AnyDirectories)) {
            // `a/**` is everything below `a`, not `a` itself.
            parts.push(Part::Name(vec![Token::AnyBytes]));
        }
        Ok(Self {
            parts,
            directories_only,
        })
    }

    fn matches(&self, path: &[&[u8]]) -> bool {
        starred(
            &self.parts,
            path,
            |part| matches!(part, Part::AnyDirectories),
            |part, name| match part {
                Part::AnyDirectories => false,
                Part::Name(tokens) => name_matches(tokens, name),
            },
        )
    }
}

fn name_matches(tokens: &[Token], name: &[u8]) -> bool {
    starred(
        tokens,
        name,
        |token| matches!(token, Token::AnyBytes),
        |token, byte| match token {
            Token::Byte(wanted) => wanted == byte,
            Token::AnyByte => true,
            Token::AnyBytes => false,
            Token::Class { ranges, negated } => {
                ranges
                    .iter()
                    .any(|(low, high)| (low..=high).contains(&byte))
                    != *negated
            }
        },
    )
}

/// Matches a pattern with stars against a text; a star stands for any number of symbols.
fn starred<P, T>(
    pattern: &[P],
    text: &[T],
    is_star: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut position) = (0, 0);
    // After the last star: where the pattern goes on, and how much of the text the star took.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), text.get(position)) {
            (None, None) => return true,
            (Some(star), _) if is_star(star) => {
                at += 1;
                retry = Some((at, position));
                continue;
            }
            (Some(symbol), Some(given)) if fits(symbol, given) => {
                at += 1;
                position += 1;
                continue;
            }
            _ => {}
        }
        match retry {
            Some((after, taken)) if taken < text.len() => {
                at = after;
                position = taken + 1;
                retry = Some((after, position));
            }
            _ => return false,
        }
    }
}

fn tokens(name: &[u8], shown: &impl Fn() -> String) -> Result<Vec<Token>, PatternError> {
    let mut found = Vec::new();
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        found.push(match byte {
            b'?' => Token::AnyByte,
            b'*' => Token::AnyBytes,
            b'[' => class(&mut bytes).ok_or_else(|| PatternError::OpenClass(shown()))?,
            b'\\' => {
                let literal = bytes.next();
                Token::Byte(literal.ok_or_else(|| PatternError::OpenEscape(shown()))?)
            }
            byte => Token::Byte(byte),
        });
    }
    Ok(found)
}

/// Reads a class behind its `[`; `]` as its first member is a plain byte.
fn class(bytes: &mut impl Iterator<Item = u8>) -> Option<Token> {
    let mut first = bytes.next()?;
    let negated = matches!(first, b'!' | b'^');
    if negated {
        first = bytes.next()?;
    }
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    let mut next = Some(first);
    let mut is_first = true;
    while let Some(byte) = next {
        match byte {
            b']' if !is_first => return Some(Token::Class { ranges, negated }),
            b'-' if !is_first => {
                let high = bytes.next()?;
                if high == b']' {
                    ranges.push((b'-', b'-'));
                    return Some(Token::Class { ranges, negated });
                }
                if let Some(last) = ranges.last_mut() {
                    last.1 = high;
                }
            }
            byte => ranges.push((byte, byte)),
        }
        is_first = false;
        next = bytes.next();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let is_directory = path.ends_with('/');
        let names: Vec<_> = path
            .split('/')
            .filter(|name| !name.is_empty())
            .map(str::as_bytes)
            .collect();
        Excludes::new(&[pattern])
            .unwrap()
            .matches(&names, is_directory)
    }

    #[test]
    fn patterns_mean_what_the_documentation_says() {
        for (pattern, path, expected) in [
            ("*.log", "a/b/error.log", true),
            ("*.log", "error.log.1", false),
            ("cache/", "site/cache/", true),
            ("cache/", "site/cache", false),
            ("/cache", "cache", true),
            ("/cache", "site/cache", false),
            ("wp/*/tmp", "wp/x/tmp", true),
            ("wp/*/tmp", "wp/x/y/tmp", false),
            ("wp/**/tmp", "wp/tmp", true),
            ("wp/**/tmp", "wp/x/y/tmp", true),
            ("wp/**/t?p", "wp/x/y/tip", true),
            ("cache/**", "cache", false),
            ("cache/**", "cache/x/y", true),
            ("**/a/**/b", "x/a/y/z/b", true),
            ("**", "anything/at/all", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]-]x", "-x", true),
            ("[]-]x", "]x", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn unusable_patterns_are_refused() {
        for bad in ["", "/", "a/../b", "[a", "a\\", &"x".repeat(5000)] {
            assert!(Excludes::new(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_the_product_of_lengths() {
        let pattern = format!("{}b", "*a".repeat(2000));
        let name = vec![b'a'; 4000];
        let part = tokens(pattern.as_bytes(), &String::new).unwrap();
        let steps = std::cell::Cell::new(0_u64);
        let matched = starred(
            &part,
            &name,
            |token| matches!(token, Token::AnyBytes),
            |token, byte| {
                steps.set(steps.get() + 1);
                matches!(token, Token::Byte(wanted) if wanted == byte)
            },
        );
        assert!(!matched);
        assert!(steps.get() <= 4001 * 4001, "{} steps", steps.get());

        let deep = vec![&b"a"[..]; 4000];
        let starry = Excludes::new(&[format!("{}b", "**/a/".repeat(500))]).unwrap();
        assert!(!starry.matches(&deep, false));
    }
}
