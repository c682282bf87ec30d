//! Opening a place: which driver serves a destination.

use std::path::PathBuf;
use std::sync::Arc;

use destinations::{LocalScratch, LocalStore, S3Options, S3Store};
use edge::{ObjectStore, Scratch, StoreError};
use model::Secret;
use settings::Place;
use thiserror::Error;

use crate::credential::{CredentialError, S3Credential};

/// A place to open, with its secret already read.
#[derive(Debug, Clone)]
pub enum StorePlace {
    /// A directory of this server.
    Local(PathBuf),
    /// A bucket.
    S3(S3Options),
}

/// Says why a place cannot be opened.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The destination needs a credential, and none was given.
    #[error(
        "the destination needs a credential and has none: 'backstayctl credential set' gives it one"
    )]
    NoCredential,
    /// The credential is there and cannot be read.
    #[error("reading the credential")]
    Unreadable(#[source] std::io::Error),
    /// The credential cannot be used.
    #[error("reading the credential")]
    Credential(#[from] CredentialError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A text names no place.
    #[error("{0:?} is neither a directory nor s3://BUCKET/PATH?endpoint=URL&region=NAME")]
    Text(String),
}

impl StorePlace {
    /// Joins a destination's place with its credential.
    ///
    /// # Errors
    ///
    /// `NoCredential` or `Credential` when a bucket cannot be opened without or with what is given.
    pub fn new(place: &Place, credential: Option<&Secret>) -> Result<Self, PlaceError> {
        match place {
            Place::Local { path } => Ok(Self::Local(path.clone())),
            Place::S3 {
                endpoint,
                bucket,
                path,
                region,
                path_style,
            } => {
                let secret = credential.ok_or(PlaceError::NoCredential)?;
                let credential = S3Credential::parse(secret)?;
                Ok(Self::S3(S3Options {
                    endpoint: endpoint.clone(),
                    region: region.clone(),
                    bucket: bucket.clone(),
                    path: path.clone(),
                    path_style: *path_style,
                    access_key_id: credential.access_key_id,
                    secret_access_key: credential.secret_access_key,
                }))
            }
        }
    }

    /// Reads a directory or `s3://BUCKET/PATH?endpoint=URL&region=NAME&style=path`, as people give
    /// them on the command line.
    ///
    /// # Errors
    ///
    /// `Text` when it is neither, `NoCredential` or `Credential` for a bucket.
    pub fn parse(text: &str, credential: Option<&Secret>) -> Result<Self, PlaceError> {
        let Some(rest) = text.strip_prefix("s3://") else {
            let foreign = text.is_empty() || text.contains("://");
            return if foreign {
                Err(PlaceError::Text(text.to_owned()))
            } else {
                Ok(Self::Local(PathBuf::from(text)))
            };
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, path) = place.split_once('/').unwrap_or((place, ""));
        let option = |key: &str| {
            query
                .split('&')
                .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key))
        };
        let endpoint = option("endpoint").map(|(_, url)| url);
        let (Some(endpoint), false) = (endpoint, bucket.is_empty()) else {
            return Err(PlaceError::Text(text.to_owned()));
        };
        let place = Place::S3 {
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
            path: path.trim_matches('/').to_owned(),
            region: option("region")
                .map_or("us-east-1", |(_, name)| name)
                .to_owned(),
            path_style: option("style").is_none_or(|(_, style)| style == "path"),
        };
        Self::new(&place, credential)
    }
}

/// Opens a place as an object store.
///
/// # Errors
///
/// `Store` when the directory is absent or the options cannot be used. An unreachable bucket is
/// noticed only by its first request.
pub fn open_place(place: &StorePlace) -> Result<Arc<dyn ObjectStore>, PlaceError> {
    Ok(match place {
        StorePlace::Local(path) => Arc::new(LocalStore::open(path)?),
        StorePlace::S3(options) => Arc::new(S3Store::open(options)?),
    })
}

/// Where large temporary files belong, which `/tmp` may keep in memory (file-hierarchy(7)).
const LARGE_TEMPORARY_FILES: &str = "/var/tmp";

/// Gives the room for scratch files of a program that has no directory of its own.
pub(crate) fn scratch() -> Arc<dyn Scratch> {
    let named = std::env::var_os("TMPDIR").map(PathBuf::from);
    let directory = named.unwrap_or_else(|| PathBuf::from(LARGE_TEMPORARY_FILES));
    Arc::new(LocalScratch::new(&directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new("access_key_id = \"id\"\nsecret_access_key = \"key\"\n".into())
    }

    #[test]
    fn people_name_directories_and_buckets() {
        assert!(matches!(
            StorePlace::parse("/srv/backups", None),
            Ok(StorePlace::Local(path)) if path == std::path::Path::new("/srv/backups")
        ));
        let text = "s3://bucket/a/b?endpoint=http://127.0.0.1:3900&region=garage";
        let Ok(StorePlace::S3(options)) = StorePlace::parse(text, Some(&secret())) else {
            panic!("not a bucket");
        };
        assert_eq!(options.bucket, "bucket");
        assert_eq!(options.path, "a/b");
        assert_eq!(options.region, "garage");
        assert!(options.path_style);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in [
            "",
            "ftp://x",
            "s3://",
            "s3://bucket",
            "s3://?endpoint=http://x",
        ] {
            assert!(StorePlace::parse(bad, Some(&secret())).is_err(), "{bad}");
        }
        let bucket = "s3://bucket?endpoint=http://127.0.0.1:1";
        assert!(matches!(
            StorePlace::parse(bucket, None),
            Err(PlaceError::NoCredential)
        ));
    }
}
