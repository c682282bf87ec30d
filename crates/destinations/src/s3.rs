//! An S3 bucket, through rust-s3. A pack is one PUT; reads are ranged.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use edge::{ByteRange, ObjectInfo, ObjectName, ObjectStore, StoreError, StoreFault};
use model::Secret;
use s3::creds::Credentials;
use s3::error::S3Error;
use s3::{Bucket, Region};
use tokio::runtime::Runtime;

use crate::retry::with_retry;

/// The longest that one request may take; a 64 MiB pack at 1 MiB/s fits.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Names per page of a listing; more is not given by any store.
const PAGE_KEYS: usize = 1000;

/// How to reach a bucket.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// `https://…` or `http://…`.
    pub endpoint: String,
    /// The region's name, often `us-east-1`, `auto` or `garage`.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// A prefix for all names, without slashes at its ends; may be empty.
    pub path: String,
    /// Put the bucket into the path instead of the host name.
    pub path_style: bool,
    /// The access key id.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: Secret,
}

/// Objects in a bucket.
pub struct S3Store {
    bucket: Box<Bucket>,
    prefix: String,
    shown: String,
    runtime: Runtime,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store")
            .field("place", &self.shown)
            .finish_non_exhaustive()
    }
}

impl S3Store {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// `StoreError` when endpoint, region or credentials cannot be used.
    pub fn open(options: &S3Options) -> Result<Self, StoreError> {
        let path = options.path.trim_matches('/');
        let mut shown = format!("s3://{}", options.bucket);
        if !path.is_empty() {
            shown = format!("{shown}/{path}");
        }
        let shown = format!("{shown} ({})", options.endpoint);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError {
            operation: "opening",
            object: "the bucket".to_owned(),
            store: shown.clone(),
            fault: StoreFault::Other,
            source,
        };
        let credentials = Credentials::new(
            Some(&options.access_key_id),
            Some(options.secret_access_key.reveal()),
            None,
            None,
            None,
        )
        .map_err(|error| failed(error.into()))?;
        let region = Region::Custom {
            region: options.region.clone(),
            endpoint: options.endpoint.clone(),
        };
        let mut bucket = Bucket::new(&options.bucket, region, credentials)
            .and_then(|bucket| bucket.with_request_timeout(REQUEST_TIMEOUT))
            .map_err(|error| failed(error.into()))?;
        if options.path_style {
            bucket = bucket.with_path_style();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("backstay-s3")
            .enable_all()
            .build()
            .map_err(|error| failed(error.into()))?;
        // Retries are ours, so that only what may pass is tried again.
        s3::set_retries(0);
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        Ok(Self {
            bucket,
            prefix,
            shown,
            runtime,
        })
    }

    fn key(&self, name: &ObjectName) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs one request, again when the store cannot be reached.
    fn request<T, F>(
        &self,
        operation: &'static str,
        object: &str,
        make: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, S3Error>>,
    {
        with_retry(|| {
            self.runtime
                .block_on(make())
                .map_err(|error| self.error(operation, object, error))
        })
    }

    fn error(&self, operation: &'static str, object: &str, error: S3Error) -> StoreError {
        StoreError {
            operation,
            object: object.to_owned(),
            store: self.shown.clone(),
            fault: fault(&error),
            source: explain(error),
        }
    }

    fn malformed(&self, object: &str, text: String) -> StoreError {
        StoreError {
            operation: "reading",
            object: object.to_owned(),
            store: self.shown.clone(),
            fault: StoreFault::Malformed,
            source: text.into(),
        }
    }
}

impl ObjectStore for S3Store {
    fn describe(&self) -> String {
        self.shown.clone()
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        let key = self.key(name);
        self.request("writing", name.as_str(), || async {
            self.bucket
                .put_object_builder(&key, bytes)
                .with_content_type("application/octet-stream")
                .execute()
                .await
                .map(drop)
        })
    }

    fn get(&self, name: &ObjectName, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
        // One byte more than allowed tells a larger object without reading it whole.
        let end = bytes_max;
        let key = self.key(name);
        let data = self.request("reading", name.as_str(), || async {
            match self.bucket.get_object_range(&key, 0, Some(end)).await {
                // An empty object has no first byte.
                Err(S3Error::HttpFailWithBody(416, _)) => self.bucket.get_object(&key).await,
                answer => answer,
            }
        })?;
        let bytes = data.to_vec();
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
            let text = format!("the object is longer than {bytes_max} bytes");
            return Err(self.malformed(name.as_str(), text));
        }
        Ok(bytes)
    }

    fn get_range(&self, name: &ObjectName, range: ByteRange) -> Result<Vec<u8>, StoreError> {
        let (offset, length) = match range {
            ByteRange::At { offset, length } => (offset, length),
            ByteRange::Suffix { length } => {
                let size = self.size(name)?.ok_or_else(|| StoreError {
                    fault: StoreFault::NotFound,
                    ..self.malformed(name.as_str(), "there is no such object".to_owned())
                })?;
                (size.saturating_sub(length), length.min(size))
            }
        };
        if length == 0 {
            return Ok(Vec::new());
        }
        let end = offset.saturating_add(length - 1);
        let key = self.key(name);
        let data = self
            .request("reading", name.as_str(), || {
                self.bucket.get_object_range(&key, offset, Some(end))
            })
            .map_err(out_of_range)?;
        let bytes = data.to_vec();
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > length {
            let text = format!("asked for {length} bytes at {offset}, got {}", bytes.len());
            return Err(self.malformed(name.as_str(), text));
        }
        Ok(bytes)
    }

    fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        let key = self.key(name);
        let found = self.request("looking at", name.as_str(), || {
            self.bucket.head_object(&key)
        });
        match found {
            Ok((head, _)) => {
                let length = head
                    .content_length
                    .and_then(|length| u64::try_from(length).ok());
                length.map(Some).ok_or_else(|| {
                    self.malformed(name.as_str(), "the store tells no length".to_owned())
                })
            }
            Err(error) if error.fault == StoreFault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), StoreError> {
        let whole = format!("{}{prefix}", self.prefix);
        let shown = if prefix.is_empty() { "objects" } else { prefix };
        let mut token = None;
        loop {
            let (page, _) = self.request("listing", shown, || {
                self.bucket
                    .list_page(whole.clone(), None, token.clone(), None, Some(PAGE_KEYS))
            })?;
            for object in &page.contents {
                let name = object.key.strip_prefix(&self.prefix).map(ObjectName::new);
                if let Some(Ok(name)) = name {
                    each(ObjectInfo {
                        name,
                        size_bytes: object.size,
                    });
                }
            }
            match page.next_continuation_token {
                Some(next) if page.is_truncated => token = Some(next),
                _ => return Ok(()),
            }
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        let key = self.key(name);
        let deleted = self.request("deleting", name.as_str(), || {
            self.bucket.delete_object(&key)
        });
        match deleted {
            Err(error) if error.fault != StoreFault::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn out_of_range(error: StoreError) -> StoreError {
    let outside = error.source.to_string().contains("HTTP 416");
    if outside {
        StoreError {
            fault: StoreFault::Malformed,
            ..error
        }
    } else {
        error
    }
}

fn fault(error: &S3Error) -> StoreFault {
    match error {
        S3Error::HttpFailWithBody(404, _) => StoreFault::NotFound,
        S3Error::HttpFailWithBody(401 | 403, _) => StoreFault::Denied,
        S3Error::HttpFailWithBody(507, _) => StoreFault::Full,
        S3Error::HttpFailWithBody(408 | 429 | 500..=599, _)
        | S3Error::Reqwest(_)
        | S3Error::Io(_) => StoreFault::Unreachable,
        _ => StoreFault::Other,
    }
}

/// Turns the library's error into one line: an answer's XML body becomes code and message, a chain
/// that names the address at each step its last cause.
fn explain(error: S3Error) -> Box<dyn std::error::Error + Send + Sync> {
    if let S3Error::Reqwest(request) = &error {
        let what = if request.is_timeout() {
            "no answer in time"
        } else if request.is_connect() {
            "no connection"
        } else {
            "the connection broke"
        };
        let mut last: &dyn std::error::Error = request;
        while let Some(cause) = last.source() {
            last = cause;
        }
        return format!("{what}: {last}").into();
    }
    let S3Error::HttpFailWithBody(status, body) = &error else {
        return error.into();
    };
    let part = |tag: &str| {
        let (_, rest) = body.split_once(&format!("<{tag}>"))?;
        let (text, _) = rest.split_once(&format!("</{tag}>"))?;
        Some(
            model::escape(text.as_bytes())
                .chars()
                .take(300)
                .collect::<String>(),
        )
    };
    match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("HTTP {status}: {code}: {message}").into(),
        (Some(code), None) => format!("HTTP {status}: {code}").into(),
        _ => format!("HTTP {status}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(endpoint: &str) -> S3Options {
        S3Options {
            endpoint: endpoint.into(),
            region: "garage".into(),
            bucket: "backups".into(),
            path: "web1/".into(),
            path_style: true,
            access_key_id: "id".into(),
            secret_access_key: Secret::new("very secret".into()),
        }
    }

    #[test]
    fn a_store_names_its_place_and_never_its_secret() {
        let store = S3Store::open(&options("http://127.0.0.1:1")).unwrap();
        assert_eq!(store.describe(), "s3://backups/web1 (http://127.0.0.1:1)");
        assert!(!format!("{store:?}").contains("secret"));
    }

    #[test]
    fn nobody_listening_is_unreachable() {
        // Port 1 of loopback is never bound by a test: the connection is refused at once.
        let store = S3Store::open(&options("http://127.0.0.1:1")).unwrap();
        let error = store.get(&ObjectName::new("a").unwrap(), 10).unwrap_err();
        assert_eq!(error.fault, StoreFault::Unreachable);
        assert_eq!(
            error.to_string(),
            "reading a at s3://backups/web1 (http://127.0.0.1:1)"
        );
        assert_eq!(
            error.source.to_string(),
            "no connection: Connection refused (os error 111)"
        );
    }

    #[test]
    fn an_answer_becomes_one_line() {
        let body = "<Error><Code>AccessDenied</Code><Message>Forbidden:\nno</Message></Error>";
        let error = explain(S3Error::HttpFailWithBody(403, body.into()));
        assert_eq!(error.to_string(), "HTTP 403: AccessDenied: Forbidden:\\nno");
    }
}
