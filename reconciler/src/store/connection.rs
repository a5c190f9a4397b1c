//! `SQLite` connections: opening, migrations, one writer thread per file, a few readers of both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use crate::failures::Failures;

/// Writes that may be queued. When the queue is full, callers wait, which bounds the memory and slows devices down.
const QUEUE: usize = 1024;
/// Most writes in one commit: bounds how long the first of them waits.
const BATCH: usize = 512;
/// Number of reading connections. Queries are short, and a machine that serves a fleet has two cores or more.
const READERS: usize = 2;
/// How long `SQLite` waits for a lock that another program (a backup) holds.
pub(super) const BUSY: Duration = Duration::from_secs(10);

/// A file of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    name: &'static str,
    synchronous: &'static str,
    /// The migrations: step `i` leads from version `i` to `i + 1`. A released step is never changed.
    steps: &'static [&'static str],
}

pub(super) const FLEET: Schema = Schema {
    name: "fleet.db",
    synchronous: "FULL",
    steps: &[
        include_str!("fleet_1.sql"),
        include_str!("fleet_2.sql"),
        include_str!("fleet_3.sql"),
        include_str!("fleet_4.sql"),
        include_str!("fleet_5.sql"),
    ],
};

pub(super) const STATUS: Schema = Schema {
    name: "status.db",
    synchronous: "NORMAL",
    steps: &[
        include_str!("status_1.sql"),
        include_str!("status_2.sql"),
        include_str!("status_3.sql"),
        include_str!("status_4.sql"),
    ],
};

/// Opens a file and migrates it to the newest version, each step in a transaction.
pub(super) fn open(path: &Path, schema: Schema) -> Result<Connection, StoreError> {
    let mut connection = connect(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", schema.synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let found: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > schema.steps.len() {
        return Err(StoreError::Newer {
            file: schema.name,
            found,
            known: schema.steps.len(),
        });
    }
    for (step, version) in schema.steps.iter().zip(1_usize..).skip(found) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Reports the result of a write to its caller, after the commit.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A queued write. Returns whether to keep its changes.
type Job = Box<dyn FnOnce(&Connection) -> (bool, Finish) + Send>;

/// The only thread that writes to a file. It ends when the store is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(super) fn start(
        name: &'static str,
        connection: Connection,
        failures: Failures,
    ) -> Result<Self, StoreError> {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(name, &connection, receiver, &failures))
            .map_err(|error| StoreError::Io(PathBuf::from(name), Arc::new(error)))?;
        Ok(Self { jobs })
    }

    pub(super) async fn run<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel::<Result<T, E>>();
        let job: Job = Box::new(move |connection| {
            let result = work(connection);
            let keep = result.is_ok();
            let finish: Finish = Box::new(move |committed| {
                let result = result.and_then(|value| {
                    committed?;
                    then(&value);
                    Ok(value)
                });
                // If the caller has gone away, the write is kept all the same.
                let _ = reply.send(result);
            });
            (keep, finish)
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn write_all(
    name: &'static str,
    connection: &Connection,
    mut jobs: mpsc::Receiver<Job>,
    failures: &Failures,
) {
    while let Some(first) = jobs.blocking_recv() {
        let mut finishes = Vec::new();
        let mut next = Some(first);
        let mut done = connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(StoreError::from);
        while let Some(job) = next {
            if done.is_ok() {
                done = run_one(connection, job, &mut finishes);
            }
            next = if finishes.len() < BATCH {
                jobs.try_recv().ok()
            } else {
                None
            };
        }
        let done = done.and_then(|()| Ok(connection.execute_batch("COMMIT")?));
        failures.note(name, &done, Timestamp::now());
        if done.is_err() {
            let _ = connection.execute_batch("ROLLBACK");
        }
        for finish in finishes {
            finish(done.clone());
        }
    }
}

/// Runs a job in its own savepoint, so that a failure or panic does not affect the others.
fn run_one(
    connection: &Connection,
    job: Job,
    finishes: &mut Vec<Finish>,
) -> Result<(), StoreError> {
    let savepoint = |sql| connection.prepare_cached(sql)?.execute([]);
    savepoint("SAVEPOINT job")?;
    let keep = match catch_unwind(AssertUnwindSafe(|| job(connection))) {
        Ok((keep, finish)) => {
            finishes.push(finish);
            keep
        }
        Err(_) => false, // the caller sees its answer dropped
    };
    if !keep {
        savepoint("ROLLBACK TO job")?;
    }
    savepoint("RELEASE job")?;
    Ok(())
}

/// Connections that read both files: `fleet.db` as main, `status.db` as `status`.
#[derive(Debug)]
pub(super) struct Readers {
    fleet: PathBuf,
    status: PathBuf,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Connection>,
    open: usize,
}

impl Readers {
    pub(super) fn new(fleet: PathBuf, status: PathBuf) -> Self {
        Self {
            fleet,
            status,
            pool: Mutex::default(),
            returned: Condvar::new(),
        }
    }

    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = self.take()?;
        let result = catch_unwind(AssertUnwindSafe(|| work(&connection)));
        self.pool().idle.push(connection);
        self.returned.notify_one();
        result.unwrap_or_else(|_| Err(StoreError::Malformed("a query failed".to_owned())))
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Connection, StoreError> {
        let mut pool = self.pool();
        loop {
            if let Some(connection) = pool.idle.pop() {
                return Ok(connection);
            }
            if pool.open < READERS {
                let connection = self.open()?;
                pool.open += 1;
                return Ok(connection);
            }
            pool = self
                .returned
                .wait(pool)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let connection = connect(&self.fleet)?;
        let status = self.status.to_string_lossy();
        connection.execute("ATTACH DATABASE ?1 AS status", [status])?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }
}
