//! The credential of a destination as it rests in the credential store: a small TOML text.

use model::Secret;
use serde::Deserialize;
use thiserror::Error;

/// Says why a text is not a credential; never shows the text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// The text is not TOML, or not of this shape.
    #[error(
        "the credential is not TOML with access_key_id and secret_access_key; set it again with backstayctl credential set"
    )]
    Shape,
    /// A value is empty or longer than any store gives out.
    #[error("{field} of the credential is empty or longer than 512 bytes")]
    Length {
        /// Which value.
        field: &'static str,
    },
}

/// What opens a bucket.
#[derive(Debug, Clone)]
pub struct S3Credential {
    /// The access key id.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    access_key_id: String,
    secret_access_key: String,
}

impl S3Credential {
    /// Reads the text that [`S3Credential::to_text`] wrote.
    ///
    /// # Errors
    ///
    /// `CredentialError`; ask the person for the credential again.
    pub fn parse(text: &Secret) -> Result<Self, CredentialError> {
        let read: Text = toml::from_str(text.reveal()).map_err(|_| CredentialError::Shape)?;
        let credential = Self {
            access_key_id: read.access_key_id,
            secret_access_key: Secret::new(read.secret_access_key),
        };
        let fits = |text: &str| (1..=512).contains(&text.len());
        if !fits(&credential.access_key_id) {
            return Err(CredentialError::Length {
                field: "access_key_id",
            });
        }
        if !fits(credential.secret_access_key.reveal()) {
            return Err(CredentialError::Length {
                field: "secret_access_key",
            });
        }
        Ok(credential)
    }

    /// Gives the text to encrypt and keep.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        Secret::new(format!(
            "access_key_id = {}\nsecret_access_key = {}\n",
            quoted(&self.access_key_id),
            quoted(self.secret_access_key.reveal())
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back() {
        let credential = S3Credential {
            access_key_id: "GK\"1".into(),
            secret_access_key: Secret::new("a\\b'c".into()),
        };
        let read = S3Credential::parse(&credential.to_text()).unwrap();
        assert_eq!(read.access_key_id, "GK\"1");
        assert_eq!(read.secret_access_key.reveal(), "a\\b'c");
    }

    #[test]
    fn a_refusal_never_shows_the_text() {
        let error = S3Credential::parse(&Secret::new("hunter2".into())).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let empty = Secret::new("access_key_id=\"\"\nsecret_access_key=\"x\"".into());
        assert!(matches!(
            S3Credential::parse(&empty),
            Err(CredentialError::Length { .. })
        ));
    }
}
