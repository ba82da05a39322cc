//! Tests that every backend of the store has to pass, through its public interface alone. Each test runs on every
//! backend. A new backend is added to [`contract_tests`] and [`backends`]; tests of its own peculiarities stay in its
//! module.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::sqlite::MemoryDatabase;
use super::sqlite::tests::Files;
use super::*;
use crate::model::{EmailFact, GroupFacts, GroupId, ManualClock, ProviderName, UserFacts, UserId};
use crate::scim::{Filter, Findings, ResourceType, parse};

/// Turns each function into a test on every backend; those after `multi_thread:` run on several threads.
macro_rules! contract_tests {
    ($($name:ident,)* $(; multi_thread: $($parallel:ident,)*)?) => {
        contract_tests!(@on sqlite_on_threads, crate::store::contract::files(), $($name)*, $($($parallel)*)?);
        contract_tests!(@on sqlite_inline, crate::store::contract::memory(), $($name)*, $($($parallel)*)?);
    };
    (@on $module:ident, $backend:expr, $($name:ident)*, $($parallel:ident)*) => {
        mod $module {
            $(#[tokio::test]
            async fn $name() {
                super::$name(crate::store::contract::Home::on($backend).await).await;
            })*
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $parallel() {
                super::$parallel(crate::store::contract::Home::on($backend).await).await;
            })*
        }
    };
}

pub(in crate::store) mod audit;
mod contention;
mod directory;
pub(in crate::store) mod engine;
pub(in crate::store) mod erase;
mod guard;
pub(in crate::store) mod history;
mod leadership;
mod nesting;
mod opening;
mod orphans;
mod owners;
pub(in crate::store) mod prune;
mod replay;
pub(in crate::store) mod size;
mod writing;

/// A database of a backend, empty when it is created.
pub(in crate::store) trait Backend: Send + Sync {
    /// Opens the database: again, as after a restart, or concurrently, as another process does.
    fn open(&self, clock: Arc<dyn Clock>) -> BoxFuture<'_, Store>;

    /// Another empty database of this backend.
    fn another(&self) -> Box<dyn Backend>;
}

/// SQLite on a file, with threads.
pub(in crate::store) fn files() -> Box<dyn Backend> {
    Box::new(Files::new())
}

/// SQLite in memory, inline.
pub(in crate::store) fn memory() -> Box<dyn Backend> {
    Box::new(MemoryDatabase::new(7).unwrap())
}

/// An empty database of each backend.
pub(in crate::store) fn backends() -> [Box<dyn Backend>; 2] {
    [files(), memory()]
}

impl Backend for MemoryDatabase {
    fn open(&self, clock: Arc<dyn Clock>) -> BoxFuture<'_, Store> {
        Box::pin(async move { Store::open_inline(self, clock).unwrap() })
    }

    fn another(&self) -> Box<dyn Backend> {
        Box::new(Self::new(8).unwrap())
    }
}

/// A store that leads its database.
pub(in crate::store) struct Home {
    backend: Box<dyn Backend>,
    pub(in crate::store) clock: Arc<ManualClock>,
    pub(in crate::store) store: Store,
}

impl Home {
    pub(in crate::store) async fn on(backend: Box<dyn Backend>) -> Self {
        let clock = Arc::new(ManualClock::new("2026-11-21T08:00:00Z".parse().unwrap()));
        let store = backend.open(clock.clone()).await;
        store.begin_epoch("test").await.unwrap();
        Self { backend, clock, store }
    }

    /// A store on another database.
    async fn another(&self) -> Self {
        Self::on(self.backend.another()).await
    }

    /// Opens the database once more.
    pub(in crate::store) async fn open(&self) -> Store {
        self.backend.open(self.clock.clone()).await
    }

    pub(in crate::store) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Store {
    /// A request whose work panics in the writer.
    pub(in crate::store) async fn panicking(&self) -> Result<(), StoreError> {
        self.commit(Ticket::engine(lanes::REQUEST), |_| panic!("a fault of the caller")).await
    }

    /// The amount that a provider has stored, counted again from all rows.
    pub(in crate::store) async fn recount(&self, p: &ProviderName) -> Usage {
        let all = ListQuery { filter: None, start_index: 1, count: 10_000, ..ListQuery::default() };
        let size = |resource: &serde_json::Value| encoding::size(&resource.to_string());
        let (users, groups) = (self.users(p, &all).await.unwrap().items, self.groups(p, &all).await.unwrap().items);
        let mut usage = Usage {
            users: i64::try_from(users.len()).unwrap(),
            groups: i64::try_from(groups.len()).unwrap(),
            bytes: users.iter().map(|user| size(&user.resource)).sum(),
            ..Usage::default()
        };
        for group in groups {
            let members = self.everybody(p, group.facts.id, usize::MAX).await.unwrap();
            usage.members += i64::try_from(members.len()).unwrap();
            usage.bytes += size(&group.resource);
        }
        usage
    }
}

pub(in crate::store) fn provider(name: &str) -> ProviderName {
    ProviderName::new(name).unwrap()
}

pub(in crate::store) fn okta() -> ProviderName {
    provider("okta")
}

pub(in crate::store) fn origin() -> Origin {
    Origin { token: "a".to_owned(), request_id: Some("req-1".to_owned()) }
}

pub(in crate::store) fn new_user(name: &str) -> NewUser {
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

pub(in crate::store) fn new_group(name: &str, members: &[Uuid]) -> NewGroup {
    NewGroup {
        resource: json!({"displayName": name}),
        facts: GroupFacts { id: GroupId(Uuid::new_v4()), display_name: name.to_owned(), external_id: None },
        members: vec![MemberChange::Add(members.to_vec())].into(),
    }
}

pub(in crate::store) async fn add_user(store: &Store, p: &ProviderName, name: &str) -> UserRecord {
    store.create_user(p, &origin(), new_user(name)).await.unwrap()
}

pub(in crate::store) async fn add_group(store: &Store, p: &ProviderName, name: &str, members: &[Uuid]) -> GroupChanged {
    store.create_group(p, &origin(), new_group(name, members)).await.unwrap()
}

/// Applies changes of a group's membership.
pub(in crate::store) async fn change(
    store: &Store,
    p: &ProviderName,
    group: GroupId,
    members: Vec<MemberChange>,
) -> Result<UpdateOutcome<GroupChanged, ()>, StoreError> {
    store.change_members(p, &origin(), group, members).await
}

pub(in crate::store) async fn member_ids(store: &Store, p: &ProviderName, group: GroupId) -> Vec<Uuid> {
    store.members(p, group).await.unwrap().into_iter().map(|member| member.id).collect()
}

pub(in crate::store) fn sorted(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    ids.sort_unstable();
    ids
}

/// A filter as the endpoint parses it.
pub(in crate::store) fn filter(of: ResourceType, text: &str) -> Filter {
    parse::filter(text, &mut Findings::new()).unwrap().resolved(of).unwrap()
}

pub(in crate::store) fn matching(filter: Filter) -> ListQuery {
    ListQuery { filter: Some(filter), start_index: 1, count: 100, ..ListQuery::default() }
}

pub(in crate::store) fn users_with(text: &str) -> ListQuery {
    matching(filter(ResourceType::User, text))
}

pub(in crate::store) fn groups_with(text: &str) -> ListQuery {
    matching(filter(ResourceType::Group, text))
}

pub(in crate::store) fn changed<R: std::fmt::Debug, E: std::fmt::Debug>(outcome: UpdateOutcome<R, E>) -> R {
    match outcome {
        UpdateOutcome::Changed(record) => record,
        other => panic!("expected a change, got {other:?}"),
    }
}
