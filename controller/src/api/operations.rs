//! Asking a server to do something: a signed command, and how it stands.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use model::{CommandId, DestinationName, ScheduleName, SnapshotId};
use protocol::{Command, CommandKind};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Body;
use super::shape::{Begun, OperationView, SnapshotList};
use crate::problem::{Problem, ProblemView};
use crate::server::App;
use crate::store::{self, Operation, OperationState, Server};

/// How long an agent may take to begin: a run asked for now is not wanted tomorrow.
const RUN_EXPIRES: Duration = Duration::from_secs(600);
const LIST_EXPIRES: Duration = Duration::from_secs(600);
const RESTORE_EXPIRES: Duration = Duration::from_secs(24 * 3600);
/// How far an agent's clock may be behind.
const CLOCK_SKEW_SECS: i64 = 300;
const PATH_BYTES_MAX: usize = 4096;

/// Runs a schedule now.
#[utoipa::path(post, path = "/api/v1/servers/{id}/schedules/{name}/run", tag = "schedules",
    params(("id" = String, Path, description = "The server"), ("name" = String, Path, description = "The schedule")),
    responses((status = 202, body = Begun), (status = 404, body = ProblemView)))]
pub(crate) async fn run_schedule(
    State(app): State<App>,
    Extension(session): Extension<store::Session>,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (server, schedule) = find(&app, id, name).await?;
    let kind = CommandKind::RunNow {
        schedule: schedule.clone(),
    };
    begin(
        &app,
        &session,
        &server,
        Order {
            schedule,
            kind,
            expires: RUN_EXPIRES,
        },
    )
    .await
}

/// Shows the snapshots of a schedule, as the server last listed them.
#[utoipa::path(get, path = "/api/v1/servers/{id}/schedules/{name}/snapshots", tag = "restore",
    params(("id" = String, Path, description = "The server"), ("name" = String, Path, description = "The schedule")),
    responses((status = 200, body = SnapshotList), (status = 404, body = ProblemView)))]
pub(crate) async fn list_snapshots(
    State(app): State<App>,
    Path((id, name)): Path<(String, String)>,
) -> Result<Json<SnapshotList>, Problem> {
    let (items, refreshed_at) = app
        .store
        .read(move |c| {
            let server = store::server(c, &id)?;
            store::snapshots(c, &server.id, &name)
        })
        .await?;
    Ok(Json(SnapshotList {
        items: items.into_iter().map(Into::into).collect(),
        refreshed_at: refreshed_at.map(|at| at.to_string()),
    }))
}

/// Asks the server to list the snapshots of a schedule.
#[utoipa::path(post, path = "/api/v1/servers/{id}/schedules/{name}/snapshots/refresh", tag = "restore",
    params(("id" = String, Path, description = "The server"), ("name" = String, Path, description = "The schedule")),
    responses((status = 202, body = Begun), (status = 404, body = ProblemView)))]
pub(crate) async fn refresh_snapshots(
    State(app): State<App>,
    Extension(session): Extension<store::Session>,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (server, schedule) = find(&app, id, name).await?;
    let kind = CommandKind::ListSnapshots {
        schedule: schedule.clone(),
    };
    begin(
        &app,
        &session,
        &server,
        Order {
            schedule,
            kind,
            expires: LIST_EXPIRES,
        },
    )
    .await
}

/// Where a restore puts things.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TargetInput {
    /// Over what is there; what was there is kept aside.
    InPlace,
    /// Below this absolute directory.
    Directory(String),
}

/// A restore of a whole snapshot.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestoreInput {
    schedule: String,
    snapshot: String,
    destination: String,
    target: TargetInput,
    /// The name of the server, typed by the person who asks.
    confirm: String,
}

/// Restores a whole snapshot.
#[utoipa::path(post, path = "/api/v1/servers/{id}/restores", tag = "restore", request_body = RestoreInput,
    params(("id" = String, Path, description = "The server")),
    responses((status = 202, body = Begun), (status = 404, body = ProblemView), (status = 422, body = ProblemView)))]
pub(crate) async fn restore(
    State(app): State<App>,
    Extension(session): Extension<store::Session>,
    Path(id): Path<String>,
    Body(input): Body<RestoreInput>,
) -> Result<Response, Problem> {
    let server = app.store.read(move |c| store::server(c, &id)).await?;
    if input.confirm != server.name.as_str() {
        return Err(Problem::invalid("/confirm", "type the name of the server"));
    }
    // The schedule may be gone while its snapshots are not: its name is not looked up.
    let schedule = ScheduleName::new(input.schedule)
        .map_err(|error| Problem::invalid("/schedule", error.to_string()))?;
    let snapshot: SnapshotId = input
        .snapshot
        .parse()
        .map_err(|_| Problem::invalid("/snapshot", "this is not the id of a snapshot"))?;
    let destination = DestinationName::new(input.destination)
        .map_err(|error| Problem::invalid("/destination", error.to_string()))?;
    let target = match input.target {
        TargetInput::InPlace => protocol::RestoreTarget::InPlace,
        TargetInput::Directory(path) => {
            check_directory(&path)?;
            protocol::RestoreTarget::Directory(path)
        }
    };
    let kind = CommandKind::Restore {
        schedule: schedule.clone(),
        snapshot,
        destination,
        target,
    };
    begin(
        &app,
        &session,
        &server,
        Order {
            schedule,
            kind,
            expires: RESTORE_EXPIRES,
        },
    )
    .await
}

fn check_directory(path: &str) -> Result<(), Problem> {
    let plain = path.starts_with('/')
        && path.len() <= PATH_BYTES_MAX
        && !path.contains(['\0', '\n'])
        && !path.split('/').any(|part| part == "..");
    if plain {
        Ok(())
    } else {
        Err(Problem::invalid(
            "/target",
            "the directory must be an absolute path without \"..\"",
        ))
    }
}

/// Shows one operation.
#[utoipa::path(get, path = "/api/v1/operations/{id}", tag = "history",
    params(("id" = String, Path, description = "The operation")),
    responses((status = 200, body = OperationView), (status = 404, body = ProblemView)))]
pub(crate) async fn show_operation(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, Problem> {
    let id: CommandId = id.parse().map_err(|_| Problem::not_found("operation"))?;
    let operation = app.store.read(move |c| store::operation(c, id)).await?;
    Ok(Json(operation.into()))
}

/// Finds a schedule, the controller's or the server's own.
async fn find(app: &App, id: String, name: String) -> Result<(Server, ScheduleName), Problem> {
    let schedule = ScheduleName::new(name).map_err(|_| Problem::not_found("schedule"))?;
    let wanted = schedule.clone();
    let (server, held) = app
        .store
        .read(move |c| {
            let held = store::schedule(c, &id, wanted.as_str())?.is_some();
            Ok((store::server(c, &id)?, held))
        })
        .await?;
    let local = || server.reported.schedules.iter().any(|s| s.name == schedule);
    if held || local() {
        Ok((server, schedule))
    } else {
        Err(Problem::not_found("schedule"))
    }
}

struct Order {
    schedule: ScheduleName,
    kind: CommandKind,
    expires: Duration,
}

async fn begin(
    app: &App,
    session: &store::Session,
    server: &Server,
    order: Order,
) -> Result<Response, Problem> {
    let now = crate::now();
    let lasts = i64::try_from(order.expires.as_secs()).unwrap_or(i64::MAX);
    let word = match order.kind {
        CommandKind::RunNow { .. } => "run_now",
        CommandKind::ListSnapshots { .. } => "list_snapshots",
        CommandKind::Restore { .. } => "restore",
        CommandKind::Cancel { .. } => "cancel",
    };
    let command = Command {
        id: CommandId::from_bytes(crate::random()?),
        agent: server.agent,
        not_before: now.plus_secs(-CLOCK_SKEW_SECS),
        expires_at: now.plus_secs(lasts),
        kind: order.kind,
    };
    let envelope = command.seal(&app.identity.key);
    let operation = Operation {
        id: command.id,
        server_id: server.id.clone(),
        kind: word.to_owned(),
        schedule: Some(order.schedule.into()),
        state: OperationState::Requested,
        detail: None,
        run: None,
        created_at: now,
        updated_at: now,
        expires_at: command.expires_at,
    };
    let (kept, user) = (operation.clone(), session.user_id.clone());
    app.store
        .write(move |c| store::add_operation(c, &kept, &envelope, &user))
        .await?;
    app.live.ring(&server.id);
    app.events
        .send("operation.changed", json!({"id": operation.id}));
    app.events
        .send("task.changed", json!({"server_id": server.id}));
    tracing::info!(operation = %operation.id, kind = word, server = %server.name, user = session.name, "an operation was asked for");
    let place = [(
        header::LOCATION,
        format!("/api/v1/operations/{}", operation.id),
    )];
    let begun = Json(Begun {
        operation: operation.into(),
    });
    Ok((StatusCode::ACCEPTED, place, begun).into_response())
}
