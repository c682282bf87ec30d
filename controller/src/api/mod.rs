//! The API of the dashboard and of `backstayctl`: `/api/v1`, JSON in, JSON or problems out.

mod events;
mod operations;
mod runs;
mod schedules;
mod servers;
mod session;
mod shape;

pub(crate) use shape::task_of;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Json, Router};
use data_encoding::BASE32HEX_NOPAD;
use serde::de::DeserializeOwned;
use utoipa::OpenApi;

use crate::problem::{Problem, ProblemView};
use crate::server::App;
use crate::{agents, authorize, dashboard};

/// The OpenAPI document of `/api/v1`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Backstay controller",
        description = "State-changing calls need the header `X-Backstay: 1`. Errors are RFC 9457 problems.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        session::setup_state,
        session::set_up,
        session::sign_in,
        session::show_session,
        session::sign_out,
        servers::list_servers,
        servers::show_server,
        servers::remove_server,
        servers::make_join_code,
        schedules::list_schedules,
        schedules::create_schedule,
        schedules::show_schedule,
        schedules::replace_schedule,
        schedules::remove_schedule,
        operations::run_schedule,
        operations::list_snapshots,
        operations::refresh_snapshots,
        operations::restore,
        operations::show_operation,
        runs::list_runs,
        runs::show_run,
        runs::list_tasks,
        events::events,
    ),
    components(schemas(ProblemView))
)]
struct Document;

/// Gives the OpenAPI document as JSON.
pub(crate) fn document() -> String {
    let mut document = Document::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    // It is made of what the compiler checked; only memory could run out.
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The routes, each noted for the comparison with the authorisation table.
struct Routes {
    router: Router<App>,
    known: Vec<(&'static str, &'static str)>,
}

impl Routes {
    fn add(
        mut self,
        path: &'static str,
        methods: &[&'static str],
        handler: MethodRouter<App>,
    ) -> Self {
        self.known
            .extend(methods.iter().map(|method| (*method, path)));
        self.router = self.router.route(path, handler);
        self
    }
}

/// Makes the whole service.
///
/// # Errors
///
/// Names a route that is not in the authorisation table.
pub(crate) fn router(app: App) -> Result<Router, String> {
    let routes = Routes {
        router: Router::new(),
        known: Vec::new(),
    };
    let routes = agent_routes(people_routes(routes));
    authorize::check(&routes.known)?;
    Ok(routes
        .router
        .fallback(dashboard::serve)
        .layer(from_fn_with_state(app.clone(), authorize::authorize))
        .layer(from_fn(harden))
        .with_state(app))
}

fn people_routes(routes: Routes) -> Routes {
    const SCHEDULE: &str = "/api/v1/servers/{id}/schedules/{name}";
    routes
        .add("/healthz", &["GET"], get(healthz))
        .add("/api/openapi.json", &["GET"], get(show_document))
        .add(
            "/api/v1/setup",
            &["GET", "POST"],
            get(session::setup_state).post(session::set_up),
        )
        .add(
            "/api/v1/session",
            &["POST", "GET", "DELETE"],
            post(session::sign_in)
                .get(session::show_session)
                .delete(session::sign_out),
        )
        .add("/api/v1/servers", &["GET"], get(servers::list_servers))
        .add(
            "/api/v1/servers/{id}",
            &["GET", "DELETE"],
            get(servers::show_server).delete(servers::remove_server),
        )
        .add(
            "/api/v1/join-codes",
            &["POST"],
            post(servers::make_join_code),
        )
        .add(
            "/api/v1/servers/{id}/schedules",
            &["GET", "POST"],
            get(schedules::list_schedules).post(schedules::create_schedule),
        )
        .add(
            SCHEDULE,
            &["GET", "PUT", "DELETE"],
            delete(schedules::remove_schedule)
                .merge(put(schedules::replace_schedule))
                .merge(get(schedules::show_schedule)),
        )
        .add(
            "/api/v1/servers/{id}/schedules/{name}/run",
            &["POST"],
            post(operations::run_schedule),
        )
        .add(
            "/api/v1/servers/{id}/schedules/{name}/snapshots",
            &["GET"],
            get(operations::list_snapshots),
        )
        .add(
            "/api/v1/servers/{id}/schedules/{name}/snapshots/refresh",
            &["POST"],
            post(operations::refresh_snapshots),
        )
        .add(
            "/api/v1/servers/{id}/restores",
            &["POST"],
            post(operations::restore),
        )
        .add(
            "/api/v1/operations/{id}",
            &["GET"],
            get(operations::show_operation),
        )
        .add("/api/v1/runs", &["GET"], get(runs::list_runs))
        .add("/api/v1/runs/{id}", &["GET"], get(runs::show_run))
        .add("/api/v1/tasks", &["GET"], get(runs::list_tasks))
        .add("/api/v1/events", &["GET"], get(events::events))
}

fn agent_routes(routes: Routes) -> Routes {
    routes
        .add(
            "/agent/v1/join",
            &["GET", "POST"],
            get(agents::greet).post(agents::join),
        )
        .add("/agent/v1/watch", &["GET"], get(agents::watch))
        .add("/agent/v1/results", &["POST"], post(agents::results))
        .add("/agent/v1/progress", &["POST"], post(agents::progress))
        .add("/agent/v1/report", &["POST"], post(agents::report))
}

async fn harden(request: Request, next: Next) -> Response {
    let is_api = ["/api/", "/agent/"]
        .iter()
        .any(|prefix| request.uri().path().starts_with(prefix));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(
        header::HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    if is_api {
        set(header::CACHE_CONTROL, "no-store");
    }
    response
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn show_document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

/// The JSON body of a request; what is wrong with it is a problem.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let malformed =
            |detail: String| Problem::new(StatusCode::BAD_REQUEST, "malformed_body", detail);
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|error| malformed(error.to_string()))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| malformed(error.to_string()))
    }
}

/// Makes an id that sorts by time: a prefix, microseconds and random bytes in base32.
pub(crate) fn new_id(prefix: &str) -> Result<String, Problem> {
    new_id_at(prefix, crate::now())
}

fn new_id_at(prefix: &str, now: model::Instant) -> Result<String, Problem> {
    let mut bytes = [0; 15];
    let time = now.micros().to_be_bytes();
    // Seven bytes of microseconds last until the year 4253.
    let parts = time.into_iter().skip(1).chain(crate::random::<8>()?);
    for (to, from) in bytes.iter_mut().zip(parts) {
        *to = from;
    }
    Ok(format!(
        "{prefix}_{}",
        BASE32HEX_NOPAD.encode(&bytes).to_ascii_lowercase()
    ))
}

/// An answer with a status and JSON.
fn created<T: serde::Serialize>(value: T) -> Response {
    (StatusCode::CREATED, Json(value)).into_response()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_openapi_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == super::document(),
            "controller/openapi.json is old: run `cargo run -p controller -- openapi > controller/openapi.json`"
        );
    }

    #[test]
    fn later_ids_sort_behind_earlier_ones() {
        let at = |micros: i64| model::Instant::from_micros(1_790_000_000_000_000 + micros);
        let ids: Vec<_> = (0..200)
            .map(|step| super::new_id_at("srv", at(step * step)).unwrap())
            .collect();
        assert!(ids.is_sorted() && ids[0].len() == 28, "{ids:?}");
    }
}
