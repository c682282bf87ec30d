//! `[destination.NAME]`: a place for repositories, and how to reach it.

use std::path::PathBuf;

use model::DestinationName;
use toml::de::DeValue;

use crate::reader::{Section, text, truth, word};
use crate::schedule::Origin;

/// The kind of a place, with what it takes to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory of this server.
    Local {
        /// Its absolute path.
        path: PathBuf,
    },
    /// A bucket that speaks S3.
    S3 {
        /// The address, for example `https://s3.example.net`.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// The prefix below which repositories lie, without slashes at either end; may be empty.
        path: String,
        /// The region that requests are signed for.
        region: String,
        /// Bucket in the path instead of in the host name.
        path_style: bool,
    },
}

impl Place {
    /// Gives the host and optional port of a network place.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Local { .. } => None,
            Self::S3 { endpoint, .. } => {
                let rest = endpoint
                    .split_once("://")
                    .map_or(endpoint.as_str(), |e| e.1);
                Some(rest.split('/').next().unwrap_or(rest))
            }
        }
    }
}

/// What opens a destination. The secret itself is never in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing is needed.
    None,
    /// Kept by systemd, encrypted, as `credstore/destination-NAME.cred`.
    Sealed(DestinationName),
    /// A file that only root can read.
    File(PathBuf),
}

/// One destination, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its name.
    pub name: DestinationName,
    /// Where it is.
    pub place: Place,
    /// What opens it.
    pub credential: Credential,
    /// False lets a run be ok when this copy failed.
    pub required: bool,
    /// Where it was written.
    pub origin: Origin,
}

impl Destination {
    /// Gives the name under which a job finds the credential in `$CREDENTIALS_DIRECTORY`.
    #[must_use]
    pub fn credential_id(&self) -> Option<String> {
        match &self.credential {
            Credential::None => None,
            // systemd binds the name into the ciphertext: it decrypts under no other.
            Credential::Sealed(name) => Some(format!("destination-{name}")),
            Credential::File(_) => Some(format!("destination-{}", self.name)),
        }
    }

    pub(crate) fn read(
        name: DestinationName,
        mut section: Section<'_, '_>,
        origin: Origin,
    ) -> Option<Self> {
        let s = &mut section;
        let s3 = s.need("kind", "\"local\" or \"s3\"", kind);
        let place = match s3 {
            Some(true) => read_s3(s),
            Some(false) => s
                .need("path", "\"/srv/backup\"", local_path)
                .map(|path| Place::Local { path }),
            None => return None,
        };
        let credential = s.get("credential", credential).unwrap_or(Credential::None);
        match (&place, &credential) {
            (Some(Place::Local { .. }), Credential::Sealed(_) | Credential::File(_)) => {
                s.fault(
                    "credential",
                    "a local directory needs none; remove this line",
                );
            }
            (Some(Place::S3 { .. }), Credential::None) => s.fault(
                "credential",
                format!("is missing; write for example \"sealed:{name}\""),
            ),
            _ => {}
        }
        let required = s.get("required", truth).unwrap_or(true);
        section.finish();
        Some(Self {
            name,
            place: place?,
            credential,
            required,
            origin,
        })
    }
}

fn kind(value: &DeValue<'_>) -> Result<bool, String> {
    let given = text(value)?;
    if ["sftp", "ftp", "drive", "peer", "rclone"].contains(&given.as_str()) {
        return Err(format!(
            "{given:?} is not yet available in this version; use \"local\" or \"s3\""
        ));
    }
    word(&[("local", false), ("s3", true)])(value)
}

fn read_s3(section: &mut Section<'_, '_>) -> Option<Place> {
    let endpoint = section.need("endpoint", "\"https://s3.example.net\"", url);
    let bucket = section.need("bucket", "\"backups\"", bucket);
    let path = section.get("path", prefix).unwrap_or_default();
    let region = section.get("region", region);
    let path_style = section.get("path_style", truth).unwrap_or(true);
    Some(Place::S3 {
        endpoint: endpoint?,
        bucket: bucket?,
        path,
        region: region.unwrap_or_else(|| "us-east-1".to_owned()),
        path_style,
    })
}

/// Reads a path that can be written into a unit.
fn local_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = absolute_path(value)?;
    if path.display().to_string().contains(['"', '\'', '\\']) {
        return Err("holds a quote or backslash; use a directory without".to_owned());
    }
    Ok(path)
}

/// Reads an absolute path that names no `..`.
pub(crate) fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = text(value)?;
    let plain = path.starts_with('/')
        && !path.contains(|c: char| c.is_control())
        && !path.split('/').any(|part| part == ".." || part == ".");
    if plain && path.len() > 1 {
        Ok(PathBuf::from(path))
    } else {
        Err(format!("{path:?} is not an absolute path without \"..\""))
    }
}

/// Reads an `https://` or `http://` address without user, query or fragment.
pub(crate) fn url(value: &DeValue<'_>) -> Result<String, String> {
    let given = text(value)?;
    let address = given.trim_end_matches('/');
    let rest = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:/[]".contains(&b);
    match rest {
        Some(rest) if !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain) => {
            Ok(address.to_owned())
        }
        _ => Err(format!(
            "{given:?} is not an address; write for example \"https://s3.example.net\""
        )),
    }
}

fn bucket(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if (3..=63).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['.', '-']) {
        Ok(name)
    } else {
        Err(format!("{name:?} is not a bucket name"))
    }
}

fn prefix(value: &DeValue<'_>) -> Result<String, String> {
    let given = text(value)?;
    let path = given.trim_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/".contains(&b);
    let parts = || path.split('/');
    if path.is_empty()
        || path.len() <= 512
            && path.bytes().all(plain)
            && parts().all(|part| !part.is_empty() && part != "." && part != "..")
    {
        Ok(path.to_owned())
    } else {
        Err(format!(
            "{given:?} is not a path; use letters, digits, '.', '_', '-' and '/'"
        ))
    }
}

fn region(value: &DeValue<'_>) -> Result<String, String> {
    let region = text(value)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !region.is_empty() && region.len() <= 64 && region.bytes().all(plain) {
        Ok(region)
    } else {
        Err(format!(
            "{region:?} is not a region; write for example \"eu-central-1\""
        ))
    }
}

fn credential(value: &DeValue<'_>) -> Result<Credential, String> {
    let given = text(value)?;
    if given == "none" {
        return Ok(Credential::None);
    }
    if let Some(name) = given.strip_prefix("sealed:") {
        let name = DestinationName::new(name).map_err(|e| e.to_string())?;
        return Ok(Credential::Sealed(name));
    }
    let path = given.strip_prefix("file:").filter(|path| {
        path.starts_with('/')
            && !path.contains(|c: char| c.is_control() || c.is_whitespace() || c == '%' || c == ':')
            && !path.split('/').any(|part| part == "..")
    });
    match path {
        Some(path) => Ok(Credential::File(PathBuf::from(path))),
        None => Err(format!(
            "{:?} names no credential; write \"sealed:NAME\" or \"file:/path\"; the secret itself never belongs here",
            shortened(&given)
        )),
    }
}

/// Shows only the beginning: people paste secrets into the wrong place.
fn shortened(given: &str) -> String {
    let begin: String = given.chars().take(6).collect();
    if begin.len() < given.len() {
        format!("{begin}…")
    } else {
        begin
    }
}
