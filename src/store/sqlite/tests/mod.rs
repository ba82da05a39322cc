//! Tests of SQLite only: files and their modes, the schema and its steps, plans, full disks, direct changes of rows.

mod audit;
mod directory;
mod engine;
mod erase;
mod filters;
mod first_version;
mod history;
mod memory;
mod opening;
mod prune;
mod size;
mod work;
mod writing;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::testing;
use crate::model::{Clock, GroupId, ManualClock, UserId};
use crate::scim::ResourceType;
use crate::store::contract::{
    Backend, Home, add_group, add_user, change, changed, filter, member_ids, new_user, okta, origin, provider,
};
use crate::store::lanes::{self, Ticket};
use crate::store::*;

/// A folder with a database file.
#[derive(Clone)]
pub(in crate::store) struct Files(Arc<tempfile::TempDir>);

impl Files {
    pub(in crate::store) fn new() -> Self {
        Self(Arc::new(tempfile::tempdir().unwrap()))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Backend for Files {
    fn open(&self, clock: Arc<dyn Clock>) -> BoxFuture<'_, Store> {
        Box::pin(open(self.path(), clock))
    }

    fn another(&self) -> Box<dyn Backend> {
        Box::new(Self::new())
    }
}

/// A store on a file, and its folder.
async fn on_files() -> (Files, Home) {
    let files = Files::new();
    let home = Home::on(Box::new(files.clone())).await;
    (files, home)
}

async fn open(folder: &Path, clock: Arc<dyn Clock>) -> Store {
    Store::open(&url(folder), clock).await.unwrap()
}

fn url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("rolecall.db").display())
}

impl Store {
    /// Runs SQL without the store.
    pub(crate) async fn tamper(&self, sql: impl Into<String>) {
        let sql = sql.into();
        self.behind(move |tx| testing::tamper(tx, &sql)).await.unwrap();
    }

    /// Runs work in the writer.
    async fn behind<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.commit(Ticket::engine(lanes::REQUEST), work).await
    }
}
