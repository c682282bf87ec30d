//! Which passwords are good enough to protect backups.
//!
//! A slot that somebody copied can be tried against for ever, so that a password has to stand more
//! than one at a login page. The classes of characters are what people expect to be asked for; what
//! decides is how many guesses an attacker with lists of words and names would need.

use model::Secret;
use thiserror::Error;
use zxcvbn::{Score, zxcvbn};

/// The fewest characters.
const LENGTH_MIN: usize = 12;
/// The most bytes.
const BYTES_MAX: usize = 1024;

/// How hard a password is to guess.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strength {
    /// The number of guesses has so many digits.
    pub guesses_digits: u16,
    /// 3 or 4 of 4.
    pub score: u8,
}

/// Says why a password is refused. Never shows it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WeakPassword {
    /// It is too short.
    #[error("it has {0} characters, and at least {LENGTH_MIN} are needed")]
    Short(usize),
    /// It is longer than is read.
    #[error("it is longer than {BYTES_MAX} bytes")]
    Long,
    /// Characters of some classes are missing.
    #[error("it has {0}")]
    Lacks(String),
    /// It is easy to guess all the same.
    #[error("it would be guessed after about 10^{digits} tries{because}")]
    Guessable {
        /// The number of guesses has so many digits.
        digits: u16,
        /// What is wrong with it, when that is known.
        because: String,
    },
}

/// Estimates how hard a password is to guess, and refuses one that is too easy.
///
/// # Errors
///
/// `WeakPassword`.
pub fn judge_password(password: &Secret) -> Result<Strength, WeakPassword> {
    let text = password.reveal();
    if text.len() > BYTES_MAX {
        return Err(WeakPassword::Long);
    }
    let length = text.chars().count();
    if length < LENGTH_MIN {
        return Err(WeakPassword::Short(length));
    }
    let lacks =
        |is_one: fn(char) -> bool, name: &'static str| (!text.chars().any(is_one)).then_some(name);
    let missing: Vec<_> = [
        lacks(char::is_uppercase, "no upper-case letter"),
        lacks(char::is_lowercase, "no lower-case letter"),
        lacks(char::is_numeric, "no digit"),
        lacks(|c| !c.is_alphanumeric(), "no special character"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !missing.is_empty() {
        return Err(WeakPassword::Lacks(missing.join(" and ")));
    }
    let estimate = zxcvbn(text, &["backstay", "backup"]);
    let digits = u16::try_from(estimate.guesses().checked_ilog10().unwrap_or(0)).unwrap_or(0);
    if estimate.score() < Score::Three {
        let warning = estimate.feedback().and_then(|feedback| feedback.warning());
        let because = warning.map_or_else(String::new, |warning| format!(": {warning}"));
        return Err(WeakPassword::Guessable { digits, because });
    }
    Ok(Strength {
        guesses_digits: digits,
        score: u8::from(estimate.score()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> String {
        match judge_password(&Secret::new(text.to_owned())) {
            Ok(strength) => format!("{} of 4, 10^{}", strength.score, strength.guesses_digits),
            Err(weak) => weak.to_string(),
        }
    }

    #[test]
    fn weak_passwords_are_refused_with_the_reason() {
        assert_eq!(
            judge("Aa1!"),
            "it has 4 characters, and at least 12 are needed"
        );
        assert_eq!(
            judge("onlylowerletters"),
            "it has no upper-case letter and no digit and no special character"
        );
        assert_eq!(judge(&"Aa1!".repeat(400)), "it is longer than 1024 bytes");
        for common in ["Password123!", "Qwertyuiop1!", "Aaaaaaaaaaa1!"] {
            assert!(judge(common).starts_with("it would be guessed"), "{common}");
        }
    }

    #[test]
    fn good_passwords_are_taken_with_an_estimate() {
        assert_eq!(judge("Vex.quail7-Trombone"), "4 of 4, 10^14");
    }
}
