//! Tests on real files.

mod abandoned;
mod audit;
mod directory;
mod engine;
mod erase;
mod first_version;
mod guard;
mod history;
mod inline;
mod leadership;
mod opening;
mod owners;
mod prune;
mod replay;
mod size;
mod work;
mod writing;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::sqlite::testing;
use super::*;
use crate::model::{Clock, EmailFact, GroupFacts, GroupId, ManualClock, ProviderName, UserFacts, UserId};
use crate::scim::{Filter, Findings, ResourceType, parse};

/// A store in a folder of its own.
struct Home {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Store,
}

impl Home {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new("2026-11-21T08:00:00Z".parse().unwrap()));
        let store = open(folder.path(), clock.clone()).await;
        store.begin_epoch("test").await.unwrap();
        Self { folder, clock, store }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Store {
    /// Lets the file grow to so many pages and no further: a full disk.
    pub(crate) async fn limit_pages(&self, pages: u32) -> Result<(), StoreError> {
        self.behind(move |tx| testing::limit_pages(tx, pages)).await
    }

    /// A request whose work panics in the writer.
    async fn panicking(&self) -> Result<(), StoreError> {
        self.behind(|_| panic!("a fault of the caller")).await
    }

    /// Runs SQL behind the store's back.
    async fn tamper(&self, sql: &'static str) {
        self.behind(move |tx| testing::tamper(tx, sql)).await.unwrap();
    }

    /// What the writer's connection is set to.
    async fn settings(&self) -> [(&'static str, String); 3] {
        self.behind(testing::settings).await.unwrap()
    }

    /// What a provider has stored, counted anew.
    async fn recount(&self, p: &ProviderName) -> Usage {
        let p = p.clone();
        self.read(move |db| testing::recount(db, &p)).await.unwrap()
    }

    /// The audit table as text, without the names.
    async fn dump_audit(&self) -> String {
        self.read(testing::dump_audit).await.unwrap()
    }

    async fn behind<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.commit(Ticket::engine(lanes::REQUEST), work).await
    }
}

async fn open(folder: &Path, clock: Arc<dyn Clock>) -> Store {
    Store::open(&url(folder), clock).await.unwrap()
}

fn url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("rolecall.db").display())
}

fn provider(name: &str) -> ProviderName {
    ProviderName::new(name).unwrap()
}

fn okta() -> ProviderName {
    provider("okta")
}

fn origin() -> Origin {
    Origin { token: "a".to_owned(), request_id: Some("req-1".to_owned()) }
}

fn new_user(name: &str) -> NewUser {
    let email = EmailFact { value: name.to_owned(), kind: Some("work".to_owned()), primary: true };
    NewUser {
        resource: json!({"userName": name, "active": true}),
        facts: UserFacts {
            id: UserId(Uuid::new_v4()),
            active: true,
            user_name: name.to_owned(),
            external_id: None,
            emails: vec![email],
        },
    }
}

fn new_group(name: &str, members: &[Uuid]) -> NewGroup {
    NewGroup {
        resource: json!({"displayName": name}),
        facts: GroupFacts { id: GroupId(Uuid::new_v4()), display_name: name.to_owned(), external_id: None },
        members: members.to_vec(),
    }
}

async fn add_user(store: &Store, p: &ProviderName, name: &str) -> UserRecord {
    store.create_user(p, &origin(), new_user(name)).await.unwrap()
}

async fn add_group(store: &Store, p: &ProviderName, name: &str, members: &[Uuid]) -> GroupChanged {
    store.create_group(p, &origin(), new_group(name, members)).await.unwrap()
}

/// Applies changes of the membership.
async fn change(
    store: &Store,
    p: &ProviderName,
    group: GroupId,
    members: Vec<MemberChange>,
) -> Result<UpdateOutcome<GroupChanged, ()>, StoreError> {
    store.change_members(p, &origin(), group, members).await
}

async fn member_ids(store: &Store, p: &ProviderName, group: GroupId) -> Vec<Uuid> {
    store.members(p, group).await.unwrap().into_iter().map(|member| member.id).collect()
}

fn sorted(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    ids.sort_unstable();
    ids
}

/// A filter as the endpoint reads it.
fn filter(of: ResourceType, text: &str) -> Filter {
    parse::filter(text, &mut Findings::new()).unwrap().resolved(of).unwrap()
}

fn matching(filter: Filter) -> ListQuery {
    ListQuery { filter: Some(filter), start_index: 1, count: 100 }
}

fn users_with(text: &str) -> ListQuery {
    matching(filter(ResourceType::User, text))
}

fn groups_with(text: &str) -> ListQuery {
    matching(filter(ResourceType::Group, text))
}

fn changed<R: std::fmt::Debug, E: std::fmt::Debug>(outcome: UpdateOutcome<R, E>) -> R {
    match outcome {
        UpdateOutcome::Changed(record) => record,
        other => panic!("expected a change, got {other:?}"),
    }
}
