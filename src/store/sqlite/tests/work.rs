//! The writer's work for one request, counted in instructions of the database and not in time.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use futures::future::join_all;
use serde_json::{Map, Value, json};

use super::testing::Meter;
use super::*;
use crate::scim;
use crate::store::contract::history::spec;

/// Largest cost of one transaction. Ten instructions take about a microsecond in a release build, so this is well below
/// 50 ms.
const MAX_STEPS: u64 = 250_000;

/// Counts the writer's work from now on.
async fn meter(store: &Store) -> Meter {
    let meter = Meter::default();
    let attached = meter.clone();
    store.behind(move |tx| attached.attach(tx)).await.unwrap();
    meter.reset();
    meter
}

/// Patches a group in the same way as the endpoint.
async fn patch_group(store: &Store, group: GroupId, body: &Value) -> Result<(), scim::ScimError> {
    let body = scim::json::object(body.to_string().as_bytes(), &mut scim::Findings::new())?;
    let change = scim::GroupChange::patch(scim::ResourceType::Group, group, body, &mut scim::Findings::new())?;
    let _refused = store.change_members::<()>(&okta(), &origin(), group, change.members).await;
    Ok(())
}

/// Patches a user in the same way as the endpoint.
async fn patch_user(store: &Store, user: UserId, body: &Value) -> Result<(), scim::ScimError> {
    let body = scim::json::object(body.to_string().as_bytes(), &mut scim::Findings::new())?;
    let change = scim::ResourceChange::patch(scim::ResourceType::User, user, body, &mut scim::Findings::new())?;
    let (p, o) = (okta(), origin());
    let outcome = store.update_user(&p, &o, user, |current| {
        let resource = change.apply(&current.resource)?;
        let facts = scim::user_facts(user, &resource, current.facts.active);
        Ok::<_, scim::ScimError>(Some(UserUpdate { resource, facts }))
    });
    match outcome.await {
        Ok(UpdateOutcome::Refused(refused)) => Err(refused),
        _ => Ok(()),
    }
}

/// A small generator, so that every run makes the same requests.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

/// As many values of `one` as fit into a body of a megabyte.
fn megabyte(mut one: impl FnMut(usize) -> Value) -> Vec<Value> {
    let mut length = 200;
    let mut all = Vec::new();
    while length < 1_000_000 {
        let next = one(all.len());
        length += next.to_string().len() + 1;
        all.push(next);
    }
    all
}

fn member_requests(dice: &mut Dice, known: &[Uuid]) -> Value {
    let who = |dice: &mut Dice| match dice.below(3) {
        0 => dice.of(known).to_string(),
        1 => Uuid::from_u128(0x4000_8000_0000_0000_0000 + dice.below(9_000) as u128).to_string(),
        _ => format!("foreign{}", dice.below(30_000)),
    };
    let op = dice.of(&["add", "remove", "replace"]);
    match dice.below(5) {
        0 => json!([{"op": op, "path": "members", "value": megabyte(|_| json!({"value": who(dice)}))}]),
        1 => json!([{"op": op, "path": "members", "value": megabyte(|index| json!(known[index % known.len()]))}]),
        2 => {
            let mut operations = megabyte(|_| json!({"op": op, "path": "members", "value": [who(dice)]}));
            operations.truncate(scim::MAX_OPERATIONS);
            json!(operations)
        }
        3 => {
            let mut operations = megabyte(|index| {
                let op = ["add", "remove", "replace"][index % 3];
                json!({"op": op, "path": "members", "value": [{"value": known[index % known.len()]}]})
            });
            operations.truncate(scim::MAX_OPERATIONS);
            json!(operations)
        }
        _ => json!([{"op": "remove", "path": "members"}]),
    }
}

fn user_requests(dice: &mut Dice) -> Value {
    let attribute = dice.of(&["emails", "phoneNumbers", "addresses", "roles"]);
    let length = dice.of(&[1, 100, 1900]);
    let terms = dice.of(&[1, 8, 64]);
    let comparison = dice.of(&["type eq", "display co", "type ne", "display sw"]);
    let text = "x".repeat(length / terms);
    let filter = vec![format!("{comparison} \"{text}\""); terms].join(dice.of(&[" or ", " and "]));
    let kind = dice.below(5);
    let mut operations = megabyte(|index| match kind {
        0 => json!({"op": "replace", "path": format!("{attribute}[{filter}].display"), "value": text}),
        1 => json!({"op": "add", "path": attribute, "value": [{"value": format!("{index}{text}"), "type": "w"}]}),
        2 => json!({"op": "replace", "path": format!("{attribute}.display"), "value": format!("{index}{text}")}),
        3 => {
            let list: Vec<Value> = (0..500).map(|n| json!({"value": format!("{n}-{index}{text}")})).collect();
            json!({"op": "replace", "path": "emails", "value": list})
        }
        _ => json!({"op": "remove", "path": attribute, "value": [{"value": format!("{index}{text}")}]}),
    });
    operations.truncate(scim::MAX_OPERATIONS);
    json!(operations)
}

#[tokio::test]
async fn no_request_of_a_megabyte_keeps_the_writer_for_longer_than_a_bound() {
    let (_files, home) = on_files().await;
    let store = &home.store;
    let known: Vec<Uuid> = join_all((0..2500).map(|index| {
        let store = store.clone();
        async move { add_user(&store, &okta(), &format!("u{index}@x.example")).await.facts.id.0 }
    }))
    .await;
    let group = add_group(store, &okta(), "g", &[]).await.group.facts.id;
    let emails: Vec<Value> = (0..500).map(|n| json!({"value": format!("{n:0100}"), "type": "w"})).collect();
    let body = Map::from_iter([("userName".to_owned(), json!("heavy")), ("emails".to_owned(), json!(emails))]);
    let resource = scim::new_resource(scim::ResourceType::User, body, &mut scim::Findings::new()).unwrap();
    let id = UserId(Uuid::new_v4());
    let facts = scim::user_facts(id, &resource, true);
    store.create_user(&okta(), &origin(), NewUser { resource, facts }).await.unwrap();
    let meter = meter(store).await;
    let mut dice = Dice(11);
    let mut longest = 0;
    for round in 0..40 {
        // As many unknown ids as a group keeps, and others.
        let many = |from: usize| {
            (0..9_000)
                .map(|n| json!(Uuid::from_u128(0x4000_8000_0000_0000_0000 + (from + n) as u128)))
                .collect::<Vec<_>>()
        };
        let operations = match round {
            // The most expensive known requests: a full list for an empty group, half of it replaced, and an empty
            // group again.
            0 => json!([{"op": "add", "path": "members", "value": many(0)}]),
            2 => {
                let mut others = many(4_500);
                others.push(json!(known[0]));
                json!([{"op": "replace", "path": "members", "value": others}])
            }
            4 => json!([{"op": "remove", "path": "members"}]),
            _ if round % 2 == 0 => member_requests(&mut dice, &known),
            _ => user_requests(&mut dice),
        };
        let body = json!({"Operations": operations});
        let _refused =
            if round % 2 == 0 { patch_group(store, group, &body).await } else { patch_user(store, id, &body).await };
        let transactions = meter.transactions.load(Relaxed);
        let steps = meter.most();
        longest = longest.max(transactions);
        let shown: String = body.to_string().chars().take(300).collect();
        assert!(steps <= MAX_STEPS, "round {round}: {steps} instructions for {shown}");
    }
    assert!(longest >= 9, "so many members is written in parts, not in {longest}");
    store.verify_audit_chain().await.unwrap();
}

#[tokio::test]
async fn many_members_at_once_are_written_in_turns_and_are_all_there() {
    let (_files, home) = on_files().await;
    let store = &home.store;
    let many: Vec<Uuid> = (0..7_000_u128).map(Uuid::from_u128).collect();
    let group = add_group(store, &okta(), "g", &many).await;
    assert_eq!(group.members.parked, 7_000);
    let id = group.group.facts.id;
    let everybody =
        async || store.everybody(&okta(), id, usize::MAX).await.unwrap().into_iter().collect::<BTreeSet<_>>();
    assert_eq!(everybody().await, many.iter().copied().collect());
    let known = add_user(store, &okta(), "a@x.example").await.facts.id.0;
    let meter = meter(store).await;

    // Another set of the same size: some are removed, some stay, some are added.
    let next: Vec<Uuid> = (3_000..10_000_u128).map(Uuid::from_u128).chain([known]).collect();
    let outcome = changed(change(store, &okta(), id, vec![MemberChange::Replace(next.clone())]).await.unwrap());
    assert_eq!((outcome.members.before, outcome.members.after, outcome.group.member_count), (0, 1, 1));
    assert_eq!(outcome.members.parked, 3_000);
    assert_eq!(everybody().await, next.into_iter().collect());
    assert!(meter.transactions.load(Relaxed) >= 4);
    let most = meter.most();
    assert!(most <= MAX_STEPS, "{most}");

    // An unknown text among many ids to remove is found before the first of them is removed.
    let no_id = uuid::Builder::from_custom_bytes([7; 16]).into_uuid();
    let before = everybody().await;
    let remove = vec![MemberChange::Remove(many.iter().copied().chain([no_id]).collect())];
    assert_eq!(change(store, &okta(), id, remove).await, Err(StoreError::NotAMember));
    assert_eq!(everybody().await, before);

    assert_eq!(store.delete_group(&okta(), &origin(), id, None).await.unwrap(), DeleteOutcome::Deleted);
    assert!(meter.most() <= MAX_STEPS);
    assert!(everybody().await.is_empty());
    store.verify_audit_chain().await.unwrap();
}

#[tokio::test]
async fn a_tenant_that_floods_the_writer_does_not_keep_another_or_the_engine_waiting() {
    let (_files, home) = on_files().await;
    let store = &home.store;
    let (flood, other) = (okta(), provider("entra"));
    let many = join_all((0..400).map(|index| {
        let flood = &flood;
        async move { add_user(store, flood, &format!("u{index}@x.example")).await }
    }));
    // The flood comes first. The others are in the next batch anyway, whatever still waits.
    let engine = async { store.put_spec(spec("m", 1, &json!({}))).await };
    let (many, _, stored) = tokio::join!(many, add_user(store, &other, "b@x.example"), engine);
    stored.unwrap();
    assert_eq!(many.len(), 400);
    let events = store.events_after(0, 1000).await.unwrap();
    let at = events.iter().position(|event| event.provider == other).unwrap();
    assert!(at < 300, "after {at} of the flood");
    // The engine's position of the sequence is the one without an event.
    let at = events.iter().zip(1..).position(|(event, seq)| event.seq != seq);
    assert!(at.is_some_and(|at| at < 300), "after {at:?} of the flood");
    let order: Vec<_> = events.iter().filter(|event| event.provider == flood).map(|event| event.seq).collect();
    assert!(order.is_sorted());
}
