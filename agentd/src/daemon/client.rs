//! HTTPS to the one controller: its very certificate, and a signature on each request.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocol::{CertificateHash, KeyHash, Problem, RequestProof, SignedParts, SigningKey};
use reqwest::StatusCode;
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;

use super::identity::Identity;
use super::wait;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long connecting may take.
///
/// Short, because it ends the growing pauses in which the kernel repeats its first packet.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection may be silent before the kernel asks whether the controller is there.
/// It answers for the process, so nobody is woken; and it keeps the way open through NAT.
const ASK_AFTER: Duration = Duration::from_secs(30);
/// How often it asks then, and how long what was sent may stay unacknowledged.
const ASK_EVERY: Duration = Duration::from_secs(10);
const SILENT_MAX: Duration = Duration::from_secs(20);
/// How long a call may take that the controller answers at once.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a watch may take: the longest wait and some.
const WATCH_TIME_MAX: Duration = Duration::from_secs(protocol::WATCH_SECS_MAX as u64 + 20);

/// Says how a call failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// TLS cannot be set up.
    #[error("preparing TLS")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer; results stay queued.
    #[error("the controller does not answer")]
    Offline(#[source] reqwest::Error),
    /// It holds the connection, and the answer does not come.
    #[error("the controller does not answer in time")]
    Late,
    /// The controller has too much to do.
    #[error("the controller asks to come back later ({status})")]
    Busy {
        /// The HTTP status.
        status: u16,
        /// When, when it said so.
        after: Option<Duration>,
    },
    /// The controller wants a higher boot number.
    #[error("the controller knows boot number {known}")]
    StaleBoot {
        /// What it knows.
        known: u64,
    },
    /// The controller refuses.
    #[error("the controller refuses ({code}): {detail}")]
    Refused {
        /// The word for programs.
        code: String,
        /// The sentence for people.
        detail: String,
    },
    /// The answer is longer than any answer may be.
    #[error("the controller's answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

impl CallError {
    /// Gives when to come back, when the controller said so.
    pub(super) const fn after(&self) -> Option<Duration> {
        match self {
            Self::Busy { after, .. } => *after,
            _ => None,
        }
    }
}

/// Speaks to the controller that this agent joined.
pub(super) struct Client {
    http: reqwest::Client,
    host: String,
    key: SigningKey,
    controller: KeyHash,
    boot: Cell<u64>,
    counter: Cell<u64>,
}

impl Client {
    pub(super) fn new(identity: &Identity) -> Result<Self, CallError> {
        let verifier = Pinned::new(Some(identity.record.certificate));
        Ok(Self {
            http: http(Arc::new(verifier))?,
            host: identity.record.host.clone(),
            key: identity.key.clone(),
            controller: identity.record.controller.hash(),
            boot: Cell::new(0),
            counter: Cell::new(0),
        })
    }

    /// Gives the boot number; zero before the first.
    pub(super) const fn boot(&self) -> u64 {
        self.boot.get()
    }

    /// Counts anew under a higher boot number.
    pub(super) fn begin_boot(&self, boot: u64) {
        self.boot.set(boot);
        self.counter.set(0);
    }

    /// Sends one signed request and gives the body of the answer.
    pub(super) async fn call(
        &self,
        method: &'static str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, CallError> {
        let counter = self.counter.get().saturating_add(1);
        self.counter.set(counter);
        let parts = SignedParts {
            method,
            path_and_query: path,
            body: body.as_deref().unwrap_or_default(),
            controller: self.controller,
        };
        let time = super::now().secs();
        let proof = RequestProof::sign(&self.key, &parts, self.boot.get(), counter, time);
        let url = format!("https://{}{path}", self.host);
        let is_watch = method == "GET";
        let request = if is_watch {
            self.http.get(url)
        } else {
            self.http.post(url).timeout(CALL_TIME_MAX)
        };
        let request = request.header(reqwest::header::AUTHORIZATION, proof.header());
        let request = match body {
            Some(body) => request
                .header(reqwest::header::CONTENT_TYPE, "application/json")
                .body(body),
            None => request,
        };
        if !is_watch {
            return answer(request).await;
        }
        tokio::select! {
            answer = answer(request) => answer,
            () = wait::pause(WATCH_TIME_MAX) => Err(CallError::Late),
        }
    }
}

/// Sends a request and reads the answer, or what the controller says is wrong.
pub(super) async fn answer(request: reqwest::RequestBuilder) -> Result<Vec<u8>, CallError> {
    let mut response = request.send().await.map_err(CallError::Offline)?;
    let status = response.status();
    let after = response
        .headers()
        .get(reqwest::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(CallError::Offline)? {
        if body.len().saturating_add(part.len()) > ANSWER_BYTES_MAX {
            return Err(CallError::TooLong);
        }
        body.extend_from_slice(&part);
    }
    if status.is_success() {
        return Ok(body);
    }
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return Err(CallError::Busy {
            status: status.as_u16(),
            after,
        });
    }
    let problem = serde_json::from_slice(&body).unwrap_or(Problem {
        code: status.as_u16().to_string(),
        detail: String::new(),
        boot: None,
    });
    Err(match problem.boot {
        Some(known) if problem.code == "stale_boot" => CallError::StaleBoot { known },
        _ => CallError::Refused {
            code: problem.code,
            detail: problem.detail,
        },
    })
}

/// Makes an HTTPS client that trusts what `verifier` says and nothing else.
pub(super) fn http(verifier: Arc<Pinned>) -> Result<reqwest::Client, CallError> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| CallError::Tls(Box::new(error)))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    reqwest::Client::builder()
        .use_preconfigured_tls(tls)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIME_MAX)
        .tcp_keepalive(ASK_AFTER)
        .tcp_keepalive_interval(ASK_EVERY)
        .tcp_user_timeout(SILENT_MAX)
        .pool_max_idle_per_host(1)
        // The controller closes what is idle; a timer here would wake the process for nothing.
        .pool_idle_timeout(None)
        .build()
        .map_err(|error| CallError::Tls(Box::new(error)))
}

/// Accepts the one pinned certificate; or, while joining, any, and remembers which.
#[derive(Debug)]
pub(super) struct Pinned {
    provider: Arc<CryptoProvider>,
    pin: Option<CertificateHash>,
    seen: Mutex<Option<CertificateHash>>,
}

impl Pinned {
    pub(super) fn new(pin: Option<CertificateHash>) -> Self {
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            pin,
            seen: Mutex::new(None),
        }
    }

    /// Gives the certificate that the last connection showed.
    pub(super) fn seen(&self) -> Option<CertificateHash> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = CertificateHash::of(end_entity);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        match self.pin {
            Some(pin) if pin != shown => Err(rustls::Error::General(
                "the certificate is not the one that this server joined with".into(),
            )),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
