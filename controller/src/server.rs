//! Starting, serving and stopping.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::net::sockopt;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::certificate::{Identity, IdentityError, make_state_dir};
use crate::config::Config;
use crate::events::Events;
use crate::live::{Line, Live};
use crate::store::{Store, StoreError};
use crate::throttle::Throttle;
use crate::{api, store};

/// Connections that are served at once: ten thousand agents and some browsers.
const CONNECTIONS_MAX: usize = 12_000;
/// How long a TLS handshake or the head of a request may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
/// How long an agent may be without a connection before it is offline: it may start anew.
const ABSENT_MAX: Duration = Duration::from_secs(30);
/// How long a connection may be silent before the kernel asks whether the other side is there.
/// Its kernel answers, so nobody is woken; a connection that is dead ends a minute after it died.
const ASK_AFTER: Duration = Duration::from_secs(30);
/// How often it asks then, and how long what was sent may stay unacknowledged.
const ASK_EVERY: Duration = Duration::from_secs(10);
const SILENT_MAX: Duration = Duration::from_secs(30);
/// "Address family not supported", on Linux.
const EAFNOSUPPORT: i32 = 97;
/// How long requests may go on after a stop was asked for.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);

/// Says why the controller does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The state directory's key or certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The state file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("listening on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A route without authorisation, or the other way round.
    #[error("the routes are not as authorised: {0}")]
    Routes(String),
    /// The set-up token cannot be made.
    #[error("making the set-up token: {0}")]
    SetupToken(String),
}

/// What every request handler has.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) identity: Arc<Identity>,
    pub(crate) live: Arc<Live>,
    pub(crate) events: Arc<Events>,
    pub(crate) throttle: Arc<Throttle>,
    /// `name:port` as agents and browsers reach this controller.
    pub(crate) host: Arc<str>,
    pub(crate) watch_secs: u32,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// A controller that serves.
#[derive(Debug)]
pub struct Controller {
    address: SocketAddr,
    certificate: protocol::CertificateHash,
    setup_url: Option<String>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Controller {
    /// Opens the state, makes what is absent, and serves until [`Controller::stop`].
    ///
    /// # Errors
    ///
    /// `StartError`; nothing is served then.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        make_state_dir(&config.state_dir)?;
        let identity = Identity::open(&config.state_dir, config.certificate_names())?;
        let store = Store::open(&config.state_dir.join("controller.db"))?;
        let listener = listen(config.listen).await?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let host = config.public_host(address.port());
        let setup_url = first_setup_url(&store, &host).await?;
        let (stop, stopping) = watch::channel(false);
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.tls));
        let certificate = identity.certificate;
        let app = App {
            store,
            identity: Arc::new(identity),
            live: Arc::default(),
            events: Arc::new(Events::starting_at(crate::now().micros().cast_unsigned())),
            throttle: Arc::default(),
            host: host.into(),
            watch_secs: config.watch_secs.clamp(1, protocol::WATCH_SECS_MAX),
            stopping,
        };
        let router = api::router(app.clone()).map_err(StartError::Routes)?;
        let serving = tokio::spawn(async move {
            let absences = tokio::spawn(notice_absence(app.clone()));
            serve(listener, acceptor, router, app.stopping.clone()).await;
            absences.abort();
            keep_last_heard(&app).await;
        });
        Ok(Self {
            address,
            certificate,
            setup_url,
            stop,
            serving,
        })
    }

    /// Gives the address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives the hash of its certificate.
    #[must_use]
    pub const fn certificate(&self) -> protocol::CertificateHash {
        self.certificate
    }

    /// Gives the one-time address of the first run, when it made one at this start.
    #[must_use]
    pub fn setup_url(&self) -> Option<&str> {
        self.setup_url.as_deref()
    }

    /// Stops: answers what is under way, then closes everything.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // It ends by itself; a panic in it was reported already.
        drop(self.serving.await);
    }
}

/// Waits until the controller is to stop; also when it is gone already.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let wrong = |source| StartError::Listen { address, source };
    match TcpListener::bind(address).await {
        // A machine without IPv6 still has every IPv4 address.
        Err(error)
            if address.ip().is_unspecified() && error.raw_os_error() == Some(EAFNOSUPPORT) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
                .await
                .map_err(wrong)
        }
        other => other.map_err(wrong),
    }
}

async fn first_setup_url(store: &Store, host: &str) -> Result<Option<String>, StartError> {
    let failed = |problem: crate::problem::Problem| StartError::SetupToken(problem.detail);
    let host = host.to_owned();
    store
        .write(move |c| {
            if !store::needs_setup(c)? || store::has_setup_token(c)? {
                return Ok(None);
            }
            make_setup_url(c, &host).map(Some)
        })
        .await
        .map_err(failed)
}

/// Makes a set-up token and gives the address that holds it. The one before it is void.
pub(crate) fn make_setup_url(
    connection: &rusqlite::Connection,
    host: &str,
) -> Result<String, crate::problem::Problem> {
    let token = data_encoding::BASE32_NOPAD
        .encode(&crate::random::<16>()?)
        .to_ascii_lowercase();
    store::new_setup_token(connection, token.as_bytes())?;
    // Behind "#", which browsers send to nobody.
    Ok(format!("https://{host}/setup#{token}"))
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stopped(&mut stopping) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                let stopping = stopping.clone();
                connections.spawn(async move {
                    talk(stream, peer, acceptor, router, stopping).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, for example: what is open goes on.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIME_MAX, all).await.is_err() {
        tracing::info!("connections that did not end in time are cut");
    }
}

async fn talk(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%peer, %error, "a connection could not be prepared");
    }
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIME_MAX, acceptor.accept(stream)).await else {
        return;
    };
    let line = Line::default();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (router, line) = (router.clone(), line.clone());
        async move {
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(line);
            Ok::<_, Infallible>(match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            })
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, error, "a connection ended early");
    }
}

/// Sets what keeps a connection fast, and what ends it when the other side is gone without a word.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    // Without it small answers wait for the acknowledgement of earlier ones.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, ASK_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, ASK_EVERY)?;
    let millis = u32::try_from(SILENT_MAX.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, millis)?)
}

/// Tells browsers when an agent has had no connection for a while. Sleeps while all have one.
async fn notice_absence(app: App) {
    loop {
        let now = std::time::Instant::now();
        let (gone, next) = app.live.expire(now, ABSENT_MAX);
        for (server, at) in gone {
            app.events.send(
                "server.status",
                serde_json::json!({"server_id": server, "online": false}),
            );
            let written = app
                .store
                .write(move |c| store::set_last_seen(c, &server, at))
                .await;
            if let Err(problem) = written {
                tracing::warn!(
                    detail = problem.detail,
                    "when a server was last seen is not kept"
                );
            }
        }
        match next {
            Some(moment) => tokio::time::sleep_until(moment.into()).await,
            None => app.live.moves.notified().await,
        }
    }
}

async fn keep_last_heard(app: &App) {
    let heard = app.live.last_heard(crate::now());
    let written = app
        .store
        .write(move |c| {
            for (server, at) in &heard {
                store::set_last_seen(c, server, *at)?;
            }
            Ok(())
        })
        .await;
    if let Err(problem) = written {
        tracing::warn!(
            detail = problem.detail,
            "when servers were last seen is not kept"
        );
    }
}
