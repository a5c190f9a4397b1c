//! Lists and watches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query as QueryOf, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use tokio::sync::watch;

use super::Admin;
use super::answer::Refused;
use super::query::{Filter, Query};
use super::resource::{Change, List, Resource, What};
use crate::store::StoreError;

/// How long a watch gathers changes before it compares: a fleet of 100,000 changes all the time.
const GATHER: Duration = Duration::from_millis(100);
/// How often a watch compares when nothing is written, because a device goes offline without a write.
const LOOK: Duration = Duration::from_secs(5);

/// A kind that can be listed.
pub(super) trait Listed: Resource + Sync + 'static {
    /// Returns at least the objects that the query selects, in the order in which they are shown.
    fn all(
        admin: &Admin,
        query: &Query,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<Self>, StoreError>> + Send;

    /// Whether the query selects this object, apart from name, namespace and labels.
    fn admits(&self, _query: &Query) -> bool {
        true
    }

    /// Whether a watch reports the change from `before` to this.
    fn is_news(&self, before: &Self) -> bool {
        self != before
    }
}

pub(super) async fn serve<T: Listed>(
    State(admin): State<Admin>,
    query: Result<QueryOf<Query>, QueryRejection>,
) -> Result<Response, Refused> {
    let QueryOf(query) = query?;
    let watch = query.watch;
    let filter = Filter::new(query).map_err(Refused::bad_request)?;
    // subscribe before the first read, so that a write during it is seen by the next one
    let changes = admin.0.store.changes();
    let items: Vec<T> = filtered(&admin, &filter).await?;
    if !watch {
        return Ok(Json(List::of(items)).into_response());
    }
    let mut watching = Watching {
        admin,
        filter,
        changes,
        known: BTreeMap::new(),
        lines: VecDeque::new(),
    };
    watching.compare(items);
    let body = stream::unfold(watching, |mut watching| async move {
        watching
            .next()
            .await
            .map(|line| (Ok::<_, Infallible>(line), watching))
    });
    Ok((
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(body),
    )
        .into_response())
}

async fn filtered<T: Listed>(admin: &Admin, filter: &Filter) -> Result<Vec<T>, StoreError> {
    let mut items = T::all(admin, filter.query(), Timestamp::now()).await?;
    items.retain(|item| filter.admits(item.metadata()) && item.admits(filter.query()));
    Ok(items)
}

/// The state of a watch: what its reader knows, and the lines that are still to be sent.
struct Watching<T> {
    admin: Admin,
    filter: Filter,
    changes: watch::Receiver<u64>,
    known: BTreeMap<(String, Option<String>), T>,
    lines: VecDeque<Bytes>,
}

impl<T: Listed> Watching<T> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            tokio::select! {
                changed = self.changes.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(GATHER).await;
                    self.changes.mark_unchanged();
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            match filtered(&self.admin, &self.filter).await {
                Ok(items) => self.compare(items),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a watch ended");
                    return None;
                }
            }
        }
    }

    /// Queues a line for each difference between what is known and `items`. Deletions come first, so that for a name that was
    /// taken over the new object is the last line.
    fn compare(&mut self, items: Vec<T>) {
        let keys: BTreeSet<_> = items.iter().map(|object| object.metadata().key()).collect();
        let mut before = std::mem::take(&mut self.known);
        for (key, object) in &before {
            if !keys.contains(key) {
                self.say(What::Deleted, object.clone());
            }
        }
        for object in items {
            let key = object.metadata().key();
            let what = match before.remove(&key) {
                None => Some(What::Added),
                Some(before) if object.is_news(&before) => Some(What::Modified),
                Some(_) => None,
            };
            if let Some(what) = what {
                self.say(what, object.clone());
            }
            self.known.insert(key, object);
        }
    }

    fn say(&mut self, what: What, object: T) {
        let change = Change { what, object };
        let mut line = serde_json::to_vec(&change).expect("maps here have string keys");
        line.push(b'\n');
        self.lines.push_back(line.into());
    }
}
