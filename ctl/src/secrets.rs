//! Keys and access keys that come from a file or from a person, never from an argument.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use model::{Exit, Secret};
use ops::S3Credential;

use crate::problem::Problem;
use crate::prompt;

/// The longest key or credential file, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Reads a small secret file; `-` is standard input. White space around the text is left out.
///
/// # Errors
///
/// When it cannot be read.
pub fn file(path: &Path, what: &str) -> Result<Secret, Problem> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().take(BYTES_MAX).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text))
    };
    // The text is wrapped first, so that it is wiped on every way out.
    let text = Secret::new(text);
    read.map_err(|error| {
        Problem::new(
            Exit::Failed,
            format!("cannot read {what} from {}", path.display()),
        )
        .because(&error)
    })?;
    Ok(Secret::new(text.reveal().trim().to_owned()))
}

/// Reads an access key from a file: two lines, or TOML as it rests on a server.
///
/// # Errors
///
/// When the file cannot be read or holds neither.
pub fn access_key(path: &Path) -> Result<S3Credential, Problem> {
    let text = file(path, "the access key")?;
    if let Ok(credential) = S3Credential::parse(&text) {
        return Ok(credential);
    }
    let mut lines = text.reveal().lines().map(str::trim);
    match (lines.next(), lines.next(), lines.next()) {
        (Some(id), Some(secret), None) if !id.is_empty() && !id.contains('=') => Ok(S3Credential {
            access_key_id: id.to_owned(),
            secret_access_key: Secret::new(secret.to_owned()),
        }),
        _ => Err(Problem::new(
            Exit::Usage,
            format!("{} holds no access key", path.display()),
        )
        .cause("two lines are expected: access key id, then secret access key")
        .cause("or TOML with access_key_id and secret_access_key")),
    }
}

/// Asks for an access key.
///
/// # Errors
///
/// When nothing is given.
pub fn ask_access_key() -> Result<S3Credential, Problem> {
    let access_key_id = prompt::open("Access key id: ")?.trim().to_owned();
    let secret = prompt::secret("Secret access key: ")?;
    Ok(S3Credential {
        access_key_id,
        secret_access_key: Secret::new(secret.reveal().trim().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_key_is_two_lines_or_toml() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s3");
        let toml = "access_key_id = \"id\"\nsecret_access_key = \"secret\"\n";
        for text in ["id\nsecret\n", " id \n secret", toml] {
            std::fs::write(&path, text).unwrap();
            let key = access_key(&path).unwrap();
            assert_eq!(key.access_key_id, "id");
            assert_eq!(key.secret_access_key.reveal(), "secret");
        }
        for text in [
            "",
            "id secret\n",
            "id\nsecret\nmore",
            "access_key_id = \"id\"\nx = 1",
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(access_key(&path).is_err(), "{text}");
        }
    }
}
