//! Server-sent events: what happens, as it happens.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::mpsc;

use crate::authorize::cookie;
use crate::events::{Event, Events};
use crate::problem::Problem;
use crate::server::{App, stopped};
use crate::store;

/// How often a silent stream shows that it is alive, and whether the session still is.
const COMMENT_AFTER: Duration = Duration::from_secs(15);
/// Parts that wait for a slow browser.
const QUEUE_MAX: usize = 16;

/// Streams events: `hello`, `run.progress`, `run.finished`, `task.changed`, `server.status`,
/// `schedule.changed`, `operation.changed`, and `reset` when events were lost and everything is to be fetched anew.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(("Last-Event-ID" = Option<String>, Header, description = "Continue behind this event")),
    responses((status = 200, content_type = "text/event-stream", body = String)))]
pub(crate) async fn events(State(app): State<App>, headers: HeaderMap) -> Response {
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let cookie = cookie(&headers);
    tokio::spawn(async move {
        // It ends when the browser goes, the session ends, or the controller stops.
        drop(stream(app, last, cookie, sender).await);
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::new(Parts(receiver))).into_response()
}

/// The browser is gone.
struct Gone;

async fn stream(
    app: App,
    last: Option<u64>,
    cookie: Option<[u8; 32]>,
    sender: mpsc::Sender<Bytes>,
) -> Result<(), Gone> {
    let mut newest = app.events.subscribe();
    let mut stopping = app.stopping.clone();
    let mut at = *newest.borrow_and_update();
    let hello = Event {
        id: last.unwrap_or(at),
        kind: "hello",
        data: json!({"version": env!("CARGO_PKG_VERSION")}),
    };
    send(&sender, format!("retry: 3000\n{}", text(&hello))).await?;
    if let Some(last) = last {
        at = catch_up(&app.events, last, &sender).await?;
    }
    loop {
        tokio::select! {
            changed = newest.changed() => {
                changed.map_err(|_| Gone)?;
                at = catch_up(&app.events, at, &sender).await?;
            }
            () = tokio::time::sleep(COMMENT_AFTER) => {
                still_signed_in(&app, cookie).await?;
                send(&sender, ":\n\n".to_owned()).await?;
            }
            () = sender.closed() => return Err(Gone),
            () = stopped(&mut stopping) => return Ok(()),
        }
    }
}

async fn still_signed_in(app: &App, cookie: Option<[u8; 32]>) -> Result<(), Gone> {
    let cookie = cookie.ok_or(Gone)?;
    let found: Result<_, Problem> = app
        .store
        .read(move |c| store::session(c, &cookie, crate::now()))
        .await;
    match found {
        Ok(None) => Err(Gone),
        _ => Ok(()),
    }
}

async fn catch_up(
    events: &Arc<Events>,
    at: u64,
    sender: &mpsc::Sender<Bytes>,
) -> Result<u64, Gone> {
    let missed = match events.since(at) {
        Some(missed) => missed,
        None => vec![Event {
            id: *events.subscribe().borrow(),
            kind: "reset",
            data: json!({}),
        }],
    };
    let mut at = at;
    for event in missed {
        send(sender, text(&event)).await?;
        at = event.id;
    }
    Ok(at)
}

async fn send(sender: &mpsc::Sender<Bytes>, text: String) -> Result<(), Gone> {
    sender.send(Bytes::from(text)).await.map_err(|_| Gone)
}

fn text(event: &Event) -> String {
    let mut out = String::new();
    // JSON holds no line break; writing to a string cannot fail.
    let written = write!(
        out,
        "id: {}\nevent: {}\ndata: {}\n\n",
        event.id, event.kind, event.data
    );
    debug_assert!(written.is_ok());
    out
}

/// The body of the stream.
struct Parts(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(context)
            .map(|part| part.map(|bytes| Ok(Frame::data(bytes))))
    }
}
