//! Who may call what: one table, one function. A route that is not in the table does not start.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;

use crate::agents;
use crate::problem::Problem;
use crate::server::App;
use crate::store;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone; changes nothing.
    Open,
    /// Everyone, from the dashboard's own pages: how a session begins.
    SameOrigin,
    /// People with a session; changes need the dashboard's own pages too.
    Session,
    /// A program that knows a join code.
    Join,
    /// An agent that signs its requests with the key that it joined with.
    Agent,
}

/// Every route.
pub(crate) const TABLE: &[(&str, &str, Access)] = &[
    ("GET", "/healthz", Access::Open),
    ("GET", "/api/openapi.json", Access::Open),
    ("GET", "/api/v1/setup", Access::Open),
    ("POST", "/api/v1/setup", Access::SameOrigin),
    ("POST", "/api/v1/session", Access::SameOrigin),
    ("GET", "/api/v1/session", Access::Session),
    ("DELETE", "/api/v1/session", Access::Session),
    ("GET", "/api/v1/servers", Access::Session),
    ("GET", "/api/v1/servers/{id}", Access::Session),
    ("DELETE", "/api/v1/servers/{id}", Access::Session),
    ("POST", "/api/v1/join-codes", Access::Session),
    ("GET", "/api/v1/servers/{id}/schedules", Access::Session),
    ("POST", "/api/v1/servers/{id}/schedules", Access::Session),
    (
        "GET",
        "/api/v1/servers/{id}/schedules/{name}",
        Access::Session,
    ),
    (
        "PUT",
        "/api/v1/servers/{id}/schedules/{name}",
        Access::Session,
    ),
    (
        "DELETE",
        "/api/v1/servers/{id}/schedules/{name}",
        Access::Session,
    ),
    (
        "POST",
        "/api/v1/servers/{id}/schedules/{name}/run",
        Access::Session,
    ),
    (
        "GET",
        "/api/v1/servers/{id}/schedules/{name}/snapshots",
        Access::Session,
    ),
    (
        "POST",
        "/api/v1/servers/{id}/schedules/{name}/snapshots/refresh",
        Access::Session,
    ),
    ("POST", "/api/v1/servers/{id}/restores", Access::Session),
    ("GET", "/api/v1/operations/{id}", Access::Session),
    ("GET", "/api/v1/runs", Access::Session),
    ("GET", "/api/v1/runs/{id}", Access::Session),
    ("GET", "/api/v1/tasks", Access::Session),
    ("GET", "/api/v1/events", Access::Session),
    ("GET", "/agent/v1/join", Access::Open),
    ("POST", "/agent/v1/join", Access::Join),
    ("GET", "/agent/v1/watch", Access::Agent),
    ("POST", "/agent/v1/results", Access::Agent),
    ("POST", "/agent/v1/progress", Access::Agent),
    ("POST", "/agent/v1/report", Access::Agent),
];

/// The cookie of a session. The prefix makes browsers refuse it from anyone but this origin.
pub(crate) const COOKIE: &str = "__Host-backstay";

/// The longest body of a call from a browser, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Compares the table with the routes that there are.
///
/// # Errors
///
/// Names the first route that only one of them has.
pub(crate) fn check(routes: &[(&str, &str)]) -> Result<(), String> {
    let listed = |route: &(&str, &str)| {
        TABLE
            .iter()
            .any(|(method, path, _)| (*method, *path) == *route)
    };
    if let Some((method, path)) = routes.iter().find(|route| !listed(route)) {
        return Err(format!("{method} {path} is not in the authorisation table"));
    }
    let routed = |entry: &&(&str, &str, Access)| routes.contains(&(entry.0, entry.1));
    match TABLE.iter().find(|entry| !routed(entry)) {
        Some((method, path, _)) => Err(format!("{method} {path} is authorised but not served")),
        None => Ok(()),
    }
}

/// Lets a request pass, with who makes it, or answers it.
pub(crate) async fn authorize(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        // The dashboard's own files, which are the same for everyone.
        return Ok(next.run(request).await);
    };
    let method = match request.method() {
        // A HEAD request is a GET whose body is not sent.
        &Method::HEAD => Method::GET,
        other => other.clone(),
    };
    let Some((_, _, access)) = TABLE
        .iter()
        .find(|(m, p, _)| *m == method.as_str() && *p == path.as_str())
    else {
        return Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("{} is not possible here", request.method()),
        ));
    };
    let changes = method != Method::GET;
    let request = match access {
        Access::Open => request,
        Access::Join => read_body(request, BODY_BYTES_MAX).await?,
        Access::SameOrigin => {
            check_origin(request.headers())?;
            read_body(request, BODY_BYTES_MAX).await?
        }
        Access::Session => {
            if changes {
                check_origin(request.headers())?;
            }
            let session = find_session(&app, request.headers()).await?;
            let mut request = read_body(request, BODY_BYTES_MAX).await?;
            request.extensions_mut().insert(session);
            request
        }
        Access::Agent => {
            let (parts, body) = request.into_parts();
            let body = collect(body, protocol::REPORT_BYTES_MAX).await?;
            let server = agents::authenticate(&app, &parts, &body).await?;
            let mut request = Request::from_parts(parts, Body::from(body));
            request.extensions_mut().insert(Arc::new(server));
            request
        }
    };
    Ok(next.run(request).await)
}

/// Only the dashboard's own pages can set the header, and browsers say where a call comes from.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let marked = headers.get("x-backstay").is_some_and(|value| value == "1");
    let same = headers
        .get("sec-fetch-site")
        .is_none_or(|value| value == "same-origin");
    if marked && same {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "cross_origin",
        "changes need the header \"X-Backstay: 1\" and the dashboard's own origin",
    ))
}

/// Gives the value of the session cookie.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<[u8; 32]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split("; "))
        .find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))
        .filter(|text| text.len() == 43)
        .and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok())
        .and_then(|bytes| bytes.try_into().ok())
}

async fn find_session(app: &App, headers: &HeaderMap) -> Result<store::Session, Problem> {
    let refused = || Problem::new(StatusCode::UNAUTHORIZED, "signed_out", "sign in first");
    let cookie = cookie(headers).ok_or_else(refused)?;
    app.store
        .read(move |c| store::session(c, &cookie, crate::now()))
        .await?
        .ok_or_else(refused)
}

async fn read_body(request: Request, limit: usize) -> Result<Request, Problem> {
    let (parts, body) = request.into_parts();
    let body = collect(body, limit).await?;
    Ok(Request::from_parts(parts, Body::from(body)))
}

async fn collect(body: Body, limit: usize) -> Result<axum::body::Bytes, Problem> {
    match tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_long",
            format!("the body is longer than {limit} bytes or was cut"),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "the body did not arrive in time",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_without_an_entry_does_not_start() {
        let mut routes: Vec<_> = TABLE.iter().map(|(m, p, _)| (*m, *p)).collect();
        assert_eq!(check(&routes), Ok(()));
        routes.push(("GET", "/api/v1/forgotten"));
        assert_eq!(
            check(&routes),
            Err("GET /api/v1/forgotten is not in the authorisation table".into())
        );
        routes.truncate(3);
        assert!(
            check(&routes)
                .unwrap_err()
                .ends_with("is authorised but not served")
        );
    }

    #[test]
    fn the_table_is_as_reviewed() {
        let rows: Vec<_> = TABLE
            .iter()
            .map(|(method, path, access)| format!("{method:6} {path} {access:?}"))
            .collect();
        insta::assert_snapshot!(rows.join("\n"));
    }

    #[test]
    fn changes_come_from_the_own_origin_only() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.insert(*name, value.parse().unwrap());
            }
            map
        };
        assert!(check_origin(&headers(&[("x-backstay", "1")])).is_ok());
        let own = [("x-backstay", "1"), ("sec-fetch-site", "same-origin")];
        assert!(check_origin(&headers(&own)).is_ok());
        for bad in [
            vec![],
            vec![("sec-fetch-site", "same-origin")],
            vec![("x-backstay", "1"), ("sec-fetch-site", "cross-site")],
            vec![("x-backstay", "1"), ("sec-fetch-site", "same-site")],
            vec![("x-backstay", "1"), ("sec-fetch-site", "none")],
        ] {
            assert!(check_origin(&headers(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_exact_cookie_is_read() {
        let token = BASE64URL_NOPAD.encode(&[7; 32]);
        let read = |value: String| {
            let mut map = HeaderMap::new();
            map.insert(header::COOKIE, value.parse().unwrap());
            cookie(&map)
        };
        assert_eq!(read(format!("a=b; {COOKIE}={token}; c=d")), Some([7; 32]));
        assert_eq!(read(format!("x{COOKIE}={token}")), None);
        assert_eq!(read(format!("{COOKIE}={token}x")), None);
        assert_eq!(read(format!("{COOKIE}=")), None);
    }
}
