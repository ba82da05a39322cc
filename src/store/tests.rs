//! Tests on real files.

mod abandoned;
mod audit;
mod directory;
mod engine;
mod erase;
mod first_version;
mod guard;
mod history;
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
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    let sql = format!("PRAGMA max_page_count = {pages}");
                    sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut tx.connection).await?;
                    Ok(())
                })
            })
            .await
    }

    /// A request whose work panics in the writer.
    async fn panicking(&self) -> Result<(), StoreError> {
        self.committer().commit(|_| panic!("a fault of the caller")).await
    }

    /// Runs SQL behind the store's back.
    async fn tamper(&self, sql: &'static str) {
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    sqlx::query(sql).execute(&mut tx.connection).await?;
                    Ok(())
                })
            })
            .await
            .unwrap();
    }

    /// What the writer's connection is set to.
    async fn settings(&self) -> [(&'static str, String); 3] {
        self.committer()
            .commit(move |tx| {
                Box::pin(async move {
                    let row = sqlx::query(
                        "SELECT CAST(f.foreign_keys AS TEXT), j.journal_mode, CAST(s.synchronous AS TEXT) \
                         FROM pragma_foreign_keys f, pragma_journal_mode j, pragma_synchronous s",
                    )
                    .fetch_one(&mut tx.connection)
                    .await?;
                    let text = |index: usize| sqlx::Row::get::<String, _>(&row, index);
                    Ok([("foreign_keys", text(0)), ("journal_mode", text(1)), ("synchronous", text(2))])
                })
            })
            .await
            .unwrap()
    }

    /// What a provider has stored, counted anew.
    async fn recount(&self, p: &ProviderName) -> Usage {
        let sql = "SELECT (SELECT count(*) FROM users WHERE provider = ?1), \
            (SELECT count(*) FROM groups WHERE provider = ?1), (SELECT count(*) FROM members WHERE provider = ?1), \
            (SELECT coalesce(sum(octet_length(resource)), 0) FROM users WHERE provider = ?1) \
            + (SELECT coalesce(sum(octet_length(resource)), 0) FROM groups WHERE provider = ?1)";
        let row = sqlx::query(sql).bind(p.as_str()).fetch_one(self.readers()).await.unwrap();
        let count = |index: usize| sqlx::Row::get::<i64, _>(&row, index);
        Usage { users: count(0), groups: count(1), members: count(2), bytes: count(3) }
    }

    /// The audit table as text, without the names.
    async fn dump_audit(&self) -> String {
        let sql = "SELECT group_concat(json_array(actor, cause_seqs, document, role, condition_hash, subject, detail)) FROM audit";
        let row = sqlx::query(sql).fetch_one(self.readers()).await.unwrap();
        sqlx::Row::get(&row, 0)
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
