//! The files that make the controller itself: its signing key, its TLS key and certificate.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::{CertificateHash, SigningKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// Says which file of the state directory cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Reading or writing failed.
    #[error("using {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} does not hold what belongs there: {message}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Who the controller is.
pub(crate) struct Identity {
    /// Signs generations, commands and join records.
    pub(crate) key: SigningKey,
    /// Speaks TLS 1.3 and 1.2.
    pub(crate) tls: Arc<ServerConfig>,
    /// What agents pin.
    pub(crate) certificate: CertificateHash,
}

/// Makes the state directory with mode 0700 when it is absent.
pub(crate) fn make_state_dir(path: &Path) -> Result<(), IdentityError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(source) if !path.is_dir() => Err(IdentityError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

impl Identity {
    /// Reads the identity, and makes what is absent. Files are `signing.key`, `tls.key` and
    /// `tls.crt`, mode 0600.
    pub(crate) fn open(dir: &Path, names: Vec<String>) -> Result<Self, IdentityError> {
        let key_path = dir.join("signing.key");
        let seed = read_or_make(&key_path, || {
            let mut seed = vec![0; 32];
            getrandom::fill(&mut seed).map_err(io::Error::other)?;
            Ok(seed)
        })?;
        let seed: [u8; 32] = seed.try_into().map_err(|_| IdentityError::Content {
            path: key_path,
            message: "32 bytes are expected".into(),
        })?;
        let (tls, certificate) = open_tls(dir, names)?;
        Ok(Self {
            key: SigningKey::from_seed(&seed),
            tls,
            certificate,
        })
    }
}

fn open_tls(
    dir: &Path,
    names: Vec<String>,
) -> Result<(Arc<ServerConfig>, CertificateHash), IdentityError> {
    let (key_path, certificate_path) = (dir.join("tls.key"), dir.join("tls.crt"));
    let key_pem = read_or_make(&key_path, || {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        Ok(key.serialize_pem().into_bytes())
    })?;
    let certificate_pem = read_or_make(&certificate_path, || {
        make_certificate(&key_pem, names).map_err(io::Error::other)
    })?;
    let content = |path: &Path, message: String| IdentityError::Content {
        path: path.to_owned(),
        message,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content(&certificate_path, error.to_string()))?;
    let hash = chain
        .first()
        .map(|leaf| CertificateHash::of(leaf))
        .ok_or_else(|| content(&certificate_path, "no certificate in it".into()))?;
    let key = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|error| content(&key_path, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| content(&key_path, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| content(&certificate_path, error.to_string()))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((Arc::new(tls), hash))
}

fn make_certificate(key_pem: &[u8], names: Vec<String>) -> Result<Vec<u8>, rcgen::Error> {
    let key = KeyPair::from_pem(&String::from_utf8_lossy(key_pem))?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Backstay controller");
    // Agents pin this very certificate, so it must outlive servers; people see it once.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    Ok(params.self_signed(&key)?.pem().into_bytes())
}

/// Reads a file; when it is absent, writes what `make` gives, whole or not at all.
fn read_or_make(
    path: &Path,
    make: impl FnOnce() -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, IdentityError> {
    let wrong = |source| IdentityError::File {
        path: path.to_owned(),
        source,
    };
    match std::fs::read(path) {
        Ok(bytes) => return Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(wrong(error)),
    }
    let bytes = make().map_err(wrong)?;
    write_secret(path, &bytes).map_err(wrong)?;
    Ok(bytes)
}

fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    match path.parent() {
        Some(dir) => std::fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_identity_stays_and_is_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Identity::open(dir.path(), vec!["localhost".into()]).unwrap();
        let (first, second) = (open(), open());
        assert_eq!(first.key.public(), second.key.public());
        assert_eq!(first.certificate, second.certificate);
        for name in ["signing.key", "tls.key", "tls.crt"] {
            let mode = std::fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("signing.key"), b"short").unwrap();
        let error = Identity::open(dir.path(), Vec::new()).err().unwrap();
        assert!(error.to_string().contains("signing.key"), "{error}");
    }
}
