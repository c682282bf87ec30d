//! New passwords: refused when they are weak, taken with an estimate otherwise.

use model::{Exit, Secret};

use crate::problem::Problem;
use crate::screen::{Screen, Tone, toned};

/// Refuses a weak password, and says how strong another one is.
pub(in crate::repo) fn check(password: &Secret, screen: &mut Screen) -> Result<(), Problem> {
    let strength = ops::judge_password(password).map_err(|weak| {
        Problem::new(Exit::Usage, "the password is too weak; nothing was changed")
            .because(&weak)
            .hint(
                "12 characters or more, with upper and lower case, a digit and a special character",
            )
            .hint("several unusual words do well, and so does what a password manager makes")
    })?;
    if !screen.is_json() {
        let (score, digits) = (strength.score, strength.guesses_digits);
        let word = if score > 3 { "strong" } else { "good" };
        let text = format!("The password is {word}: about 10^{digits} guesses.");
        screen.line(&[toned(text, Tone::Good)])?;
    }
    Ok(())
}
