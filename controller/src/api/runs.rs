//! History, and what runs now.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use model::{Instant, RunId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::shape::{Page, RunDetail, RunItem, RunStateWord, ServerRef, TaskItem, task_of};
use crate::problem::{Problem, ProblemView};
use crate::server::App;
use crate::store::{self, RunFilter};

const LIMIT: u32 = 50;
const LIMIT_MAX: u32 = 200;
/// Servers whose names are looked up for the tasks.
const SERVERS_MAX: u32 = 100_000;

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RunQuery {
    /// Only runs of this server, by id.
    server: Option<String>,
    /// Only runs of this schedule.
    schedule: Option<String>,
    /// Only runs in this state.
    #[param(inline)]
    state: Option<RunStateWord>,
    /// At most this many; 50 when absent.
    limit: Option<u32>,
    /// From an earlier page.
    cursor: Option<String>,
}

/// Lists runs, newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "history", params(RunQuery),
    responses((status = 200, body = Page<RunItem>), (status = 422, body = ProblemView)))]
pub(crate) async fn list_runs(
    State(app): State<App>,
    Query(query): Query<RunQuery>,
) -> Result<Json<Page<RunItem>>, Problem> {
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let page = store::Page {
        before: query.cursor.as_deref().map(read_cursor).transpose()?,
        limit,
    };
    let filter = RunFilter {
        server: query.server,
        schedule: query.schedule,
        state: query.state.map(Into::into),
    };
    let rows = app
        .store
        .read(move |c| store::runs(c, &filter, &page))
        .await?;
    let full = rows.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
    let next_cursor = rows
        .last()
        .filter(|_| full)
        .map(|row| format!("{}.{}", row.record.started_at.micros(), row.record.id));
    let items = rows
        .into_iter()
        .map(|row| RunDetail::from(row).run)
        .collect();
    Ok(Json(Page { items, next_cursor }))
}

fn read_cursor(text: &str) -> Result<(Instant, RunId), Problem> {
    let read = || {
        let (micros, id) = text.split_once('.')?;
        Some((Instant::from_micros(micros.parse().ok()?), id.parse().ok()?))
    };
    read().ok_or_else(|| Problem::invalid("/cursor", "this is not a cursor of this list"))
}

/// Shows one run with its log.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "history",
    params(("id" = String, Path, description = "The run")),
    responses((status = 200, body = RunDetail), (status = 404, body = ProblemView)))]
pub(crate) async fn show_run(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<RunDetail>, Problem> {
    let id: RunId = id.parse().map_err(|_| Problem::not_found("run"))?;
    let row = app.store.read(move |c| store::run(c, id)).await?;
    Ok(Json(row.into()))
}

/// Lists what runs now, and what servers were asked to do and have not ended.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "history",
    responses((status = 200, body = Page<TaskItem>)))]
pub(crate) async fn list_tasks(State(app): State<App>) -> Result<Json<Page<TaskItem>>, Problem> {
    let (operations, names) = app
        .store
        .read(|c| {
            let names: HashMap<String, String> = store::servers(c, "", SERVERS_MAX)?
                .into_iter()
                .map(|server| (server.id, server.name.into()))
                .collect();
            Ok((store::active_operations(c)?, names))
        })
        .await?;
    let name = |id: &str| names.get(id).cloned().unwrap_or_default();
    let running = app.live.tasks();
    let mut items: Vec<TaskItem> = running
        .iter()
        .map(|(server, task)| task_of(server, &name(server), task))
        .collect();
    for operation in operations {
        let id = operation.id.to_string();
        let run = operation.run.map(|run| run.to_string());
        let shown = items.iter().any(|task| {
            task.id == id
                || Some(&task.id) == run.as_ref()
                || (operation.kind == "run_now"
                    && task.kind == "run"
                    && task.server.id == operation.server_id
                    && task.schedule == operation.schedule)
        });
        if shown {
            continue;
        }
        items.push(TaskItem {
            id,
            kind: match operation.kind.as_str() {
                "run_now" => "run".to_owned(),
                "list_snapshots" => "list".to_owned(),
                other => other.to_owned(),
            },
            server: ServerRef {
                name: name(&operation.server_id),
                id: operation.server_id,
            },
            schedule: operation.schedule,
            phase: serde_json::to_value(operation.state)?
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            entries: 0,
            bytes: 0,
            bytes_expected: None,
            started_at: operation.created_at.to_string(),
        });
    }
    Ok(Json(Page {
        items,
        next_cursor: None,
    }))
}
