//! The state file: SQLite in WAL mode, one writer thread that commits in groups, readers beside it.
//!
//! A write is answered only when its group is on disk (`synchronous=FULL`).

mod inventory;
mod operations;
mod runs;
mod schedules;
mod schema;
mod servers;
mod users;

pub(crate) use inventory::{SnapshotItem, replace_snapshots, snapshots};
pub(crate) use operations::{
    Operation, OperationState, active_operations, add_operation, apply_command_report,
    finish_operation_of_run, operation, pending_envelopes,
};
pub(crate) use runs::{Page, RunFilter, RunRow, last_runs, last_seq, run, runs, take_batch};
pub(crate) use schedules::{
    Issuer, Stored, delete_schedule, insert_schedule, newer_generation, renumber, schedule,
    schedules, update_schedule,
};
pub(crate) use servers::{
    Server, add_join_code, delete_server, join_code, mark_delivered, redeem, save_report, server,
    server_by_agent, servers, set_boot, set_last_seen,
};
pub(crate) use users::{
    Session, add_session, add_user, delete_session, has_setup_token, needs_setup, new_setup_token,
    session, take_setup_token, user_by_name,
};

use std::path::Path;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use rusqlite::{Connection, TransactionBehavior};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::problem::Problem;

/// Writes that may wait for the writer; more are answered with 503.
const QUEUE_MAX: usize = 1024;
/// Writes that share one commit.
const GROUP_MAX: usize = 256;

/// Says why the state file cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("opening {path}")]
    Open {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A later version of the controller wrote it.
    #[error("{path} was written by a newer controller (version {found})")]
    Newer {
        /// Which file.
        path: std::path::PathBuf,
        /// The version in it.
        found: i64,
    },
    /// The writer thread cannot be started.
    #[error("starting the writer thread")]
    Thread(#[source] std::io::Error),
}

type Committed = Box<dyn FnOnce(Result<(), Problem>) + Send>;
type Job = Box<dyn FnOnce(&Connection) -> Committed + Send>;

/// The open state file.
#[derive(Clone)]
pub(crate) struct Store {
    writer: SyncSender<Job>,
    reader: Arc<Mutex<Connection>>,
    glancer: Arc<Mutex<Connection>>,
}

impl Store {
    /// Opens the file, and makes it with mode 0600 when it is absent.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let writing = schema::open(path)?;
        let reading = schema::open(path)?;
        let glancing = schema::open(path)?;
        let (writer, jobs) = mpsc::sync_channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || write_groups(writing, &jobs))
            .map_err(StoreError::Thread)?;
        Ok(Self {
            writer,
            reader: Arc::new(Mutex::new(reading)),
            glancer: Arc::new(Mutex::new(glancing)),
        })
    }

    /// Does `work` in a transaction, all of it or nothing, and answers when it is on disk.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = in_savepoint(connection, work);
            Box::new(move |committed| {
                // Whoever asked may have gone; the work is done all the same.
                drop(answer.send(committed.and(result)));
            })
        });
        self.writer.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => {
                let mut problem = Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "busy",
                    "too many writes are waiting",
                );
                problem.retry_after_s = Some(2);
                problem
            }
            TrySendError::Disconnected(_) => ended(),
        })?;
        answered.await.map_err(|_| ended())?
    }

    /// Reads a few rows by their keys, on this thread: handing them to another would take longer
    /// than reading them, and wake it. Agents' requests read so.
    pub(crate) fn glance<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let mut connection = self.glancer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        work(&transaction)
    }

    /// Reads, without waiting for writers.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
    {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || {
            let mut connection = reader.lock().unwrap_or_else(PoisonError::into_inner);
            // One transaction: what is read belongs together.
            let transaction = connection.transaction()?;
            work(&transaction)
        })
        .await
        .map_err(|_| ended())?
    }
}

fn ended() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "stopping",
        "the controller is stopping",
    )
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Problem>,
) -> Result<T, Problem> {
    connection.execute_batch("SAVEPOINT job")?;
    match work(connection) {
        Ok(value) => {
            connection.execute_batch("RELEASE job")?;
            Ok(value)
        }
        Err(problem) => {
            connection.execute_batch("ROLLBACK TO job; RELEASE job")?;
            Err(problem)
        }
    }
}

fn write_groups(mut connection: Connection, jobs: &mpsc::Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut waiting = Vec::new();
        let result = (|| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            waiting.push(first(&transaction));
            while waiting.len() < GROUP_MAX
                && let Ok(job) = jobs.try_recv()
            {
                waiting.push(job(&transaction));
            }
            transaction.commit()
        })();
        let result = result.map_err(|error| Problem::internal("writing the state file", &error));
        for committed in waiting {
            committed(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_write_leaves_its_neighbours_in_the_group() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("controller.db")).unwrap();
        let insert = |key: &'static str, fails: bool| {
            store.write(move |c| {
                c.execute("INSERT INTO meta (key, value) VALUES (?1, 'x')", [key])?;
                if fails {
                    return Err(Problem::not_found("reason"));
                }
                Ok(())
            })
        };
        let (first, second, third) =
            tokio::join!(insert("a", false), insert("b", true), insert("c", false));
        assert!(first.is_ok() && second.is_err() && third.is_ok());
        let keys: i64 = store
            .read(|c| {
                Ok(
                    c.query_row("SELECT count(*) FROM meta WHERE value = 'x'", [], |row| {
                        row.get(0)
                    })?,
                )
            })
            .await
            .unwrap();
        assert_eq!(keys, 2);
    }
}
