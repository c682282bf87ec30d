//! Sizes and durations as text with a unit.

use model::ByteCount;

const SECOND_UNITS: [(&str, u64); 12] = [
    ("s", 1),
    ("sec", 1),
    ("m", 60),
    ("min", 60),
    ("h", 3_600),
    ("d", 86_400),
    ("day", 86_400),
    ("days", 86_400),
    ("w", 604_800),
    ("week", 604_800),
    ("weeks", 604_800),
    ("y", 31_557_600),
];

const BYTE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a duration like `30d` or `1h30m` as whole seconds.
///
/// # Errors
///
/// What is wrong with it, with an example.
pub fn seconds(text: &str) -> Result<u64, String> {
    let example = "write for example \"30m\", \"12h\" or \"30d\"";
    let mut rest = text.trim();
    let mut total = 0u64;
    if rest.is_empty() {
        return Err(format!("is empty; {example}"));
    }
    while !rest.is_empty() {
        let (number, unit, more) = split(rest);
        let Ok(number) = number.parse::<u64>() else {
            return Err(format!("{text:?} is not a duration; {example}"));
        };
        if unit.is_empty() {
            return Err(format!("{text:?} has no unit; {example}"));
        }
        let found = SECOND_UNITS.iter().find(|(name, _)| *name == unit);
        let Some((_, factor)) = found else {
            return Err(format!("unit {unit:?} of {text:?} is not known; {example}"));
        };
        total = number
            .checked_mul(*factor)
            .and_then(|part| total.checked_add(part))
            .filter(|sum| *sum <= 100 * 31_557_600)
            .ok_or_else(|| format!("{text:?} is longer than 100 years"))?;
        rest = more;
    }
    Ok(total)
}

/// Reads a size like `64MiB`; fractions are not read: `1536MiB`.
///
/// # Errors
///
/// What is wrong with it, with an example.
pub fn bytes(text: &str) -> Result<ByteCount, String> {
    let example = "write for example \"512MiB\" or \"2GiB\"";
    let (number, unit, more) = split(text.trim());
    let Ok(number) = number.parse::<u64>() else {
        return Err(format!("{text:?} is not a size; {example}"));
    };
    if unit.is_empty() {
        return Err(format!("{text:?} has no unit; {example}"));
    }
    let found = BYTE_UNITS.iter().find(|(name, _)| *name == unit);
    match found {
        Some((_, factor)) if more.is_empty() => number
            .checked_mul(*factor)
            .map(ByteCount::new)
            .ok_or_else(|| format!("{text:?} is too large")),
        _ => Err(format!("{text:?} is not a size; {example}")),
    }
}

/// Splits `90m30s` into `90`, `m` and `30s`.
fn split(text: &str) -> (&str, &str, &str) {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    (number, unit, rest.trim_start())
}

/// Writes seconds as [`seconds`] reads them, with the largest unit that divides.
pub(crate) fn seconds_text(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units
        .into_iter()
        .find(|(factor, _)| seconds > 0 && seconds.is_multiple_of(*factor));
    let (factor, name) = unit.unwrap_or((1, "s"));
    format!("{}{name}", seconds / factor)
}

/// Writes a size as [`bytes`] reads it, with the largest binary unit that divides.
pub(crate) fn bytes_text(size: ByteCount) -> String {
    let bytes = size.get();
    let units = [
        (1u64 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    let unit = units
        .into_iter()
        .find(|(factor, _)| bytes > 0 && bytes.is_multiple_of(*factor));
    let (factor, name) = unit.unwrap_or((1, "B"));
    format!("{}{name}", bytes / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written() {
        assert_eq!(seconds("30m"), Ok(1_800));
        assert_eq!(seconds("1h 30m"), Ok(5_400));
        assert_eq!(seconds("30d"), Ok(2_592_000));
        assert_eq!(seconds_text(2_592_000), "30d");
        assert_eq!(seconds_text(5_400), "90m");
        assert_eq!(seconds_text(0), "0s");
        assert_eq!(bytes("64 MiB"), Ok(ByteCount::new(64 << 20)));
        assert_eq!(bytes_text(ByteCount::new(1536 << 20)), "1536MiB");
    }

    #[test]
    fn bare_numbers_and_overflows_are_refused() {
        for bad in ["", "30", "30 m 5", "m", "3x", "-1d", "999999999999y"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        for bad in ["", "64", "64m", "64MiB2", "99999999999999TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
