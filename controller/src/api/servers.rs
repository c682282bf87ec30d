//! Servers, and how new ones join.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use model::ServerName;
use protocol::JoinCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::shape::{Page, ServerItem};
use super::{Body, created};
use crate::problem::{Problem, ProblemView};
use crate::server::App;
use crate::store;

/// How long a join code is good.
const JOIN_CODE_SECS: i64 = 3600;
const LIMIT: u32 = 100;
const LIMIT_MAX: u32 = 500;

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// At most this many; 100 when absent.
    limit: Option<u32>,
    /// From an earlier page.
    cursor: Option<String>,
}

/// Lists servers by name.
#[utoipa::path(get, path = "/api/v1/servers", tag = "servers", params(ListQuery),
    responses((status = 200, body = Page<ServerItem>)))]
pub(crate) async fn list_servers(
    State(app): State<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ServerItem>>, Problem> {
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let after = query.cursor.unwrap_or_default();
    let found = app
        .store
        .read(move |c| {
            store::servers(c, &after, limit)?
                .into_iter()
                .map(|server| {
                    let held = store::schedules(c, &server.id)?.len();
                    Ok((server, held))
                })
                .collect::<Result<Vec<_>, Problem>>()
        })
        .await?;
    let full = found.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next_cursor = found
        .last()
        .filter(|_| full)
        .map(|(server, _)| server.name.as_str().to_owned());
    let items = found
        .into_iter()
        .map(|(server, held)| ServerItem::new(server, &app.live, held))
        .collect();
    Ok(Json(Page { items, next_cursor }))
}

/// Shows one server.
#[utoipa::path(get, path = "/api/v1/servers/{id}", tag = "servers",
    params(("id" = String, Path, description = "The server")),
    responses((status = 200, body = ServerItem), (status = 404, body = ProblemView)))]
pub(crate) async fn show_server(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<ServerItem>, Problem> {
    let (server, held) = app
        .store
        .read(move |c| Ok((store::server(c, &id)?, store::schedules(c, &id)?.len())))
        .await?;
    Ok(Json(ServerItem::new(server, &app.live, held)))
}

/// Removes a server from the fleet with its history. Its own backups go on.
#[utoipa::path(delete, path = "/api/v1/servers/{id}", tag = "servers",
    params(("id" = String, Path, description = "The server")),
    responses((status = 204), (status = 404, body = ProblemView)))]
pub(crate) async fn remove_server(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let removed = id.clone();
    app.store
        .write(move |c| store::delete_server(c, &removed))
        .await?;
    app.live.forget(&id);
    app.events
        .send("server.status", json!({"server_id": id, "removed": true}));
    Ok(StatusCode::NO_CONTENT)
}

/// For which server a join code is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinCodeInput {
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    server_name: String,
}

/// A join code: good once, for an hour.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JoinCodeView {
    code: String,
    /// What to type on the server, as root.
    command: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// Makes a join code for a new server.
#[utoipa::path(post, path = "/api/v1/join-codes", tag = "servers", request_body = JoinCodeInput,
    responses((status = 201, body = JoinCodeView),
              (status = 409, description = "code `name_taken`", body = ProblemView),
              (status = 422, body = ProblemView)))]
pub(crate) async fn make_join_code(
    State(app): State<App>,
    Body(input): Body<JoinCodeInput>,
) -> Result<Response, Problem> {
    let name = ServerName::new(input.server_name.trim())
        .map_err(|error| Problem::invalid("/server_name", error.to_string()))?;
    let hash = app.identity.key.public().hash();
    let code = JoinCode::new(crate::random()?, hash, app.host.to_string())
        .map_err(|error| Problem::internal("making a join code", &error))?;
    let key = code.key();
    let expires_at = crate::now().plus_secs(JOIN_CODE_SECS);
    app.store
        .write(move |c| store::add_join_code(c, &key, &name, expires_at))
        .await?;
    let code = code.reveal();
    Ok(created(JoinCodeView {
        command: format!("sudo backstayctl join {code}"),
        code,
        expires_at: expires_at.to_string(),
    }))
}
